"""Charts of the page, and bars of models, as figures of Plotly: for notebooks."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from typing import Any, Literal, get_args

from robustdml.errors import SpecError
from robustdml.importing import needed
from robustdml.results import Results

from .index import Index
from .page.charts.chart import Chart, Panel, at, reading
from .page.charts.curves import curves_chart
from .page.charts.figure import literal
from .page.charts.over_eps import over_eps_chart
from .page.charts.plot import Plot, model_style
from .page.charts.under_attacks import attacks_chart
from .page.render import TEMPLATES

Name = Literal["over_eps", "attacks", "curves", "models"]

#: Pixels above and below a plot.
_AROUND = 120

_CHARTS: dict[str, tuple[Callable[[Index], Chart | None], str]] = {
    "over_eps": (over_eps_chart, "two L-infinity budgets or more, as in eps='2/255,8/255'"),
    "attacks": (attacks_chart, "an attack that was judged"),
    "curves": (curves_chart, "a curve, as attacks='bisection' searches it"),
}


def figure_of(results: Results, name: Name) -> Any:
    """A chart of results as a `plotly.graph_objects.Figure`.

    Args:
        results: of one run, or of several merged.
        name: ``"over_eps"``: the worst-case headline over the L-infinity budgets; ``"attacks"``: under each attack at
            the budget that summaries quote; ``"curves"``: R@1 over every eps, a panel for each norm; ``"models"``: bars
            of each model, clean and in each worst case.

    Raises:
        SpecError: the results lack what is drawn, or there is no such chart.
        MissingPackageError: Plotly is not installed.
    """
    index = Index.of(results)
    if name == "models":
        return _models(index)
    if name not in _CHARTS:
        raise SpecError(f"there is no chart '{name}': choose one of {', '.join(get_args(Name))}")
    chart_of, wanted = _CHARTS[name]
    chart = chart_of(index)
    if chart is None:
        raise SpecError(f"there is nothing to draw: this chart needs {wanted}, and a model that no flag calls invalid")
    return _figure(chart)


def _models(index: Index) -> Any:
    """Bars of every model: clean, and in the worst case at each budget."""
    models, title = index.results.models, index.metric.title
    budgets = list(dict.fromkeys(budget for _, budget in index.worst))
    conditions = [("clean", {model.name: model.clean for model in models})]
    for budget in budgets:
        found = {name: worst.score for (name, own), worst in index.worst.items() if own == budget}
        conditions.append((f"worst {at(budget)}", found))
    bars = []
    for number, (label, scores) in enumerate(conditions):
        shown = list(scores.items())
        bars.append(
            {
                "type": "bar",
                "name": label,
                "x": [literal(name) for name, _ in shown],
                "y": [score.value for _, score in shown],
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [score.high - score.value for _, score in shown],
                    "arrayminus": [score.value - score.low for _, score in shown],
                },
                "text": [f"{label}: {reading(score)}" for _, score in shown],
                "textposition": "none",
                "hovertemplate": "%{x}<br>%{text}<extra></extra>",
                "marker": {"color": _colours()[model_style(number).paint]},
            }
        )
    layout = {
        "barmode": "group",
        "yaxis": {"title": {"text": title}, "range": [0, 1.02]},
        "legend": {"orientation": "h"},
    }
    return _plotly().Figure({"data": bars, "layout": layout | _ground(f"{title} of each model, with 95 % intervals")})


def _figure(chart: Chart) -> Any:
    """All panels of a chart below each other."""
    panels = [_painted(one) for one in chart.panels]
    if len(panels) == 1:
        data, layout = panels[0]
        return _plotly().Figure({"data": data, "layout": layout | _ground(chart.title)})
    made = needed("plotly.subplots", "plots", "a chart").make_subplots(
        rows=len(panels), cols=1, subplot_titles=[one.name for one in chart.panels]
    )
    for row, (data, layout) in enumerate(panels, start=1):
        for trace in data:
            made.add_trace({**trace, "showlegend": trace.get("showlegend", False) and row == 1}, row=row, col=1)
        made.update_xaxes(layout["xaxis"], row=row, col=1)
        made.update_yaxes(layout["yaxis"], row=row, col=1)
        for shape in layout["shapes"]:
            made.add_shape(shape, row=row, col=1)
    height = sum(layout["height"] for _, layout in panels)
    made.update_layout(_ground(chart.title) | {"height": height, "showlegend": True})
    return made


def _painted(panel: Panel) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Traces and layout with the page's colours (in light), and a legend of Plotly's own."""
    figure = deepcopy(panel.figure)
    names = {entry.key: literal(entry.name) for entry in panel.plot.legend}
    named: set[str] = set()
    for trace in figure["data"]:
        meta = trace.pop("meta")
        key, colour = meta["key"], _colours()[meta["paint"]]
        trace["fillcolor"] = colour
        for part in ("line", "marker"):
            if part in trace:
                trace[part] = {**trace[part], "color": colour}
        band = trace.get("fill") == "toself"
        trace |= {"name": names.get(key, ""), "legendgroup": key, "showlegend": not band and key not in named}
        if trace["showlegend"]:
            named.add(key)
        if trace["type"] == "bar":
            del trace["fillcolor"]
    layout = {name: value for name, value in figure["layout"].items() if name not in {"meta", "dragmode", "margin"}}
    # The page has the title and the legend outside of the plot.
    layout |= {"height": layout["height"] + _AROUND, "showlegend": True, "annotations": _guide(panel.plot)}
    return figure["data"], layout


def _guide(plot: Plot) -> list[dict[str, Any]]:
    """What the dashed line is."""
    if plot.guide is None:
        return []
    # Of a vertical line the upper end: rows are counted downwards.
    downwards = plot.y.start > plot.y.end
    x, y = plot.guide.start if downwards and plot.guide.start[0] == plot.guide.end[0] else plot.guide.end
    return [{"x": x, "y": y, "text": plot.guide.name, "showarrow": False, "xanchor": "right", "yanchor": "bottom"}]


def _ground(title: str) -> dict[str, Any]:
    return {"title": {"text": title}, "template": "plotly_white"}


@cache
def _colours() -> dict[str, str]:
    """The page's colours in light, by the name of each."""
    css = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", css.partition("}")[0]))


def _plotly() -> Any:
    return needed("plotly.graph_objects", "plots", "a chart")
