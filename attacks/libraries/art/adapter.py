"""Attacks of ART, aimed at retrieval through a `RetrievalClassifier`, or at the embedding model itself."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import io
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from art.attacks import evasion
from torch import Tensor

from robustdml.contracts import Goal

from ..library import LibraryAttack, Task
from .estimators import Array, at_home
from .job import Job
from .row import ARTRow
from .rows import ROWS

if TYPE_CHECKING:
    from typing_extensions import Self

_NORMS = {"linf": np.inf, "l2": 2, "l1": 1, "l0": 0}


@dataclass(frozen=True)
class ARTAttack(LibraryAttack):
    """An attack of ART: see `LibraryAttack`; ``params`` are sorted by name."""

    library = "art"
    citation = "nicolae2018art"
    rows = ROWS
    may_be_zero = frozenset(
        {"num_random_init", "nb_random_init", "confidence", "max_translation", "max_rotation", "rotation_max"}
        | {"lambda_", "lambda_tv", "lambda_c", "lambda_s", "es", "delta", "min_epsilon", "momentum", "decay"}
        | {"distortion_scale_max", "max_halving", "max_doubling", "beta"}
    )

    @classmethod
    def of(cls, kind: str, goal: Goal, eps: float | None, params: Mapping[str, Any]) -> Self:
        """The attack with these parameters."""
        return cls(kind, goal, eps, tuple(sorted(params.items())))

    @property
    def row(self) -> ARTRow:
        """Its row of the table."""
        return ROWS[self.kind]

    def _solve(self, task: Task) -> Tensor:
        kind = functools.partial(getattr(evasion, self.kind), **self.arguments(task))

        def make(*given: Any, **more: Any) -> Any:
            return at_home(kind(*given, **more), task.images.device)

        module, _, name = self.row.call.partition(".")
        call = getattr(importlib.import_module(f".{module}", __package__), name)
        found: Array = call(Job(**vars(task), make=make, goal=self.goal, params=self.given))
        images = torch.from_numpy(np.ascontiguousarray(found)).to(task.images)
        # No result is no attempt: a library's own arithmetic may end in 0 / 0, most often at a flat loss.
        return self.threat.project(torch.where(torch.isfinite(images), images, task.images), task.images)

    def arguments(self, task: Task) -> dict[str, Any]:
        """The arguments of ART's constructor."""
        row, params = self.row, self.given
        known = inspect.signature(getattr(evasion, self.kind).__init__).parameters
        ours = {*row.own, "norm", *(("step",) if row.step_name else ())}
        found = {row.renamed.get(name, name): value for name, value in params.items() if name not in ours}
        if self.eps is not None:
            found[row.eps_name] = int(self.eps) if row.norms[0] == "l0" else self.eps
            if row.step_name:
                found[row.step_name] = row.step_of(params, self.eps)
        if "norm" in known and (len(row.norms) > 1 or row.budget == "fixed"):
            found["norm"] = _NORMS[self.norm]
        usual = {
            "targeted": task.targets is not None,
            "batch_size": max(len(task.images), 64) if row.together else 1,
            "verbose": False,
        }
        return {**{name: value for name, value in usual.items() if name in known}, **found}

    @contextlib.contextmanager
    def _quiet(self) -> Iterator[None]:
        """Nothing that ART prints, logs or warns of reaches the user; what it raises does."""
        logger = logging.getLogger("art")
        level = logger.level
        logger.setLevel(logging.CRITICAL + 1)
        try:
            with super()._quiet(), contextlib.redirect_stderr(io.StringIO()):
                yield
        finally:
            logger.setLevel(level)
