"""The project's own attacks, as entries of the registry."""

from __future__ import annotations

from collections.abc import Mapping

from robustdml.config import Effort

from ..factory import AttackFactory, dataclass_defaults
from .apgd import APGD
from .geometry import GEOMETRIES
from .minimum import MinimumNorm
from .momentum import Momentum
from .nes import NES
from .noise import Noise
from .pgd import PGD
from .rays import RayS
from .square import Square

_SHORT = ("margin", "shift", "stax", "mtax")
_GOALS = (*_SHORT, "nearest_negative")
_EFFORT: Mapping[Effort, Mapping[str, object]] = {"quick": {"steps": 10}, "thorough": {"steps": 100, "restarts": 3}}
_QUERIES: Mapping[Effort, Mapping[str, object]] = {"quick": {"queries": 100}, "thorough": {"queries": 5000}}

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
        ("shift", "margin", "stax", "mtax", "nearest_negative"),
        norms=GEOMETRIES,
    ),
    "pgd": AttackFactory(
        "projected gradient ascent, best step per query",
        PGD,
        dataclass_defaults(PGD),
        (*_GOALS, "unadversarial"),
        _EFFORT,
        norms=GEOMETRIES,
    ),
    **{
        goal: AttackFactory(
            f"short for pgd(goal={goal})", PGD, dataclass_defaults(PGD), (goal,), _EFFORT, norms=GEOMETRIES
        )
        for goal in _SHORT
    },
    "mifgsm": AttackFactory(
        "projected gradient ascent with momentum, from the clean image",
        PGD,
        dataclass_defaults(PGD, {"momentum": 1.0, "start": 0.0}),
        ("margin", "stax", "mtax", "nearest_negative"),
        _EFFORT,
        norms=GEOMETRIES,
    ),
    "mi": AttackFactory(
        "gradient ascent with momentum and shrinking steps, until the margin says broken",
        Momentum,
        dataclass_defaults(Momentum),
        ("margin", "item_margin", "class_margin"),
        _EFFORT,
        norms=GEOMETRIES,
    ),
    "apgd": AttackFactory(
        "gradient ascent that chooses its step lengths, best step per query",
        APGD,
        dataclass_defaults(APGD),
        _GOALS,
        _EFFORT,
        norms=GEOMETRIES,
        cost="medium",
    ),
    "minimum": AttackFactory(
        "the smallest budget at which apgd breaks each query",
        MinimumNorm,
        dataclass_defaults(MinimumNorm),
        ("margin",),
        {"quick": {"steps": 5, "rounds": 5}, "thorough": {"steps": 50, "rounds": 15}},
        norms=GEOMETRIES,
        budget="minimum",
        cost="medium",
    ),
    "square": AttackFactory(
        "random squares, kept where the margin grows",
        Square,
        dataclass_defaults(Square),
        effort=_QUERIES,
        knowledge="scores",
        cost="high",
    ),
    "nes": AttackFactory(
        "gradient steps on the margin, estimated from scores",
        NES,
        dataclass_defaults(NES),
        effort=_QUERIES,
        knowledge="scores",
        cost="high",
    ),
    "rays": AttackFactory(
        "search along signs, from the id of the first hit alone",
        RayS,
        dataclass_defaults(RayS),
        effort=_QUERIES,
        knowledge="decisions",
        cost="high",
    ),
    "unadversarial": AttackFactory(
        "towards the own class: a training example that is easier than the clean image",
        PGD,
        dataclass_defaults(PGD),
        ("unadversarial",),
        by_name_only="it is no attack",
    ),
}
