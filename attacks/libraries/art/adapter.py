"""One adapter for every attack of ART: a row of the table, a goal, a budget and parameters."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustdml.contracts import References
from robustdml.errors import AttackSkipped, SpecError
from robustdml.models import untouched
from robustdml.registry import Spec
from robustdml.results import AttackEntry
from robustdml.seeding import derive_seed
from robustdml.threat import ThreatModel

from ...entries import goal_params, with_goal_citation
from ...goals.embedding import Aim
from ..classifier import problems
from ..library import seeded
from .row import Job, Row, as_tensor
from .table import ROWS

#: Numbers that may be 0 (or below); every other one must be above 0, or ART fails late and in its own words.
_MAY_BE_ZERO = {"num_random_init", "nb_random_init", "confidence", "max_translation", "max_rotation", "rotation_max"}
_MAY_BE_ZERO |= {"lambda_", "lambda_tv", "lambda_c", "lambda_s", "es", "delta", "min_epsilon", "momentum", "decay"}
_MAY_BE_ZERO |= {"distortion_scale_max", "max_halving", "max_doubling", "beta", "theta"}


@dataclass(frozen=True)
class ARTAttack:
    """An attack of ART through a `RetrievalClassifier`, or on the embedding model where it needs no classes.

    Args:
        kind: the name of ART's class, one of `ROWS`.
        goal: what it wants.
        eps: its budget in its norm, in pixels of [0, 1]; None exactly where it takes none.
        params: every other parameter with its value, sorted by name.

    Raises:
        SpecError: a number that must be above 0 and is not, or a share above 1.
    """

    kind: str
    goal: Aim
    eps: float | None
    params: tuple[tuple[str, Any], ...]

    def __post_init__(self) -> None:
        for name, value in self.params:
            if isinstance(value, int | float) and not isinstance(value, bool):
                if value < 0 and name != "theta":
                    raise SpecError(f"art.{self.kind}: {name}={value} must not be below 0")
                if value == 0 and name not in _MAY_BE_ZERO:
                    raise SpecError(f"art.{self.kind}: {name}={value} must be above 0")

    @property
    def row(self) -> Row:
        """Its row of the table."""
        return ROWS[self.kind]

    @property
    def norm(self) -> str:
        """The norm of its budget, or the one that it makes small."""
        return str(dict(self.params).get("norm", self.row.norms[0]))

    @property
    def threat(self) -> ThreatModel:
        """The ball of radius eps; every image where it has no budget."""
        return ThreatModel(self.eps, self.norm)

    def entry(self) -> AttackEntry:
        """Its row in the results."""
        return AttackEntry(
            spec=str(Spec(f"art.{self.kind}", {**goal_params(self.goal), **dict(self.params)})),
            name=f"art.{self.kind}-{self.goal.name}",
            library="art",
            goal=self.goal.name,
            knowledge=self.row.knowledge,
            norm=self.threat.norm,  # type: ignore[arg-type]
            budget=self.row.budget,
            citations=with_goal_citation(self.goal.name, "nicolae2018art", self.row.citation),
        )

    def target_rows(self, references: References, *, seed: int) -> Tensor | None:
        """Those of the goal."""
        return self.goal.target_rows(references, seed=seed)

    def __call__(self, model: nn.Module, images: Tensor, references: References, *, seed: int) -> Tensor:
        """See `robustdml.contracts.Attack`.

        Raises:
            AttackSkipped: the images are too large for this attack.
        """
        images = images.detach()
        limit, side = self.row.largest_side, max(images.shape[2:])
        if limit is not None and side > limit:
            raise AttackSkipped(
                f"its cost grows with every pixel: images up to {limit} px are tried, these have {side}"
            )
        if self.eps == 0:
            # ART refuses a budget of 0; the only image that it allows is the clean one.
            return images.clone()
        targets = self.target_rows(references, seed=seed)
        result = images.clone()
        with untouched(model), torch.enable_grad(), _quiet():
            for problem in problems(model, references, targets, rivals=self.row.rivals):
                rows = problem.rows
                part_seed = derive_seed(seed, references.ids[rows].tolist())
                seeded(part_seed)
                arguments = self.row.arguments(
                    dict(self.params), self.eps, targeted=targets is not None, count=len(rows)
                )
                job = Job(
                    make=functools.partial(self.row.kind, **arguments),
                    classifier=problem.classifier,
                    model=model,
                    images=images[rows],
                    labels=problem.labels,
                    references=references.rows(rows),
                    targets=None if targets is None else targets[rows],
                    goal=self.goal,
                    params=dict(self.params),
                    seed=seed,
                )
                found = as_tensor(self.row.call(job), images)
                # No result is no attempt: a library's own arithmetic may end in 0 / 0, most often at a flat loss.
                found = torch.where(torch.isfinite(found), found, images[rows])
                result[rows] = self.threat.project(found, images[rows])
        return result


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing that ART prints, logs or warns of reaches the user; what it raises does."""
    logger = logging.getLogger("art")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
