"""The one adapter of all attack libraries: a row of a table, a goal, a budget and parameters."""

from __future__ import annotations

import contextlib
import io
import random
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from robustdml.contracts import Goal, References
from robustdml.errors import AttackSkipped, SpecError
from robustdml.models import untouched
from robustdml.registry import Spec
from robustdml.results import AttackEntry, Norm
from robustdml.seeding import derive_seed
from robustdml.threat import NORMS, ThreatModel

from ..attack_entry import cited, goal_facts, goal_params
from .classifier import SCALE, RetrievalClassifier, problems
from .row import LibraryRow

if TYPE_CHECKING:
    from typing_extensions import Self

#: Numbers that may be below 0: the saliency map darkens with a negative one.
_MAY_BE_NEGATIVE = {"theta"}


@dataclass(frozen=True)
class Task:
    """One classification problem of a batch.

    Args:
        classifier: logits over the classes of the problem.
        model: the embedding model.
        images: ``(N, 3, H, W)`` in [0, 1].
        labels: ``(N,)``, the class to leave, or, with ``targets``, to reach.
        references: of these N queries.
        targets: gallery rows ``(N, T)``, or None for an untargeted attack.
        batch_seed: of the whole batch.
        own_seed: of this problem: of these queries, in the order in which they are.
    """

    classifier: RetrievalClassifier
    model: nn.Module
    images: Tensor
    labels: Tensor
    references: References
    targets: Tensor | None
    batch_seed: int
    own_seed: int


@dataclass(frozen=True)
class LibraryAttack(ABC):
    """An attack of a library, aimed at retrieval through a `RetrievalClassifier`.

    Args:
        kind: the library's name of it, one of ``rows``.
        goal: what it wants.
        eps: its budget in its norm; None exactly where it takes none.
        params: every other parameter with its value, in the library's terms (see `LibraryRow`).

    Raises:
        SpecError: a value out of its range.
    """

    kind: str
    goal: Goal
    eps: float | None
    params: tuple[tuple[str, Any], ...]

    library: ClassVar[str]
    citation: ClassVar[str]
    rows: ClassVar[Mapping[str, LibraryRow]]
    #: Parameters that may be 0; every other number must be above, or the library fails late and in its own words.
    may_be_zero: ClassVar[frozenset[str]]

    @classmethod
    def of(cls, kind: str, goal: Goal, eps: float | None, params: Mapping[str, Any]) -> Self:
        """The attack with these parameters."""
        return cls(kind, goal, eps, tuple(params.items()))

    def __post_init__(self) -> None:
        for key, value in self.params:
            for part in value if isinstance(value, tuple) else (value,):
                if isinstance(part, int | float) and not isinstance(part, bool) and key not in _MAY_BE_NEGATIVE:
                    self._check_number(key, value, part)

    def _check_number(self, key: str, value: object, part: float) -> None:
        if key in self.may_be_zero:
            wrong, wanted = part < 0, "not be below 0"
        else:
            wrong, wanted = part <= 0, "be above 0"
        if wrong:
            raise SpecError(f"{self.library}.{self.kind}: {key}={value} must {wanted}")

    @property
    def row(self) -> LibraryRow:
        """Its row of the table."""
        return self.rows[self.kind]

    @property
    def given(self) -> dict[str, Any]:
        """The parameters by name."""
        return dict(self.params)

    @property
    def norm(self) -> Norm:
        """The norm of its budget, or the one that it makes small."""
        found: Norm = self.given.get("norm", self.row.norms[0])
        return found

    @property
    def threat(self) -> ThreatModel:
        """The ball of radius eps; every image where it has no budget."""
        return ThreatModel(self.eps, self.norm)

    def entry(self) -> AttackEntry:
        """Its row in the results."""
        name = f"{self.library}.{self.kind}"
        norm = [NORMS[self.norm]] if self.norm != self.row.norms[0] else []
        return AttackEntry(
            spec=str(Spec(name, {**goal_params(self.goal), **self.given})),
            name="-".join([name, *norm, self.goal.name]),
            library=self.library,
            **goal_facts(self.goal),
            knowledge=self.row.knowledge,
            norm=self.norm,
            budget=self.row.budget,
            citations=cited(self.goal, self.citation, self.row.citation),
        )

    def target_rows(self, references: References, *, seed: int) -> Tensor | None:
        """Those of the goal."""
        return self.goal.target_rows(references, seed=seed)

    def __call__(self, model: nn.Module, images: Tensor, references: References, *, seed: int) -> Tensor:
        """See `robustdml.contracts.Attack`.

        Raises:
            AttackSkipped: the images are too large for this attack, or no squares where it takes squares alone.
        """
        images, row, side = images.detach(), self.row, max(images.shape[2:])
        if row.largest_side is not None and side > row.largest_side:
            raise AttackSkipped(
                f"images of {side} pixels are too large for {self.library}.{self.kind}, whose cost grows steeply with "
                f"the side: choose --image-size {row.largest_side} or less, or leave it out"
            )
        if row.square_only and images.shape[2] != images.shape[3]:
            raise AttackSkipped(
                f"{self.library}.{self.kind} takes square images alone, and these are {images.shape[2]} x "
                f"{images.shape[3]} pixels: leave it out"
            )
        result = images.clone()
        if self.eps == 0:
            return result  # Some attacks divide by eps, and others refuse it.
        targets = self.target_rows(references, seed=seed)
        with untouched(model), torch.enable_grad(), self._quiet():
            for problem in problems(
                model,
                references,
                targets,
                hardest=self.given.get("hardest", 10),
                scale=SCALE if row.scale is None else row.scale,
                rivals=row.rivals,
                most_rows=row.most_rows,
                most_classes=row.most_classes,
            ):
                rows = problem.rows
                task = Task(
                    classifier=problem.classifier,
                    model=model,
                    images=images[rows],
                    labels=problem.labels,
                    references=references.rows(rows),
                    targets=None if targets is None else targets[rows],
                    batch_seed=seed,
                    own_seed=derive_seed(seed, references.ids[rows].tolist()),
                )
                _seed(task.own_seed)
                result[rows] = self._solve(task)
        return result

    @abstractmethod
    def _solve(self, task: Task) -> Tensor:
        """The library's images for one problem."""

    @contextlib.contextmanager
    def _quiet(self) -> Iterator[None]:
        """Neither what a library prints nor what it does that others advise against is the user's business."""
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield


def _seed(seed: int) -> None:
    """Seed the global states that attack libraries draw from; `untouched` restores them afterwards."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
