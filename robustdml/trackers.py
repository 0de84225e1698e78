"""Finished evaluations in the trackers of experiments: MLflow, Weights & Biases, or a function of one's own."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustdml.errors import MissingPackageError, SpecError, UnknownNameError
from robustdml.importing import load_object
from robustdml.results import Results, Score

#: MLflow refuses longer values.
_LENGTH = 500
#: What names of metrics may not hold there.
_ODD = re.compile(r"[^\w.\- ]")


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of an evaluation.

    Args:
        name: of the run: that of its folder.
        params: what was done: data, attacks, eps, seed, versions, the command; values of at most 500 characters.
        metrics: every metric of each model, by ``MODEL/clean/METRIC``, ``MODEL/worst at EPS/METRIC`` and ``MODEL/ATTACK
            at EPS/METRIC``, each in [0, 1]; what a flag withholds is left out, and what was not judged.
        files: results and report, to be kept with the run.
    """

    name: str
    params: Mapping[str, str | int | float]
    metrics: Mapping[str, float]
    files: tuple[Path, ...]


#: Is told of a finished evaluation and keeps it; what it raises is the user's to see.
Tracker = Callable[[TrackedRun], None]


def find_tracker(name: str) -> Tracker:
    """The tracker of that name, or the function that ``package.module:function`` or ``file.py:function`` names.

    Raises:
        UnknownNameError: there is no tracker of that name.
        MissingPackageError: its package is not installed.
        SpecError: the function cannot be loaded.
    """
    if ":" in name:
        try:
            found = load_object(name)
        except Exception as error:
            raise SpecError(f"the tracker '{name}' cannot be loaded ({type(error).__name__}: {error})") from error
        if not callable(found):
            raise SpecError(f"the tracker '{name}' is {type(found).__name__}: name a function of one TrackedRun")
        return found  # type: ignore[no-any-return]
    if name not in TRACKERS:
        raise UnknownNameError("tracker", name, [*TRACKERS, "package.module:function"])
    try:
        importlib.import_module(name)
    except ImportError as error:
        raise MissingPackageError(f"the tracker '{name}' needs its package ({error}): pip install {name}") from None
    return TRACKERS[name]


def track(results: Results, folder: Path, name: str, tracker: Tracker) -> None:
    """Tell a tracker of an evaluation whose page is written.

    Args:
        folder: of the run.
        name: of the tracker, for the message.

    Raises:
        SpecError: the tracker raised.
    """
    try:
        tracker(tracked(results, folder))
    except Exception as error:
        raise SpecError(
            f"the tracker '{name}' failed ({type(error).__name__}: {str(error)[:200]}): the run is kept in "
            f"'{folder}'; tell it again with 'robustdml report {folder} --log-to {name}'"
        ) from error


def tracked(results: Results, folder: Path) -> TrackedRun:
    """What trackers are told of results and of the files in their folder."""
    spec, data = results.spec, results.dataset
    params: dict[str, str | int | float] = {
        "dataset": data.name,
        "dataset_fingerprint": data.fingerprint,
        "queries": data.queries,
        "gallery": data.gallery,
        "models": ", ".join(model.name for model in results.models),
        "attacks": ", ".join(entry.name for entry in results.attacks),
        "budgets": ", ".join(dict.fromkeys(cell.threat.text for cell in results.cells)),
        "seed": spec.seed,
        "robustdml": results.robustdml_version,
        "fingerprint": results.fingerprint,
        "flags": ", ".join(dict.fromkeys(flag.slug for flag in results.flags)),
        "command": results.command,
    }
    cut = {key: value[:_LENGTH] if isinstance(value, str) else value for key, value in params.items()}
    files = tuple(path for name in ("results.json", "report.html") if (path := folder.resolve() / name).is_file())
    return TrackedRun(folder.resolve().name, cut, dict(_metrics(results)), files)


def _metrics(results: Results) -> Iterator[tuple[str, float]]:
    names = {entry.spec: entry.name for entry in results.attacks}
    for model in results.models:
        yield from _scores(model.name, "clean", model.clean)
        if results.invalid(model.name) is not None:
            continue
        for worst in results.worst:
            if worst.model == model.name:
                yield from _scores(model.name, f"worst at {worst.threat.text}", worst.score)
        for cell in results.cells:
            if cell.model == model.name and cell.score:
                yield from _scores(model.name, f"{names[cell.attack]} at {cell.threat.text}", cell.score)


def _scores(model: str, condition: str, score: Score) -> Iterator[tuple[str, float]]:
    for metric, value in score.metrics.root.items():
        yield "/".join(_ODD.sub("_", part) for part in (model, condition, metric)), value


def _mlflow(run: TrackedRun) -> None:
    mlflow: Any = importlib.import_module("mlflow")

    with nullcontext() if mlflow.active_run() else mlflow.start_run(run_name=run.name):
        mlflow.log_params(dict(run.params))
        mlflow.log_metrics(dict(run.metrics))
        for file in run.files:
            mlflow.log_artifact(str(file))


def _wandb(run: TrackedRun) -> None:
    wandb: Any = importlib.import_module("wandb")

    begun: Any = None if wandb.run else wandb.init(project="robustdml", name=run.name)
    try:
        there = begun or wandb.run
        there.config.update(dict(run.params), allow_val_change=True)
        there.log(dict(run.metrics))
        artifact = wandb.Artifact(_ODD.sub("_", run.name).replace(" ", "_"), type="robustness")
        for file in run.files:
            artifact.add_file(str(file))
        there.log_artifact(artifact)
    finally:
        if begun:
            begun.finish()


TRACKERS: Mapping[str, Tracker] = {"mlflow": _mlflow, "wandb": _wandb}
