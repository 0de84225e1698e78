"""An attack written as the spec that builds it again."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING

from robustdml.registry import Spec

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def entry_spec(name: str, attack: DataclassInstance) -> str:
    """The spec of ``attack`` with every parameter but the budget; a goal's own parameters stand beside its name."""
    params: dict[str, object] = {}
    for field in fields(attack):
        value = getattr(attack, field.name)
        if field.name == "eps":
            continue
        if field.name == "goal" and is_dataclass(value):
            params["goal"] = value.name  # type: ignore[attr-defined]
            params |= {part.name: getattr(value, part.name) for part in fields(value)}
        else:
            params[field.name] = value
    return str(Spec(name, params))
