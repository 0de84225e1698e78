"""The chart as plain SVG geometry: what readers see without JavaScript and on paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from . import text


@dataclass(frozen=True)
class Marker:
    """A marker: its name in Plotly, and its outline around the origin."""

    name: str
    outline: str


MARKERS = (
    Marker("circle", "M-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0z"),
    Marker("square", "M-4,-4h8v8h-8z"),
    Marker("diamond", "M0,-5.5L5.5,0L0,5.5L-5.5,0z"),
    Marker("triangle-up", "M0,-5.5L5.2,4L-5.2,4z"),
    Marker("triangle-down", "M0,5.5L5.2,-4L-5.2,-4z"),
    Marker("cross", "M-1.7,-5h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3z"),
)


@dataclass(frozen=True)
class Point:
    """An R@1 with its interval, at an eps or in a row of bars."""

    position: float
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Series:
    """The points of one model; colour, marker and dash are numbers of styles."""

    name: str
    colour: int
    marker: int
    dash: int
    points: tuple[Point, ...]

    @property
    def outline(self) -> str:
        """The outline of the marker, for the legend."""
        return MARKERS[self.marker].outline


@dataclass(frozen=True)
class Tick:
    """A labelled position; ``meaning`` is the label at length."""

    position: float
    label: str
    meaning: str


@dataclass(frozen=True)
class Plot:
    """What a chart shows, whoever draws it."""

    kind: Literal["lines", "bars"]
    series: tuple[Series, ...]
    ticks: tuple[Tick, ...]
    chance: float

    @property
    def end(self) -> float:
        """The last position."""
        return self.ticks[-1].position

    def roomy_ticks(self) -> tuple[Tick, ...]:
        """The ticks whose labels do not run into each other on a phone; the last one always stays."""
        kept = [self.ticks[-1]]
        for tick in reversed(self.ticks[:-1]):
            if kept[-1].position - tick.position >= 0.06 * self.end:
                kept.append(tick)
        return tuple(reversed(kept))


@dataclass(frozen=True)
class Label:
    """Text at a place."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Mark:
    """What is drawn of one series: paths (an area, a line, whiskers), markers at places, and labels."""

    colour: int
    dash: int
    area: str
    line: str
    whiskers: str
    outline: str
    places: tuple[tuple[float, float], ...]
    labels: tuple[Label, ...]


@dataclass(frozen=True)
class Drawing:
    """An SVG picture: grid lines as one path, labels along both axes, the chance line, and the series."""

    width: int
    height: int
    grid: str
    x_labels: tuple[Label, ...]
    y_labels: tuple[Label, ...]
    x_title: Label
    chance: str
    marks: tuple[Mark, ...]


_WIDTH = 460
_STEPS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def draw(plot: Plot) -> Drawing:
    """Draw a plot."""
    return _draw_lines(plot) if plot.kind == "lines" else _draw_bars(plot)


def _draw_lines(plot: Plot) -> Drawing:
    left, right, top, bottom = 34.0, _WIDTH - 12.0, 10.0, 240.0

    def x(position: float) -> float:
        return left + (right - left) * position / plot.end

    def y(value: float) -> float:
        return bottom - (bottom - top) * value

    marks = []
    for series in plot.series:
        upper = [(x(point.position), y(point.high)) for point in series.points]
        lower = [(x(point.position), y(point.low)) for point in series.points]
        places = [(x(point.position), y(point.value)) for point in series.points]
        marks.append(
            Mark(
                series.colour,
                series.dash,
                area=f"{_path([*upper, *reversed(lower)])}z",
                line=_path(places),
                whiskers="",
                outline=series.outline,
                places=tuple((round(across, 1), round(down, 1)) for across, down in places),
                labels=(),
            )
        )
    return Drawing(
        width=_WIDTH,
        height=286,
        grid="".join(_path([(left, y(step)), (right, y(step))]) for step in _STEPS),
        x_labels=tuple(Label(round(x(tick.position), 1), bottom + 18, tick.label) for tick in plot.roomy_ticks()),
        y_labels=tuple(Label(left - 7, round(y(step) + 4, 1), f"{step:.1f}") for step in _STEPS),
        x_title=Label((left + right) / 2, bottom + 38, "eps in grey levels (of 255)"),
        chance=_path([(left, y(plot.chance)), (right, y(plot.chance))]),
        marks=tuple(marks),
    )


def _draw_bars(plot: Plot) -> Drawing:
    left, right, top = 150.0, _WIDTH - 44.0, 10.0
    thickness, gap = 14.0, 12.0
    band = thickness * len(plot.series) + gap
    bottom = top + band * len(plot.ticks)

    def x(value: float) -> float:
        return left + (right - left) * value

    marks = []
    for number, series in enumerate(plot.series):
        middles = [top + band * point.position + gap / 2 + thickness * (number + 0.5) for point in series.points]
        bars = zip(middles, series.points, strict=True)
        area, whiskers, labels = "", "", []
        for middle, point in bars:
            upper, lower = middle - thickness / 2 + 1, middle + thickness / 2 - 1
            area += f"{_path([(left, upper), (x(point.value), upper), (x(point.value), lower), (left, lower)])}z"
            whiskers += _path([(x(point.low), middle), (x(point.high), middle)])
            labels.append(Label(round(x(point.high) + 4, 1), round(middle + 4, 1), text.fraction(point.value)))
        marks.append(Mark(series.colour, series.dash, area, "", whiskers, series.outline, (), tuple(labels)))
    return Drawing(
        width=_WIDTH,
        height=round(bottom + 46),
        grid="".join(_path([(x(step), top), (x(step), bottom)]) for step in _STEPS),
        x_labels=tuple(Label(round(x(step), 1), bottom + 18, f"{step:.1f}") for step in _STEPS),
        y_labels=tuple(
            Label(left - 7, round(top + band * (tick.position + 0.5) + 4, 1), tick.label) for tick in plot.ticks
        ),
        x_title=Label((left + right) / 2, bottom + 38, "R@1"),
        chance=_path([(x(plot.chance), top), (x(plot.chance), bottom)]),
        marks=tuple(marks),
    )


def _path(places: list[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{across:.1f},{down:.1f}" for across, down in places)
