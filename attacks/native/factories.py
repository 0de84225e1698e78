"""The project's own attacks, as entries of the registry: data, so that a list of attacks needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from robustdml.config import Effort

from ..factory import GRADIENT_NORMS, AttackFactory
from ..goals import GOALS

if TYPE_CHECKING:
    from robustdml.contracts import Attack

_LOOP: dict[str, object] = {"steps": 20, "step": None, "start": 1.0, "best": True}
_UNIVERSAL: dict[str, object] = {"steps": 100, "step": 0.1, "sample": 256, "batch": 64}

#: The parameters of each class, by where it is in this folder, with the defaults of its dataclass.
PARAMETERS: dict[str, dict[str, object]] = {
    "cascade.Cascade": {"strength": "standard", "norm": "linf", "version": 1},
    "noise.Noise": {"trials": 10},
    "pgd.PGD": {
        "steps": 20,
        "step": None,
        "start": 1.0,
        "restarts": 1,
        "best": True,
        "norm": "linf",
        "momentum": 0.0,
        "samples": 1,
    },
    "momentum.Momentum": {
        "steps": 20,
        "restarts": 1,
        "norm": "linf",
        "momentum": 0.75,
        "stop": True,
        "predict": 0,
        "whole": 0,
        "slack": None,
        "samples": 1,
    },
    "apgd.APGD": {"steps": 50, "restarts": 1, "norm": "linf", "samples": 1},
    "minimum.MinimumNorm": {"steps": 20, "rounds": 10, "norm": "linf"},
    "bisection.Bisection": {"steps": 20, "rounds": 10, "items": 10, "norm": "linf"},
    "square.Square": {"queries": 1000, "share": 0.8, "norm": "linf"},
    "nes.NES": {"queries": 1000, "population": 20, "sigma": 0.01, "step": None},
    "rays.RayS": {"queries": 1000},
    "ranking_attacks.RankingAttack": _LOOP,
    "ranking_attacks.CandidateAttack": {**_LOOP, "items": 128},
    "universal.Universal": _UNIVERSAL,
    "patch.Patch": {"share": 0.25, "place": "random", **_UNIVERSAL, "steps": 200, "step": 0.05},
    "both_sides.BothSides": {"items": 5, "steps": 20},
}


def _native(
    path: str, summary: str, goals: tuple[str, ...] = (), changed: Mapping[str, object] | None = None, **facts: Any
) -> AttackFactory:
    """The entry of a class of `PARAMETERS`, which is imported when it is first built."""
    return AttackFactory(summary, partial(_make, path), {**PARAMETERS[path], **(changed or {})}, goals, **facts)


def _make(path: str, **params: object) -> Attack:
    module, _, name = path.rpartition(".")
    built: Attack = getattr(import_module(f".{module}", __package__), name)(**params)
    return built


_SHORT = ("margin", "shift", "stax", "mtax")
_GOALS = (*_SHORT, "nearest_negative")
_STEPS: Mapping[Effort, Mapping[str, object]] = {"quick": {"steps": 10}, "thorough": {"steps": 100}}
_RESTARTS: Mapping[Effort, Mapping[str, object]] = {"quick": {"steps": 10}, "thorough": {"steps": 100, "restarts": 3}}
_QUERIES: Mapping[Effort, Mapping[str, object]] = {"quick": {"queries": 100}, "thorough": {"queries": 5000}}
_ITEMS: Mapping[Effort, Mapping[str, object]] = {
    "quick": {"steps": 10, "items": 64},
    "thorough": {"steps": 100, "items": 512},
}
_GRADIENT: dict[str, Any] = {"effort": _RESTARTS, "norms": GRADIENT_NORMS}
_ASKING: dict[str, Any] = {"effort": _QUERIES, "cost": "high"}

_RANKING = ("qa_plus", "qa_minus", "spqa_plus", "spqa_minus", "tma", "es", "ltm", "gtm", "gtt", "foa")


def _ranking(goal: str, **facts: Any) -> AttackFactory:
    """The entry of a goal of the field's ranking attacks, on queries or, where ``side`` says so, on gallery items."""
    path = "ranking_attacks.CandidateAttack" if "side" in facts else "ranking_attacks.RankingAttack"
    return _native(path, f"{GOALS[goal]().title}: {GOALS[goal].meaning}", (goal,), **facts)


FACTORIES: dict[str, AttackFactory] = {
    "cascade": _native(
        "cascade.Cascade",
        "the standard evaluation: attacks on the margin in stages, each on what the last one left right",
        effort={"quick": {"strength": "quick"}, "thorough": {"strength": "thorough"}},
        norms=GRADIENT_NORMS,
        cost="medium",
    ),
    "noise": _native(
        "noise.Noise",
        "uniform and corner noise, the worst of several draws",
        effort={"thorough": {"trials": 100}},
        knowledge="scores",
    ),
    "fgsm": _native(
        "pgd.PGD",
        "one signed gradient step",
        ("shift", "margin", "stax", "mtax", "nearest_negative"),
        {"steps": 1, "step": 1.0, "start": 0.1},
        norms=GRADIENT_NORMS,
    ),
    "pgd": _native(
        "pgd.PGD", "projected gradient ascent, best step per query", (*_GOALS, "unadversarial"), **_GRADIENT
    ),
    **{goal: _native("pgd.PGD", f"short for pgd(goal={goal})", (goal,), **_GRADIENT) for goal in _SHORT},
    "mifgsm": _native(
        "pgd.PGD",
        "projected gradient ascent with momentum, from the clean image",
        ("margin", "stax", "mtax", "nearest_negative"),
        {"momentum": 1.0, "start": 0.0},
        **_GRADIENT,
    ),
    "mi": _native(
        "momentum.Momentum",
        "gradient ascent with momentum and shrinking steps, until the margin says broken",
        ("margin", "item_margin", "class_margin"),
        **_GRADIENT,
    ),
    "apgd": _native(
        "apgd.APGD",
        "gradient ascent that chooses its step lengths, best step per query",
        _GOALS,
        **_GRADIENT,
        cost="medium",
    ),
    "minimum": _native(
        "minimum.MinimumNorm",
        "the smallest budget at which apgd breaks each query",
        ("margin",),
        effort={"quick": {"steps": 5, "rounds": 5}, "thorough": {"steps": 50, "rounds": 15}},
        norms=GRADIENT_NORMS,
        budget="minimum",
        cost="medium",
    ),
    "bisection": _native(
        "bisection.Bisection",
        "the smallest budget at which mi breaks each query, by the margin or by single items: what --curve runs",
        effort={"quick": {"steps": 10, "items": 0}, "thorough": {"steps": 50, "rounds": 14, "items": 20}},
        norms=GRADIENT_NORMS,
        budget="minimum",
        cost="high",
    ),
    "square": _native(
        "square.Square",
        "random squares, kept where the margin grows",
        knowledge="scores",
        norms=GRADIENT_NORMS,
        **_ASKING,
    ),
    "nes": _native("nes.NES", "gradient steps on the margin, estimated from scores", knowledge="scores", **_ASKING),
    "rays": _native(
        "rays.RayS", "search along signs, from the id of the first hit alone", knowledge="decisions", **_ASKING
    ),
    "unadversarial": _native(
        "pgd.PGD",
        "towards the own class: a training example that is easier than the clean image",
        ("unadversarial",),
        by_name_only="it is no attack",
    ),
    **{goal: _ranking(goal, effort=_STEPS) for goal in _RANKING},
    "es_robrank": _ranking(
        "es_robrank", effort=_STEPS, by_name_only="it is es as RobRank's code starts it, for its tables"
    ),
    **{goal: _ranking(goal, effort=_ITEMS, side="gallery") for goal in ("ca_plus", "ca_minus")},
    "hub": _ranking("hub", changed={"items": 5}, effort=_STEPS, side="gallery"),
    "universal": _native(
        "universal.Universal",
        "one perturbation for all queries, learnt on gallery images",
        ("margin", "shift"),
        effort={"quick": {"steps": 40}, "thorough": {"steps": 500, "sample": 1024}},
    ),
    "patch": _native(
        "patch.Patch",
        "one patch for all queries, learnt on gallery images",
        ("margin", "shift"),
        effort={"quick": {"steps": 40}, "thorough": {"steps": 1000, "sample": 1024}},
        norms=("l0",),
        budget="unrestricted",
    ),
    "both_sides": _native(
        "both_sides.BothSides",
        "k poisoned gallery items, then PGD on the margin of each query",
        effort={"quick": {"steps": 10}, "thorough": {"steps": 100}},
        side="both",
    ),
}
