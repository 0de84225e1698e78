"""What the papers of ranking attacks report beside recall: places in lists, cosines, and ERS with all its terms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .. import text
from ..index import Index
from .sections import Section

_BEFORE = "_clean"

#: The terms of ERS as the papers write them.
_TERMS = {
    "ca_plus": "CA+", "ca_minus": "CA-", "qa_plus": "QA+", "qa_minus": "QA-", "tma": "TMA", "es_d": "ES:D",
    "es_r": "ES:R", "ltm": "LTM", "gtm": "GTM", "gtt": "GTT",
}  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """One measure of one attack on one model."""

    model: str
    attack: str
    budget: str
    measure: str
    before: str
    after: str


@dataclass(frozen=True)
class Term:
    """A term of ERS as measured, and on the scale from 0 to 100."""

    name: str
    measured: str
    normalised: str


@dataclass(frozen=True)
class ErsScore:
    """The ERS of a model, and what must stand beside it."""

    model: str
    collapsed: bool
    profile: str
    value: str
    clean: str
    terms: tuple[Term, ...]


@dataclass(frozen=True)
class PublishedMeasures:
    """What the section prints."""

    scores: tuple[ErsScore, ...]
    measured: tuple[Measured, ...]
    meanings: tuple[text.Fact, ...]


def published_measures_section(index: Index, folder: Path) -> Section | None:
    """The section; none where no attack of the run has measures of its own."""
    rows = tuple(_measured(index))
    scores = _scores(index)
    if not rows and not scores:
        return None
    meanings = tuple(text.Fact(entry.title, entry.description) for entry in index.results.measures)
    data = PublishedMeasures(scores, rows, meanings)
    return Section("published-measures", "Ranking", "published_measures.html.j2", data)


def _scores(index: Index) -> tuple[ErsScore, ...]:
    return tuple(
        ErsScore(
            model=ers.model,
            collapsed=ers.collapsed,
            profile=f"{ers.profile}{', as RobRank computes it' if ers.compat else ''}",
            value=f"{ers.value:.1f}",
            clean=text.fraction(ers.clean_recall_at_1),
            terms=tuple(
                Term(_TERMS.get(name, name), f"{value:.3g}", f"{ers.normalised[name]:.1f}")
                for name, value in ers.terms.items()
            ),
        )
        for ers in index.results.ers
    )


def _measured(index: Index) -> list[Measured]:
    titles = {entry.name: entry.title for entry in index.results.measures}
    rows = []
    for cell in index.results.cells:
        for name, value in cell.measures.items():
            if name.endswith(_BEFORE):
                continue
            before = cell.measures.get(name + _BEFORE)
            rows.append(
                Measured(
                    model=cell.model,
                    attack=index.attack_name(cell.attack),
                    budget=index.budget(cell).text,
                    measure=titles.get(name, name),
                    before=text.ABSENT if before is None else f"{before:.3g}",
                    after=f"{value:.3g}",
                )
            )
    return rows
