"""The section of tables: the comparison at each budget, all numbers, the models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .. import text
from ..index import Index
from .budget_tables import BudgetTable, budget_tables
from .details import Column, DetailRow, ModelRow, detail_columns, detail_rows, model_rows
from .method import goals
from .sections import Section


@dataclass(frozen=True)
class Tables:
    """What the section of tables prints."""

    tables: tuple[BudgetTable, ...]
    detail_columns: tuple[Column, ...]
    details: tuple[DetailRow, ...]
    #: Whether an attack has measures of its own.
    measures: bool
    models: tuple[ModelRow, ...]
    #: What the words of the section mean.
    terms: tuple[text.Fact, ...]


def tables_section(index: Index, folder: Path) -> Section:
    """All tables."""
    details = detail_rows(index)
    data = Tables(
        tables=budget_tables(index),
        detail_columns=detail_columns(index),
        details=details,
        measures=any(row.measures for row in details),
        models=model_rows(index),
        terms=_terms(index),
    )
    return Section("tables", "Tables", "tables.html.j2", data)


def _terms(index: Index) -> tuple[text.Fact, ...]:
    """The metric, what every row is, and the goal of each attack."""
    return (
        text.Fact(index.metric.title, f"{index.metric.description}."),
        text.Fact("clean", "the images as they are."),
        text.Fact("eps", "how much each pixel may change, of its range from 0 to 1: 8/255 is eight grey levels."),
        text.Fact("worst case", "each query under the attack that hurts it most: what is left whichever is chosen."),
        *goals(index.results.attacks),
    )
