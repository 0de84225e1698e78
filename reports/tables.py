"""The tables of results: one of models by attacks for each budget, and one of all metrics."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from robustdml.results import AttackEntry, Cell, ModelEntry, Score

from . import text
from .index import ANY_SIZE, Budget, Index
from .sections import Section

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
    #: By which the column of budgets is sorted.
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
    Column("gradient images", "images that a gradient went back through"),
    Column("seconds", "time that the attack took"),
)


def budget_tables(index: Index) -> tuple[BudgetTable, ...]:
    """A table for each budget, the headline first; where nothing was attacked, one of the clean numbers."""
    largest_first = [*reversed(index.linf), *(budget for budget in index.budgets if budget.norm != "linf")]
    rest = [budget for budget in largest_first if budget != index.headline]
    return tuple(_budget_table(index, budget) for budget in (index.headline, *rest))


def _budget_table(index: Index, budget: Budget | None) -> BudgetTable:
    columns = [CLEAN]
    attacks = _attacks(index, budget)
    if budget is not None:
        columns += [WORST] if budget != ANY_SIZE else []
        columns += [Column(attack.name, attack.spec) for attack in attacks]
    rows = (
        Row(model.name, model.health.collapsed, _row(index, model, budget, attacks)) for model in index.results.models
    )
    return BudgetTable(None if budget is None else budget.text, tuple(columns), tuple(rows))


def _attacks(index: Index, budget: Budget | None) -> list[AttackEntry]:
    """The attacks that were run with a budget."""
    run = {cell.attack for cell in index.results.cells if index.budget(cell) == budget}
    return [attack for attack in index.results.attacks if attack.spec in run]


def _row(index: Index, model: ModelEntry, budget: Budget | None, attacks: list[AttackEntry]) -> tuple[Value, ...]:
    if budget is None:
        return (_recall(model.clean),)
    cells = [index.cells.get((model.name, attack.spec, budget.eps)) for attack in attacks]
    lowest = min((cell.score.metrics.recall_at_1 for cell in cells if cell and cell.score), default=None)
    values = [_recall(model.clean)]
    if budget != ANY_SIZE:
        worst = index.worst.get((model.name, budget))
        values.append(_recall(worst.score if worst else None))
    return (*values, *(_attacked(cell, lowest) for cell in cells))


def _attacked(cell: Cell | None, lowest: float | None) -> Value:
    if cell and cell.status != "ok":
        return Value(cell.status, None, failed=cell.reason or NO_REASON)
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
        rows.append(DetailRow(model.name, CLEAN.label, "0", 0.0, (*_metrics(model.clean), *[_absent()] * 8)))
        for number, budget in enumerate(index.budgets, start=1):
            if worst := index.worst.get((model.name, budget)):
                values = (*_metrics(worst.score), _fraction(worst.relative_recall), *[_absent()] * 7)
                rows.append(DetailRow(model.name, WORST.label, budget.text, float(number), values))
            for attack in _attacks(index, budget):
                if cell := index.cells.get((model.name, attack.spec, budget.eps)):
                    values = _cell_values(cell, attack.norm)
                    rows.append(DetailRow(model.name, attack.name, budget.text, float(number), values))
    return tuple(rows)


def _cell_values(cell: Cell, norm: str) -> tuple[Value, ...]:
    if cell.status != "ok":
        metrics = (Value(cell.status, None, failed=cell.reason or NO_REASON), *[_absent()] * 5)
        counts = [_absent()] * 2
    else:
        metrics = _metrics(cell.score)
        counts = [_count(cell.queries_projected), _count(cell.queries_unchanged)]
    return (
        *metrics,
        _fraction(cell.relative_recall),
        Value(text.norm(cell.largest_norm_returned, norm), cell.largest_norm_returned),
        Value(text.norm(cell.largest_norm, norm), cell.largest_norm),
        *counts,
        _count(cell.forward_images),
        _count(cell.gradient_images),
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


@dataclass(frozen=True)
class ModelRow:
    """Where a model comes from and whether its embedding space is alive."""

    name: str
    collapsed: bool
    columns: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True)
class Tables:
    """What the section of tables prints."""

    tables: tuple[BudgetTable, ...]
    detail_columns: tuple[Column, ...]
    details: tuple[DetailRow, ...]
    models: tuple[ModelRow, ...]


def tables_section(index: Index, folder: Path) -> Section:
    """All tables."""
    models = tuple(_model(model) for model in index.results.models)
    data = Tables(budget_tables(index), DETAIL_COLUMNS, detail_rows(index), models)
    return Section("tables", "Tables", "tables.html.j2", data)


def _model(model: ModelEntry) -> ModelRow:
    columns = (
        model.source,
        model.architecture,
        model.method or text.ABSENT,
        text.count(model.embedding_dim),
        text.count(model.parameters),
        f"{model.health.effective_rank:.1f}",
        text.fraction(model.health.mean_cosine),
    )
    return ModelRow(model.name, model.health.collapsed, columns, model.fingerprint)
