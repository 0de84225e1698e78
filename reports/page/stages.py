"""What the stages of a cascade did: how many queries each met, broke, and what that cost."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from robustdml.results import Cell

from .. import text
from ..index import Index
from .sections import Section


@dataclass(frozen=True)
class StageRow:
    """One stage on one model at one budget; ``reason`` is why it failed."""

    model: str
    attack: str
    budget: str
    place: str
    stage: str
    entered: str
    given_up: str
    broken: str
    gradients: str
    seconds: str
    reason: str | None


@dataclass(frozen=True)
class Stages:
    """The stages of all cascades of a run, in their order; ``queries`` of the data set."""

    rows: tuple[StageRow, ...]
    queries: str


def stages_section(index: Index, folder: Path) -> Section | None:
    """A table of stages; none where no attack had any."""
    queries = index.results.dataset.queries
    rows = tuple(row for cell in index.results.cells for row in _rows(index, cell, queries))
    return Section("stages", "Stages", "stages.html.j2", Stages(rows, text.count(queries))) if rows else None


def _rows(index: Index, cell: Cell, queries: int) -> list[StageRow]:
    return [
        StageRow(
            model=cell.model,
            attack=index.attack_name(cell.attack),
            budget=cell.threat.text,
            place=str(place),
            stage=stage.attack,
            entered=text.count(stage.entered),
            given_up=text.count(stage.given_up),
            broken=text.count(stage.broken),
            gradients=f"{stage.gradient_images / queries:.1f}",
            seconds=f"{stage.seconds:.1f}",
            reason=stage.reason,
        )
        for place, stage in enumerate(cell.stages, start=1)
    ]
