"""The results of a run, looked up by model, attack and budget."""

from __future__ import annotations

from dataclasses import dataclass

from robustdml.results import Cell, Results, WorstCase
from robustdml.threat import headline_eps


@dataclass(frozen=True)
class Index:
    """Cells and worst cases by their keys; an absent key was not run.

    Args:
        results: what is indexed.
        budgets: every eps that was run, ascending.
        headline: the largest eps up to 8/255, else the smallest that was run; None when nothing was run.
        cells: by model name, attack spec and eps.
        worst: by model name and eps, except where every attack failed: such a worst case says nothing.
        attack_names: the short name of each attack spec.
    """

    results: Results
    budgets: tuple[float, ...]
    headline: float | None
    cells: dict[tuple[str, str, float], Cell]
    worst: dict[tuple[str, float], WorstCase]
    attack_names: dict[str, str]

    @classmethod
    def of(cls, results: Results) -> Index:
        """Index a whole run."""
        budgets = tuple(sorted({cell.eps for cell in results.cells} | {worst.eps for worst in results.worst}))
        smallest: dict[str, float] = {}
        for cell in results.cells:
            if cell.status == "ok":
                smallest[cell.model] = min(cell.eps, smallest.get(cell.model, cell.eps))
        return cls(
            results=results,
            budgets=budgets,
            headline=headline_eps(budgets),
            cells={(cell.model, cell.attack, cell.eps): cell for cell in results.cells},
            worst={
                (worst.model, worst.eps): worst
                for worst in results.worst
                if worst.model in smallest and smallest[worst.model] <= worst.eps
            },
            attack_names={attack.spec: attack.name for attack in results.attacks},
        )

    def attack_name(self, spec: str) -> str:
        """The short name of an attack, or the text itself where the run lists no such attack."""
        return self.attack_names.get(spec, spec)
