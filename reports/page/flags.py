"""What a reader must know before believing the numbers: warnings, and attacks that have no numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from robustdml.results import Caution

from .. import text
from ..files.leaderboard import Index
from .sections import Section

#: The warnings that say again what the list of failures says.
_OF_FAILURES = "attack-failed"


@dataclass(frozen=True)
class Warned:
    """A caution with the names of what it is about; the remedy is empty where the whole group shares one."""

    message: str
    remedy: str
    model: str | None
    attack: str | None


@dataclass(frozen=True)
class Group:
    """The cautions of one kind, in the order of the run; ``remedy`` is None where each has its own."""

    slug: str
    remedy: str | None
    warnings: tuple[Warned, ...]


@dataclass(frozen=True)
class Missing:
    """An attack that has no numbers on a model at a budget, and why."""

    model: str
    attack: str
    eps: str
    reason: str


@dataclass(frozen=True)
class Cautions:
    """All of them, in the order of the run.

    Args:
        remedy: what to do about failures; empty where the run does not say.
    """

    groups: tuple[Group, ...]
    failed: tuple[Missing, ...]
    skipped: tuple[Missing, ...]
    remedy: str


def cautions_section(index: Index, folder: Path) -> Section | None:
    """The warnings and what has no numbers; none in a quiet run."""
    failed, skipped = _missing(index, "failed"), _missing(index, "skipped")
    found = index.results.warnings
    repeated = [caution for caution in found if failed and caution.slug == _OF_FAILURES]
    groups = _groups(index, [caution for caution in found if caution not in repeated])
    if not (groups or failed or skipped):
        return None
    remedy = repeated[0].remedy if repeated else ""
    return Section("warnings-title", "Warnings", "cautions.html.j2", Cautions(groups, failed, skipped, remedy))


def _groups(index: Index, cautions: list[Caution]) -> tuple[Group, ...]:
    kinds: dict[str, list[Caution]] = {}
    for caution in cautions:
        kinds.setdefault(caution.slug, []).append(caution)
    return tuple(_group(index, slug, members) for slug, members in kinds.items())


def _group(index: Index, slug: str, cautions: list[Caution]) -> Group:
    shared = cautions[0].remedy if len({caution.remedy for caution in cautions}) == 1 else None
    warnings = tuple(
        Warned(
            message=caution.message,
            remedy="" if shared is not None else caution.remedy,
            model=caution.model,
            attack=None if caution.attack is None else index.attack_name(caution.attack),
        )
        for caution in cautions
    )
    return Group(slug, shared, warnings)


def _missing(index: Index, status: str) -> tuple[Missing, ...]:
    return tuple(
        Missing(cell.model, index.attack_name(cell.attack), index.budget(cell).text, cell.reason or text.NO_REASON)
        for cell in index.results.cells
        if cell.status == status
    )
