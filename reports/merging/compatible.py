"""Which runs may be shown as one: those on the same queries, that do not contradict each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from robustdml.errors import RunFolderError
from robustdml.results import ModelEntry, Results


@dataclass(frozen=True)
class Run:
    """One of several runs.

    Args:
        number: its place, from 1; its pictures are called after it.
        folder: where it is.
        label: the part of the folder that tells it from the others.
        results: what it measured.
    """

    number: int
    folder: Path
    label: str
    results: Results


def check_same_data(first: Run, other: Run) -> None:
    """Check that two runs attacked the same queries under the same settings.

    Raises:
        RunFolderError: they did not; it names what differs.
    """
    ours, theirs = first.results, other.results
    pairs: list[tuple[str, object, object]] = [
        ("the data set", ours.dataset.name, theirs.dataset.name),
        ("the content of the data set (its hash)", ours.dataset.fingerprint, theirs.dataset.fingerprint),
        ("the image size", ours.dataset.image_size, theirs.dataset.image_size),
        ("the number of queries", ours.dataset.queries, theirs.dataset.queries),
        ("the seed", ours.spec.seed, theirs.spec.seed),
        ("the number of queries in a shard", ours.spec.shard_size, theirs.spec.shard_size),
    ]
    differing = [f"{what} differs ({one} and {two})" for what, one, two in pairs if one != two]
    if not differing and (ours.queries != theirs.queries or ours.dataset != theirs.dataset):
        differing = ["the queries or the protocol differ"]
    if differing:
        raise RunFolderError(
            f"'{first.folder}' and '{other.folder}' cannot be in one report: {differing[0]}; "
            "evaluate the models on the same data, with the same --image-size, --max-queries and --seed"
        )


def check_same_numbers(name: str, first: tuple[Run, ModelEntry], second: tuple[Run, ModelEntry]) -> None:
    """Check that one model had the same outcome in two runs; the time that an attack took may differ.

    Raises:
        RunFolderError: it met other attacks, or one of its numbers differs.
    """
    where = f"'{first[0].folder}' and '{second[0].folder}'"
    ours, theirs = _outcomes(*first), _outcomes(*second)
    alone = next((what for what in {**ours, **theirs} if (what in ours) != (what in theirs)), None)
    if alone is not None:
        # Worst cases are minima per query over all attacks, of which the results hold no more than the headline.
        raise RunFolderError(
            f"'{name}' met other attacks in {where} (one of them only met it {alone}), and no worst case over both "
            "follows from the two: evaluate it with all of them in one run"
        )
    differing = next((what for what in ours if ours[what] != theirs[what]), None)
    if differing is not None:
        raise RunFolderError(
            f"'{name}' has the same weights in {where}, but not the same outcome {differing}: "
            "leave one of the runs out, or evaluate both in one run under two names"
        )


def _outcomes(run: Run, model: ModelEntry) -> dict[str, object]:
    """What was measured of a model, by a description of it."""
    results = run.results
    found: dict[str, object] = {"on clean images": (model.clean, model.clean_hits)}
    for cell in results.cells:
        if cell.model == model.name:
            found[f"under {cell.attack} at {cell.threat.text}"] = (cell.status, cell.score, cell.hits)
    for worst in results.worst:
        if worst.model == model.name:
            found[f"in the worst case at {worst.threat.text}"] = (worst.score, worst.hits)
    return found
