"""The headline of each model over eps: how fast robustness falls with the size of the perturbation."""

from __future__ import annotations

from robustdml.results import ModelEntry, Score

from ... import text
from ...index import Index
from .chart import (
    Chart,
    Entry,
    Table,
    model_legend,
    panel,
    quoted,
    reading,
    scored,
    spread,
)
from .plot import Axis, Curve, Guide, Plot, Point, Tick, model_style, share_axis


def over_eps_chart(index: Index) -> Chart | None:
    """The worst-case headline over the L-infinity budgets; none where fewer than two have numbers."""
    if not has_steps(index):
        return None
    models = index.results.models
    runs = [_run(index, model) for model in models]
    chance, title = index.results.dataset.chance, index.metric.title
    places = [(0.0, "0"), *((budget.eps or 0.0, f"{255 * (budget.eps or 0.0):.3g}") for budget in index.linf)]
    end = 1.03 * places[-1][0]
    plot = Plot(
        x=Axis("eps in grey levels (of 255)", 0.0, end, tuple(Tick(eps, written) for eps, written in places), False),
        y=share_axis(title),
        layers=tuple(_curve(number, run) for number, run in enumerate(runs)),
        legend=model_legend(tuple(model.name for model in models)),
        guide=Guide("chance", (0.0, chance), (end, chance)),
    )
    labels = ["0 (clean)", *(budget.text for budget in index.linf)]
    table = Table(
        f"Worst-case {title} with its 95 % interval",
        ("eps", *(model.name for model in models)),
        tuple((label, tuple(_at(run, eps) for run in runs)) for label, (eps, _) in zip(labels, places, strict=True)),
    )
    return Chart(
        "chart-eps",
        f"{title} over eps",
        (
            f"Worst-case {title} of each model; eps 0 is clean. Bands are 95 % intervals. "
            f"The dashed line is chance ({text.fraction(chance)}).",
        ),
        (panel(plot, table, _alternative(title, models, runs, labels)),),
    )


def has_steps(index: Index) -> bool:
    """Whether two L-infinity budgets or more have a worst case."""
    return len({budget for _, budget in index.worst if budget.norm == "linf"}) > 1


def _run(index: Index, model: ModelEntry) -> tuple[tuple[float, str, Score], ...]:
    found = [(budget, index.worst.get((model.name, budget))) for budget in index.linf]
    attacked = [(budget.eps or 0.0, budget.text, worst.score) for budget, worst in found if worst]
    return ((0.0, "0 (clean)", model.clean), *attacked)


def _curve(number: int, run: tuple[tuple[float, str, Score], ...]) -> Curve:
    points = tuple(
        Point(eps, score.value, f"eps {label}\n{reading(score)}", y_interval=spread(score)) for eps, label, score in run
    )
    return Curve(str(number), model_style(number), points, band=True)


def _at(run: tuple[tuple[float, str, Score], ...], eps: float) -> Entry:
    return scored(next((score for place, _, score in run if place == eps), None))


def _alternative(
    title: str, models: tuple[ModelEntry, ...], runs: list[tuple[tuple[float, str, Score], ...]], labels: list[str]
) -> str:
    falls = "; ".join(
        f"{quoted(model.name)}: {', '.join(text.fraction(score.value) for _, _, score in run)}"
        for model, run in zip(models, runs, strict=True)
    )
    return f"Worst-case {title} at eps {', '.join(labels)}. {falls}."
