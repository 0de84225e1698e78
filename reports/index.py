"""The results of a run, looked up by model, attack and budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustdml.results import Cell, Curve, EmbeddingMap, Example, MetricEntry, Results, WorstCase
from robustdml.threat import ThreatModel, headline_eps

if TYPE_CHECKING:
    from .thresholds import Threshold

#: What no budget binds, whatever the norm that it is measured in: such attacks stand together.
ANY_SIZE = ThreatModel(None)


@dataclass(frozen=True)
class Index:
    """Cells and worst cases by their keys; an absent key was not run.

    Args:
        results: what is indexed.
        budgets: every budget that was run: L-infinity first, ascending; attacks without a budget last.
        headline: the budget that summaries quote: L-infinity up to 8/255 where there is one, else the first; None when
            nothing was run.
        cells: by model name, attack spec and budget.
        worst: by model name and budget, except where every attack failed (such a worst case says nothing), or where a
            flag withholds it.
        withheld: the keys of the latter.
        curves: of the models for which no flag withholds them.
        attack_names: the short name of each attack spec.
        bars: what the models were asked to reach.
    """

    results: Results
    budgets: tuple[ThreatModel, ...]
    headline: ThreatModel | None
    cells: dict[tuple[str, str, ThreatModel], Cell]
    worst: dict[tuple[str, ThreatModel], WorstCase]
    withheld: frozenset[tuple[str, ThreatModel]]
    curves: tuple[Curve, ...]
    attack_names: dict[str, str]
    bars: tuple[Threshold, ...] = ()

    @classmethod
    def of(cls, results: Results, bars: Sequence[Threshold] = ()) -> Index:
        """Index a whole run."""
        threats = [*(cell.threat for cell in results.cells), *(worst.threat for worst in results.worst)]
        found = set(map(_budget, threats))
        budgets = tuple(sorted(found, key=lambda at: (at == ANY_SIZE, at.order)))
        bounded = [at for at in budgets if at.norm == "linf" and at.eps is not None]
        usual = headline_eps(at.eps for at in bounded if at.eps is not None)
        invalid = {model.name for model in results.models if results.invalid(model.name)}
        said = {
            (worst.model, worst.threat): worst
            for worst in results.worst
            if any(
                cell.status == "ok" and cell.model == worst.model and worst.threat.holds(cell.threat)
                for cell in results.cells
            )
        }
        return cls(
            results=results,
            budgets=budgets,
            headline=next((at for at in bounded if at.eps == usual), next(iter(budgets), None)),
            cells={(cell.model, cell.attack, _budget(cell.threat)): cell for cell in results.cells},
            worst={key: worst for key, worst in said.items() if worst.model not in invalid},
            withheld=frozenset(key for key in said if key[0] in invalid),
            curves=tuple(curve for curve in results.curves if curve.model not in invalid),
            attack_names={attack.spec: attack.name for attack in results.attacks},
            bars=tuple(bars),
        )

    @property
    def metric(self) -> MetricEntry:
        """What is quoted, compared and tested: the headline of the data set's protocol."""
        return self.results.dataset.headline_metric

    @property
    def linf(self) -> tuple[ThreatModel, ...]:
        """The L-infinity budgets, ascending."""
        return tuple(at for at in self.budgets if at.norm == "linf" and at != ANY_SIZE)

    def budget(self, item: Cell | Example | EmbeddingMap) -> ThreatModel:
        """The budget of something in the results; `ANY_SIZE` of all cells without one."""
        return _budget(item.threat)

    def attack_name(self, spec: str) -> str:
        """The short name of an attack, or the text itself where the run lists no such attack."""
        return self.attack_names.get(spec, spec)


def _budget(threat: ThreatModel) -> ThreatModel:
    return ANY_SIZE if threat.eps is None else threat
