"""Which attack broke which queries: whether attacks find the same weak queries or complement each other."""

from __future__ import annotations

from dataclasses import dataclass

from robustdml.results import ModelEntry
from robustdml.threat import ThreatModel

from ... import text
from ...index import Index
from .attacked import bits, judged
from .chart import Chart, Entry, Panel, Table, at, labels, panel, quoted
from .plot import Axis, Plot, Style, Tick, Tile, Tiles, row_axis

#: Attacks in the heat map; the table has all.
LIMIT = 20
#: Tiles beyond this many in a row are too small for a number.
_LABELLED = 12


@dataclass(frozen=True)
class Broken:
    """An attack, how many of the queries that are right when clean it breaks, and how many no other attack breaks.

    ``shared`` has, for each attack in the same order, how many queries both break.
    """

    name: str
    queries: int
    alone: int
    shared: tuple[int, ...]


def broken_queries(index: Index, model: ModelEntry, budget: ThreatModel) -> tuple[Broken, ...]:
    """The attacks with numbers at a budget, the strongest first."""
    count = len(index.results.queries.ids)
    clean = bits(model.clean_hits, count)
    sets = [
        (index.attack_name(cell.attack), clean & ~bits(cell.hits, count))
        for cell in judged(index, model.name, budget)
        if cell.hits is not None
    ]
    sets.sort(key=lambda item: -item[1].bit_count())
    once, twice = 0, 0
    for _, queries in sets:
        twice |= once & queries
        once |= queries
    return tuple(
        Broken(
            name,
            queries.bit_count(),
            (queries & ~twice).bit_count(),
            tuple((queries & other).bit_count() for _, other in sets),
        )
        for name, queries in sets
    )


def overlap_chart(index: Index) -> Chart | None:
    """A panel for each model that met two attacks or more at the headline; none where no model did."""
    budget = index.headline
    if budget is None:
        return None
    found = [(model, broken_queries(index, model, budget)) for model in index.results.models]
    panels = tuple(_panel(index, model, attacks) for model, attacks in found if len(attacks) > 1)
    if not panels:
        return None
    return Chart(
        "chart-overlap",
        "Which attack broke which queries",
        (
            f"Queries that are right when clean and wrong under an attack {at(budget)}, the strongest attack "
            "first; in brackets, how many it breaks. A cell says how much of what the attack of its row breaks the "
            "attack of its column breaks too, in per cent. A dark column is an attack that finds what the others find.",
        ),
        panels,
    )


def _panel(index: Index, model: ModelEntry, attacks: tuple[Broken, ...]) -> Panel:
    shown = attacks[:LIMIT]
    size = len(shown)
    cells = tuple(
        _cell(across, down, shown, labelled=size <= _LABELLED)
        for down, row in enumerate(shown)
        for across in range(size)
        if row.queries
    )
    plot = Plot(
        x=Axis(
            "number of the attack", -0.5, size - 0.5, tuple(Tick(place, str(place + 1)) for place in range(size)), False
        ),
        y=row_axis(tuple(_label(number, row) for number, row in enumerate(shown, 1))),
        layers=(Tiles("cells", Style("series-0"), cells),),
        legend=(),
        height=24 * size + 68,
    )
    right = bits(model.clean_hits, len(index.results.queries.ids)).bit_count()
    table = Table(
        f"Of {text.counted(right, 'query', 'queries')} that are right when clean: how many each attack breaks, how "
        "many only it breaks, and how many it and the attack of a number both break",
        ("Attack", "No.", "Breaks", "Share", "Only it", *(str(number) for number in range(1, len(attacks) + 1))),
        tuple(
            (
                row.name,
                (
                    Entry(str(number)),
                    Entry(str(row.queries)),
                    Entry(text.fraction(row.queries / right if right else None)),
                    Entry(str(row.alone)),
                    *(Entry(str(shared)) for shared in row.shared),
                ),
            )
            for number, row in enumerate(attacks, 1)
        ),
    )
    sentence = "; ".join(
        f"{quoted(row.name)} breaks {row.queries} of {right}, {row.alone} of them alone" for row in shown[:5]
    )
    left_out = len(attacks) - size
    caption = (
        f"The {size} strongest of {len(attacks)} attacks; the table has the other {left_out}. " if left_out else ""
    )
    needed = [row for row in attacks if row.alone]
    if needed:
        most = max(needed, key=lambda row: row.alone)
        caption += f"{quoted(most.name)} breaks the most queries that no other attack breaks: {most.alone}."
    elif any(row.queries for row in attacks):
        caption += "Every broken query is broken by more than one attack."
    else:
        caption += "No attack breaks a query."
    return panel(plot, table, f"{quoted(model.name)}: {sentence}.", name=model.name, caption=caption)


def _label(number: int, row: Broken) -> tuple[str, str, str]:
    long, short, whole = labels(row.name)
    return f"{number} {long} ({row.queries})", f"{number} {short}", whole


def _cell(across: int, down: int, shown: tuple[Broken, ...], *, labelled: bool) -> Tile:
    row, column = shown[down], shown[across]
    both = row.shared[across]
    share = both / row.queries
    return Tile(
        across,
        down,
        share,
        f"{100 * share:.0f}" if labelled else "",
        f"of {row.queries} that {labels(row.name)[0]} breaks\n{labels(column.name)[0]} breaks {both}",
    )
