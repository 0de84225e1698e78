"""A table of attacks by models at one budget: the headline, and whether the models differ on the same queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from robustdml.results import AttackEntry, Cell, Score
from robustdml.threat import NORMS, ThreatModel

from .. import text
from ..index import ANY_SIZE, Index
from ..statistics import Paired, compare_all
from .method import KNOWLEDGE

#: Tables of more rows scroll within themselves, so that their heads stay in sight.
_TALL = 16


@dataclass(frozen=True)
class Reading:
    """The headline of one model in one row of a table.

    Args:
        text: the number as it is shown, or a word for why there is none.
        number: the number as it was measured, by which rows are sorted; None where there is none.
        note: its interval, or how large the perturbations had to be.
        best: whether it is the highest of its row, of at least two.
        difference: from the highest of the row; empty where it is that, or there is nothing to compare.
        p_value: of that difference; empty likewise.
        significant: whether the test separates it from the highest.
        lowest: whether no attack of the table leaves this model less.
        missing: why there is no number, where an attack failed or was skipped.
    """

    text: str
    number: float | None = None
    note: str = ""
    best: bool = False
    difference: str = ""
    p_value: str = ""
    significant: bool = False
    lowest: bool = False
    missing: str | None = None


@dataclass(frozen=True)
class Facets:
    """By which attacks can be filtered; ``side`` says which images an attack changes."""

    goal: str
    knowledge: str
    norm: str
    library: str
    side: str


@dataclass(frozen=True)
class Row:
    """One attack in a table, or what is no attack (clean, worst case), without facets and key.

    Args:
        meaning: the spec of the attack, or what the row means.
        key: the place of the attack in the list of attacks.
    """

    name: str
    meaning: str
    readings: tuple[Reading, ...]
    key: int | None = None
    facets: Facets | None = None


@dataclass(frozen=True)
class Head:
    """A model at the head of a column."""

    model: str
    collapsed: bool


@dataclass(frozen=True)
class BudgetTable:
    """The headline of every model, clean and under every attack, at one budget.

    Args:
        eps: the budget as it is written; None where nothing was attacked.
        sized: whether it is a budget; attacks of any size are not compared with each other.
        fixed: the rows that stay on top: clean, worst case.
        rows: the attacks.
    """

    eps: str | None
    sized: bool
    heads: tuple[Head, ...]
    fixed: tuple[Row, ...]
    rows: tuple[Row, ...]

    @property
    def tall(self) -> bool:
        """Whether it is too long for a screen."""
        return len(self.rows) > _TALL


@dataclass(frozen=True)
class _Entry:
    """What is known of a model in a row, before the row is compared; without a score, ``word`` says why."""

    score: Score | None = None
    hits: str = ""
    note: str = ""
    word: str = text.ABSENT
    missing: str | None = None

    @property
    def recall(self) -> float | None:
        return None if self.score is None else self.score.value


@dataclass(frozen=True)
class _Line:
    """A row before it is compared."""

    name: str
    meaning: str
    entries: tuple[_Entry, ...]
    key: int | None = None
    attack: AttackEntry | None = None


def budget_tables(index: Index) -> tuple[BudgetTable, ...]:
    """A table for each budget, the headline first; where nothing was attacked, one of the clean numbers."""
    largest_first = [*reversed(index.linf), *(budget for budget in index.budgets if budget not in index.linf)]
    rest = [budget for budget in largest_first if budget != index.headline]
    return tuple(_budget_table(index, budget) for budget in (index.headline, *rest))


def _budget_table(index: Index, budget: ThreatModel | None) -> BudgetTable:
    sized = budget != ANY_SIZE
    lines = _lines(index, budget)
    # Without a budget an attack takes what it needs: how far it gets says nothing about who resists it better.
    tests = _tests(lines) if sized else {}
    lowest = _lowest(lines, len(index.results.models)) if sized else ()
    rows = [_row(number, line, tests, lowest) for number, line in enumerate(lines)]
    return BudgetTable(
        eps=None if budget is None else budget.text,
        sized=sized,
        heads=tuple(Head(model.name, model.health.collapsed) for model in index.results.models),
        fixed=tuple(row for row in rows if row.facets is None),
        rows=tuple(row for row in rows if row.facets is not None),
    )


def _lines(index: Index, budget: ThreatModel | None) -> list[_Line]:
    models = index.results.models
    clean = tuple(_scored(model.clean, model.clean_hits) for model in models)
    lines = [_Line("clean", f"{index.metric.title} on the images as they are", clean)]
    if budget is None:
        return lines
    if budget != ANY_SIZE:
        found = [index.worst.get((model.name, budget)) for model in models]
        entries = tuple(_scored(worst.score, worst.hits) if worst else _Entry() for worst in found)
        lines.append(
            _Line("worst case", "each query under what hurts it most, of all found within this budget", entries)
        )
    for key, attack in enumerate(index.results.attacks):
        cells = [index.cells.get((model.name, attack.spec, budget)) for model in models]
        if any(cells):
            entries = tuple(_attacked(cell) for cell in cells)
            lines.append(_Line(attack.name, attack.spec, entries, key, attack))
    return lines


def _scored(score: Score, hits: str) -> _Entry:
    return _Entry(score, hits, text.interval(score))


def _attacked(cell: Cell | None) -> _Entry:
    if cell is None:
        return _Entry()
    if cell.score is None:
        return _Entry(word=cell.status, missing=cell.reason or text.NO_REASON)
    if cell.threat.eps is not None:
        return _scored(cell.score, cell.hits or "")
    median = cell.median_norm_broken
    note = "broke no query" if median is None else f"median {text.norm(median, cell.threat.norm)}"
    return _Entry(cell.score, cell.hits or "", note)


def _tests(lines: Sequence[_Line]) -> dict[tuple[int, int, int], Paired]:
    """Every two models in every row. All count in the correction: which one is best is read off the same numbers."""
    keys = [
        (number, first, second)
        for number, line in enumerate(lines)
        for first, second in combinations(range(len(line.entries)), 2)
        if line.entries[first].score and line.entries[second].score
    ]
    hits = ((lines[row].entries[first].hits, lines[row].entries[second].hits) for row, first, second in keys)
    return dict(zip(keys, compare_all(hits), strict=True))


def _lowest(lines: Sequence[_Line], models: int) -> tuple[float | None, ...]:
    """What the strongest attack leaves of each model; of the attacks that count in a worst case."""
    counted = [line.entries for line in lines if _counts(line)]
    columns = [[entries[place].recall for entries in counted] for place in range(models)]
    return tuple(min((recall for recall in column if recall is not None), default=None) for column in columns)


def _counts(line: _Line) -> bool:
    return line.attack is not None and line.attack.side == "query"


def _row(number: int, line: _Line, tests: dict[tuple[int, int, int], Paired], lowest: Sequence[float | None]) -> Row:
    recalls = [entry.recall for entry in line.entries]
    measured = [recall for recall in recalls if recall is not None]
    best = recalls.index(max(measured)) if measured else None
    compared = bool(tests) and len(measured) > 1
    readings = []
    for place, entry in enumerate(line.entries):
        if entry.recall is None or best is None:
            readings.append(Reading(entry.word, missing=entry.missing))
            continue
        behind = compared and entry.recall < max(measured)
        paired = tests[number, min(place, best), max(place, best)] if behind else None
        readings.append(
            Reading(
                text=text.fraction(entry.recall),
                number=entry.recall,
                note=entry.note,
                best=compared and not behind,
                difference=text.difference(entry.recall - max(measured)) if behind else "",
                p_value=text.p_value(paired.p_value) if paired else "",
                significant=paired is not None and paired.significant,
                lowest=_counts(line) and bool(lowest) and entry.recall == lowest[place],
            )
        )
    return Row(line.name, line.meaning, tuple(readings), line.key, _facets(line.attack) if line.attack else None)


def _facets(attack: AttackEntry) -> Facets:
    return Facets(attack.goal, KNOWLEDGE[attack.knowledge], NORMS[attack.norm], attack.library, attack.side)
