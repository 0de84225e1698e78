"""What happened to each query at a budget, from the bit strings of the results."""

from __future__ import annotations

from statistics import mean

from robustdml.results import Cell
from robustdml.threat import ThreatModel

from ...index import Index


def judged(index: Index, model: str, budget: ThreatModel) -> tuple[Cell, ...]:
    """The cells of a model at a budget that have numbers, in the order of the attacks."""
    cells = (index.cells.get((model, attack.spec, budget)) for attack in index.results.attacks)
    return tuple(cell for cell in cells if cell and cell.status == "ok" and index.budget(cell) == budget)


def strongest(index: Index, budget: ThreatModel) -> tuple[str, ...]:
    """The specs of the attacks at a budget, by what they leave the models on average; those without a number last."""

    def left(spec: str) -> float:
        cells = (index.cells.get((model.name, spec, budget)) for model in index.results.models)
        recalls = [cell.score.value for cell in cells if cell and cell.score]
        return mean(recalls) if recalls else 2.0

    run = {cell.attack for cell in index.results.cells if index.budget(cell) == budget}
    return tuple(sorted((attack.spec for attack in index.results.attacks if attack.spec in run), key=left))


def bits(hits: str, count: int) -> int:
    """A bit string as a number, one binary digit per query: a set of queries that is quick to intersect and count."""
    return int(hits or "0", 16) >> (4 * len(hits) - count)
