"""Retrieval metrics, one value per query, from ranked relevance and never from scores.

A metric is one entry of `METRICS`; which of them are evaluated is said by the protocol of the data set
(`robustdml.data.protocol`). All are in [0, 1], and the higher the better.

Shapes: N queries, K ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from robustdml.registry import Registry
from robustdml.results import Metrics, Score

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

_BOOTSTRAP_DRAWS = 1000
_MISSED_ON_EACH_SIDE = 0.025
#: A depth of "R" is no less than this.
_LEAST_DEPTH = 8
#: Ranks above which only those of relevant items are looked at: nearly all of a long list are not.
_LONG = 4096


@dataclass(frozen=True)
class Metric:
    """A metric of ranked lists.

    Args:
        name: in results and records.
        title: in tables.
        description: one sentence, without a full stop.
        citation: a key of `robustdml.citations.BIBTEX`.
        depth: the ranks that it looks at: so many; as many as there are relevant items ("R"); all ("gallery").
        compute: from relevance ``(N, K)`` at K ranks, as many as ``depth`` or all that there are, and R ``(N,)``, how
            many relevant items the gallery holds for each query, at least 1, to values ``(N,)``.
        chance: of a metric that is 0 or 1 for each query, as a headline must be: what a random ranking is expected to
            have, ``(N,)``, from R and the number of items that are searched, ``(N,)`` both.
    """

    name: str
    title: str
    description: str
    citation: str
    depth: int | Literal["R", "gallery"]
    compute: Callable[[Booleans, Integers], Floats]
    chance: Callable[[Integers, Integers], Floats] | None = None

    def ranks(self, most: int, gallery: int) -> int:
        """The ranks that it needs, where a query has ``most`` relevant items, in a gallery of that size."""
        if self.depth == "R":
            return max(most, _LEAST_DEPTH)
        return gallery if self.depth == "gallery" else self.depth


def _recall(rank: int, relevant: Booleans, counts: Integers) -> Floats:
    return np.asarray(relevant[:, :rank].any(1), np.float64)


def _recall_by_chance(rank: int, counts: Integers, searched: Integers) -> Floats:
    """One less the probability that none of the first ``rank`` of a random order is relevant."""
    drawn = np.arange(rank)
    missed = np.clip((searched - counts)[:, None] - drawn, 0, None) / np.clip(searched[:, None] - drawn, 1, None)
    return np.asarray(1 - missed.prod(1))


def _average_precision(relevant: Booleans, counts: Integers) -> Floats:
    if relevant.shape[1] > _LONG:
        rows, places = np.divmod(np.flatnonzero(relevant), relevant.shape[1])
        hits = np.arange(1, len(rows) + 1) - np.searchsorted(rows, rows)
        return np.bincount(rows, weights=hits / (places + 1), minlength=len(relevant)) / counts
    ranks = np.arange(1, relevant.shape[1] + 1)
    precision = np.cumsum(relevant, axis=1) / ranks
    values: Floats = (precision * relevant).sum(1) / counts
    return values


def _first(relevant: Booleans, counts: Integers) -> Booleans:
    """Relevance among the first R alone."""
    return relevant & (np.arange(relevant.shape[1]) < counts[:, None])


def _map_at_r(relevant: Booleans, counts: Integers) -> Floats:
    return _average_precision(_first(relevant, counts), counts)


def _r_precision(relevant: Booleans, counts: Integers) -> Floats:
    values: Floats = _first(relevant, counts).sum(1) / counts
    return values


METRICS: Registry[Metric] = Registry("metric")

for _rank in (1, 2, 4, 5, 8, 10, 20, 30, 100, 1000):
    METRICS.add(
        f"recall_at_{_rank}",
        Metric(
            f"recall_at_{_rank}",
            f"R@{_rank}",
            "share of queries with a relevant item " + (f"among the first {_rank}" if _rank > 1 else "at rank 1"),
            "jegou2011product",
            _rank,
            partial(_recall, _rank),
            partial(_recall_by_chance, _rank),
        ),
    )
for _metric in (
    Metric(
        "map_at_r",
        "MAP@R",
        "mean average precision at R, R being the number of relevant items",
        "musgrave2020reality",
        "R",
        _map_at_r,
    ),
    Metric(
        "r_precision",
        "R-precision",
        "share of relevant items among the first R, R being the number of relevant items",
        "musgrave2020reality",
        "R",
        _r_precision,
    ),
    Metric(
        "mean_average_precision",
        "mAP",
        "mean average precision over the whole list: the precision at each relevant item, averaged over these",
        "manning2008introduction",
        "gallery",
        _average_precision,
    ),
):
    METRICS.add(_metric.name, _metric)


def per_query(
    metrics: Sequence[Metric], relevant: Booleans, counts: Integers, *, most: int | None = None
) -> dict[str, Floats]:
    """Some metrics of each query.

    Args:
        relevant: ``(N, K)``, whether the item at each rank is relevant; K as large as the deepest metric needs
            (`Metric.ranks`), or the size of the gallery.
        counts: ``(N,)``, R: how many relevant items the gallery holds for each query, at least 1.
        most: the largest R of all queries, of which these may be a part; None for these.

    Returns:
        ``(N,)`` values in [0, 1] under the name of each metric.
    """
    most = int(counts.max()) if most is None else most
    # Each sees the ranks that it needs: its sums are the same to the last bit, whatever else is computed, and whichever
    # queries are computed together.
    return {
        metric.name: metric.compute(relevant[:, : metric.ranks(most, relevant.shape[1])], counts) for metric in metrics
    }


def score(values: Mapping[str, Floats], labels: Integers, *, headline: str, seed: int) -> Score:
    """Means over the queries, and the 95 % interval of the headline from a bootstrap over classes.

    A bootstrap sees no further than its sample: of queries that are all 0, or all 1, it makes an interval without
    length. There the far end is the exact bound of Clopper & Pearson 1934 for 0 of n, or n of n, queries:
    ``1 - 0.025 ** (1 / n)``, or 1 less that. It takes queries as independent, as nothing in the sample tells how far
    they are not: it is the least that has to be allowed for.

    Args:
        values: from `per_query`.
        labels: ``(N,)``, the class of each query: queries of one class succeed and fail together, so classes are drawn.
        headline: the metric whose interval it is.
        seed: of the bootstrap.
    """
    _, group = np.unique(labels, return_inverse=True)
    totals = np.bincount(group, weights=values[headline])
    sizes = np.bincount(group)
    draws = np.random.default_rng(seed).integers(len(sizes), size=(_BOOTSTRAP_DRAWS, len(sizes)))
    means = totals[draws].sum(1) / sizes[draws].sum(1)
    low, high = np.quantile(means, [_MISSED_ON_EACH_SIDE, 1 - _MISSED_ON_EACH_SIDE])
    if not totals.any():
        high = 1 - _MISSED_ON_EACH_SIDE ** (1 / len(labels))
    elif (totals == sizes).all():
        low = _MISSED_ON_EACH_SIDE ** (1 / len(labels))
    metrics = Metrics({name: float(value.mean()) for name, value in values.items()})
    return Score(metrics=metrics, headline=headline, low=float(low), high=float(high))
