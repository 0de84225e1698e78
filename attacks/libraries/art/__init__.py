"""Attacks of the Adversarial Robustness Toolbox (Nicolae et al. 2018), aimed at retrieval; imported only here."""

from __future__ import annotations

import functools
import importlib.util
from typing import Any

from ...factory import AttackFactory
from ...goals.embedding import Aim
from .adapter import ARTAttack
from .refused import REFUSED
from .table import ROWS


def _make(kind: str, goal: Aim, eps: float | None = None, **params: Any) -> ARTAttack:
    return ARTAttack(kind, goal, eps, tuple(sorted(params.items())))


def _absent(package: str | None) -> bool:
    return package is not None and importlib.util.find_spec(package) is None


FACTORIES: dict[str, AttackFactory] = {
    f"art.{kind}": AttackFactory(
        row.summary,
        functools.partial(_make, kind),
        row.defaults(),
        row.goals,
        row.effort,
        library="art",
        knowledge=row.knowledge,
        norms=row.norms,
        budget=row.budget,
        cost=row.cost,
        by_name_only=row.by_name_only,
    )
    for kind, row in ROWS.items()
    if not _absent(row.needs)
}

NOT_OFFERED: dict[str, str] = {
    **{f"art.{name}": reason for name, reason in REFUSED.items()},
    **{
        f"art.{kind}": f"needs a package that is not here: pip install {row.needs}"
        for kind, row in ROWS.items()
        if _absent(row.needs)
    },
}
