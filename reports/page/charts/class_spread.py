"""How far the worst classes are below the mean: a mean hides that some classes are never found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from robustdml.results import unpack_hits

from ...index import Index


@dataclass(frozen=True)
class ClassSpread:
    """The worst classes by the share of their queries that are right.

    Args:
        worst: the lowest share of a class.
        name: of that class, the first of equals.
        worst_tenth: the mean share of the lowest tenth of the classes, rounded up to whole classes.
    """

    worst: float
    name: str
    worst_tenth: float


def class_spread(index: Index, hits: Sequence[str]) -> ClassSpread:
    """The spread of several bit strings of the same queries, averaged per query first; at least one."""
    queries = index.results.queries
    count = len(queries.ids)
    totals: dict[int, list[float]] = {}
    for row in (unpack_hits(text, count) for text in hits):
        for place, hit in zip(queries.classes, row, strict=True):
            totals.setdefault(place, []).append(float(hit))
    shares = sorted((mean(values), place) for place, values in totals.items())
    tenth = shares[: math.ceil(len(shares) / 10)]
    return ClassSpread(shares[0][0], queries.class_names[shares[0][1]], mean(share for share, _ in tenth))
