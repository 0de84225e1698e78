"""Every measurement of a model in one list, whichever condition it was made in, for the outputs beside the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from robustdml.results import ModelEntry, Score
from robustdml.threat import ThreatModel

from .index import ANY_SIZE, Index


@dataclass(frozen=True)
class Measurement:
    """One model in one condition: clean, the worst case of a budget, or under one attack.

    Args:
        model: its name.
        condition: which of the three.
        attack: the spec of the attack; None unless the condition is an attack.
        attack_name: its short name.
        budget: None when clean.
        status: of the attack; the clean queries are always measured, and a worst case is unless a flag withholds it.
        reason: why there is no score.
        score: None exactly when the status is not "ok".
        hits: bits of the headline per query.
        attacks_failed: attacks that the worst case had to leave out.
        seconds: that the attack took.
    """

    model: str
    condition: Literal["clean", "worst", "attack"]
    attack: str | None = None
    attack_name: str | None = None
    budget: ThreatModel | None = None
    status: Literal["ok", "failed", "skipped", "withheld"] = "ok"
    reason: str | None = None
    score: Score | None = None
    hits: str | None = None
    attacks_failed: int = 0
    seconds: float = 0.0

    @property
    def key(self) -> tuple[str, str | None, ThreatModel | None]:
        """What was measured, whatever the model."""
        return self.condition, self.attack, self.budget

    @property
    def label(self) -> str:
        """The condition for a reader: "clean", "worst case at 8/255", "pgd-margin at 8/255"."""
        name = {"clean": "clean", "worst": "worst case"}.get(self.condition, self.attack_name or "")
        if self.budget is None:
            return name
        return f"{name} ({self.budget.text})" if self.budget == ANY_SIZE else f"{name} at {self.budget.text}"


def measurements(index: Index, model: ModelEntry) -> tuple[Measurement, ...]:
    """All measurements of a model: clean, then budget by budget the worst case and every attack."""
    found = [Measurement(model.name, "clean", score=model.clean, hits=model.clean_hits)]
    invalid = index.results.invalid(model.name)
    for budget in index.budgets:
        worst = index.worst.get((model.name, budget))
        if invalid and (model.name, budget) in index.withheld:
            reason = f"no worst case is given: {invalid.title}"
            found.append(Measurement(model.name, "worst", budget=budget, status="withheld", reason=reason))
        elif worst:
            found.append(
                Measurement(
                    model.name,
                    "worst",
                    budget=budget,
                    score=worst.score,
                    hits=worst.hits,
                    attacks_failed=worst.attacks_failed,
                )
            )
        found += [
            Measurement(
                model.name,
                "attack",
                attack=cell.attack,
                attack_name=index.attack_name(cell.attack),
                budget=budget,
                status=cell.status,
                reason=cell.reason,
                score=cell.score,
                hits=cell.hits,
                seconds=cell.seconds,
            )
            for cell in index.results.cells
            if cell.model == model.name and index.budget(cell) == budget
        ]
    return tuple(found)


def weakest(found: tuple[Measurement, ...], budget: ThreatModel | None) -> Measurement | None:
    """The attack with the lowest headline at a budget, the first of equals; None where none was judged."""
    own = [item for item in found if item.condition == "attack" and item.budget == budget and item.score]
    return min(own, key=lambda item: item.score.value if item.score else 1.0, default=None)
