"""Certified R@1 of smoothed models over the L2 length of a change, beside what attacks left of the bare ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

from robustdml.results import Certified, ModelEntry

from ... import text
from ...index import Index
from .chart import Chart, Entry, Panel, Table, model_legend, panel, quoted
from .plot import Axis, Curve, Dots, Layer, Plot, Point, Tick, model_style, share_axis

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_TICKS = 8
#: Places at which a curve is drawn.
_PLACES = 40

_KINDS = {"vote": "smoothed, by vote", "embedding": "smoothed, by mean embedding"}
_BARE = "bare, under attack"


def certified_chart(index: Index) -> Chart | None:
    """One panel per strength of the noise; none where nothing was certified."""
    certified = index.results.certified
    sigmas = list(dict.fromkeys((found.sigma, found.samples, found.confidence) for found in certified))
    if not sigmas:
        return None
    panels = tuple(
        _panel(
            index,
            [found for found in certified if (found.sigma, found.samples, found.confidence) == noise],
            name=_noise(noise, len({sigma for sigma, _, _ in sigmas}) < len(sigmas)) if len(sigmas) > 1 else "",
        )
        for noise in sigmas
    )
    return Chart("chart-certified", "Certified R@1 of the smoothed model", _caption(index, certified), panels)


def _noise(noise: tuple[float, int, float], full: bool) -> str:
    sigma, samples, confidence = noise
    more = f", {text.count(samples)} copies, confidence {confidence:g}" if full else ""
    return f"Noise of sigma {sigma:g}{more}"


def _caption(index: Index, certified: Sequence[Certified]) -> tuple[str, ...]:
    first = certified[0]
    copies = " or ".join(map(text.count, sorted({found.samples for found in certified})))
    confidences = " or ".join(f"{100 * held:g}" for held in sorted({found.confidence for found in certified}))
    values = 3 * math.prod(index.results.image_sides)
    grey = 255 * first.sigma / math.sqrt(values)
    return (
        "An attack shows that a query can be broken; a certificate proves that it cannot: within that L2 length, no "
        "change of the image at all, by whatever attack, makes the first hit wrong. That is said of the smoothed "
        "model, which answers from many copies of the image with Gaussian noise on them, and not of the bare model, "
        "which all other numbers on this page are about.",
        f"Solid: the first hits of {copies} copies vote, and the majority counts. Dashed: the mean "
        f"embedding of the copies is searched. Each query's certificate holds with a probability of "
        f"{confidences}\N{NO-BREAK SPACE}%. Hollow markers: worst-case R@1 of the bare model under the L2 "
        "attacks of this run, from above, where certificates are from below.",
        f"An L2 length of {first.sigma:g}, spread evenly, changes each of the {text.count(values)} values of an image "
        f"by {grey:.2g} grey levels of 255.",
    )


def _panel(index: Index, own: Sequence[Certified], *, name: str) -> Panel:
    models = index.results.models
    attacked = [_attacked(index, model) for model in models]
    farthest = max([own[0].sigma, *(max(found.radii) for found in own), *(eps for run in attacked for eps, _ in run)])
    ticks, end = _ticks(farthest)
    layers: list[Layer] = []
    for number, model in enumerate(models):
        for found in own:
            if found.model == model.name:
                layers.append(_curve(number, found, end))
        points = tuple(
            Point(eps, value, f"L2 {eps:g}\n{text.fraction(value)}, bare") for eps, value in attacked[number]
        )
        if len(points) > 1:
            layers.append(Dots(str(number), model_style(number, hollow=True), points))
    plot = Plot(
        x=Axis("L2 length of the change, in pixels of [0, 1]", -0.01 * end, end, ticks, False),
        y=share_axis("R@1"),
        layers=tuple(layers),
        legend=model_legend(tuple(model.name for model in models), dash=0),
    )
    radii = sorted(
        {own[0].sigma, *(tick.place for tick in ticks), *(eps for run in attacked for eps, _ in run)} - {0.0}
    )
    return panel(plot, _table(models, own, attacked, radii), _alternative(models, own), name=name)


def _attacked(index: Index, model: ModelEntry) -> list[tuple[float, float]]:
    """R@1 of the bare model, clean and at the L2 budgets of the run."""
    found = [
        (budget.eps or 0.0, worst.score.metrics.recall_at_1)
        for (name, budget), worst in index.worst.items()
        if name == model.name and budget.norm == "l2"
    ]
    return [(0.0, model.clean.metrics.recall_at_1), *sorted(found)]


def _curve(number: int, found: Certified, end: float) -> Curve:
    style = model_style(number, dash=0 if found.certificate == "vote" else 1)
    first = Point(0.0, found.recall_at_1, f"no change\n{text.fraction(found.recall_at_1)}, {_KINDS[found.certificate]}")
    rest = (end * place / _PLACES for place in range(1, _PLACES + 1))
    points = tuple(
        Point(radius, value, f"L2 {radius:.3g}\n{text.fraction(value)}, {_KINDS[found.certificate]}")
        for radius, value in ((radius, found.recall(radius)) for radius in (1e-9, *rest))
    )
    return Curve(str(number), style, (first, *points), marked=False)


def _ticks(farthest: float) -> tuple[tuple[Tick, ...], float]:
    unit = 10 ** math.floor(math.log10(farthest / _TICKS))
    step = next(size * unit for size in _STEPS if farthest / (size * unit) <= _TICKS)
    places = [round(step * place, 12) for place in range(math.ceil(farthest / step) + 1)]
    return tuple(Tick(place, f"{place:g}") for place in places), 1.02 * places[-1]


def _table(
    models: Sequence[ModelEntry],
    own: Sequence[Certified],
    attacked: list[list[tuple[float, float]]],
    radii: list[float],
) -> Table:
    rows: list[tuple[str, tuple[Entry, ...]]] = []
    for model, run in zip(models, attacked, strict=True):
        for found in own:
            if found.model == model.name:
                values = [found.recall_at_1, *map(found.recall, radii)]
                rows.append(
                    (model.name, (Entry(_KINDS[found.certificate]), *(Entry(text.fraction(v)) for v in values)))
                )
        bare = dict(run)
        shown = (Entry(text.fraction(bare.get(radius))) for radius in (0.0, *radii))
        rows.append((model.name, (Entry(_BARE), *shown)))
    heads = ("Model", "R@1", "no change", *(f"L2 {radius:g}" for radius in radii))
    return Table("R@1: certified of the smoothed model, and measured of the bare one", heads, tuple(rows))


def _alternative(models: Sequence[ModelEntry], own: Sequence[Certified]) -> str:
    sigma = own[0].sigma
    parts = [
        f"{quoted(model.name)}, {_KINDS[found.certificate]}: {text.fraction(found.recall_at_1)} without a change, "
        f"certified {text.fraction(found.recall(sigma))} at L2 {sigma:g}"
        for model in models
        for found in own
        if found.model == model.name
    ]
    return f"Certified R@1 over the L2 length of a change. {'; '.join(parts)}."
