"""What a reader must know before believing the numbers: warnings, and attacks that have no numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from . import text
from .index import Index
from .sections import Section


@dataclass(frozen=True)
class Warned:
    """A caution with the names of what it is about."""

    slug: str
    message: str
    remedy: str
    model: str | None
    attack: str | None


@dataclass(frozen=True)
class Failure:
    """An attack that failed on a model at a budget, and why."""

    model: str
    attack: str
    eps: str
    reason: str


@dataclass(frozen=True)
class Cautions:
    """All of them, in the order of the run."""

    warnings: tuple[Warned, ...]
    failures: tuple[Failure, ...]


def cautions_section(index: Index, folder: Path) -> Section | None:
    """The warnings and failures; none in a quiet run."""
    data = Cautions(_warnings(index), _failures(index))
    return Section("warnings-title", "Warnings", "cautions.html.j2", data) if data.warnings or data.failures else None


def _warnings(index: Index) -> tuple[Warned, ...]:
    return tuple(
        Warned(
            caution.slug,
            caution.message,
            caution.remedy,
            caution.model,
            None if caution.attack is None else index.attack_name(caution.attack),
        )
        for caution in index.results.warnings
    )


def _failures(index: Index) -> tuple[Failure, ...]:
    return tuple(
        Failure(cell.model, index.attack_name(cell.attack), index.budget(cell).text, cell.reason or text.NO_REASON)
        for cell in index.results.cells
        if cell.status != "ok"
    )
