"""R@k for k = 1, 2, 4, 8: whether a relevant item is still near when it is no longer the first."""

from __future__ import annotations

import math

from robustdml.results import Metrics

from ... import text
from ...files.leaderboard import Index
from .chart import Chart, Entry, Table, at, model_legend, panel, quoted
from .plot import Axis, Curve, Plot, Point, Tick, model_style, share_axis

_RANKS = (1, 2, 4, 8)


def profile_chart(index: Index) -> Chart:
    """R@k of each model, clean and in the worst case at the headline where there is one."""
    models = index.results.models
    rows: list[tuple[int, str, Metrics]] = []
    for number, model in enumerate(models):
        rows.append((number, "clean", model.clean.metrics))
        if index.headline and (worst := index.worst.get((model.name, index.headline))):
            rows.append((number, "worst case", worst.score.metrics))
    plot = Plot(
        x=Axis("k", -0.1, 3.1, tuple(Tick(math.log2(rank), str(rank)) for rank in _RANKS), False),
        y=share_axis("R@k"),
        layers=tuple(_curve(number, models[number].name, kind, metrics) for number, kind, metrics in rows),
        legend=model_legend(tuple(model.name for model in models), dash=0),
    )
    table = Table(
        "R@k of each model",
        ("Model", "Queries", *(f"R@{rank}" for rank in _RANKS)),
        tuple(
            (models[number].name, (Entry(kind), *(Entry(text.fraction(value)) for value in _recalls(metrics))))
            for number, kind, metrics in rows
        ),
    )
    alternative = "; ".join(
        f"{quoted(models[number].name)} {kind}: {', '.join(map(text.fraction, _recalls(metrics)))}"
        for number, kind, metrics in rows
    )
    attacked = any(kind == "worst case" for _, kind, _ in rows)
    how = f", dashed with hollow markers: worst case {at(index.headline)}" if index.headline and attacked else ""
    return Chart(
        "chart-profile",
        "R@k",
        (f"Share of queries with a relevant item among the first k. Solid: clean{how}.",),
        (panel(plot, table, f"R@1, R@2, R@4 and R@8. {alternative}."),),
    )


def _curve(number: int, name: str, kind: str, metrics: Metrics) -> Curve:
    attacked = kind == "worst case"
    points = tuple(
        Point(math.log2(rank), value, f"{name}\n{kind}: R@{rank} {text.fraction(value)}")
        for rank, value in zip(_RANKS, _recalls(metrics), strict=True)
    )
    return Curve(str(number), model_style(number, dash=int(attacked), hollow=attacked), points)


def _recalls(metrics: Metrics) -> tuple[float, ...]:
    return metrics.recall_at_1, metrics.recall_at_2, metrics.recall_at_4, metrics.recall_at_8
