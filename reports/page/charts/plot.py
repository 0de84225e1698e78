"""What a chart shows, whoever draws it: axes, layers of marks in the units of the axes, a legend and a guide.

`figure` makes a Plotly figure of it and `drawing` an SVG picture. A plot names no colours: a style says which custom
property of the style sheet paints it, and the style sheet has one value for light and one for dark.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Colours in the style sheet; models beyond that number differ by marker.
_COLOURS = 6
_DASHES = 4


@dataclass(frozen=True)
class Marker:
    """A marker: its name in Plotly, and its outline as an SVG path relative to its middle."""

    name: str
    outline: str


MARKERS = (
    Marker("circle", "m-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0z"),
    Marker("square", "m-4,-4h8v8h-8z"),
    Marker("diamond", "m0,-5.5l5.5,5.5l-5.5,5.5l-5.5,-5.5z"),
    Marker("triangle-up", "m0,-5.5l5.2,9.5h-10.4z"),
    Marker("triangle-down", "m0,5.5l5.2,-9.5h-10.4z"),
    Marker("cross", "m-1.7,-5h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3z"),
    Marker(
        "x",
        "m-4.6,-2.4l2.2,-2.2l2.4,2.4l2.4,-2.4l2.2,2.2l-2.4,2.4l2.4,2.4l-2.2,2.2l-2.4,-2.4l-2.4,2.4l-2.2,-2.2l2.4,-2.4z",
    ),
    Marker("triangle-left", "m-5.5,0l9.5,-5.2v10.4z"),
    Marker("triangle-right", "m5.5,0l-9.5,-5.2v10.4z"),
    Marker("hourglass", "m-4.5,-5h9l-9,10h9z"),
)
CIRCLE, CROSS, DIAMOND = 0, 6, 2


@dataclass(frozen=True)
class Style:
    """How marks look: a custom property of the style sheet, and numbers of a marker and of a dash."""

    paint: str
    marker: int = CIRCLE
    dash: int = 0
    hollow: bool = False

    @property
    def outline(self) -> str:
        """The outline of the marker."""
        return MARKERS[self.marker].outline


def model_style(number: int, *, dash: int | None = None, hollow: bool = False) -> Style:
    """The style of the model at a place in the run; no two of 30 models share both colour and marker."""
    return Style(
        paint=f"series-{number % _COLOURS}",
        marker=number % len(MARKERS),
        dash=number % _DASHES if dash is None else dash,
        hollow=hollow,
    )


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis; ``short`` is the label on a phone, ``whole`` what a cut label stands for."""

    place: float
    label: str
    short: str = ""
    whole: str = ""


@dataclass(frozen=True)
class Axis:
    """A direction: the places where it starts (left, bottom) and ends; ``grid`` asks for lines at the ticks."""

    title: str
    start: float
    end: float
    ticks: tuple[Tick, ...]
    grid: bool = True

    def thinned(self) -> tuple[Tick, ...]:
        """The ticks whose labels do not run into each other on a phone; the last one always stays."""
        kept = list(self.ticks[-1:])
        for tick in reversed(self.ticks[:-1]):
            if abs(kept[-1].place - tick.place) >= 0.06 * abs(self.end - self.start):
                kept.append(tick)
        return tuple(reversed(kept))


def share_axis(title: str) -> Axis:
    """An axis for recalls and shares, with room for the markers of 0 and 1."""
    return Axis(title, -0.02, 1.02, tuple(Tick(step / 5, f"{step / 5:.1f}") for step in range(6)))


def row_axis(labels: tuple[tuple[str, str, str], ...]) -> Axis:
    """A vertical axis of rows, the first at the top, each with its label, the one on a phone, and the whole name."""
    ticks = tuple(Tick(float(row), *label) for row, label in enumerate(labels))
    return Axis("", len(labels) - 0.5, -0.5, ticks, False)


@dataclass(frozen=True)
class Point:
    """A place, what hovering over it says (lines of plain text), and intervals where there are any."""

    x: float
    y: float
    note: str = ""
    x_interval: tuple[float, float] | None = None
    y_interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Curve:
    """A line through points, with a band of their vertical intervals and with markers."""

    key: str
    style: Style
    points: tuple[Point, ...]
    band: bool = False
    marked: bool = True


@dataclass(frozen=True)
class Dots:
    """Markers with whiskers; dust is small, pale and without shape."""

    key: str
    style: Style
    points: tuple[Point, ...]
    dust: bool = False


@dataclass(frozen=True)
class Links:
    """Straight lines between pairs of points."""

    key: str
    style: Style
    pairs: tuple[tuple[Point, Point], ...]


@dataclass(frozen=True)
class Bars:
    """Horizontal bars from zero with whiskers, each around its y, as thick as that part of a row."""

    key: str
    style: Style
    points: tuple[Point, ...]
    thickness: float


@dataclass(frozen=True)
class Tile:
    """A unit square around a place, as full of colour as its share says."""

    x: int
    y: int
    share: float
    label: str
    note: str


@dataclass(frozen=True)
class Tiles:
    """A heat map."""

    key: str
    style: Style
    cells: tuple[Tile, ...]


Layer = Curve | Dots | Links | Bars | Tiles


Swatch = Literal["line", "dot", "dust", "bar"]


@dataclass(frozen=True)
class Legend:
    """An entry of the legend: it names the layers of a key, and switches them off and on."""

    key: str
    name: str
    style: Style
    swatch: Swatch


@dataclass(frozen=True)
class Guide:
    """A dashed line to compare with, and what it means."""

    name: str
    start: tuple[float, float]
    end: tuple[float, float]


@dataclass(frozen=True)
class Plot:
    """A chart.

    Args:
        x: the horizontal axis.
        y: the vertical axis.
        layers: what is drawn, the lowest first.
        legend: the names of the layers.
        height: in pixels.
        guide: a line to compare with.
        square: whether a unit is as long on both axes.
    """

    x: Axis
    y: Axis
    layers: tuple[Layer, ...]
    legend: tuple[Legend, ...]
    height: int = 380
    guide: Guide | None = None
    square: bool = False
