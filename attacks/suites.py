"""Suites: fixed lists of attacks under one name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from robustdml.contracts import Attack
from robustdml.errors import SpecError, UnknownNameError
from robustdml.registry import parse_spec, split_specs
from robustdml.threat import parse_eps_list

from .building import ATTACKS, build_attack

#: What each suite runs, in order. A changed suite is a changed claim: changes go into the CHANGELOG.
SUITES: dict[str, tuple[str, ...]] = {
    "quick": ("noise", "fgsm(goal=margin)", "shift", "margin", "mtax"),
    "all": (
        "noise",
        "fgsm(goal=shift)",
        "fgsm(goal=margin)",
        "fgsm(goal=stax)",
        "fgsm(goal=mtax)",
        "shift",
        "margin",
        "stax",
        "mtax",
        "torchattacks.PGD(goal=untargeted)",
        "torchattacks.PGD(goal=stax)",
        "torchattacks.PGD(goal=mtax)",
        "art.ProjectedGradientDescent(goal=untargeted)",
        "art.ProjectedGradientDescent(goal=stax)",
        "art.ProjectedGradientDescent(goal=mtax)",
    ),
}


def build_suite(names: str, eps: str | float | Iterable[float]) -> list[Attack]:
    """Build the attacks of a list of suites and specs, each at every budget.

    Args:
        names: names separated by commas, such as ``"all"`` or ``"quick,pgd(steps=100)"``; repeats count once.
        eps: a budget, several, or their text such as ``"2/255,8/255"``; in pixels of [0, 1].

    Raises:
        UnknownNameError: no such suite or attack.
        SpecError: the list is empty, or a spec cannot be built.
        BudgetError: eps outside (0, 1].
    """
    if isinstance(eps, str):
        budgets: Sequence[float] = parse_eps_list(eps)
    else:
        values = [eps] if isinstance(eps, float | int) else eps
        budgets = parse_eps_list(",".join(repr(float(value)) for value in values))  # float: NumPy's repr has its name
    specs = [part for text in split_specs(names) for part in SUITES.get(text, (text,))]
    if not specs:
        raise SpecError("no attack given: write a suite or names, such as --attacks all")
    for spec in specs:
        if parse_spec(spec).name not in ATTACKS:
            raise UnknownNameError("attack or suite", parse_spec(spec).name, [*ATTACKS, *SUITES])
    attacks = [build_attack(spec, budget) for spec in specs for budget in budgets]
    return list(dict.fromkeys(attacks))
