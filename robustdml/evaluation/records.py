"""Per-query records: what happened to each query under one attack, keyed by its id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import pairwise
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt

from robustdml.results import Knowledge
from robustdml.threat import ThreatModel

#: Of how many first hits the ids are kept.
TOP = 8
#: Similarities are sums in float32, and two ways to compute them differ by less than this.
_TIE, _ROUNDING = 1e-4, 1e-4


@dataclass(frozen=True)
class StagePass:
    """What one stage of a staged attack did.

    Args:
        attack: its spec.
        entered: queries that it was run on.
        broken: those that true retrieval answers wrongly since.
        forward_images: images that passed through the model.
        gradient_images: how many of these a gradient went back through.
        seconds: that it took.
        reason: why it gave no images, where it failed; empty where it ran.
        knowledge: what it needs of the model (see `robustdml.results.AttackEntry`).
        given_up: queries that were still right, and too far from broken for it.
    """

    attack: str
    entered: int = 0
    broken: int = 0
    forward_images: int = 0
    gradient_images: int = 0
    seconds: float = 0.0
    reason: str = ""
    knowledge: Knowledge = "gradients"
    given_up: int = 0

    def __add__(self, other: StagePass) -> StagePass:
        return StagePass(
            self.attack,
            self.entered + other.entered,
            self.broken + other.broken,
            self.forward_images + other.forward_images,
            self.gradient_images + other.gradient_images,
            self.seconds + other.seconds,
            self.reason or other.reason,
            self.knowledge,
            self.given_up + other.given_up,
        )


@dataclass(frozen=True)
class Records:
    """What happened to N queries under one attack (or none).

    Args:
        ids: ``(N,)`` int64, the queries.
        labels: ``(N,)`` int64.
        values: ``(N,)`` float64 under the name of each metric of the data set's protocol.
        top: ``(N, 8)`` int64, the ids of the first hits.
        norm_returned: ``(N,)`` float64, the perturbation's norm (the attack's own) as the attack returned it.
        norms: ``(N,)`` float64 under each of `robustdml.threat.NORMS`, after the budget was enforced.
        projected: ``(N,)`` bool, whether enforcing it changed the image.
        margins: ``(N,)`` float64, the similarity of the nearest item that is not relevant minus that of the nearest
            relevant one: above 0 for a query that is answered wrongly.
        targets: ``(N, T)`` int64, ids of the targets; T is 0 for an untargeted attack.
        pictures: PNG bytes (adversarial image, amplified perturbation) of the queries that the report shows, by id.
        embeddings: ``(D,)`` float32 of the attacked queries that the embedding map shows, by id.
        forward_images: images that passed through the model while the attack ran.
        gradient_images: how many of these a gradient went back through.
        seconds: that the attack took.
        undone: queries that are answered wrongly, and rightly again once their images are rounded to 8 bits.
        measures: what the attack's paper reports, by name: the sum over the attacked images, and their number.
        stages: of a staged attack, what each stage did; empty for other attacks.
        broken_by: ``(N,)`` int64 of a staged attack: the stage that broke the query, -1 where it was wrong when clean,
            as many as there are stages where it holds; None for other attacks.
        given_up: ``(N,)`` int64 likewise: the first stage that a query was too far from broken for, as many as there
            are stages where no stage was spared it; ``margins`` says how far it came.
    """

    ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    values: dict[str, npt.NDArray[np.float64]]
    top: npt.NDArray[np.int64]
    norm_returned: npt.NDArray[np.float64]
    norms: dict[str, npt.NDArray[np.float64]]
    projected: npt.NDArray[np.bool_]
    margins: npt.NDArray[np.float64]
    targets: npt.NDArray[np.int64]
    pictures: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    embeddings: dict[int, npt.NDArray[np.float32]] = field(default_factory=dict)
    forward_images: int = 0
    gradient_images: int = 0
    seconds: float = 0.0
    undone: int = 0
    measures: dict[str, tuple[float, int]] = field(default_factory=dict)
    stages: tuple[StagePass, ...] = ()
    broken_by: npt.NDArray[np.int64] | None = None
    given_up: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def with_rows(self, rows: npt.NDArray[np.int64], other: Records) -> Records:
        """These records with other ones of the queries at ``rows``, ``(K,)``; costs, measures and stages stay."""

        def put(name: str) -> npt.NDArray[Any]:
            before: npt.NDArray[Any] = getattr(self, name)
            return _put(before, rows, getattr(other, name))

        return replace(
            self,
            values={name: _put(value, rows, other.values[name]) for name, value in self.values.items()},
            top=put("top"),
            norm_returned=put("norm_returned"),
            norms={name: _put(value, rows, other.norms[name]) for name, value in self.norms.items()},
            projected=put("projected"),
            margins=put("margins"),
            targets=put("targets"),
            pictures={**self.pictures, **other.pictures},
            embeddings={**self.embeddings, **other.embeddings},
        )


def _put(values: npt.NDArray[Any], rows: npt.NDArray[np.int64], new: npt.NDArray[Any]) -> npt.NDArray[Any]:
    changed: npt.NDArray[Any] = values.copy()
    changed[rows] = new
    return changed


def faults(records: Records, threat: ThreatModel) -> Iterator[str]:
    """What no records under a budget can say: each fault as a few words; nothing where there is none."""
    ids = records.ids
    if not len(ids) or len(np.unique(ids)) < len(ids) or ids.min() < 0 or records.labels.min() < 0:
        yield "no queries, one twice, or negative ids or labels"
        return
    shares = np.array(list(records.values.values()))
    if not ((shares >= 0) & (shares <= 1)).all():  # NaN is neither.
        yield "a metric outside of [0, 1]"
    recalls = sorted((int(name.rpartition("_")[2]), name) for name in records.values if name.startswith("recall_at_"))
    if any((records.values[one] > records.values[other]).any() for (_, one), (_, other) in pairwise(recalls)):
        yield "a recall that falls with the rank"
    first = records.values.get("recall_at_1")
    if not (np.abs(records.margins) <= 2 + _TIE).all():
        yield "a margin that no two similarities have"
    elif (
        first is not None
        and (((records.margins > _TIE) & (first > 0)) | ((records.margins < -_TIE) & (first < 1))).any()
    ):
        yield "a recall that does not fit its margin"
    norms = records.norms
    every = np.array([*norms.values(), records.norm_returned])
    if not (np.isfinite(every) & (every >= 0)).all() or (norms["linf"] > 1 + _ROUNDING).any():
        yield "a norm that is no size of a change of an image"
    elif (norms["linf"] > norms["l2"] * (1 + _ROUNDING)).any() or (norms["l2"] > norms["l1"] * (1 + _ROUNDING)).any():
        yield "norms that contradict each other"
    if threat.eps is not None and (norms[threat.norm] > threat.limit).any():
        yield f"a change beyond the budget {threat.text}"
    if min(records.forward_images, records.gradient_images) < 0 or not 0 <= records.seconds < np.inf:
        yield "a negative cost"
    for name, least, place in (("broken by", -1, records.broken_by), ("given up at", 0, records.given_up)):
        if place is not None and not ((place >= least) & (place <= len(records.stages))).all():
            yield f"a query {name} a stage that there is not"
    if not {*records.pictures, *records.embeddings} <= set(ids.tolist()):
        yield "a picture of a query that is not there"


def totals(values: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, tuple[float, int]]:
    """Measures per image as their sums and numbers, which add up over shards."""
    return {name: (float(value.sum()), len(value)) for name, value in values.items()}


def merged(parts: Sequence[Records]) -> Records:
    """The records of several shards as one, in their order; costs and measures add up.

    Raises:
        ValueError: there is no shard, or a query is in two.
    """
    if not parts:
        raise ValueError("no shard to merge")
    ids = np.concatenate([part.ids for part in parts])
    if len(np.unique(ids)) < len(ids):
        raise ValueError("a query is in two shards")
    return Records(
        ids=ids,
        labels=np.concatenate([part.labels for part in parts]),
        values={name: np.concatenate([part.values[name] for part in parts]) for name in parts[0].values},
        top=np.concatenate([part.top for part in parts]),
        norm_returned=np.concatenate([part.norm_returned for part in parts]),
        norms={name: np.concatenate([part.norms[name] for part in parts]) for name in parts[0].norms},
        projected=np.concatenate([part.projected for part in parts]),
        margins=np.concatenate([part.margins for part in parts]),
        targets=np.concatenate([part.targets for part in parts]),
        pictures={item: pair for part in parts for item, pair in part.pictures.items()},
        embeddings={item: point for part in parts for item, point in part.embeddings.items()},
        forward_images=sum(part.forward_images for part in parts),
        gradient_images=sum(part.gradient_images for part in parts),
        seconds=sum(part.seconds for part in parts),
        undone=sum(part.undone for part in parts),
        measures={
            name: (sum(part.measures[name][0] for part in parts), sum(part.measures[name][1] for part in parts))
            for name in parts[0].measures
        },
        stages=tuple(reduce(add, same) for same in zip(*(part.stages for part in parts), strict=True)),
        broken_by=_merged_places([part.broken_by for part in parts]),
        given_up=_merged_places([part.given_up for part in parts]),
    )


def _merged_places(parts: Sequence[npt.NDArray[np.int64] | None]) -> npt.NDArray[np.int64] | None:
    there = [part for part in parts if part is not None]
    if there and len(there) < len(parts):
        raise ValueError("a shard is of another attack")
    return np.concatenate(there) if there else None
