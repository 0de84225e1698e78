"""Models, data and attacks as programs give them: by name, by path, as objects, one or many."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn

from robustdml.api.torch_data import TorchData, is_torch_data, torch_data
from robustdml.attacks import build_suite
from robustdml.config import BranchChoice, Effort, RunOptions
from robustdml.contracts import Attack
from robustdml.data import RetrievalDataset, load_dataset
from robustdml.devices import choose_device
from robustdml.errors import SpecError
from robustdml.evaluation import Subject, load_subjects
from robustdml.evaluation.analyses.panel import Panel
from robustdml.evaluation.analyses.shown import build_panel
from robustdml.evaluation.attacking.apart import guarded
from robustdml.evaluation.entries import checked_attacks
from robustdml.models import Checkpoint
from robustdml.registry import split_specs
from robustdml.threat import ThreatModel
from robustdml.values import brief, truth

#: One model: a module, a checkpoint, or a source such as ``"timm:resnet50"`` and the path of a run.
Model: TypeAlias = nn.Module | Checkpoint | Subject | str | Path
#: L-infinity budgets: ``8/255``, ``"2/255,8/255"``, several numbers.
Budgets: TypeAlias = str | float | ThreatModel | Iterable[float | ThreatModel]

_USUAL = "8/255"


def subjects_of(models: Model | Mapping[str, Model] | Iterable[Model], branches: BranchChoice) -> list[Subject]:
    """The models with their names: those of a mapping; a source's own; the class of a module, numbered where repeated.

    Raises:
        SpecError: something is no model.
    """
    if isinstance(models, Mapping):
        return [subject for name, model in models.items() for subject in _named(str(name), model, branches)]
    if type(models) is nn.ModuleDict:  # which only holds modules, as a list does
        return subjects_of(dict(models.items()), branches)
    if type(models) is nn.ModuleList:
        return subjects_of(list(models), branches)
    one = isinstance(models, nn.Module | Checkpoint | Subject | str | os.PathLike)
    if not one and not isinstance(models, Iterable):
        raise SpecError(f"models={brief(models)} must be a model, models by name, or a list of them")
    given: list[Any] = [models] if one else list(models)  # type: ignore[arg-type]
    if all(isinstance(model, str | os.PathLike) for model in given):
        # Together: a run is called by as many parts of its path as tell it from the others.
        return load_subjects([os.fspath(model) for model in given], branches=branches)
    return _numbered([subject for model in given for subject in _named(None, model, branches)])


def _numbered(subjects: Sequence[Subject]) -> list[Subject]:
    """With other names for those that have the name of one before."""
    count: Counter[str] = Counter()
    found = []
    for subject in subjects:
        count[subject.name] += 1
        more = "" if count[subject.name] == 1 else f"-{count[subject.name]}"
        found.append(replace(subject, name=subject.name + more))
    return found


def _named(name: str | None, model: Any, branches: BranchChoice) -> list[Subject]:
    if isinstance(model, Subject):
        return [model if name is None else replace(model, name=name)]
    if isinstance(model, Checkpoint):
        method = model.training.get("method")
        module = model.deployed()
        return [Subject(name or module.config.backbone, module, "a checkpoint in memory", method)]
    if isinstance(model, nn.Module):
        own = Subject("", model, "a module in memory")
        return [replace(own, name=own.architecture if name is None else name)]
    if not isinstance(model, str | os.PathLike):
        where = "a list of models" if name is None else f"'{name}'"
        raise SpecError(
            f"{where} holds {brief(model)}, which is no model: give a torch module, a source such as 'timm:resnet50', "
            "or the path of a run"
        )
    found = load_subjects([os.fspath(model)], branches=branches)
    first = found[0].name
    return [replace(each, name=(name or first) + each.name.removeprefix(first)) for each in found]


def dataset_of(
    data: Any, root: str | Path | None, *, skip_broken: bool, allow_outside: bool
) -> RetrievalDataset | TorchData:
    """The data set, read where it is not one already (see `robustdml.load_dataset` and `torch_data`).

    Raises:
        SpecError: it is no data set.
        UnknownNameError: there is none of that name.
        DataError: it cannot be read.
    """
    skip_broken, allow_outside = truth("skip_broken", skip_broken), truth("allow_outside", allow_outside)
    if isinstance(data, RetrievalDataset):
        if root is not None:
            raise SpecError(f"the data set '{data.title}' is read already: leave root={brief(str(root))} out")
        return data
    if is_torch_data(data):
        return torch_data(data)
    if isinstance(data, str | os.PathLike) or hasattr(data, "columns") or hasattr(data, "column_names"):
        return load_dataset(data, root, skip_missing=skip_broken, allow_outside=allow_outside)
    raise SpecError(
        f"data={brief(data)} must be a data set: a name such as 'digits' or 'cub', the path of a folder or a table, a "
        "table in memory, a torch.utils.data.Dataset, or what robustdml.load_dataset gives (whole, not its part .test)"
    )


def device_name(device: Any) -> str:
    """The name of a device, which may be given as torch's own or by the number of a GPU.

    Raises:
        SpecError: it is none of these.
    """
    if isinstance(device, int) and not isinstance(device, bool):
        return f"cuda:{device}"
    if not isinstance(device, str | torch.device):
        raise SpecError(f"device={brief(device)} must be a name such as 'auto', 'cpu' or 'cuda'")
    return str(device)


def options_of(options: RunOptions | None, device: Any, **others: Any) -> RunOptions:
    """The options of a run, given as a whole or as arguments of their own.

    Raises:
        SpecError: both are given, or a device is none.
    """
    if options is None:
        return RunOptions(device=device_name(device), **others)
    if not isinstance(options, RunOptions):
        raise SpecError(f"options={brief(options)} must be a robustdml.config.RunOptions")
    for name, value in {"device": device, **others}.items():
        if value != getattr(RunOptions, name):
            raise SpecError(f"options has a {name} of its own: give {name}={brief(value)} in it, or no options")
    return options


def attacks_of(
    attacks: Any, eps: Budgets | None, effort: Effort, subjects: Sequence[Subject], device: str
) -> list[Attack]:
    """The attacks: those that are named, built at each budget, and those that are given.

    Args:
        attacks: None stands for ``"standard"``, or for ``"blackbox"`` where a model gives no gradients.

    Raises:
        UnknownNameError: there is no such attack or suite.
        SpecError: something is no attack, or budgets are given and no attack is named.
        BudgetError: eps outside (0, 1].
    """
    if isinstance(attacks, Mapping | bytes):
        raise SpecError(f"attacks={brief(attacks)} must be names such as 'quick', an attack, or a list of these")
    if attacks is None:
        attacks = "blackbox" if any(subject.black_box for subject in subjects) else "standard"
    given = list(attacks) if isinstance(attacks, Iterable) and not isinstance(attacks, str) else [attacks]
    if eps is not None and not any(isinstance(one, str) for one in given):
        raise SpecError("attacks that are built have their budgets: leave eps out, or name them, as in 'quick'")
    budgets = _USUAL if eps is None else eps
    found: list[Attack] = []
    for one in given:
        if isinstance(one, str):
            build = partial(build_suite, one, budgets, effort)
            found += guarded(one, build, choose_device(device))
        else:
            found += checked_attacks([one])
    return list(dict.fromkeys(found))


def panels_of(panels: Any) -> list[Panel]:
    """What is measured beside the attacks: ``"natural"``, ``"certify(sigma=0.25)"``, or panels that were built.

    Raises:
        UnknownNameError: there is no such panel, or it has no such parameter.
        SpecError: a value is of the wrong type or out of range, or something is no panel.
    """
    if panels is None:
        return []
    parts = (
        split_specs(panels) if isinstance(panels, str) else list(panels) if isinstance(panels, Iterable) else [panels]
    )
    found: list[Panel] = []
    for one in parts:
        if isinstance(one, str):
            name, _, inner = one.partition("(")
            found.append(build_panel(name.strip(), inner.removesuffix(")")))
        elif isinstance(one, type) or not all(hasattr(one, part) for part in ("spec", "field", "shard", "entries")):
            raise SpecError(f"{brief(one)} is no panel: write 'natural' or 'certify(sigma=0.25)'")
        else:
            found.append(one)
    return found
