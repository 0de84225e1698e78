"""What is known of an attack of another library before that library is imported: a row of a table, as data.

A row says which parameters a spec may set, with their values at standard effort, instead of asking the library's own
signature: importing the library takes seconds, and a list of attacks or the help must not wait for it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import random
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from robustdml.config import Effort
from robustdml.results import BudgetKind, Knowledge, Norm

from ..factory import AttackFactory, Cost

if TYPE_CHECKING:
    from robustdml.contracts import Attack


@dataclass(frozen=True)
class LibraryRow:
    """One attack of a library.

    Args:
        summary: one line for listings.
        citation: the key of its paper.
        params: the parameters that a spec may set, in the library's terms, with their values at standard effort; where
            there are several norms, ``norm`` comes before them. ``step`` beside ``step_name`` is the length of a step
            as a share of eps; None stands for 2.5 over the number of steps.
        goals: see `AttackFactory`; so are norms, budget, knowledge, cost, effort and by_name_only.
        rivals: what the targets of a targeted attack compete with (see `problems`): "none" for attacks that follow a
            loss, "own" for those that stop or return the clean image by their own test of success. None exactly where
            it has no targets.
        eps_name: the library's argument for a fixed budget.
        step_name: the library's argument for the length of a step; None where it has none.
        steps_name: the parameter that counts the steps.
        hidden: arguments of the library that have no effect, or a harmful one, and are no parameters.
        scale: of the classifier's logits; None takes the usual one.
        most_rows: queries per problem; 1 for attacks that go image by image anyway.
        most_classes: classes per problem, where the memory or the time needed grows with their number.
        largest_side: of images, in pixels; larger ones are skipped.
        square_only: the library takes height and width for the same; images of other sides are skipped.
        needs: a package that the library does not install with itself.
    """

    summary: str
    citation: str
    params: Mapping[str, object] = field(default_factory=dict)
    _: KW_ONLY
    goals: tuple[str, ...] = ("untargeted", "stax", "mtax")
    norms: tuple[Norm, ...] = ("linf",)
    budget: BudgetKind = "fixed"
    knowledge: Knowledge = "gradients"
    cost: Cost = "low"
    effort: Mapping[Effort, Mapping[str, object]] = field(default_factory=dict)
    by_name_only: str = ""
    rivals: Literal["own", "none"] | None = None
    eps_name: str = "eps"
    step_name: str | None = None
    steps_name: str = "steps"
    hidden: tuple[str, ...] = ()
    scale: float | None = None
    most_rows: int | None = None
    most_classes: int | None = None
    largest_side: int | None = None
    square_only: bool = False
    needs: str | None = None

    @property
    def defaults(self) -> dict[str, object]:
        """Every parameter that a spec may set, with its value at standard effort."""
        return {**({"norm": self.norms[0]} if len(self.norms) > 1 else {}), **self.params}

    def step_of(self, params: Mapping[str, Any], eps: float) -> float:
        """The length of a step in the terms of the budget."""
        share: float | None = params["step"]
        return eps * (2.5 / params[self.steps_name] if share is None else share)


def factories(library: str, adapter: str, rows: Mapping[str, LibraryRow]) -> dict[str, AttackFactory]:
    """The registry's entries of a library.

    Args:
        adapter: the attack class, as ``module.Class`` below this package; it alone imports the library.
        rows: by the library's own name of each attack.
    """

    return {
        f"{library}.{kind}": AttackFactory(
            row.summary,
            partial(_make, adapter, kind),
            row.defaults,
            row.goals,
            row.effort,
            library=library,
            knowledge=row.knowledge,
            norms=row.norms,
            budget=row.budget,
            cost=row.cost,
            by_name_only=row.by_name_only,
        )
        for kind, row in rows.items()
    }


@contextlib.contextmanager
def a_home() -> Iterator[None]:
    """A home folder for a library that writes into it when it is imported, where there is none, as for services."""
    if Path("~").expanduser().is_dir():
        yield
        return
    before = os.environ.get("HOME")
    with tempfile.TemporaryDirectory() as home:
        os.environ["HOME"] = home
        try:
            yield
        finally:
            if before is None:
                del os.environ["HOME"]
            else:
                os.environ["HOME"] = before


@contextlib.contextmanager
def global_state_kept() -> Iterator[None]:
    """Random states and warning filters as they were: libraries and what they import draw numbers and set filters."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with warnings.catch_warnings():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _make(adapter: str, kind: str, *, goal: Any, eps: float | None = None, **params: object) -> Attack:
    module, _, name = adapter.rpartition(".")
    with global_state_kept(), a_home():
        made = getattr(importlib.import_module(f".{module}", __package__), name)
    attack: Attack = made.of(kind, goal, eps, params)
    return attack
