"""The results of a run, looked up by model, attack and budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from robustdml.results import Cell, Results, WorstCase
from robustdml.threat import NORMS, format_budget, headline_eps


class Budget(NamedTuple):
    """A norm and the largest perturbation in it; without eps, all attacks that no budget binds, whatever their norm."""

    norm: str
    eps: float | None

    @property
    def text(self) -> str:
        """As it is written."""
        return format_budget(self.eps, self.norm)


ANY_SIZE = Budget("any", None)


@dataclass(frozen=True)
class Index:
    """Cells and worst cases by their keys; an absent key was not run.

    Args:
        results: what is indexed.
        budgets: every budget that was run: L-infinity first, ascending; attacks without a budget last.
        headline: the budget that summaries quote: L-infinity up to 8/255 where there is one, else the first; None when
            nothing was run.
        cells: by model name, attack spec and eps.
        worst: by model name and budget, except where every attack failed: such a worst case says nothing.
        attack_names: the short name of each attack spec.
        norms: the norm of each attack spec.
    """

    results: Results
    budgets: tuple[Budget, ...]
    headline: Budget | None
    cells: dict[tuple[str, str, float | None], Cell]
    worst: dict[tuple[str, Budget], WorstCase]
    attack_names: dict[str, str]
    norms: dict[str, str]

    @classmethod
    def of(cls, results: Results) -> Index:
        """Index a whole run."""
        norms: dict[str, str] = {attack.spec: attack.norm for attack in results.attacks}
        found = {_budget(cell, norms) for cell in results.cells} | {Budget(w.norm, w.eps) for w in results.worst}
        order = [*NORMS, ANY_SIZE.norm]
        budgets = tuple(sorted(found, key=lambda budget: (order.index(budget.norm), budget.eps or 0.0)))
        usual = headline_eps(budget.eps for budget in budgets if budget.norm == "linf" and budget.eps is not None)
        return cls(
            results=results,
            budgets=budgets,
            headline=Budget("linf", usual) if usual is not None else next(iter(budgets), None),
            cells={(cell.model, cell.attack, cell.eps): cell for cell in results.cells},
            worst={
                (worst.model, Budget(worst.norm, worst.eps)): worst
                for worst in results.worst
                if any(
                    cell.status == "ok"
                    and (cell.model, norms[cell.attack]) == (worst.model, worst.norm)
                    and cell.eps is not None
                    and cell.eps <= worst.eps
                    for cell in results.cells
                )
            },
            attack_names={attack.spec: attack.name for attack in results.attacks},
            norms=norms,
        )

    @property
    def linf(self) -> tuple[Budget, ...]:
        """The L-infinity budgets, ascending."""
        return tuple(budget for budget in self.budgets if budget.norm == "linf")

    def budget(self, cell: Cell) -> Budget:
        """The budget of a cell."""
        return _budget(cell, self.norms)

    def attack_name(self, spec: str) -> str:
        """The short name of an attack, or the text itself where the run lists no such attack."""
        return self.attack_names.get(spec, spec)


def _budget(cell: Cell, norms: dict[str, str]) -> Budget:
    return ANY_SIZE if cell.eps is None else Budget(norms[cell.attack], cell.eps)
