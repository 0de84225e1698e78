"""A training in one call."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from robustdml import training
from robustdml.api.given import dataset_of, options_of
from robustdml.api.torch_data import TorchData
from robustdml.attacks import GOALS
from robustdml.config import RunOptions, TrainConfig
from robustdml.data import RetrievalDataset
from robustdml.errors import SpecError, UnknownNameError
from robustdml.threat import parse_eps
from robustdml.training import METHODS, TrainResult, read_recipe
from robustdml.values import brief, place, truth


def train(
    data: RetrievalDataset | str | Path | Any,
    method: str | Path | TrainConfig,
    out: str | Path,
    *,
    root: str | Path | None = None,
    skip_broken: bool = False,
    allow_outside: bool = False,
    trust_code: bool = False,
    device: str = "auto",
    progress: bool = True,
    tensorboard: bool = False,
    options: RunOptions | None = None,
    build_attack: object = None,
    **settings: Any,
) -> TrainResult:
    """Train an embedding model: ``robustdml.train("digits", "mdprop", "runs/mdprop", epochs=8, eps="16/255")``.

    Args:
        data: as `robustdml.evaluate` takes it; its training rows are used, its test rows are never looked at.
        method: a name of `robustdml.training.METHODS`, the path of a recipe (``.toml``), or a whole
            `robustdml.TrainConfig`.
        out: the run folder; the same call again resumes a run that was stopped, or returns at once where it had
            finished.
        root: the folder of a data set that is named; of a table, that of its images.
        skip_broken: go on without training images that cannot be read; they are listed in ``left-out.csv``.
        allow_outside: let a table or a link of the data lead to images outside of its folder.
        trust_code: allow a recipe whose backbone is code, ``package.module:factory``.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, …
        progress: show a bar with the time left.
        tensorboard: write the course for TensorBoard too.
        options: instead of device, progress and tensorboard: all of them, and how often the state is saved.
        build_attack: of programs written before goals were asked for; it is not used.
        settings: fields of `robustdml.TrainConfig`, which take precedence over a recipe's; ``eps`` may be text such as
            ``"2/255"``.

    Raises:
        UnknownNameError: no such method, backbone, loss, setting or data set.
        SpecError: values that do not fit each other or the data.
        BudgetError: eps outside (0, 1].
        DataError: the data set cannot be read or trained on.
        RunFolderError: ``out`` holds another run.
        MissingPackageError: ``tensorboard`` without TensorBoard.
        TrainingError: the loss is not finite, or the embeddings have collapsed; the best epoch before is kept.
        Terminated: the process was asked to end (SIGTERM, SIGINT, SIGHUP); everything up to that step is saved.
    """
    folder = place("out", out)
    skip_broken, trust_code = truth("skip_broken", skip_broken), truth("trust_code", trust_code)
    config = _config(method, settings, trust_code=trust_code)
    dataset = dataset_of(data, root, skip_broken=skip_broken, allow_outside=allow_outside)
    if isinstance(dataset, TorchData):
        raise SpecError("a data set of PyTorch has no training and test classes here: give a RetrievalDataset")
    options = options_of(options, device=device, progress=progress, tensorboard=tensorboard)
    return training.train(dataset, config, folder, goals=GOALS, options=options, skip_broken=skip_broken)


def _config(method: str | Path | TrainConfig, settings: dict[str, Any], *, trust_code: bool) -> TrainConfig:
    known = [part.name for part in fields(TrainConfig) if part.name != "method"]
    for name in settings:
        if name not in known:
            raise UnknownNameError("setting of a training", name, known)
    if isinstance(method, TrainConfig):
        if settings:
            raise SpecError(f"a TrainConfig has all settings: leave {', '.join(settings)} out, or replace them in it")
        return method
    if not isinstance(method, str | Path):
        raise SpecError(f"method={brief(method)} must be a name such as 'mdprop', a recipe (.toml) or a TrainConfig")
    if isinstance(settings.get("eps"), str):
        settings = settings | {"eps": parse_eps(settings["eps"])}
    if Path(method).suffix == ".toml":
        recipe = read_recipe(Path(method).expanduser(), trust_code=trust_code or "backbone" in settings)
        return TrainConfig(**recipe | settings)
    if method not in METHODS:
        raise UnknownNameError("method", str(method), METHODS)
    return TrainConfig(method=str(method), **settings)
