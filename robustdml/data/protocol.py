"""Who is relevant to a query, who is left out of its list, and what is then measured.

Items and queries are known by their ids, which are rows of the data set. Nothing outside of this module compares labels
to judge a ranking, so that a new kind of retrieval is a new `Protocol`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields, replace
from typing import Any, final

import numpy as np
import numpy.typing as npt

from robustdml.errors import DataError
from robustdml.values import ByValue

Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

#: What deep metric learning reports, where nobody asks for other metrics, and what re-identification does.
_METRICS = (
    *(f"recall_at_{rank}" for rank in (1, 2, 4, 8)),
    "map_at_r",
    "r_precision",
    "mean_average_precision",
)
_REIDENTIFICATION_METRICS = (*(f"recall_at_{rank}" for rank in (1, 5, 10)), "mean_average_precision")

#: Pairs of queries and gallery items that are looked at in one go.
_PAIRS = 2**24


def _no_labels() -> Integers:
    return np.empty(0, np.int64)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Protocol(ByValue, ABC):
    """How a ranking is judged.

    Args:
        metrics: names of `robustdml.retrieval.metrics.METRICS`, in the order in which they are shown. ``recall_at_1``
            is always among them: an attack has succeeded where the first hit is not relevant.
        headline: the one that reports quote first, with its interval.

    Raises:
        DataError: ``headline`` or ``recall_at_1`` is not among the metrics, or one is there twice.
    """

    metrics: tuple[str, ...] = _METRICS
    headline: str = "recall_at_1"

    def __post_init__(self) -> None:
        missing = [name for name in ("recall_at_1", self.headline) if name not in self.metrics]
        if missing or len(set(self.metrics)) < len(self.metrics):
            raise DataError(
                f"the metrics of a protocol must hold 'recall_at_1' and the headline '{self.headline}', each metric "
                f"once, and they are: {', '.join(self.metrics)}"
            )

    @abstractmethod
    def relevant(self, queries: Integers, items: Integers) -> Booleans:
        """Whether each item is a right answer to the query beside it, for arrays of ids that broadcast."""

    @abstractmethod
    def ignored(self, queries: Integers, items: Integers) -> Booleans:
        """Whether each item is left out of the list of the query beside it, for arrays of ids that broadcast.

        A query never finds itself: its own id is always ignored.
        """

    def of(self, labels: Integers) -> Protocol:
        """This protocol for a data set with these labels, (N,); itself where it looks at none."""
        return self

    def counts(self, queries: Integers, gallery: Integers) -> tuple[Integers, Integers]:
        """How many items each query could find.

        Args:
            queries: ids, (N,).
            gallery: ids, (M,).

        Returns:
            For each query, (N,): the items that are relevant and not ignored, and all that are not ignored.
        """
        relevant, searched = np.empty(len(queries), np.int64), np.empty(len(queries), np.int64)
        step = max(1, _PAIRS // len(gallery))
        for start in range(0, len(queries), step):
            part = queries[start : start + step, None]
            kept = ~self.ignored(part, gallery[None])
            searched[start : start + step] = kept.sum(1)
            relevant[start : start + step] = (kept & self.relevant(part, gallery[None])).sum(1)
        return relevant, searched

    def identity(self) -> dict[str, Any]:
        """A JSON value that tells this protocol from every other one: its kind and all its fields, arrays as hashes."""
        values = {part.name: getattr(self, part.name) for part in fields(self)}
        return {
            "kind": type(self).__qualname__,
            **{name: array_hash(value) if isinstance(value, np.ndarray) else value for name, value in values.items()},
        }


@final
@dataclass(frozen=True, eq=False, repr=False)
class SameClass(Protocol):
    """Items of the query's class are relevant, and a query does not find itself: deep metric learning.

    Args:
        labels: int64, (N,): the class of each row of the data set, which fills in its own.
    """

    labels: Integers = field(default_factory=_no_labels)

    def relevant(self, queries: Integers, items: Integers) -> Booleans:
        """Equal labels."""
        return np.asarray(self.labels[queries] == self.labels[items])

    def ignored(self, queries: Integers, items: Integers) -> Booleans:
        """Equal ids."""
        return np.asarray(queries == items)

    def of(self, labels: Integers) -> SameClass:
        """The same with other labels."""
        return replace(self, labels=labels)

    def counts(self, queries: Integers, gallery: Integers) -> tuple[Integers, Integers]:
        """See `Protocol.counts`; by the sizes of the classes, as no other way is affordable for 60,000 queries."""
        own = np.isin(queries, gallery)
        return _equal(self.labels, queries, gallery) - own, len(gallery) - own.astype(np.int64)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Reidentification(Protocol):
    """Items of the query's identity are relevant, and those of them that its own camera took are left out.

    As in Market-1501 (Zheng et al. 2015): to find the next frame of the same camera is no re-identification.

    Args:
        cameras: int64, (N,), at least 0: the camera that took each row of the data set.
        labels: int64, (N,): the identity of each, which the data set fills in.

    Raises:
        DataError: there are not as many cameras as labels, or one is negative.
    """

    cameras: Integers
    labels: Integers = field(default_factory=_no_labels)
    metrics: tuple[str, ...] = field(default=_REIDENTIFICATION_METRICS, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cameras.min() < 0 or (self.labels.size and self.cameras.shape != self.labels.shape):
            raise DataError(
                f"cameras must be {len(self.labels)} integers from 0 on, one per image, and they are of shape "
                f"{self.cameras.shape} and begin at {self.cameras.min()}"
            )

    def of(self, labels: Integers) -> Reidentification:
        """The same with other identities."""
        return replace(self, labels=labels)

    def relevant(self, queries: Integers, items: Integers) -> Booleans:
        """Equal identities."""
        return np.asarray(self.labels[queries] == self.labels[items])

    def ignored(self, queries: Integers, items: Integers) -> Booleans:
        """Equal identities and equal cameras."""
        return np.asarray(self.relevant(queries, items) & (self.cameras[queries] == self.cameras[items]))

    def counts(self, queries: Integers, gallery: Integers) -> tuple[Integers, Integers]:
        """See `Protocol.counts`; by the sizes of the groups."""
        own = _equal(self.labels * (self.cameras.max() + 1) + self.cameras, queries, gallery)
        return _equal(self.labels, queries, gallery) - own, len(gallery) - own


def _equal(keys: Integers, queries: Integers, gallery: Integers) -> Integers:
    """For each query, how many gallery items have its key."""
    present, sizes = np.unique(keys[gallery], return_counts=True)
    place = np.searchsorted(present, keys[queries]).clip(max=len(present) - 1)
    return np.where(present[place] == keys[queries], sizes[place], 0).astype(np.int64)


def array_hash(array: npt.NDArray[Any]) -> str:
    """A hash of integers that is the same on every machine."""
    return hashlib.sha256(array.astype("<i8").tobytes()).hexdigest()
