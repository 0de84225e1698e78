"""Retrieval metrics, one value per query, from ranked relevance and never from scores.

Shapes: N queries, K ranks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from robustdml.results import Metrics, Score

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

RECALL_RANKS = (1, 2, 4, 8)
METRIC_NAMES = (*(f"recall_at_{k}" for k in RECALL_RANKS), "map_at_r", "r_precision")
_BOOTSTRAP_DRAWS = 1000
_MISSED_ON_EACH_SIDE = 0.025


def per_query(relevant: Booleans, counts: Integers) -> dict[str, Floats]:
    """All metrics of each query.

    Args:
        relevant: ``(N, K)``, whether the item at each rank is of the query's class; K at least 8 and ``counts.max()``
            (or the size of the gallery).
        counts: ``(N,)``, R: how many relevant items the gallery holds for each query, at least 1.

    Returns:
        ``(N,)`` values in [0, 1] under `METRIC_NAMES`. R@k: 1 where one of the first k is relevant. R-precision: the
        relevant share of the first R. MAP@R: ``1/R * sum_{i<=R} P(i) rel(i)`` (Musgrave et al. 2020, eq. 1).
    """
    values: dict[str, Floats] = {f"recall_at_{k}": relevant[:, :k].any(1).astype(float) for k in RECALL_RANKS}
    ranks = np.arange(1, relevant.shape[1] + 1)
    hits = relevant & (ranks <= counts[:, None])
    precision = np.cumsum(hits, axis=1) / ranks
    values["map_at_r"] = (precision * hits).sum(1) / counts
    values["r_precision"] = hits.sum(1) / counts
    return values


def score(values: dict[str, Floats], labels: Integers, *, seed: int) -> Score:
    """Means over the queries, and the 95 % interval of R@1 from a bootstrap over classes.

    A bootstrap sees no further than its sample: of queries that are all wrong, or all right, it makes an interval
    without length. There the far end is the exact bound of Clopper & Pearson 1934 for 0 of n, or n of n, queries:
    ``1 - 0.025 ** (1 / n)``, or 1 less that. It takes queries as independent, as nothing in the sample tells how far
    they are not: it is the least that has to be allowed for.

    Args:
        values: from `per_query`.
        labels: ``(N,)``, the class of each query: queries of one class succeed and fail together, so classes are drawn.
        seed: of the bootstrap.
    """
    _, group = np.unique(labels, return_inverse=True)
    totals = np.bincount(group, weights=values["recall_at_1"])
    sizes = np.bincount(group)
    draws = np.random.default_rng(seed).integers(len(sizes), size=(_BOOTSTRAP_DRAWS, len(sizes)))
    recalls = totals[draws].sum(1) / sizes[draws].sum(1)
    low, high = np.quantile(recalls, [_MISSED_ON_EACH_SIDE, 1 - _MISSED_ON_EACH_SIDE])
    if not totals.any():
        high = 1 - _MISSED_ON_EACH_SIDE ** (1 / len(labels))
    elif (totals == sizes).all():
        low = _MISSED_ON_EACH_SIDE ** (1 / len(labels))
    means = {name: float(values[name].mean()) for name in METRIC_NAMES}
    return Score(metrics=Metrics(**means), recall_at_1_low=float(low), recall_at_1_high=float(high))
