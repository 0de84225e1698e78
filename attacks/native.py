"""The project's own attacks, as entries of the registry."""

from __future__ import annotations

from collections.abc import Mapping

from robustdml.config import Effort

from .factory import AttackFactory, dataclass_defaults
from .gradient import PGD
from .noise import Noise

_GOALS = ("margin", "shift", "stax", "mtax")
_EFFORT: Mapping[Effort, Mapping[str, object]] = {"quick": {"steps": 10}, "thorough": {"steps": 100, "restarts": 3}}

FACTORIES: dict[str, AttackFactory] = {
    "noise": AttackFactory(
        "uniform and corner noise, the worst of several draws",
        Noise,
        dataclass_defaults(Noise),
        effort={"thorough": {"trials": 100}},
        knowledge="scores",
    ),
    "fgsm": AttackFactory(
        "one signed gradient step",
        PGD,
        dataclass_defaults(PGD, {"steps": 1, "step": 1.0, "start": 0.1}),
        ("shift", "margin", "stax", "mtax"),
    ),
    "pgd": AttackFactory(
        "projected gradient ascent, best step per query",
        PGD,
        dataclass_defaults(PGD),
        (*_GOALS, "unadversarial"),
        _EFFORT,
    ),
    **{
        goal: AttackFactory(f"short for pgd(goal={goal})", PGD, dataclass_defaults(PGD), (goal,), _EFFORT)
        for goal in _GOALS
    },
    "unadversarial": AttackFactory(
        "towards the own class: a training example that is easier than the clean image",
        PGD,
        dataclass_defaults(PGD),
        ("unadversarial",),
        by_name_only="it is no attack",
    ),
}
