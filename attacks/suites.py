"""Suites and lists: many attacks under one name, by pattern, and without some."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fnmatch import fnmatchcase
from numbers import Real
from typing import TYPE_CHECKING, Any

from robustdml.config import Effort
from robustdml.errors import BudgetError, SpecError, UnknownNameError
from robustdml.profiles import ERS_ATTACKS, PROFILES
from robustdml.registry import split_specs
from robustdml.threat import ThreatModel, parse_budgets
from robustdml.values import BriefDict, brief, plain_scalar

from .building import ATTACKS, NOT_OFFERED, build_attack, spec_name

if TYPE_CHECKING:
    from robustdml.contracts import Attack

#: Attacks as papers run them, with the goals of papers: beside the cascade, which is stronger than all of them.
_PUBLISHED = (
    "noise",
    "fgsm(goal=shift)",
    "fgsm(goal=margin)",
    "fgsm(goal=stax)",
    "fgsm(goal=mtax)",
    "shift",
    "margin",
    "stax",
    "mtax",
    "apgd(goal=margin)",
    "apgd(goal=nearest_negative)",
    "apgd(goal=shift)",
    "apgd(goal=stax)",
    "apgd(goal=mtax)",
    "torchattacks.PGD(goal=untargeted)",
    "torchattacks.PGD(goal=stax)",
    "torchattacks.PGD(goal=mtax)",
    "art.ProjectedGradientDescent(goal=untargeted)",
    "art.ProjectedGradientDescent(goal=stax)",
    "art.ProjectedGradientDescent(goal=mtax)",
)


def _profile(name: str, *, compat: bool) -> tuple[str, ...]:
    """The attacks of a published score; with ``compat``, with the faults of the published code."""
    profile = PROFILES[name]

    def spec(attack: str, steps: int = profile.steps, more: str = "") -> str:
        return f"{attack}(eps={profile.eps!r}, steps={steps}, step={profile.step!r}, start=0, best=false{more})"

    if not compat:
        return tuple(map(spec, ERS_ATTACKS))
    faulty = {attack: spec(attack, more=", compat=robrank") for attack in ("ltm", "gtm")} | {"es": spec("es_robrank")}
    # The shift that it reports is that before the last step.
    return (*(faulty.get(attack, spec(attack)) for attack in ERS_ATTACKS), spec("es_robrank", profile.steps - 1))


#: What each suite runs, in order. A changed suite is a changed claim: changes go into the CHANGELOG.
SUITES: dict[str, tuple[str, ...]] = BriefDict(
    {
        "quick": ("noise", "fgsm(goal=margin)", "shift", "margin", "mtax"),
        "standard": ("cascade",),
        "blackbox": ("noise", "square", "nes", "rays"),
        **{name: _profile(name, compat=False) for name in PROFILES},
        **{f"{name}-compat": _profile(name, compat=True) for name in PROFILES},
    }
)
_NAMED = {"pgd", *(spec_name(spec) for spec in (*SUITES["standard"], *_PUBLISHED))}
#: Everything: the standard suite in every norm, attacks as papers run them, and every other attack of the registry with
#: its first goal.
SUITES["all"] = (
    *SUITES["standard"],
    "cascade(norm=l2)",
    "cascade(norm=l1)",
    *_PUBLISHED,
    *(name for name, factory in ATTACKS.items() if not factory.by_name_only and name not in _NAMED),
)


def build_suite(
    names: str, eps: str | float | ThreatModel | Iterable[str | float | ThreatModel], effort: Effort = "standard"
) -> list[Attack]:
    """Build the attacks of a list of suites, specs and patterns, each at every budget that it takes.

    Args:
        names: names separated by commas: suites and specs (``"quick,pgd(steps=100)"``), patterns
            (``"torchattacks.*"``), and, with a ``!``, what to leave out (``"all,!art.*"``). Repeats count once.
        eps: an L-infinity budget, several, or their text (or texts) such as ``"2/255,8/255,0.01/normalised"`` (see
            `robustdml.threat.parse_budget`); in pixels of [0, 1] where nothing else is said. Attacks with
            a budget of their own (another norm, ``eps=`` in the spec, or none) are built once.
        effort: how hard the attacks try.

    Raises:
        UnknownNameError: no such suite or attack.
        SpecError: the list is empty, a pattern fits nothing, or a spec cannot be built.
        BudgetError: eps outside (0, 1].
    """
    budgets = _budgets(eps)
    parts = split_specs(names)
    specs = [spec for part in parts if not part.startswith("!") for spec in _expand(part)]
    for part in parts:
        if part.startswith("!"):
            left_out = set(_expand(part[1:].strip()))
            kept = [spec for spec in specs if not {spec, spec_name(spec)} & left_out]
            if len(kept) == len(specs):
                raise SpecError(f"'{part}' leaves nothing out: no attack of the list has that name")
            specs = kept
    if not specs:
        raise SpecError("no attack given: write a suite or names, such as --attacks all")
    attacks = [build_attack(spec, budget, effort) for spec in specs for budget in budgets]
    return list(dict.fromkeys(attacks))


def _budgets(eps: Any) -> Sequence[ThreatModel]:
    eps = plain_scalar(eps)
    values = [eps] if isinstance(eps, str | bytes | Mapping) or not isinstance(eps, Iterable) else list(eps)
    found = [value for value in values if isinstance(value, ThreatModel)]
    plain = [_written(plain_scalar(value)) for value in values if not isinstance(value, ThreatModel)]
    return [*found, *(parse_budgets(",".join(plain)) if plain or not found else ())]


def _written(eps: Any) -> str:
    if isinstance(eps, str):
        return eps
    if isinstance(eps, bool) or not isinstance(eps, Real | Decimal):
        raise BudgetError(f"eps={brief(eps)} is no budget: write a number such as 8/255, several, or '2/255,8/255'")
    return repr(float(eps))  # NumPy's has its name


def _expand(text: str) -> tuple[str, ...]:
    """The specs that a suite, a pattern or a spec stands for."""
    if text in SUITES:
        return SUITES[text]
    if any(mark in text for mark in "*?[") and "(" not in text:
        found = tuple(name for name, factory in ATTACKS.items() if not factory.by_name_only and fnmatchcase(name, text))
        if not found:
            raise SpecError(f"the pattern '{text}' fits no attack: see 'robustdml list attacks'")
        return found
    name = spec_name(text)
    if name in NOT_OFFERED:
        raise SpecError(f"'{name}' is not offered ({NOT_OFFERED[name]}): see 'robustdml list attacks' for others")
    if name not in ATTACKS and ":" not in name:
        raise UnknownNameError("attack or suite", name, [*ATTACKS, *SUITES])
    return (text,)
