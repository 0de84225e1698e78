"""What a reader of several runs in one report must know, beside what each run says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from robustdml.flag_kinds import FLAG_KINDS
from robustdml.results import AttackEntry, Flag, Results

from .. import text


def merged_flags(runs: Sequence[Results], parts: Sequence[Results], attacks: Sequence[AttackEntry]) -> tuple[Flag, ...]:
    """The flags of merged runs: about the merging first, then those of the runs, each once.

    Args:
        runs: as they were.
        parts: the results of each model, under its name in the merged results.
        attacks: of all runs, under their names there.
    """
    own = [flag for part in parts for flag in _of_part(runs, part)]
    return tuple(dict.fromkeys((*_versions(runs), *_different_attacks(parts, attacks), *own)))


def _versions(runs: Sequence[Results]) -> Iterator[Flag]:
    versions = sorted({results.robustdml_version for results in runs})
    if len(versions) > 1:
        yield FLAG_KINDS["different-versions"].flag(
            f"The runs were made by robustdml {' and '.join(versions)}, between which numbers may have changed "
            "their meaning.",
        )


def _different_attacks(parts: Sequence[Results], attacks: Sequence[AttackEntry]) -> Iterator[Flag]:
    """Who has not met what others have: a worst case over fewer attacks is higher for that reason alone."""
    met = [{(cell.attack, cell.threat) for cell in part.cells} for part in parts]
    known = {entry.spec: entry for entry in attacks}
    every = dict.fromkeys((cell.attack, cell.threat) for part in parts for cell in part.cells)
    for part, own in zip(parts, met, strict=True):
        missing = [f"{known[spec].name} at {threat.text}" for spec, threat in every if (spec, threat) not in own]
        if missing:
            name = part.models[0].name
            yield FLAG_KINDS["different-attacks"].flag(
                f"{name} has not met all attacks that others here have (not {text.named(missing)}"
                "): its worst case is not comparable with theirs, and may be higher for that reason alone.",
                model=name,
            )


def _of_part(runs: Sequence[Results], part: Results) -> Iterator[Flag]:
    """What a run says of itself holds for its own models only, unless all runs say it."""
    name = part.models[0].name
    for flag in part.flags:
        if flag.model is None and not all(flag in results.flags for results in runs):
            yield flag.model_copy(update={"model": name})
        else:
            yield flag
