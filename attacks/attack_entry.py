"""An attack as its row in the results: the spec that builds it again, and what it is."""

from __future__ import annotations

from dataclasses import field, fields
from typing import TYPE_CHECKING, Any, TypedDict

from robustdml.registry import Spec
from robustdml.results import AttackEntry, BudgetKind, Knowledge, Side

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from robustdml.contracts import Goal


def added_later(default: Any) -> Any:
    """The field of a parameter that earlier versions had not.

    At its default the spec does not name it: attacks draw by their spec, and what earlier versions did is done again.
    """
    return field(default=default, metadata={"added_later": True})


class GoalFacts(TypedDict):
    """What a goal says of itself in the entry of an attack."""

    goal: str
    goal_meaning: str
    measures: tuple[str, ...]


def goal_facts(goal: Goal) -> GoalFacts:
    """The facts of a goal, as fields of an entry."""
    return GoalFacts(goal=goal.name, goal_meaning=goal.meaning, measures=goal.measures)


def goal_params(goal: Any) -> dict[str, object]:
    """The goal's word and its own parameters, as a spec writes them."""
    return {"goal": goal.name, **{part.name: getattr(goal, part.name) for part in fields(goal)}}


def native_entry(
    kind: str,
    attack: Any,
    goal: Goal,
    *citations: str,
    name: str | None = None,
    knowledge: Knowledge = "gradients",
    budget: BudgetKind = "fixed",
    side: Side = "query",
) -> AttackEntry:
    """The entry of an attack of the project, which is a frozen dataclass.

    Args:
        kind: its name in the registry.
        goal: what it wants.
        citations: keys of papers; that of the goal is added.
        name: what tables call it, if not ``kind``.
    """
    return AttackEntry(
        spec=_spec(kind, attack),
        name=name or kind,
        library="robustdml",
        **goal_facts(goal),
        knowledge=knowledge,
        norm=attack.threat.norm,
        budget=budget,
        side=side,
        citations=cited(goal, *citations),
    )


def cited(goal: Goal, *keys: str) -> tuple[str, ...]:
    """Citation keys, each once, with that of the paper that the goal is from."""
    return tuple(dict.fromkeys(key for key in (*keys, goal.citation) if key))


def _spec(name: str, attack: DataclassInstance) -> str:
    """The spec of ``attack`` with every parameter but the budget; a goal's own parameters stand beside its name."""
    params: dict[str, object] = {}
    for part in fields(attack):
        value: Any = getattr(attack, part.name)
        if part.name == "eps" or not part.compare:  # what was computed is no parameter
            continue
        if part.name == "goal":
            params |= goal_params(value)
        elif not ("added_later" in part.metadata and value == part.default):
            params[part.name] = value
    return str(Spec(name, params))
