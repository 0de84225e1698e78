"""A chart in the three forms in which the page has it: live, drawn, and as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robustdml.results import Score
from robustdml.threat import ThreatModel

from ... import text
from .drawing import Drawing, draw
from .figure import figure
from .plot import Legend, Plot, Swatch, model_style

#: The longest name in a sentence; the whole name stands in the table and in the legend.
SENTENCE_LENGTH = 40
_LABEL_LENGTH = 20
_SHORT_LENGTH = 12


@dataclass(frozen=True)
class Entry:
    """A value in a table.

    Args:
        text: as it is written.
        note: its interval.
        number: what to sort by where the text does not sort.
        name: whether it is a name that someone chose, which may be long or in any script.
    """

    text: str
    note: str = ""
    number: float | None = None
    name: bool = False


@dataclass(frozen=True)
class Table:
    """The numbers of a chart.

    Args:
        caption: what they are.
        heads: one per column, the first that of the names of the rows.
        rows: a name, then the entries.
    """

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Entry, ...]], ...]


@dataclass(frozen=True)
class Panel:
    """One plot of a chart.

    Args:
        name: what it shows, where a chart has several.
        caption: a sentence of its own, or nothing.
        plot: the data.
        figure: for Plotly, a JSON value.
        drawing: the geometry of the SVG.
        table: the numbers.
        alternative: what the picture shows, in words.
    """

    name: str
    caption: str
    plot: Plot
    figure: dict[str, Any]
    drawing: Drawing
    table: Table
    alternative: str


@dataclass(frozen=True)
class Chart:
    """One section of charts: an identity on the page, a title, sentences that say how to read it, and its panels."""

    id: str
    title: str
    caption: tuple[str, ...]
    panels: tuple[Panel, ...]


def panel(plot: Plot, table: Table, alternative: str, *, name: str = "", caption: str = "") -> Panel:
    """A panel with its figure and drawing."""
    return Panel(name, caption, plot, figure(plot), draw(plot), table, alternative)


def at(budget: ThreatModel) -> str:
    """A budget within a sentence."""
    return f"at eps {budget.text}" if budget.norm == "linf" and budget.eps is not None else f"at {budget.text}"


def scored(score: Score | None) -> Entry:
    """The headline with its interval."""
    if score is None:
        return Entry(text.ABSENT)
    return Entry(text.fraction(score.value), text.interval(score))


def spread(score: Score) -> tuple[float, float]:
    """The interval of the headline."""
    return score.low, score.high


def reading(score: Score) -> str:
    """The headline and its interval, for a hover note."""
    return f"{text.fraction(score.value)} ({text.interval(score)})"


def model_legend(names: tuple[str, ...], swatch: Swatch = "line", *, dash: int | None = None) -> tuple[Legend, ...]:
    """The legend of all models; the key of a model is its place in the run."""
    return tuple(Legend(str(number), name, model_style(number, dash=dash), swatch) for number, name in enumerate(names))


def labels(name: str) -> tuple[str, str, str]:
    """A name as it fits an axis, as it fits one on a phone, and whole where one of these is cut."""
    long, short = _squeezed(name, _LABEL_LENGTH), _squeezed(name, _SHORT_LENGTH)
    return long, short, "" if short == name else name


def _squeezed(name: str, limit: int) -> str:
    # Names of attacks differ at their ends, so the middle goes.
    if len(name) <= limit:
        return name
    tail = (limit - 1) // 2
    return f"{name[: limit - 1 - tail]}…{name[-tail:]}"


def quoted(name: str) -> str:
    """A name within a sentence: isolated, so that one written from right to left does not reorder the sentence."""
    return f"\N{FIRST STRONG ISOLATE}{text.shortened(name, SENTENCE_LENGTH)}\N{POP DIRECTIONAL ISOLATE}"
