"""R@k over k: whether a relevant item is still near when it is no longer the first."""

from __future__ import annotations

import math
import re

from ... import text
from ...index import Index
from .chart import Chart, Entry, Table, at, model_legend, panel, quoted
from .plot import Axis, Curve, Plot, Point, Tick, model_style, share_axis

#: The metrics that are one measured at several ranks.
_RECALL = re.compile(r"recall_at_(\d+)")


def profile_chart(index: Index) -> Chart | None:
    """R@k of each model, clean and in the worst case at the headline where there is one; none for a single k."""
    found = {metric.title: _RECALL.fullmatch(metric.name) for metric in index.results.dataset.metrics}
    ranks = dict(sorted((int(match[1]), (title, match[0])) for title, match in found.items() if match))
    if len(ranks) < 2:
        return None
    models = index.results.models
    rows: list[tuple[int, str, tuple[float, ...]]] = []
    for number, model in enumerate(models):
        rows.append((number, "clean", tuple(model.clean.metrics[name] for _, name in ranks.values())))
        if index.headline and (worst := index.worst.get((model.name, index.headline))):
            rows.append((number, "worst case", tuple(worst.score.metrics[name] for _, name in ranks.values())))
    ticks = tuple(Tick(math.log2(rank), str(rank)) for rank in ranks)
    plot = Plot(
        x=Axis("k", ticks[0].place - 0.1, ticks[-1].place + 0.1, ticks, False),
        y=share_axis("R@k"),
        layers=tuple(_curve(number, models[number].name, kind, tuple(ranks), values) for number, kind, values in rows),
        legend=model_legend(tuple(model.name for model in models), dash=0),
    )
    titles = [title for title, _ in ranks.values()]
    table = Table(
        "R@k of each model",
        ("Model", "Queries", *titles),
        tuple(
            (models[number].name, (Entry(kind), *(Entry(text.fraction(value)) for value in values)))
            for number, kind, values in rows
        ),
    )
    alternative = "; ".join(
        f"{quoted(models[number].name)} {kind}: {', '.join(map(text.fraction, values))}"
        for number, kind, values in rows
    )
    attacked = any(kind == "worst case" for _, kind, _ in rows)
    how = f", dashed with hollow markers: worst case {at(index.headline)}" if index.headline and attacked else ""
    return Chart(
        "chart-profile",
        "R@k",
        (f"Share of queries with a relevant item among the first k. Solid: clean{how}.",),
        (panel(plot, table, f"{', '.join(titles[:-1])} and {titles[-1]}. {alternative}."),),
    )


def _curve(number: int, name: str, kind: str, ranks: tuple[int, ...], values: tuple[float, ...]) -> Curve:
    attacked = kind == "worst case"
    points = tuple(
        Point(math.log2(rank), value, f"{name}\n{kind}: R@{rank} {text.fraction(value)}")
        for rank, value in zip(ranks, values, strict=True)
    )
    return Curve(str(number), model_style(number, dash=int(attacked), hollow=attacked), points)
