"""The tables behind the comparison: every number of the run, and where the models come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from robustdml.results import Cell, MetricEntry, ModelEntry, Score

from .. import text
from ..index import Index


@dataclass(frozen=True)
class Value:
    """One number in a table.

    Args:
        text: the number as it is shown.
        number: the number as it was measured, by which the column is sorted; None where there is none.
        missing: why there is none, where the attack failed or was skipped.
    """

    text: str
    number: float | None
    missing: str | None = None


@dataclass(frozen=True)
class Column:
    """A column head: what it says, and what it means at length."""

    label: str
    meaning: str


@dataclass(frozen=True)
class DetailRow:
    """All that was measured of one model under one attack at one budget.

    Args:
        key: the place of the attack in the list of attacks; None for the clean queries and the worst case.
        eps_number: by which the column of budgets is sorted.
        measures: what the attack's own paper reports beside the recalls.
    """

    model: str
    attack: str
    key: int | None
    eps: str
    eps_number: float
    values: tuple[Value, ...]
    measures: str = ""


@dataclass(frozen=True)
class ModelRow:
    """Where a model comes from, whether its space is alive and how laid out by class, how its images are prepared."""

    name: str
    collapsed: bool
    columns: tuple[str, ...]
    fingerprint: str
    input: str


#: What stands behind the metrics.
_OTHERS = (
    Column("relative recall", "what is left of the clean value under attack, of the metric that the verdict quotes"),
    Column("norm returned", "largest norm of a perturbation as the attack returned it"),
    Column("norm judged", "largest norm after the budget was enforced"),
    Column("median norm", "median norm of the perturbations that broke a query which is right when clean"),
    Column("projected", "queries that came back outside of the budget and were projected into it"),
    Column("unchanged", "queries that are right when clean and came back unchanged"),
    Column("forward images", "images that passed through the model while the attack ran"),
    Column("gradient images", "images that a gradient went back through"),
    Column("seconds", "time that the attack took"),
)


def detail_columns(index: Index) -> tuple[Column, ...]:
    """The metrics of the data set's protocol, then norms and costs."""
    return (*(Column(metric.title, metric.description) for metric in index.results.dataset.metrics), *_OTHERS)


def detail_rows(index: Index) -> tuple[DetailRow, ...]:
    """Every measurement of the run: by model, first clean, then by budget the worst case and the attacks."""
    rows, metrics, blanks = [], index.results.dataset.metrics, [_absent()] * len(_OTHERS)
    for model in index.results.models:
        rows.append(DetailRow(model.name, "clean", None, "0", 0.0, (*_metrics(metrics, model.clean), *blanks)))
        for number, budget in enumerate(index.budgets, start=1):
            if worst := index.worst.get((model.name, budget)):
                values = (*_metrics(metrics, worst.score), _fraction(worst.relative_recall), *blanks[1:])
                rows.append(DetailRow(model.name, "worst case", None, budget.text, float(number), values))
            for key, attack in enumerate(index.results.attacks):
                cell = index.cells.get((model.name, attack.spec, budget))
                if cell:
                    values, measures = _cell_values(metrics, cell), _measures(cell)
                    rows.append(DetailRow(model.name, attack.name, key, budget.text, float(number), values, measures))
    return tuple(rows)


def _cell_values(metrics: Sequence[MetricEntry], cell: Cell) -> tuple[Value, ...]:
    if cell.score is None:
        blanks = [_absent()] * (len(metrics) + len(_OTHERS) - 1)
        return (Value(cell.status, None, cell.reason or text.NO_REASON), *blanks)
    return (
        *_metrics(metrics, cell.score),
        _fraction(cell.relative_recall),
        _norm(cell.largest_norm_returned, cell.threat.norm),
        _norm(cell.largest_norm, cell.threat.norm),
        _norm(cell.median_norm_broken, cell.threat.norm),
        _count(cell.queries_projected),
        _count(cell.queries_unchanged),
        _count(cell.forward_images),
        _count(cell.gradient_images),
        Value(f"{cell.seconds:.1f}", cell.seconds),
    )


def _measures(cell: Cell) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in cell.measures.items())


def model_rows(index: Index) -> tuple[ModelRow, ...]:
    """The models, in the order of the run."""
    return tuple(_model(model) for model in index.results.models)


def _model(model: ModelEntry) -> ModelRow:
    columns = (
        model.source,
        model.architecture,
        model.method or text.ABSENT,
        text.count(model.embedding_dim),
        text.count(model.parameters),
        f"{model.health.effective_rank:.1f}",
        text.fraction(model.health.mean_cosine),
        text.nmi(model),
        text.fraction(model.pi_ratio),
    )
    return ModelRow(model.name, model.health.collapsed, columns, model.fingerprint, text.prepared(model))


def _norm(value: float | None, kind: str) -> Value:
    return Value(text.norm(value, kind), value)


def _metrics(metrics: Sequence[MetricEntry], score: Score) -> tuple[Value, ...]:
    return tuple(_fraction(score.metrics[metric.name]) for metric in metrics)


def _fraction(value: float | None) -> Value:
    return Value(text.fraction(value), value)


def _count(value: int) -> Value:
    return Value(text.count(value), value)


def _absent() -> Value:
    return Value(text.ABSENT, None)
