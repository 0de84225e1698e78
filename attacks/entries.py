"""An attack written as the spec that builds it again."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from robustdml.registry import Spec

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def entry_spec(name: str, attack: DataclassInstance) -> str:
    """The spec of ``attack`` with every parameter but the budget; a goal's own parameters stand beside its name."""
    params: dict[str, object] = {}
    for field in fields(attack):
        value: Any = getattr(attack, field.name)
        if field.name == "eps" or not field.compare:  # what was computed is no parameter
            continue
        if field.name == "goal":
            params |= goal_params(value)
        else:
            params[field.name] = value
    return str(Spec(name, params))


def goal_params(goal: Any) -> dict[str, object]:
    """The goal's word and its own parameters, as a spec writes them."""
    return {"goal": goal.name, **{part.name: getattr(goal, part.name) for part in fields(goal)}}


def with_goal_citation(goal: str, *keys: str) -> tuple[str, ...]:
    """Citation keys, each once, with that of the paper that the goal is from."""
    return tuple(dict.fromkeys([*keys, *(["singh2023mdprop"] if goal in {"stax", "mtax"} else [])]))
