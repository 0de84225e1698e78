"""What an evaluation says of its data, its queries, its attacks and the machine."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from robustdml.contracts import Attack
from robustdml.data import RetrievalDataset, RetrievalSplit
from robustdml.data.protocol import Protocol
from robustdml.errors import DataError, SpecError
from robustdml.evaluation.checks.looked_at import LookedAt, counted
from robustdml.results import AttackEntry, DatasetEntry, Environment, EvalSpec, MetricEntry, Queries
from robustdml.retrieval.metrics import METRICS
from robustdml.values import brief

_PACKAGES = (
    "torch",
    "torchvision",
    "torchattacks",
    "adversarial-robustness-toolbox",
    "faiss-cpu",
    "pytorch-metric-learning",
    "numpy",
)


def checked_attacks(attacks: object) -> list[Attack]:
    """The attacks as a list; one alone stands for itself.

    Raises:
        SpecError: one is a name, or is no attack.
    """
    if isinstance(attacks, str):
        raise SpecError(f"'{attacks}' is a name, not an attack: build it with robustdml.attacks.build_suite")
    found: list[Any] = list(attacks) if isinstance(attacks, Iterable) else [attacks]
    for attack in found:
        if isinstance(attack, str):
            raise SpecError(f"'{attack}' is a name, not an attack: build it with robustdml.attacks.build_suite")
        missing = next(
            (part for part in ("threat", "entry", "target_rows", "__call__") if not hasattr(attack, part)), ""
        )
        if missing or isinstance(attack, type):
            raise SpecError(
                f"{brief(attack)} is no attack, {'it is a class' if isinstance(attack, type) else f'no {missing}'}: "
                "build attacks with robustdml.attacks.build_suite, or see robustdml.contracts.Attack"
            )
    return found


def described_classes(split: RetrievalSplit) -> npt.NDArray[np.int64]:
    """The labels of all queries and gallery items, ascending: the order of ``Queries.class_names``."""
    return np.unique(split.labels[np.concatenate([split.query, split.gallery])])


def query_entry(dataset: RetrievalDataset) -> Queries:
    """Who the queries are."""
    split = dataset.test
    classes = described_classes(split)
    return Queries(
        ids=tuple(split.query.tolist()),
        classes=tuple(np.searchsorted(classes, split.labels[split.query]).tolist()),
        class_names=tuple(dataset.class_names[label] for label in classes.tolist()),
    )


def describe(dataset: RetrievalDataset, spec: EvalSpec, available: int, looked: LookedAt) -> DatasetEntry:
    """What was retrieved from what; ``available`` queries there were before a sample was drawn.

    Args:
        looked: the data set before that, and what was found in it.

    Raises:
        UnknownNameError: the protocol has a metric that there is not.
        DataError: its headline is not 0 or 1 for each query, so that queries would not be right or wrong by it.
    """
    split, headline = dataset.test, dataset.rules.headline
    chance = METRICS[headline].chance
    if chance is None:
        raise DataError(
            f"the headline '{headline}' is no hit or miss of each query: choose one of "
            f"{', '.join(name for name in dataset.rules.metrics if METRICS[name].chance)}"
        )
    return DatasetEntry(
        name=dataset.title,
        protocol=dataset.protocol,
        image_size=spec.image_size,
        classes=len(np.unique(split.labels[split.query])),
        queries=len(split.query),
        queries_available=available,
        gallery=len(split.gallery),
        leave_self_out=split.leave_self_out,
        metrics=metric_entries(dataset.rules),
        headline=headline,
        chance=float(chance(*split.counts()).mean()),
        fingerprint=spec.dataset_fingerprint,
        images=len(np.unique(np.concatenate([dataset.train, looked.dataset.query, dataset.gallery]))),
        left_out=tuple(map(counted, dataset.left_out)),
        remarks=tuple(counted(part) for part in looked.remarks if part.names),
        copies=looked.copies.entries(),
    )


def metric_entries(protocol: Protocol) -> tuple[MetricEntry, ...]:
    """The metrics of a protocol in words.

    Raises:
        UnknownNameError: there is no metric of one of the names.
    """
    return tuple(MetricEntry.model_validate(vars(METRICS[name])) for name in protocol.metrics)


def attack_entries(entries: Iterable[AttackEntry]) -> list[AttackEntry]:
    """One entry per spec; where two share a short name (other steps, say), both are called by their spec."""
    found = {entry.spec: entry.described() for entry in entries}
    names = Counter(entry.name for entry in found.values())
    return [e if names[e.name] == 1 else e.model_copy(update={"name": e.spec}) for e in found.values()]


def environment(device: torch.device) -> Environment:
    """Where it runs."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "unknown"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}"
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    return Environment(
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        device=name + threads,
        packages=versions,
    )
