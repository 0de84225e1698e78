"""The tables of results: one of models by attacks for each budget, and one of all metrics."""

from __future__ import annotations

from dataclasses import dataclass

from robustdml.results import Cell, ModelEntry, Score
from robustdml.threat import format_eps

from . import text
from .index import Index

NO_REASON = "no reason was recorded"


@dataclass(frozen=True)
class Value:
    """One number in a table.

    Args:
        text: the number as it is shown.
        number: the number as it was measured, by which the column is sorted; None where there is none.
        note: its interval, shown below it.
        lowest: whether it is the lowest R@1 of its model in this table.
        failed: why there is none, where the attack failed.
    """

    text: str
    number: float | None
    note: str = ""
    lowest: bool = False
    failed: str | None = None


@dataclass(frozen=True)
class Column:
    """A column head: what it says, and what it means at length."""

    label: str
    meaning: str


@dataclass(frozen=True)
class Row:
    """One model in a table of models by attacks."""

    model: str
    collapsed: bool
    values: tuple[Value, ...]


@dataclass(frozen=True)
class BudgetTable:
    """R@1 of every model, clean and under every attack, at one budget (None: nothing was attacked)."""

    eps: str | None
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class DetailRow:
    """All that was measured of one model under one attack at one budget."""

    model: str
    attack: str
    eps: str
    eps_number: float
    values: tuple[Value, ...]


CLEAN = Column("clean", "R@1 on the images as they are")
WORST = Column("worst case", "R@1 when each query meets the attack that hurts it most, at this or a smaller eps")

DETAIL_COLUMNS = (
    Column("R@1", "share of queries with a relevant item at rank 1"),
    Column("R@2", "share of queries with a relevant item among the first 2"),
    Column("R@4", "share of queries with a relevant item among the first 4"),
    Column("R@8", "share of queries with a relevant item among the first 8"),
    Column("MAP@R", "mean average precision at R, R being the number of relevant items"),
    Column("R-precision", "share of relevant items among the first R"),
    Column("relative recall", "adversarial R@1 over clean R@1"),
    Column("norm returned", "largest norm of a perturbation as the attack returned it"),
    Column("norm judged", "largest norm after the budget was enforced"),
    Column("projected", "queries that came back outside of the budget and were projected into it"),
    Column("unchanged", "queries that came back unchanged"),
    Column("forward images", "images that passed through the model while the attack ran"),
    Column("seconds", "time that the attack took"),
)


def budget_tables(index: Index) -> tuple[BudgetTable, ...]:
    """A table for each budget, the headline first; where nothing was attacked, one of the clean numbers."""
    rest = [eps for eps in reversed(index.budgets) if eps != index.headline]
    return tuple(_budget_table(index, eps) for eps in (index.headline, *rest))


def _budget_table(index: Index, eps: float | None) -> BudgetTable:
    columns = [CLEAN]
    if eps is not None:
        columns += [WORST, *(Column(attack.name, attack.spec) for attack in index.results.attacks)]
    rows = (Row(model.name, model.health.collapsed, _row(index, model, eps)) for model in index.results.models)
    return BudgetTable(None if eps is None else format_eps(eps), tuple(columns), tuple(rows))


def _row(index: Index, model: ModelEntry, eps: float | None) -> tuple[Value, ...]:
    if eps is None:
        return (_recall(model.clean),)
    cells = [index.cells.get((model.name, attack.spec, eps)) for attack in index.results.attacks]
    lowest = min((cell.score.metrics.recall_at_1 for cell in cells if cell and cell.score), default=None)
    worst = index.worst.get((model.name, eps))
    return (_recall(model.clean), _recall(worst.score if worst else None), *(_attacked(cell, lowest) for cell in cells))


def _attacked(cell: Cell | None, lowest: float | None) -> Value:
    if cell and cell.status == "failed":
        return Value("failed", None, failed=cell.reason or NO_REASON)
    return _recall(cell.score if cell else None, lowest)


def _recall(score: Score | None, lowest: float | None = None) -> Value:
    if score is None:
        return Value(text.ABSENT, None)
    recall = score.metrics.recall_at_1
    return Value(text.fraction(recall), recall, text.interval(score), lowest=recall == lowest)


def detail_rows(index: Index) -> tuple[DetailRow, ...]:
    """Every measurement of the run: by model, first clean, then by budget the worst case and the attacks."""
    rows = []
    for model in index.results.models:
        rows.append(DetailRow(model.name, CLEAN.label, "0", 0.0, (*_metrics(model.clean), *[_absent()] * 7)))
        for eps in index.budgets:
            if worst := index.worst.get((model.name, eps)):
                values = (*_metrics(worst.score), _fraction(worst.relative_recall), *[_absent()] * 6)
                rows.append(DetailRow(model.name, WORST.label, format_eps(eps), eps, values))
            for attack in index.results.attacks:
                if cell := index.cells.get((model.name, attack.spec, eps)):
                    rows.append(DetailRow(model.name, attack.name, format_eps(eps), eps, _cell_values(cell)))
    return tuple(rows)


def _cell_values(cell: Cell) -> tuple[Value, ...]:
    if cell.status == "failed":
        metrics = (Value("failed", None, failed=cell.reason or NO_REASON), *[_absent()] * 5)
        counts = [_absent()] * 2
    else:
        metrics = _metrics(cell.score)
        counts = [_count(cell.queries_projected), _count(cell.queries_unchanged)]
    return (
        *metrics,
        _fraction(cell.relative_recall),
        Value(text.norm(cell.largest_norm_returned), cell.largest_norm_returned),
        Value(text.norm(cell.largest_norm), cell.largest_norm),
        *counts,
        _count(cell.forward_images),
        Value(f"{cell.seconds:.1f}", cell.seconds),
    )


def _metrics(score: Score | None) -> tuple[Value, ...]:
    if score is None:
        return (_absent(),) * 6
    metrics = score.metrics
    recalls = (metrics.recall_at_1, metrics.recall_at_2, metrics.recall_at_4, metrics.recall_at_8)
    return tuple(_fraction(value) for value in (*recalls, metrics.map_at_r, metrics.r_precision))


def _fraction(value: float | None) -> Value:
    return Value(text.fraction(value), value)


def _count(value: int) -> Value:
    return Value(text.count(value), value)


def _absent() -> Value:
    return Value(text.ABSENT, None)
