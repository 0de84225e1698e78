"""What attacks cost against what they achieve: whether more effort would have found more."""

from __future__ import annotations

import math
from dataclasses import dataclass

from robustdml.results import Cell, ModelEntry, Score
from robustdml.threat import ThreatModel

from ... import text
from ...index import Index
from .attacked import judged
from .chart import (
    SENTENCE_LENGTH,
    Chart,
    Entry,
    Table,
    at,
    model_legend,
    panel,
    quoted,
    reading,
    scored,
)
from .plot import Axis, Curve, Dots, Layer, Plot, Point, Tick, model_style, share_axis


@dataclass(frozen=True)
class Spent:
    """One attack with numbers on one model.

    Args:
        model: the place of the model in the run.
        attack: the name of the attack.
        cell: what was measured.
        score: the score in it.
        images: images per query that a gradient went back through, or that went forward where none did.
        gradients: which of the two.
    """

    model: int
    attack: str
    cell: Cell
    score: Score
    images: float
    gradients: bool

    @property
    def recall(self) -> float:
        """The headline."""
        return self.score.value


def spending(index: Index, budget: ThreatModel) -> tuple[Spent, ...]:
    """Every attack with numbers at a budget, on every model."""
    return tuple(
        Spent(
            model=number,
            attack=index.attack_name(cell.attack),
            cell=cell,
            score=cell.score,
            images=(cell.gradient_images or cell.forward_images) / index.results.dataset.queries,
            gradients=cell.gradient_images > 0,
        )
        for number, model in enumerate(index.results.models)
        for cell in judged(index, model.name, budget)
        if cell.score
    )


def cost_chart(index: Index) -> Chart | None:
    """The headline over images per query on a logarithmic axis; none where no attack at the headline used the model."""
    if index.headline is None:
        return None
    where, models, title = at(index.headline), index.results.models, index.metric.title
    spent = spending(index, index.headline)
    drawn = tuple(item for item in spent if item.images)
    if not drawn:
        return None
    layers: list[Layer] = []
    for number in range(len(models)):
        own = tuple(item for item in drawn if item.model == number)
        if own:
            layers.append(Curve(str(number), model_style(number, dash=2), _frontier(own), marked=False))
        for gradients in (True, False):
            points = tuple(_point(models, item) for item in own if item.gradients == gradients)
            if points:
                layers.append(Dots(str(number), model_style(number, hollow=not gradients), points))
    plot = Plot(
        x=_axis([item.images for item in drawn]),
        y=share_axis(title),
        layers=tuple(layers),
        legend=model_legend(tuple(model.name for model in models), "dot"),
    )
    table = Table(
        f"What each attack {where} cost and achieved",
        ("Attack", "Model", "Gradient images per query", "Forward images per query", "Seconds", title),
        tuple((item.attack, _entries(index, models, item)) for item in spent),
    )
    idle = len(spent) - len(drawn)
    return Chart(
        "chart-cost",
        "Cost against strength",
        (
            f"{title} that each attack leaves {where}, over the images per query that it sent through the model: "
            "filled, with gradients; hollow, forward only, for attacks that use no gradients. The dotted line follows "
            "the strongest attack for each cost: where it still falls at its end, more effort may find more."
            + (f" {text.counted(idle, 'run')} that never asked the model stand in the table only." if idle else ""),
        ),
        (panel(plot, table, _alternative(title, models, drawn)),),
    )


def _point(models: tuple[ModelEntry, ...], item: Spent) -> Point:
    kind = "gradient" if item.gradients else "forward"
    attack = text.shortened(item.attack, SENTENCE_LENGTH)
    model = text.shortened(models[item.model].name, SENTENCE_LENGTH)
    note = f"{attack} on {model}\n{item.images:.4g} {kind} images per query\n{reading(item.score)}"
    return Point(math.log10(item.images), item.recall, note)


def _frontier(own: tuple[Spent, ...]) -> tuple[Point, ...]:
    """The corners of the lowest headline for a cost or less."""
    corners: list[Point] = []
    for item in sorted(own, key=lambda item: (item.images, item.recall)):
        place = math.log10(item.images)
        if not corners or item.recall < corners[-1].y:
            corners += [Point(place, corners[-1].y)] if corners else []
            corners.append(Point(place, item.recall))
    return tuple(corners)


def _axis(images: list[float]) -> Axis:
    low, high = math.log10(min(images)), math.log10(max(images))
    slack = max(0.05, 0.05 * (high - low))
    steps = (1,) if high - low > 2 else (1, 2, 5)
    ticks = tuple(
        Tick(math.log10(step * 10.0**power), f"{step * 10.0**power:,g}")
        for power in range(math.floor(low), math.ceil(high) + 1)
        for step in steps
        if low - slack <= math.log10(step * 10.0**power) <= high + slack
    )
    return Axis("images per query (logarithmic)", low - slack, high + slack, ticks)


def _entries(index: Index, models: tuple[ModelEntry, ...], item: Spent) -> tuple[Entry, ...]:
    queries = index.results.dataset.queries
    gradient, forward = item.cell.gradient_images / queries, item.cell.forward_images / queries
    return (
        Entry(models[item.model].name, name=True),
        Entry(f"{gradient:,.4g}", number=gradient),
        Entry(f"{forward:,.4g}", number=forward),
        Entry(f"{item.cell.seconds:.1f}", number=item.cell.seconds),
        scored(item.score),
    )


def _alternative(title: str, models: tuple[ModelEntry, ...], drawn: tuple[Spent, ...]) -> str:
    parts = []
    for number, model in enumerate(models):
        if own := [item for item in drawn if item.model == number]:
            best = min(own, key=lambda item: item.recall)
            parts.append(
                f"on {quoted(model.name)} the strongest attack is {quoted(best.attack)}, "
                f"{title} {text.fraction(best.recall)} for {best.images:.4g} images per query"
            )
    return f"{title} over images per query: {'; '.join(parts)}."
