"""The embedding space on two axes, with the way that each attacked query went."""

from __future__ import annotations

from collections import Counter

from robustdml.results import EmbeddingMap, MapPath

from ... import text
from ...index import Index
from .chart import SENTENCE_LENGTH, Chart, Entry, Panel, Table, at, panel, quoted
from .plot import (
    CIRCLE,
    CROSS,
    DIAMOND,
    Axis,
    Dots,
    Layer,
    Legend,
    Links,
    Plot,
    Point,
    Style,
)

#: Maps on the page: each adds a few hundred points.
LIMIT = 12
#: Classes that have a colour each; with more, the gallery is grey and hovering says the class.
_COLOURED = 6
#: Outcome, its words in the table, and its style.
_OUTCOMES = (
    ("held", "still right", Style("right", CIRCLE)),
    ("broken", "broken: right before, wrong after", Style("wrong", CROSS)),
    ("wrong", "already wrong when clean", Style("muted", DIAMOND, hollow=True)),
)


def maps_chart(index: Index) -> Chart | None:
    """The maps of the run, those of every model before a second one of any; none where the run drew none."""
    maps = index.results.maps
    if not maps:
        return None
    seen: Counter[str] = Counter()
    turns = []
    for place, drawn in enumerate(maps):
        turns.append((seen[drawn.model], place))
        seen[drawn.model] += 1
    shown = sorted(place for _, place in sorted(turns)[:LIMIT])
    left_out = len(maps) - len(shown)
    return Chart(
        "chart-maps",
        "Embedding maps",
        (
            "The gallery (small dots) and attacked queries on the first two principal components of the gallery. A "
            "line leads from where a query was to where the attack took it. Retrieval works in all dimensions: what is "
            "near on the map need not be near."
            + (f" {text.counted(left_out, 'map')} more in the results are not shown." if left_out else ""),
        ),
        tuple(_panel(index, maps[place]) for place in shown),
    )


def outcome(path: MapPath) -> str:
    """What became of a query: held, broken, or wrong before it was attacked."""
    if not path.clean_hit:
        return "wrong"
    return "held" if path.adversarial_hit else "broken"


def _panel(index: Index, drawn: EmbeddingMap) -> Panel:
    names = index.results.queries.class_names
    attack = index.attack_name(drawn.attack)
    where = at(drawn.threat)
    counts = Counter(outcome(path) for path in drawn.paths)
    x, y = _axes(drawn)
    layers, legend = _gallery(drawn, names)
    for key, words, style in _OUTCOMES:
        paths = [path for path in drawn.paths if outcome(path) == key]
        if not paths:
            continue
        before = tuple(Point(*path.clean, _note(path, names, "before the attack")) for path in paths)
        after = tuple(Point(*path.adversarial, _note(path, names, words)) for path in paths)
        layers += [
            Links(key, Style(style.paint), tuple(zip(before, after, strict=True))),
            Dots(key, Style(style.paint), before, dust=True),
            Dots(key, style, after),
        ]
        legend.append(Legend(key, f"{words} ({len(paths)})", style, "dot"))
    plot = Plot(x=x, y=y, layers=tuple(layers), legend=tuple(legend), height=560, square=True)
    table = Table(
        "The attacked queries on the map; the places of the gallery stand in results.json",
        ("Query", "Class", "Outcome", "Clean x", "Clean y", "Attacked x", "Attacked y"),
        tuple((str(path.query_id), _entries(path, names)) for path in drawn.paths),
    )
    summary = f"{counts['broken']} of {len(drawn.paths)} queries were broken, {counts['held']} are still right"
    return panel(
        plot,
        table,
        f"Map of {quoted(drawn.model)} under {quoted(attack)} {where}: {summary}.",
        name=f"{drawn.model}, {attack} {where}",
        caption=f"{summary[0].upper()}{summary[1:]}, {counts['wrong']} were wrong before. {_variance(drawn)}",
    )


def _variance(drawn: EmbeddingMap) -> str:
    first, second = drawn.explained
    total = first + second
    low = ": too little to judge distances by" if total < 0.5 else ""
    parts = f"{text.percent(first)} across, {text.percent(second)} up"
    return f"The map holds {text.percent(total)} of the gallery's variance ({parts}){low}."


def _gallery(drawn: EmbeddingMap, names: tuple[str, ...]) -> tuple[list[Layer], list[Legend]]:
    present = sorted({place for _, _, place in drawn.gallery})
    if not present:
        return [], []
    if len(present) > _COLOURED:
        style = Style("muted")
        points = tuple(Point(x, y, text.shortened(names[place], SENTENCE_LENGTH)) for x, y, place in drawn.gallery)
        return [Dots("gallery", style, points, dust=True)], [Legend("gallery", "gallery", style, "dust")]
    layers: list[Layer] = []
    legend: list[Legend] = []
    for number, present_class in enumerate(present):
        style, key = Style(f"series-{number}"), f"class-{present_class}"
        note = text.shortened(names[present_class], SENTENCE_LENGTH)
        points = tuple(Point(x, y, note) for x, y, place in drawn.gallery if place == present_class)
        layers.append(Dots(key, style, points, dust=True))
        legend.append(Legend(key, names[present_class], style, "dust"))
    return layers, legend


def _axes(drawn: EmbeddingMap) -> tuple[Axis, Axis]:
    places = [
        *((x, y) for x, y, _ in drawn.gallery),
        *(place for path in drawn.paths for place in (path.clean, path.adversarial)),
    ]
    middles, reach = [], 0.0
    for values in zip(*places, strict=True):
        middles.append((min(values) + max(values)) / 2)
        reach = max(reach, max(values) - min(values))
    half = 0.54 * reach or 1.0
    x, y = (
        Axis(f"{order} principal component ({text.percent(share)})", middle - half, middle + half, (), True)
        for order, share, middle in zip(("first", "second"), drawn.explained, middles or (0.0, 0.0), strict=True)
    )
    return x, y


def _note(path: MapPath, names: tuple[str, ...], words: str) -> str:
    return f"query {path.query_id}, {text.shortened(names[path.class_index], SENTENCE_LENGTH)}\n{words}"


def _entries(path: MapPath, names: tuple[str, ...]) -> tuple[Entry, ...]:
    words = next(words for key, words, _ in _OUTCOMES if key == outcome(path))
    places = (*path.clean, *path.adversarial)
    return (
        Entry(names[path.class_index], name=True),
        Entry(words),
        *(Entry(f"{value:.3f}", number=value) for value in places),
    )
