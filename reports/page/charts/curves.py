"""R@1 of each model over eps, from the smallest perturbation that breaks each query: a step for every query."""

from __future__ import annotations

import math
from collections.abc import Sequence

from robustdml.results import Curve as MeasuredCurve
from robustdml.threat import NORMS, ThreatModel, format_size

from ... import text
from ...index import Index
from .chart import Chart, Entry, Panel, Table, at, model_legend, panel, quoted
from .plot import Axis, Curve, Guide, Plot, Point, Tick, model_style, share_axis

#: Places at which a curve is drawn, evenly on the axis.
_PLACES = 160


def curves_chart(index: Index) -> Chart | None:
    """One panel for each norm; none where no curve was measured."""
    norms = list(dict.fromkeys(curve.norm for curve in index.curves))
    if not norms:
        return None
    panels = tuple(
        _panel(index, [curve for curve in index.curves if curve.norm == norm], named=len(norms) > 1) for norm in norms
    )
    headline = index.headline
    guided = headline is not None and headline.norm in norms and headline.eps is not None
    marked = f" The dashed line is the budget of the verdict, {at(headline)}." if headline and guided else ""
    return Chart(
        "chart-curves",
        "R@1 over every eps",
        (
            "The share of queries that no perturbation found within eps breaks. The axis doubles from mark to mark."
            f"{marked} A random ranking would reach {text.fraction(index.results.dataset.chance)}.",
        ),
        panels,
    )


def _panel(index: Index, curves: Sequence[MeasuredCurve], *, named: bool) -> Panel:
    norm, numbers = curves[0].norm, {model.name: number for number, model in enumerate(index.results.models)}
    budgets = [point.eps for point in curves[0].points]
    start, end = math.log2(budgets[0]) - 0.5, math.log2(budgets[-1]) + 0.5
    ticks = tuple(Tick(math.log2(eps), f"{255 * eps:g}" if norm == "linf" else f"{eps:g}") for eps in budgets)
    headline = index.headline
    guide = None
    if headline is not None and headline.norm == norm and headline.eps and start < math.log2(headline.eps) < end:
        place = math.log2(headline.eps)
        guide = Guide(f"eps = {headline.text}", (place, 0.0), (place, 1.0))
    plot = Plot(
        x=Axis("eps in grey levels (of 255)" if norm == "linf" else f"eps in {NORMS[norm]}", start, end, ticks, False),
        y=share_axis("R@1"),
        layers=tuple(_line(numbers[curve.model], curve, start, end) for curve in curves),
        legend=model_legend(tuple(model.name for model in index.results.models)),
        guide=guide,
    )
    falls = "; ".join(
        f"{quoted(curve.model)}: {', '.join(text.fraction(point.recall) for point in curve.points)}" for curve in curves
    )
    written = [ThreatModel(eps, norm).text for eps in budgets]
    table = Table(
        f"R@1 over eps, {NORMS[norm]}",
        ("eps", *(curve.model for curve in curves)),
        tuple(
            (label, tuple(Entry(text.fraction(curve.points[place].recall)) for curve in curves))
            for place, label in enumerate(written)
        ),
    )
    return panel(
        plot, table, f"R@1 at eps {', '.join(written)}. {falls}.", name=NORMS[norm] if named else "", caption=""
    )


def _line(number: int, curve: MeasuredCurve, start: float, end: float) -> Curve:
    places = [start + (end - start) * place / _PLACES for place in range(_PLACES + 1)]
    found = [(place, curve.recall(2**place)) for place in places]
    points = tuple(
        Point(place, value, f"{format_size(2**place, curve.norm)}\n{text.fraction(value)}") for place, value in found
    )
    return Curve(str(number), model_style(number), points, marked=False)
