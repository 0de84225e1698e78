"""The section of tables: the comparison at each budget, all numbers, the models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..index import Index
from .budget_tables import BudgetTable, budget_tables
from .details import Column, DetailRow, ModelRow, detail_columns, detail_rows, model_rows
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


def tables_section(index: Index, folder: Path) -> Section:
    """All tables."""
    details = detail_rows(index)
    data = Tables(
        tables=budget_tables(index),
        detail_columns=detail_columns(index),
        details=details,
        measures=any(row.measures for row in details),
        models=model_rows(index),
    )
    return Section("tables", "Tables", "tables.html.j2", data)
