"""The chart of a run: what it plots, as a Plotly figure and as a data table; `drawing` draws it without JavaScript.

With two budgets or more it is R@1 over eps, a line per model; with one, a bar for each model and attack. A figure
names no colours: a trace says which series it is, and the style sheet colours the series in light and dark.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustdml.results import Score

from . import text
from .drawing import MARKERS, Drawing, Plot, Point, Series, Tick, draw
from .index import Index
from .sections import Section

_SERIES_COLOURS = 6
_LABEL_LENGTH = 20
_NAME_LENGTH = 40
_BAR_THICKNESS = 15
_DASHES = ("solid", "dash", "dot", "dashdot")


@dataclass(frozen=True)
class ChartRow:
    """A line of the data table: where, and the R@1 of each model with its interval."""

    label: str
    values: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Chart:
    """One chart in three forms: a figure for Plotly, a drawing, and a table.

    Args:
        over_eps: whether it shows worst cases over eps, or attacks at one eps.
        eps: that eps, as it is written.
        plot: the data, with the names of its series for the legend.
        figure: the Plotly figure, a JSON value.
        drawing: the geometry of the SVG.
        rows: the data table.
    """

    over_eps: bool
    eps: str | None
    plot: Plot
    figure: dict[str, Any]
    drawing: Drawing
    rows: tuple[ChartRow, ...]
    chance: str


def chart_section(index: Index, folder: Path) -> Section:
    """The chart of a run."""
    return Section("chart", "Chart", "chart.html.j2", build_chart(index))


def build_chart(index: Index) -> Chart:
    """Chart the worst cases over eps, or all attacks where one eps (or none) was run."""
    over_eps = len(index.linf) > 1
    plot = _lines(index) if over_eps else _bars(index)
    return Chart(
        over_eps=over_eps,
        eps=None if index.headline is None else index.headline.text,
        plot=plot,
        figure=_line_figure(plot) if over_eps else _bar_figure(plot),
        drawing=draw(plot),
        rows=tuple(_row(tick, plot) for tick in plot.ticks),
        chance=text.fraction(plot.chance),
    )


def _lines(index: Index) -> Plot:
    series = []
    for number, model in enumerate(index.results.models):
        points = [_point(0.0, model.clean)]
        points += [
            _point(float(budget.eps or 0.0), worst.score)
            for budget in index.linf
            if (worst := index.worst.get((model.name, budget))) is not None
        ]
        series.append(_series(number, model.name, points))
    places = [(float(budget.eps or 0.0), budget.text) for budget in index.linf]
    ticks = (Tick(0.0, "0", "0 (clean)"), *(Tick(eps, f"{255 * eps:.3g}", written) for eps, written in places))
    return Plot("lines", tuple(series), ticks, index.results.dataset.chance_recall_at_1)


def _bars(index: Index) -> Plot:
    budget = index.headline
    run = {cell.attack for cell in index.results.cells if index.budget(cell) == budget}
    attacks = [attack for attack in index.results.attacks if attack.spec in run]
    names = ["clean", *(["worst case"] if attacks else []), *(attack.name for attack in attacks)]
    series = []
    for number, model in enumerate(index.results.models):
        scores: list[Score | None] = [model.clean]
        if budget is not None and attacks:
            worst = index.worst.get((model.name, budget))
            cells = [index.cells.get((model.name, attack.spec, budget.eps)) for attack in attacks]
            scores += [worst.score if worst else None, *(cell.score if cell else None for cell in cells)]
        points = [_point(float(place), score) for place, score in enumerate(scores) if score is not None]
        series.append(_series(number, model.name, points))
    ticks = tuple(Tick(float(place), text.shortened(name, _LABEL_LENGTH), name) for place, name in enumerate(names))
    return Plot("bars", tuple(series), ticks, index.results.dataset.chance_recall_at_1)


def _series(number: int, name: str, points: list[Point]) -> Series:
    return Series(name, number % _SERIES_COLOURS, number % len(MARKERS), number % len(_DASHES), tuple(points))


def _point(position: float, score: Score) -> Point:
    return Point(position, score.metrics.recall_at_1, score.recall_at_1_low, score.recall_at_1_high)


def _row(tick: Tick, plot: Plot) -> ChartRow:
    found = [
        next((point for point in series.points if point.position == tick.position), None) for series in plot.series
    ]
    return ChartRow(
        tick.meaning,
        tuple(
            (text.ABSENT, "")
            if point is None
            else (text.fraction(point.value), f"{text.fraction(point.low)}\N{EN DASH}{text.fraction(point.high)}")
            for point in found
        ),
    )


def _line_figure(plot: Plot) -> dict[str, Any]:
    traces: list[dict[str, Any]] = []
    for series in plot.series:
        places = [point.position for point in series.points]
        lows = [point.low for point in series.points]
        highs = [point.high for point in series.points]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": [*places, *reversed(places)],
                "y": [*highs, *reversed(lows)],
                "fill": "toself",
                "line": {"width": 0},
                "opacity": 0.16,
                "hoverinfo": "skip",
                "meta": {"series": series.colour},
            }
        )
    for series in plot.series:
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "cliponaxis": False,
                "name": _plain(text.shortened(series.name, _NAME_LENGTH)),
                "x": [point.position for point in series.points],
                "y": [point.value for point in series.points],
                "text": [_reading(point, plot) for point in series.points],
                "hovertemplate": "%{text}",
                "line": {"width": 2, "dash": _DASHES[series.dash]},
                "marker": {"size": 8, "symbol": MARKERS[series.marker].name},
                "meta": {"series": series.colour},
            }
        )
    axis = {"title": {"text": "eps in grey levels (of 255)"}, "range": [0, 1.03 * plot.end], **_ticks(plot, thin=True)}
    layout = {
        "height": 380,
        "margin": {"l": 52, "r": 12, "t": 12, "b": 48},
        "hovermode": "closest",
        "xaxis": axis,
        "yaxis": {"title": {"text": "R@1"}, "range": [0, 1], "tickformat": ".1f"},
        "shapes": [{**_chance_line(), "x0": 0, "x1": 1, "xref": "paper", "y0": plot.chance, "y1": plot.chance}],
    }
    return {"data": traces, "layout": {**layout, **_shared_layout()}}


def _bar_figure(plot: Plot) -> dict[str, Any]:
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": _plain(text.shortened(series.name, _NAME_LENGTH)),
            "y": [point.position for point in series.points],
            "x": [point.value for point in series.points],
            "error_x": {
                "type": "data",
                "symmetric": False,
                "array": [point.high - point.value for point in series.points],
                "arrayminus": [point.value - point.low for point in series.points],
                "thickness": 1.2,
                "width": 3,
            },
            "text": [_reading(point, plot) for point in series.points],
            "textposition": "none",
            "hovertemplate": "%{text}",
            "meta": {"series": series.colour},
        }
        for series in plot.series
    ]
    rows = len(plot.ticks)
    layout = {
        "height": rows * (max(1, len(plot.series)) * _BAR_THICKNESS + 12) + 72,
        "margin": {"l": 12, "r": 12, "t": 12, "b": 48},
        "hovermode": "closest",
        "bargap": 0.25,
        "bargroupgap": 0.1,
        "xaxis": {"title": {"text": "R@1"}, "range": [0, 1], "tickformat": ".1f"},
        "yaxis": {
            "range": [rows - 0.5, -0.5],
            "automargin": True,
            "showgrid": False,
            "zeroline": False,
            **_ticks(plot, thin=False),
        },
        "shapes": [{**_chance_line(), "y0": 0, "y1": 1, "yref": "paper", "x0": plot.chance, "x1": plot.chance}],
    }
    return {"data": traces, "layout": {**layout, **_shared_layout()}}


def _shared_layout() -> dict[str, Any]:
    # The legend is HTML, shared with the drawing: names may be long, or in any script.
    # Without dragging, a finger on the chart scrolls the page.
    return {"showlegend": False, "dragmode": False, "hoverlabel": {"namelength": _NAME_LENGTH}}


def _chance_line() -> dict[str, Any]:
    return {"type": "line", "line": {"width": 1.5, "dash": "dash"}}


def _ticks(plot: Plot, *, thin: bool) -> dict[str, Any]:
    ticks = plot.roomy_ticks() if thin else plot.ticks
    return {"tickvals": [tick.position for tick in ticks], "ticktext": [_plain(tick.label) for tick in ticks]}


def _reading(point: Point, plot: Plot) -> str:
    where = next(tick for tick in plot.ticks if tick.position == point.position)
    label = f"eps {where.meaning}" if plot.kind == "lines" else where.label
    numbers = f"R@1 {text.fraction(point.value)} ({text.fraction(point.low)}\N{EN DASH}{text.fraction(point.high)})"
    return f"{_plain(label)}<br>{numbers}"


def _plain(name: str) -> str:
    """A name that Plotly shows literally: its labels understand a few tags."""
    return name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
