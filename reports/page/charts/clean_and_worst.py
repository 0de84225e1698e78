"""Clean against worst-case headline of all models: whether robustness was bought with accuracy."""

from __future__ import annotations

from ... import text
from ...index import Index
from .chart import (
    Chart,
    Entry,
    Table,
    at,
    model_legend,
    panel,
    quoted,
    reading,
    scored,
    spread,
)
from .plot import Dots, Guide, Plot, Point, model_style, share_axis


def clean_and_worst_chart(index: Index) -> Chart | None:
    """A dot per model; none where fewer than two models have a worst case at the headline."""
    if index.headline is None:
        return None
    where, title = at(index.headline), index.metric.title
    models = index.results.models
    found = [
        (number, model, worst)
        for number, model in enumerate(models)
        if (worst := index.worst.get((model.name, index.headline)))
    ]
    if len(found) < 2:
        return None
    layers = tuple(
        Dots(
            str(number),
            model_style(number),
            (
                Point(
                    model.clean.value,
                    worst.score.value,
                    f"{model.name}\nclean: {reading(model.clean)}\nworst case: {reading(worst.score)}",
                    spread(model.clean),
                    spread(worst.score),
                ),
            ),
        )
        for number, model, worst in found
    )
    legend = model_legend(tuple(model.name for model in models), "dot")
    plot = Plot(
        x=share_axis(f"clean {title}"),
        y=share_axis(f"worst-case {title} {where}"),
        layers=layers,
        legend=tuple(legend[number] for number, _, _ in found),
        height=520,
        guide=Guide("no loss under attack", (0.0, 0.0), (1.0, 1.0)),
        square=True,
    )
    table = Table(
        f"{title} clean and in the worst case {where}, with 95 % intervals",
        ("Model", "Clean", "Worst case", "Relative recall"),
        tuple(
            (model.name, (scored(model.clean), scored(worst.score), Entry(text.fraction(worst.relative_recall))))
            for _, model, worst in found
        ),
    )
    alternative = "; ".join(
        f"{quoted(model.name)}: clean {text.fraction(model.clean.value)}, worst case {text.fraction(worst.score.value)}"
        for _, model, worst in found
    )
    return Chart(
        "chart-tradeoff",
        f"Clean against worst-case {title}",
        (
            f"Each dot is a model: to the right it is better on clean queries, upwards it is more robust {where}. "
            "On the dashed line nothing is lost under attack. Whiskers are 95 % intervals.",
        ),
        (panel(plot, table, f"{alternative}."),),
    )
