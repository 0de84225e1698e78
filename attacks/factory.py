"""What the registry knows of an attack before it is built: what it can do, what it may know, what it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from robustdml.config import Effort
from robustdml.results import BudgetKind, Knowledge, Side
from robustdml.values import ByValue

from .goals import GOALS

if TYPE_CHECKING:
    from robustdml.contracts import Attack

#: What it costs per query: up to some dozen passes through the model, some hundred, or more.
Cost = Literal["low", "medium", "high"]

#: The norms of the project's gradient attacks (see `robustdml.attacks.native.geometry`).
GRADIENT_NORMS = ("linf", "l2", "l1")

#: Budgets of attacks in other norms than L-infinity where the spec names none: those of RobustBench's L2 boards and of
#: Croce & Hein 2021 for L1, both at 32 x 32 pixels; ten pixels for L0.
DEFAULT_EPS = {"l2": 0.5, "l1": 12.0, "l0": 10.0}


@dataclass(frozen=True, eq=False, repr=False)
class AttackFactory(ByValue):
    """An entry of the registry.

    Args:
        summary: one line for listings.
        make: builds the attack from ``eps``, ``goal`` (only where there is a choice) and the parameters; what it
            needs, such as a library of attacks, is imported then and not before.
        defaults: every parameter that a spec may set, with its value at standard effort.
        goals: the words of the goals that it serves, its default first; empty where it has no choice.
        effort: parameters that another effort than standard changes.
        library: whose code runs.
        knowledge: what the attacker needs of the model.
        norms: the norms that it serves, its default first; where there are several, ``norm`` is a parameter.
        budget: see `robustdml.results.BudgetKind`.
        by_name_only: why no suite and no pattern runs it, where that is so; empty for an attack like others.
        side: which images it changes: the query, items of the gallery, or both.
        cost: see `Cost`.
    """

    summary: str
    make: Callable[..., Attack]
    defaults: Mapping[str, object] = field(default_factory=dict)
    goals: tuple[str, ...] = ()
    effort: Mapping[Effort, Mapping[str, object]] = field(default_factory=dict)
    library: str = "robustdml"
    knowledge: Knowledge = "gradients"
    norms: tuple[str, ...] = ("linf",)
    budget: BudgetKind = "fixed"
    by_name_only: str = ""
    side: Side = "query"
    cost: Cost = "low"

    def parameters(self, goal: str | None) -> dict[str, object]:
        """The parameters that a spec with that goal may set, with their defaults; the budget is not among them."""
        own: dict[str, object] = {"goal": goal} if goal else {}
        return {**own, **self.defaults, **goal_parameters(goal)}


def goal_parameters(goal: str | None) -> dict[str, object]:
    """The parameters of a goal itself, such as the number of targets, with their defaults."""
    return dataclass_defaults(GOALS[goal]) if goal else {}


def dataclass_defaults(kind: type[Any]) -> dict[str, object]:
    """The fields of a frozen dataclass that have a default and are compared; not the goal, nor eps."""
    return {
        part.name: part.default
        for part in fields(kind)
        if part.default is not MISSING and part.compare and part.name not in {"goal", "eps"}
    }
