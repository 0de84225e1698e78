"""The headline under changes that no attacker made, and how unevenly the classes bear them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from robustdml.results import ModelEntry, NaturalChange

from ... import text
from ...index import Index
from .chart import Chart, Entry, Panel, Table, labels, model_legend, panel, quoted
from .class_spread import ClassSpread, class_spread
from .plot import Axis, Curve, Layer, Plot, Point, Style, Tick, Tile, Tiles, model_style, row_axis, share_axis

_GEOMETRY = "geometry"


def natural_chart(index: Index) -> Chart | None:
    """All models in one panel, then one each; none where nothing was measured."""
    found = [
        (model, [own for own in index.results.natural if own.model == model.name]) for model in index.results.models
    ]
    measured = [(model, own) for model, own in found if own]
    if not measured:
        return None
    title = index.metric.title
    return Chart(
        "chart-natural",
        f"{title} under natural change",
        (
            "What cameras, weather, file formats and framing do, and nobody on purpose: the 15 common corruptions of "
            "Hendrycks and Dietterich (2019) in five severities, and simple geometry. Queries are changed, the gallery "
            "is not. The changes are made anew for the size of the images, so that numbers are comparable among the "
            "models here and not with published ones.",
        ),
        (_overview(index, measured), *(_panel(index, model, own) for model, own in measured)),
    )


def _overview(index: Index, measured: Sequence[tuple[ModelEntry, list[NaturalChange]]]) -> Panel:
    title, layers = index.metric.title, list[Layer]()
    # Numbered among all models, as in every other chart: colours stay those of their models.
    places = {model.name: number for number, model in enumerate(index.results.models)}
    for model, own in measured:
        number = places[model.name]
        for geometry in (False, True):
            means = _by_severity(own, geometry=geometry)
            kind = "geometry" if geometry else "corruptions"
            points = [Point(0.0, model.clean.value, f"clean\n{text.fraction(model.clean.value)}")]
            points += [
                Point(float(severity), value, f"{kind}, severity {severity}\n{text.fraction(value)}")
                for severity, value in means.items()
            ]
            layers.append(Curve(str(number), model_style(number, dash=int(geometry), hollow=geometry), tuple(points)))
    plot = Plot(
        x=Axis("severity (0: clean)", -0.1, 5.1, tuple(Tick(float(place), str(place)) for place in range(6)), False),
        y=share_axis(title),
        layers=tuple(layers),
        legend=model_legend(tuple(model.name for model in index.results.models), dash=0),
    )
    table = Table(
        f"{title} of each model: the mean over all corruptions and severities, and what lies below it",
        ("Model", "Images", "mean", "worst change", "", "worst tenth of the classes", "worst class", ""),
        tuple(row for model, own in measured for row in _rows(index, model, own)),
    )
    sentence = "; ".join(
        f"{quoted(model.name)}: {text.fraction(model.clean.value)} clean, {text.fraction(_mean(own, geometry=False))} "
        f"under corruptions, {text.fraction(_mean(own, geometry=True))} under geometry"
        for model, own in measured
    )
    caption = "Solid: mean of the 15 corruptions. Dashed, hollow: mean of rotation, shift, scale and crop."
    return panel(plot, table, f"{title} over the severity. {sentence}.", name="All models", caption=caption)


def _rows(index: Index, model: ModelEntry, own: list[NaturalChange]) -> list[tuple[str, tuple[Entry, ...]]]:
    def row(kind: str, value: float, worst: NaturalChange | None, spread: ClassSpread) -> tuple[str, tuple[Entry, ...]]:
        return model.name, (
            Entry(kind),
            Entry(text.fraction(value)),
            Entry(text.fraction(worst.value if worst else None)),
            Entry(f"{worst.title}, severity {worst.severity}" if worst else text.ABSENT),
            Entry(text.fraction(spread.worst_tenth)),
            Entry(text.fraction(spread.worst)),
            Entry(spread.name, name=True),
        )

    rows = [row("clean", model.clean.value, None, class_spread(index, [model.clean_hits]))]
    for kind, geometry in (("corrupted", False), ("moved, turned, cropped or flipped", True)):
        part = [change for change in own if (change.family == _GEOMETRY) == geometry]
        if part:
            hardest = min(part, key=lambda change: change.value)
            spread = class_spread(index, [change.hits for change in part])
            rows.append(row(kind, mean(change.value for change in part), hardest, spread))
    worst = index.worst.get((model.name, index.headline)) if index.headline else None
    if worst and index.headline:
        spread = class_spread(index, [worst.hits])
        rows.append(row(f"attacked, {index.headline.text}", worst.score.value, None, spread))
    return rows


def _mean(own: list[NaturalChange], *, geometry: bool) -> float | None:
    part = [change.value for change in own if (change.family == _GEOMETRY) == geometry]
    return mean(part) if part else None


def _by_severity(own: list[NaturalChange], *, geometry: bool) -> dict[int, float]:
    """The mean of each severity over the changes that have all five."""
    part = [change for change in own if (change.family == _GEOMETRY) == geometry]
    full = {change.name for change in part if change.severity == 5}
    severities = sorted({change.severity for change in part if change.name in full})
    return {
        at: mean(change.value for change in part if change.severity == at and change.name in full) for at in severities
    }


def _panel(index: Index, model: ModelEntry, own: list[NaturalChange]) -> Panel:
    names = list(dict.fromkeys(change.name for change in own))
    titles = {change.name: change.title for change in own}
    values = {(change.name, change.severity): change for change in own}
    most = max(change.severity for change in own)
    cells = tuple(
        Tile(
            change.severity - 1,
            names.index(change.name),
            change.value,
            f"{100 * change.value:.0f}",
            f"{change.title}, severity {change.severity}\n{text.fraction(change.value)} "
            f"({change.low:.3f}\N{EN DASH}{change.high:.3f})",
        )
        for change in own
    )
    severities = range(1, most + 1)
    plot = Plot(
        x=Axis("severity", -0.5, most - 0.5, tuple(Tick(at - 1.0, str(at)) for at in severities), False),
        y=row_axis(tuple(labels(titles[name]) for name in names)),
        layers=(Tiles("cells", Style("series-0"), cells),),
        legend=(),
        height=24 * len(names) + 68,
    )
    rows = []
    for name in names:
        row = [values[name, at] for at in severities if (name, at) in values]
        shown = [values.get((name, at)) for at in severities]
        entries = [Entry(text.fraction(change.value if change else None)) for change in shown]
        rows.append((titles[name], (*entries, Entry(text.fraction(mean(change.value for change in row))))))
    title = index.metric.title
    table = Table(
        f"{title} of {quoted(model.name)} under each change",
        ("Change", *(f"severity {at}" for at in severities), "mean"),
        tuple(rows),
    )
    hardest = sorted(rows, key=lambda row: row[1][-1].text)[:5]
    sentence = "; ".join(f"{name} {entries[-1].text}" for name, entries in hardest)
    return panel(
        plot, table, f"{quoted(model.name)}, mean {title}, the hardest changes first: {sentence}.", name=model.name,
        caption=f"{title} in per cent; clean {text.fraction(model.clean.value)}.",
    )  # fmt: skip
