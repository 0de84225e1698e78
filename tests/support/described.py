"""The metrics of made-up results, in words, and a way to change one number."""

from __future__ import annotations

from robustdml.results import MetricEntry, Metrics


def _metric(name: str, title: str, description: str) -> MetricEntry:
    return MetricEntry(name=name, title=title, description=description, citation="musgrave2020reality")


METRICS = (
    *(
        _metric(f"recall_at_{rank}", f"R@{rank}", f"share of queries with a relevant item among the first {rank}")
        for rank in (1, 2, 4, 8)
    ),
    _metric("map_at_r", "MAP@R", "mean average precision at R, R being the number of relevant items"),
    _metric("r_precision", "R-precision", "share of relevant items among the first R"),
)


def with_recall(metrics: Metrics, recall: float) -> Metrics:
    """The same with another R@1."""
    return Metrics({**metrics.root, "recall_at_1": recall})
