"""A plot as a figure for Plotly: a JSON value without colours, which the page's script takes from the style sheet."""

from __future__ import annotations

from typing import Any

from .plot import (
    MARKERS,
    Axis,
    Bars,
    Curve,
    Dots,
    Layer,
    Links,
    Plot,
    Point,
    Tick,
    Tiles,
)

_NAME_LENGTH = 40


def figure(plot: Plot) -> dict[str, Any]:
    """The traces and the layout of a plot; the ``meta`` of a trace says how it is painted and what switches it off."""
    traces = [{**trace, "meta": _meta(layer)} for layer in plot.layers for trace in _traces(layer)]
    x, y = _axis(plot.x, plot.x.thinned()), _axis(plot.y, plot.y.ticks)
    layout: dict[str, Any] = {
        "height": plot.height,
        "margin": {"l": 56 if plot.y.title else 12, "r": 16, "t": 12, "b": 48},
        "hovermode": "closest",
        "barmode": "overlay",
        # The legend is HTML, shared with the drawing: names may be long, or in any script.
        # Without dragging, a finger on the chart scrolls the page.
        "showlegend": False,
        "dragmode": False,
        "hoverlabel": {"namelength": _NAME_LENGTH, "align": "left"},
        "xaxis": x,
        "yaxis": {**y, "automargin": True},
        # Of the vertical axis, on a phone.
        "meta": {"short": [literal(tick.short or tick.label) for tick in plot.y.ticks]},
        "shapes": [] if plot.guide is None else [_line(plot.guide.start, plot.guide.end)],
    }
    if plot.square:
        layout["yaxis"] |= {"scaleanchor": "x", "constrain": "domain"}
        layout["xaxis"]["constrain"] = "domain"
    return {"data": traces, "layout": layout}


def _meta(layer: Layer) -> dict[str, Any]:
    return {"key": layer.key, "paint": layer.style.paint}


def _traces(layer: Layer) -> list[dict[str, Any]]:
    match layer:
        case Curve():
            line = {
                **_scatter(layer.points),
                "mode": "lines+markers" if layer.marked else "lines",
                "line": {"width": 2, "dash": ("solid", "dash", "dot", "dashdot")[layer.style.dash]},
                "marker": _marker(layer.style.marker, layer.style.hollow),
            }
            return [_band(layer), line] if layer.band else [line]
        case Dots():
            dots = {**_scatter(layer.points), "mode": "markers", **_whiskers(layer.points)}
            if layer.dust:
                return [{**dots, "marker": {"size": 5}, "opacity": 0.45}]
            return [{**dots, "marker": _marker(layer.style.marker, layer.style.hollow)}]
        case Links():
            ends = [[first, second] for first, second in layer.pairs]
            return [
                {
                    "type": "scatter",
                    "mode": "lines",
                    "x": [value for pair in ends for value in (*(end.x for end in pair), None)],
                    "y": [value for pair in ends for value in (*(end.y for end in pair), None)],
                    "line": {"width": 1.5},
                    "opacity": 0.6,
                    "hoverinfo": "skip",
                }
            ]
        case Bars():
            return [
                {
                    "type": "bar",
                    "orientation": "h",
                    "y": [point.y for point in layer.points],
                    "x": [point.x for point in layer.points],
                    "width": layer.thickness,
                    "marker": {},
                    **_notes(layer.points),
                    "textposition": "none",
                    **_whiskers(layer.points),
                }
            ]
        case Tiles():
            return [_heat(layer)]


def _scatter(points: tuple[Point, ...]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "cliponaxis": False,
        "x": [point.x for point in points],
        "y": [point.y for point in points],
        **_notes(points),
    }


def _notes(points: tuple[Point, ...]) -> dict[str, Any]:
    if not any(point.note for point in points):
        return {"hoverinfo": "skip"}
    return {"text": [literal(point.note) for point in points], "hovertemplate": "%{text}<extra></extra>"}


def _marker(number: int, hollow: bool) -> dict[str, Any]:
    return {
        "size": 8,
        "symbol": MARKERS[number].name + ("-open" if hollow else ""),
        "line": {"width": 1.5 if hollow else 0},
    }


def _band(curve: Curve) -> dict[str, Any]:
    places = [point.x for point in curve.points]
    bounds = [point.y_interval or (point.y, point.y) for point in curve.points]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [*places, *reversed(places)],
        "y": [*(high for _, high in bounds), *(low for low, _ in reversed(bounds))],
        "fill": "toself",
        "line": {"width": 0},
        "opacity": 0.16,
        "hoverinfo": "skip",
    }


def _whiskers(points: tuple[Point, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, values, intervals in (
        ("error_x", [point.x for point in points], [point.x_interval for point in points]),
        ("error_y", [point.y for point in points], [point.y_interval for point in points]),
    ):
        if any(intervals):
            bounds = [interval or (value, value) for value, interval in zip(values, intervals, strict=True)]
            found[name] = {
                "type": "data",
                "symmetric": False,
                "array": [high - value for value, (_, high) in zip(values, bounds, strict=True)],
                "arrayminus": [value - low for value, (low, _) in zip(values, bounds, strict=True)],
                "thickness": 1.2,
                "width": 3,
            }
    return found


def _heat(layer: Tiles) -> dict[str, Any]:
    across = sorted({cell.x for cell in layer.cells})
    down = sorted({cell.y for cell in layer.cells})
    found = {(cell.x, cell.y): cell for cell in layer.cells}
    rows = [[found.get((x, y)) for x in across] for y in down]
    return {
        "type": "heatmap",
        "x": across,
        "y": down,
        "z": [[cell and cell.share for cell in row] for row in rows],
        "text": [[cell.label if cell else "" for cell in row] for row in rows],
        "texttemplate": "%{text}",
        "hovertext": [[literal(cell.note) if cell else "" for cell in row] for row in rows],
        "hoverinfo": "text",
        "zmin": 0,
        "zmax": 1,
        "showscale": False,
        "xgap": 1,
        "ygap": 1,
    }


def _axis(axis: Axis, ticks: tuple[Tick, ...]) -> dict[str, Any]:
    return {
        "title": {"text": axis.title},
        "range": [axis.start, axis.end],
        "showgrid": axis.grid,
        "zeroline": False,
        "tickangle": 0,
        "tickvals": [tick.place for tick in ticks],
        "ticktext": [literal(tick.label) for tick in ticks],
    }


def _line(start: tuple[float, float], end: tuple[float, float]) -> dict[str, Any]:
    places = {"x0": start[0], "y0": start[1], "x1": end[0], "y1": end[1]}
    return {"type": "line", "line": {"width": 1.5, "dash": "dash"}, **places}


def literal(text: str) -> str:
    """Text that Plotly shows literally: its labels understand a few tags."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\n", "<br>")
