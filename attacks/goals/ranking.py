"""What the goals of the field's ranking attacks share: distances, drawn and nearest items, and the loss on ranks.

Distances are Euclidean between embeddings of length 1. A query is never its own candidate. Every value is per query,
so that it does not depend on the batch; the published code averages over the batch first.

Shapes: N queries, M gallery items, T candidates, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from robustdml.errors import SpecError
from robustdml.seeding import stream
from robustdml.values import check_fields

from .plain import PlainGoal

if TYPE_CHECKING:  # what goals mean is listed without torch
    from torch import Tensor

    from robustdml.contracts import Gallery, Objective, References

    from .search import Wanted

#: How near an item must be to count as one that the query finds: among the nearest hundredth of the gallery.
_NEAR_SHARE = 0.01


def distances(embeddings: Tensor, items: Tensor) -> Tensor:
    """Euclidean distances ``(N, M)`` between points of length 1; the gradient at distance 0 is 0."""
    return distance(embeddings @ items.T)


def distance(similarity: Tensor) -> Tensor:
    """That of points of length 1 and such a similarity, of any shape."""
    return (2 - 2 * similarity).clamp_min(1e-12).sqrt()


def drawn_rows(wanted: Wanted, items: int, ids: Tensor, count: int, *, seed: int, purpose: str) -> Tensor:
    """``count`` different wanted rows, of ``items``, for each query, drawn by seed and id: ``(N, count)``.

    Raises:
        SpecError: a query wants fewer.
    """
    from .search import counts, numbered

    numbers = []
    for found, item in zip(counts(wanted, ids, items).tolist(), ids.tolist(), strict=True):
        _check_count(found, count)
        numbers.append(stream(seed, purpose, item).choice(found, count, replace=False))
    return numbered(wanted, ids.new_tensor(np.stack(numbers)), items)


def near_rows(points: Tensor, items: Tensor, wanted: Wanted, count: int) -> Tensor:
    """The ``count`` nearest wanted items of each point, the nearest first: ``(N, count)`` int64.

    Raises:
        SpecError: fewer are wanted.
    """
    from .search import nearest_rows

    similarity, rows = nearest_rows(points, items, wanted, count)
    _check_count(int(similarity.isfinite().sum(1).min()), count)
    return rows


def _check_count(found: int, count: int) -> None:
    if found < count:
        raise SpecError(f"{count} candidates asked for, there are {found}: ask for fewer")


def drawn_near_rows(
    references: References, items: Gallery, wanted: Wanted, count: int, *, seed: int, purpose: str
) -> Tensor:
    """``count`` different rows of the nearest hundredth of the wanted items (or, of a few, of the nearest few).

    Args:
        items: whose rows.
        wanted: of them.
    """
    pool = max(int(_NEAR_SHARE * len(items)), count)
    near = near_rows(references.embeddings, items.embeddings, wanted, pool)
    numbers = [stream(seed, purpose, item).choice(pool, count, replace=False) for item in references.ids.tolist()]
    return near.gather(1, near.new_tensor(np.stack(numbers)))


def raised(to_candidates: Tensor, to_all: Tensor, counted: Tensor) -> Tensor:
    """How far candidates are from the first place: the mean of ``[d(q, c) - d(q, x)]+`` over all c and counted x.

    Args:
        to_candidates: ``(N, T)`` distances.
        to_all: ``(N, M)`` or ``(N, T, M)`` distances.
        counted: of the shape of ``to_all``, bool; which items count.

    Returns:
        ``(N,)``; 0 exactly where every candidate comes before every counted item.
    """
    if to_all.ndim == 2:
        to_all, counted = to_all[:, None], counted[:, None]
    ahead = (to_candidates[:, :, None] - to_all).clamp_min(0.0) * counted
    return (ahead.sum(2) / counted.sum(2)).mean(1)


@dataclass(frozen=True)
class Candidates(PlainGoal):
    """What the goals on drawn items share.

    Args:
        candidates: M of the papers (for an attack on the gallery W), how many are drawn, at least 1.
    """

    candidates: int = 1
    name: ClassVar[str]
    #: As the papers write it, and their letter for ``candidates``.
    label: ClassVar[str]
    letter: ClassVar[str] = "M"
    #: 1 to bring items to the front, -1 to push them to the back.
    sign: ClassVar[float]
    measures: ClassVar[tuple[str, ...]] = ("rank_percentile",)
    citation: ClassVar[str] = "zhou2020adversarial"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.candidates < 1:
            raise SpecError(f"candidates={self.candidates} must be at least 1")

    @property
    def title(self) -> str:
        """The label, with the number of items where it is not 1."""
        return self.label if self.candidates == 1 else f"{self.label} {self.letter}={self.candidates}"


def query_loss(references: References, rows: Tensor, sign: float) -> Objective:
    """Minus how far the rows are from the first place (sign 1) or from the last (-1)."""
    items, counted = references.gallery.embeddings, ~references.ignored

    def value(embeddings: Tensor) -> Tensor:
        to_all = sign * distances(embeddings, items)
        return -raised(to_all.gather(1, rows), to_all, counted)

    return value
