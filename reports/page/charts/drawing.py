"""A plot as plain SVG geometry: what readers see without JavaScript and on paper."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from .plot import Bars, Curve, Dots, Layer, Links, Plot, Point, Tiles

_WIDTH = 460
#: A live chart is wider than high on a desk; the drawing is as wide as a phone.
_FLATTER = 0.78
_LETTER = 6.8
_FADED = 0.5
_SHADES = 20


@dataclass(frozen=True)
class Label:
    """Text at a place; ``whole`` is what it stands for, where it is cut."""

    x: float
    y: float
    text: str
    whole: str = ""


@dataclass(frozen=True)
class Shape:
    """A path and the classes of the style sheet that draw it; ``opacity`` where it is not that of the class."""

    look: str
    path: str
    opacity: float | None = None


@dataclass(frozen=True)
class Mark:
    """What is drawn of one layer."""

    key: str
    paint: str
    shapes: tuple[Shape, ...]
    labels: tuple[Label, ...] = ()
    #: Which part of a label lies at its place.
    anchor: Literal["start", "middle"] = "middle"


@dataclass(frozen=True)
class Drawing:
    """An SVG picture: grid lines as one path, labels along both axes with their titles, the guide, and the layers."""

    width: int
    height: int
    grid: str
    x_labels: tuple[Label, ...]
    y_labels: tuple[Label, ...]
    x_title: Label
    y_title: Label | None
    guide: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class _Frame:
    """Where the axes lie in the picture."""

    plot: Plot
    left: float = field(init=False)
    right: float = field(init=False)
    top: float = field(init=False)
    bottom: float = field(init=False)

    def __post_init__(self) -> None:
        longest = max((len(tick.label) for tick in self.plot.y.ticks), default=0)
        left = min(_LETTER * longest + 14, 0.44 * _WIDTH) + (16 if self.plot.y.title else 0)
        right = _WIDTH - (44.0 if any(isinstance(layer, Bars) for layer in self.plot.layers) else 12.0)
        rows = not self.plot.y.grid
        height = right - left if self.plot.square else self.plot.height * (1 if rows else _FLATTER) - 58
        for name, value in (("left", left), ("right", right), ("top", 10.0), ("bottom", 10.0 + height)):
            object.__setattr__(self, name, value)

    def x(self, place: float) -> float:
        axis = self.plot.x
        return self.left + (self.right - self.left) * (place - axis.start) / (axis.end - axis.start)

    def y(self, place: float) -> float:
        axis = self.plot.y
        return self.bottom - (self.bottom - self.top) * (place - axis.start) / (axis.end - axis.start)

    def at(self, point: Point) -> tuple[float, float]:
        return self.x(point.x), self.y(point.y)


def draw(plot: Plot) -> Drawing:
    """Draw a plot."""
    frame = _Frame(plot)
    left, right, top, bottom = frame.left, frame.right, frame.top, frame.bottom
    x_ticks = plot.x.thinned()
    lines = [[(frame.x(tick.place), top), (frame.x(tick.place), bottom)] for tick in x_ticks if plot.x.grid]
    lines += [[(left, frame.y(tick.place)), (right, frame.y(tick.place))] for tick in plot.y.ticks if plot.y.grid]
    return Drawing(
        width=_WIDTH,
        height=round(bottom + 46),
        grid="".join(_path(line) for line in lines),
        x_labels=tuple(Label(_short(frame.x(tick.place)), _short(bottom + 18), tick.label) for tick in x_ticks),
        y_labels=tuple(
            Label(_short(left - 7), _short(frame.y(tick.place) + 4), tick.label, tick.whole) for tick in plot.y.ticks
        ),
        x_title=Label(_short((left + right) / 2), _short(bottom + 38), plot.x.title),
        y_title=Label(11, _short((top + bottom) / 2), plot.y.title) if plot.y.title else None,
        guide=_path([(frame.x(x), frame.y(y)) for x, y in (plot.guide.start, plot.guide.end)]) if plot.guide else "",
        marks=tuple(_mark(layer, frame) for layer in plot.layers),
    )


def _mark(layer: Layer, frame: _Frame) -> Mark:
    shapes: list[Shape] = []
    labels: tuple[Label, ...] = ()
    match layer:
        case Curve():
            places = [frame.at(point) for point in layer.points]
            if layer.band:
                bounds = [(frame.x(point.x), point.y_interval or (point.y, point.y)) for point in layer.points]
                upper = [(x, frame.y(high)) for x, (_, high) in bounds]
                lower = [(x, frame.y(low)) for x, (low, _) in bounds]
                shapes.append(Shape("band", f"{_path([*upper, *reversed(lower)])}z"))
            shapes.append(Shape(f"line dash-{layer.style.dash}", _path(places)))
            if layer.marked:
                shapes.append(_markers(layer.style.outline, places, layer.style.hollow))
        case Dots():
            places = [frame.at(point) for point in layer.points]
            if layer.dust:
                # A line of no length with round ends: a dot in ten letters.
                shapes.append(Shape("dust", "".join(f"{_path([place])}h0" for place in places)))
            else:
                shapes.append(Shape("whisker", _whiskers(layer.points, frame)))
                shapes.append(_markers(layer.style.outline, places, layer.style.hollow))
        case Links():
            shapes.append(Shape("link", "".join(_path([frame.at(a), frame.at(b)]) for a, b in layer.pairs)))
        case Bars():
            half = layer.thickness / 2
            boxes = (_box(frame, 0, point.y - half, point.x, point.y + half) for point in layer.points)
            shapes += [Shape("marker", "".join(boxes)), Shape("whisker", _whiskers(layer.points, frame))]
            labels = tuple(
                Label(_short(frame.x((p.x_interval or (p.x, p.x))[1]) + 4), _short(frame.y(p.y) + 4), f"{p.x:.3f}")
                for p in layer.points
            )
        case Tiles():
            shades: dict[int, str] = {}
            for cell in layer.cells:
                box = _box(frame, cell.x - 0.47, cell.y - 0.47, cell.x + 0.47, cell.y + 0.47)
                shade = round(_SHADES * cell.share)
                shades[shade] = shades.get(shade, "") + box
            shapes += [Shape("marker", path, _FADED * shade / _SHADES) for shade, path in sorted(shades.items())]
            labels = tuple(
                Label(_short(frame.x(cell.x)), _short(frame.y(cell.y) + 3.5), cell.label)
                for cell in layer.cells
                if cell.label
            )
    return Mark(layer.key, layer.style.paint, tuple(shapes), labels, "start" if isinstance(layer, Bars) else "middle")


def _markers(outline: str, places: Iterable[tuple[float, float]], hollow: bool) -> Shape:
    return Shape("marker hollow" if hollow else "marker", "".join(_path([place]) + outline for place in places))


def _whiskers(points: tuple[Point, ...], frame: _Frame) -> str:
    path = ""
    for point in points:
        if point.x_interval:
            path += _path([(frame.x(end), frame.y(point.y)) for end in point.x_interval])
        if point.y_interval:
            path += _path([(frame.x(point.x), frame.y(end)) for end in point.y_interval])
    return path


def _box(frame: _Frame, x0: float, y0: float, x1: float, y1: float) -> str:
    left, right, upper, lower = frame.x(x0), frame.x(x1), frame.y(y0), frame.y(y1)
    return f"M{left:.1f},{upper:.1f}H{right:.1f}V{lower:.1f}H{left:.1f}z"


def _path(places: Iterable[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{across:.1f},{down:.1f}" for across, down in places)


def _short(value: float) -> float:
    return round(value, 1)
