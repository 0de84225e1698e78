"""The headline of each model under each attack at one budget, where that over eps cannot be drawn."""

from __future__ import annotations

from collections.abc import Iterable

from robustdml.results import Score
from robustdml.threat import ThreatModel

from ... import text
from ...index import Index
from .attacked import strongest
from .chart import (
    Chart,
    Table,
    at,
    labels,
    model_legend,
    panel,
    quoted,
    reading,
    scored,
    spread,
)
from .over_eps import has_steps
from .plot import (
    Bars,
    Dots,
    Guide,
    Layer,
    Plot,
    Point,
    model_style,
    row_axis,
    share_axis,
)

#: Attacks in the chart; the table has all.
LIMIT = 25
#: More models than these are dots on one line: bars for each would make a chart of many screens.
_MODELS_AS_BARS = 4
_ROW = 26
_ROWS_IN_WORDS = 5


def under_attacks_chart(index: Index) -> Chart | None:
    """The headline under the attacks; none where it over eps is drawn instead."""
    return None if has_steps(index) else attacks_chart(index)


def attacks_chart(index: Index) -> Chart:
    """The headline clean, in the worst case and under the attacks, at the budget that summaries quote."""
    budget, models, title = index.headline, index.results.models, index.metric.title
    attacks = () if budget is None else strongest(index, budget)
    measured = tuple(attack for attack in attacks if _has_number(index, attack))
    rows = _rows(index, budget, measured[:LIMIT])
    bars = len(models) <= _MODELS_AS_BARS
    thickness = 0.8 / len(models)
    layers: list[Layer] = []
    for number, _ in enumerate(models):
        shift = thickness * (number - (len(models) - 1) / 2) if bars else 0.0
        points = tuple(
            Point(score.value, row + shift, f"{name}\n{reading(score)}", spread(score) if bars else None)
            for row, (name, scores) in enumerate(rows)
            if (score := scores[number]) is not None
        )
        key, style = str(number), model_style(number)
        layers.append(Bars(key, style, points, 0.9 * thickness) if bars else Dots(key, style, points))
    chance = index.results.dataset.chance
    height = max(_ROW, 12 + 15 * len(models) if bars else 0)
    plot = Plot(
        x=share_axis(title),
        y=row_axis(tuple(labels(name) for name, _ in rows)),
        layers=tuple(layers),
        legend=model_legend(tuple(model.name for model in models), "bar" if bars else "dot"),
        height=height * len(rows) + 72,
        guide=Guide("chance", (chance, -0.5), (chance, len(rows) - 0.5)),
    )
    table = Table(
        f"{title} with its 95 % interval",
        ("Attack", *(model.name for model in models)),
        tuple((name, tuple(map(scored, scores))) for name, scores in _rows(index, budget, attacks)),
    )
    name = f"{title} under each attack" if measured else f"Clean {title}"
    return Chart(
        "chart-attacks",
        name,
        _caption(index, len(measured), bars),
        (panel(plot, table, _alternative(name, tuple(model.name for model in models), rows)),),
    )


def _has_number(index: Index, attack: str) -> bool:
    at = index.headline
    cells = (index.cells.get((model.name, attack, at)) for model in index.results.models if at)
    return any(cell and cell.score for cell in cells)


def _rows(
    index: Index, budget: ThreatModel | None, attacks: Iterable[str]
) -> tuple[tuple[str, tuple[Score | None, ...]], ...]:
    """What each row is called, and its score for each model."""
    models = index.results.models
    rows: list[tuple[str, tuple[Score | None, ...]]] = [("clean", tuple(model.clean for model in models))]
    if budget is None:
        return tuple(rows)
    worst = [index.worst.get((model.name, budget)) for model in models]
    if any(worst):
        rows.append(("worst case", tuple(found.score if found else None for found in worst)))
    for attack in attacks:
        cells = [index.cells.get((model.name, attack, budget)) for model in models]
        rows.append((index.attack_name(attack), tuple(cell.score if cell else None for cell in cells)))
    return tuple(rows)


def _caption(index: Index, attacks: int, bars: bool) -> tuple[str, ...]:
    title = index.metric.title
    if index.headline is None or not attacks:
        what = f"Clean {title} of each model."
    else:
        what = f"{title} of each model, clean and under each attack {at(index.headline)}, the strongest first."
    left_out = f"The {attacks - LIMIT} weaker attacks stand in the table only. " if attacks > LIMIT else ""
    chance = f"The dashed line is chance ({text.fraction(index.results.dataset.chance)})."
    return (f"{what} {'Whiskers are 95 % intervals. ' if bars else ''}{left_out}{chance}",)


def _alternative(title: str, models: tuple[str, ...], rows: tuple[tuple[str, tuple[Score | None, ...]], ...]) -> str:
    parts = [
        f"{quoted(name)}: " + ", ".join(text.fraction(score.value if score else None) for score in scores)
        for name, scores in rows[:_ROWS_IN_WORDS]
    ]
    return f"{title}, for {', '.join(map(quoted, models))}. {'; '.join(parts)}."
