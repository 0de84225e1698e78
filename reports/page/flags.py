"""What a reader must know before believing the numbers: flags, and attacks that have no numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from robustdml.results import Flag

from .. import text
from ..index import Index
from .sections import Section

#: The flags that say again what the list of failures says.
_OF_FAILURES = "attack-failed"


@dataclass(frozen=True)
class Raised:
    """A flag with the names of what it is about; the remedy is empty where the whole group shares one."""

    message: str
    remedy: str
    model: str | None
    attack: str | None


@dataclass(frozen=True)
class FlagGroup:
    """The flags of one kind, in the order of the run; ``remedy`` is None where each has its own."""

    slug: str
    #: Empty in results from before flags had one.
    grade: str
    title: str
    remedy: str | None
    flags: tuple[Raised, ...]


@dataclass(frozen=True)
class Missing:
    """An attack that has no numbers on a model at a budget, and why."""

    model: str
    attack: str
    eps: str
    reason: str


@dataclass(frozen=True)
class FlagsView:
    """All of them, in the order of the run.

    Args:
        remedy: what to do about failures; empty where the run does not say.
        alarming: whether there is more than notes.
    """

    groups: tuple[FlagGroup, ...]
    failed: tuple[Missing, ...]
    skipped: tuple[Missing, ...]
    remedy: str
    alarming: bool


def flags_section(index: Index, folder: Path) -> Section | None:
    """The flags and what has no numbers; none in a quiet run."""
    failed, skipped = _missing(index, "failed"), _missing(index, "skipped")
    found = index.results.flags
    repeated = [flag for flag in found if failed and flag.slug == _OF_FAILURES]
    groups = _groups(index, [flag for flag in found if flag not in repeated])
    if not (groups or failed or skipped):
        return None
    remedy = repeated[0].remedy if repeated else ""
    alarming = bool(failed) or any(group.grade != "note" for group in groups)
    return Section("flags-title", "Flags", "flags.html.j2", FlagsView(groups, failed, skipped, remedy, alarming))


def _groups(index: Index, flags: list[Flag]) -> tuple[FlagGroup, ...]:
    kinds: dict[str, list[Flag]] = {}
    for flag in flags:
        kinds.setdefault(flag.slug, []).append(flag)
    return tuple(_group(index, slug, members) for slug, members in kinds.items())


def _group(index: Index, slug: str, flags: list[Flag]) -> FlagGroup:
    shared = flags[0].remedy if len({flag.remedy for flag in flags}) == 1 else None
    raised = tuple(
        Raised(
            message=flag.message,
            remedy="" if shared is not None else flag.remedy,
            model=flag.model,
            attack=None if flag.attack is None else index.attack_name(flag.attack),
        )
        for flag in flags
    )
    return FlagGroup(slug, flags[0].grade or "", flags[0].title, shared, raised)


def _missing(index: Index, status: str) -> tuple[Missing, ...]:
    return tuple(
        Missing(cell.model, index.attack_name(cell.attack), index.budget(cell).text, cell.reason or text.NO_REASON)
        for cell in index.results.cells
        if cell.status == status
    )
