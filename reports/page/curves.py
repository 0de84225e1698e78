"""R@1 over eps in numbers: the smallest eps that breaks a query, and how near each attack comes to all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from robustdml.results import Curve
from robustdml.threat import NORMS, ThreatModel

from .. import text
from ..index import Index
from .sections import Section


@dataclass(frozen=True)
class CurveRow:
    """One model; ``recalls`` at each budget with their intervals. ``invalid`` says why it is not to be believed."""

    model: str
    clean: str
    median: str
    half: str
    half_interval: str
    recalls: tuple[tuple[str, str], ...]
    invalid: str


@dataclass(frozen=True)
class OptimalityRow:
    """One attack: its local optimality on each model, the highest of a model marked."""

    attack: str
    values: tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class CurveTable:
    """The models in one norm."""

    norm: str
    search: str
    budgets: tuple[str, ...]
    rows: tuple[CurveRow, ...]
    models: tuple[str, ...]
    optimality: tuple[OptimalityRow, ...]


@dataclass(frozen=True)
class Curves:
    """What the section prints; ``headline`` is the budget that the verdict quotes."""

    tables: tuple[CurveTable, ...]
    headline: str | None


def curves_section(index: Index, folder: Path) -> Section | None:
    """A table for each norm; none where no curve was measured."""
    norms = dict.fromkeys(curve.norm for curve in index.results.curves)
    if not norms:
        return None
    tables = tuple(_table(index, [c for c in index.results.curves if c.norm == norm]) for norm in norms)
    headline = index.headline.text if index.headline and index.headline.eps is not None else None
    return Section("curves", "Smallest eps", "curves.html.j2", Curves(tables, headline))


def _table(index: Index, curves: Sequence[Curve]) -> CurveTable:
    values = [
        {} if index.results.invalid(curve.model) else {item.attack: item.value for item in curve.optimality}
        for curve in curves
    ]
    attacks = list(dict.fromkeys(attack for found in values for attack in found))
    highest = [max(found.values(), default=None) for found in values]
    return CurveTable(
        norm=NORMS[curves[0].norm],
        search=curves[0].attack,
        budgets=tuple(ThreatModel(point.eps, curves[0].norm).text for point in curves[0].points),
        rows=tuple(_row(index, curve) for curve in curves),
        models=tuple(curve.model for curve in curves),
        optimality=tuple(
            OptimalityRow(
                index.attack_name(attack),
                tuple(
                    (text.fraction(found.get(attack)), attack in found and found[attack] == best)
                    for found, best in zip(values, highest, strict=True)
                ),
            )
            for attack in attacks
        ),
    )


def _row(index: Index, curve: Curve) -> CurveRow:
    model = next(model for model in index.results.models if model.name == curve.model)
    clean, invalid = text.fraction(model.clean.metrics.recall_at_1), index.results.invalid(curve.model)
    if invalid is not None:
        nothing = tuple((text.ABSENT, "") for _ in curve.points)
        return CurveRow(curve.model, clean, text.ABSENT, text.ABSENT, "", nothing, invalid.title)
    return CurveRow(
        model=curve.model,
        clean=clean,
        median=text.reached(curve.median, curve.norm),
        half=text.reached(curve.half_distortion, curve.norm),
        half_interval=text.half_interval(curve),
        recalls=tuple(
            (text.fraction(point.recall), f"{point.low:.3f}\N{EN DASH}{point.high:.3f}") for point in curve.points
        ),
        invalid="",
    )
