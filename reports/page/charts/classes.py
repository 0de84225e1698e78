"""The headline of each class, clean and in the worst case: what an attacker breaks first."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from robustdml.results import ModelEntry, WorstCase, unpack_hits

from ... import text
from ...index import Index
from .chart import (
    SENTENCE_LENGTH,
    Chart,
    Entry,
    Panel,
    Table,
    at,
    labels,
    panel,
    quoted,
)
from .class_spread import class_spread
from .plot import (
    Dots,
    Layer,
    Legend,
    Links,
    Plot,
    Point,
    Style,
    model_style,
    row_axis,
    share_axis,
)

#: Classes in the chart; the table has more.
LIMIT = 25
#: Classes in a table: a data set may have ten thousand, and the page must stay small.
TABLE_LIMIT = 500


@dataclass(frozen=True)
class ClassRecall:
    """Queries of a class, and how many of them are right; ``worst`` is None without a worst case."""

    name: str
    queries: int
    clean: int
    worst: int | None

    @property
    def loss(self) -> float:
        """The share of the queries that are right clean and not in the worst case, net; what is wrong, without one."""
        return (self.queries - self.clean if self.worst is None else self.clean - self.worst) / self.queries


def class_recalls(index: Index, model: ModelEntry, worst: WorstCase | None) -> tuple[ClassRecall, ...]:
    """Every class that has queries, that of the largest loss first."""
    queries = index.results.queries
    count = len(queries.ids)
    totals = Counter(queries.classes)

    def right(hits: str) -> Counter[int]:
        return Counter(place for place, hit in zip(queries.classes, unpack_hits(hits, count), strict=True) if hit)

    clean, attacked = right(model.clean_hits), right(worst.hits) if worst else None
    found = (
        ClassRecall(queries.class_names[place], total, clean[place], attacked[place] if attacked is not None else None)
        for place, total in sorted(totals.items())
    )
    return tuple(sorted(found, key=lambda row: -row.loss))


def classes_chart(index: Index) -> Chart:
    """A panel for each model."""
    attacked = index.headline is not None and any(
        (model.name, index.headline) in index.worst for model in index.results.models
    )
    reach = f" and in the worst case {at(index.headline)}" if index.headline and attacked else ""
    order = "the largest loss first" if attacked else "the lowest first"
    count, title = len(set(index.results.queries.classes)), index.metric.title
    shown = f" Of {count} classes the first {LIMIT} are drawn; the table goes on." if count > LIMIT else ""
    return Chart(
        "chart-classes",
        f"{title} of each class",
        (
            f"{title} of the queries of each class, clean{reach}, {order}.{shown} "
            "A class of few queries moves in large steps.",
        ),
        tuple(_panel(index, number, model) for number, model in enumerate(index.results.models)),
    )


def _panel(index: Index, number: int, model: ModelEntry) -> Panel:
    worst = index.worst.get((model.name, index.headline)) if index.headline else None
    rows = class_recalls(index, model, worst)
    shown = rows[:LIMIT]
    clean = tuple(Point(row.clean / row.queries, place, _note(row)) for place, row in enumerate(shown))
    attacked = tuple(
        Point(row.worst / row.queries, place, _note(row)) for place, row in enumerate(shown) if row.worst is not None
    )
    faint, full = model_style(number, hollow=True), model_style(number)
    layers: list[Layer] = []
    legend = [Legend("clean", "clean", faint, "dot")]
    if attacked:
        layers += [Links("loss", Style("muted"), tuple(zip(clean, attacked, strict=True)))]
        legend += [Legend("worst", "worst case", full, "dot")]
    layers += (
        [Dots("clean", faint, clean), Dots("worst", full, attacked)] if attacked else [Dots("clean", faint, clean)]
    )
    plot = Plot(
        x=share_axis(index.metric.title),
        y=row_axis(tuple(labels(row.name) for row in shown)),
        layers=tuple(layers),
        legend=tuple(legend),
        height=22 * len(shown) + 72,
    )
    first = rows[0]
    alternative = f"{quoted(model.name)}, by class: " + "; ".join(
        f"{quoted(row.name)} clean {_share(row.clean, row)}"
        + (f", worst case {_share(row.worst, row)}" if worst else "")
        for row in shown[:5]
    )
    caption = _spread("clean", index, model.clean_hits)
    if worst:
        caption += " " + _spread("in the worst case", index, worst.hits)
    if worst and first.loss > 0:
        caption += (
            f" Most is lost in {quoted(first.name)}: from {_share(first.clean, first)} to {_share(first.worst, first)}."
        )
    return panel(plot, _table(index.metric.title, rows), f"{alternative}.", name=model.name, caption=caption)


def _spread(when: str, index: Index, hits: str) -> str:
    spread = class_spread(index, [hits])
    return (
        f"The worst class {when} is {quoted(spread.name)} with {text.fraction(spread.worst)}, the worst tenth of the "
        f"classes has {text.fraction(spread.worst_tenth)}."
    )


def _table(title: str, rows: tuple[ClassRecall, ...]) -> Table:
    left_out = (
        f"; {text.counted(len(rows) - TABLE_LIMIT, 'class', 'classes')} of less loss not listed"
        if len(rows) > TABLE_LIMIT
        else ""
    )
    return Table(
        f"{title} of each class{left_out}",
        ("Class", "Queries", "Clean", "Worst case", "Loss"),
        tuple(
            (
                row.name,
                (
                    Entry(str(row.queries)),
                    Entry(_share(row.clean, row)),
                    Entry(_share(row.worst, row)),
                    Entry(
                        text.ABSENT if row.worst is None else text.fraction(row.loss),
                        number=None if row.worst is None else row.loss,
                    ),
                ),
            )
            for row in rows[:TABLE_LIMIT]
        ),
    )


def _share(right: int | None, row: ClassRecall) -> str:
    return text.fraction(None if right is None else right / row.queries)


def _note(row: ClassRecall) -> str:
    after = "" if row.worst is None else f", worst case {_share(row.worst, row)}"
    size = text.counted(row.queries, "query", "queries")
    return f"{text.shortened(row.name, SENTENCE_LENGTH)}\n{size}\nclean {_share(row.clean, row)}{after}"
