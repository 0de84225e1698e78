"""Branches: which kinds of image a training batch holds, and through which BatchNorm each goes (arXiv 2211.16253)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from robustdml.errors import SpecError, UnknownNameError
from robustdml.threat import ThreatModel
from robustdml.values import ByValue, check_fields, check_range

#: Clean images, or images made from them: pushed towards one foreign item, towards several, towards the own class
#: (unadversarial), or over the retrieval margin.
Kind = Literal["clean", "stax", "mtax", "unadversarial", "margin"]
#: Kinds that aim at several items at once.
WITH_TARGETS = ("mtax", "unadversarial")


#: Of a method; each is a forward pass of a step, and BatchNorm layers of its own.
MOST_BRANCHES = 64


@dataclass(frozen=True)
class Branch:
    """One kind of image in the training batch.

    Args:
        kind: the clean images, or how others are made from them.
        batchnorm: the BatchNorm branch that they go through; methods with one name only keep ordinary BatchNorm.
        part: which of the clean images they are made from, as shares of the batch: (from, to).
        targets: T of ``mtax`` and ``unadversarial``; None takes the run's.
        eps: budget in pixels of [0, 1]; None takes the run's.
        eps_factor: what the run's eps is multiplied by, above 0; for branches without an eps of their own.
        steps: gradient steps; None takes the run's.

    Raises:
        UnknownNameError: no such kind.
        SpecError: a value out of its range, or one that the kind has no use for.
        BudgetError: eps outside [0, 1].
    """

    kind: Kind
    batchnorm: str = "clean"
    part: tuple[float, float] = (0.0, 1.0)
    targets: int | None = None
    eps: float | None = None
    eps_factor: float = 1.0
    steps: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.kind not in get_args(Kind):
            raise UnknownNameError("kind of branch", str(self.kind), get_args(Kind))
        if not isinstance(self.batchnorm, str) or not self.batchnorm.isidentifier():
            raise SpecError(f"batchnorm='{self.batchnorm}' of a branch must be a word such as clean or stax")
        start, stop = self.part
        if not 0 <= start < stop <= 1:
            raise SpecError(f"part={list(self.part)} of branch '{self.kind}' must be two shares, 0 <= from < to <= 1")
        if self.kind == "clean" and (self.part != (0.0, 1.0) or (self.targets, self.eps, self.steps) != (None,) * 3):
            raise SpecError("the clean branch is the whole batch as it is: it has no part, targets, eps or steps")
        for name, value in (("targets", self.targets), ("steps", self.steps)):
            if value is not None:
                check_range(name, value, 1, 10_000, of=f" of branch '{self.kind}'")
        if self.targets is not None and self.kind not in WITH_TARGETS:
            raise SpecError(f"targets={self.targets} of branch '{self.kind}': for {WITH_TARGETS} only")
        if self.eps is not None:
            ThreatModel(self.eps)
        if not 0 < self.eps_factor <= 1000 or (self.eps_factor != 1 and (self.eps is not None or self.kind == "clean")):
            raise SpecError(
                f"eps_factor={self.eps_factor} of branch '{self.kind}' must be above 0, at most 1000, and multiplies "
                "the run's eps: leave it out beside an eps of the branch's own, and for clean images"
            )

    def budget(self, eps: float) -> float:
        """The branch's budget in a run with ``eps``, at most 1."""
        return min(1.0, eps * self.eps_factor) if self.eps is None else self.eps

    def rows(self, batch: int) -> slice:
        """The rows of a batch of ``batch`` clean images; odd halves are rounded so that parts meet without a gap."""
        return slice(round(self.part[0] * batch), round(self.part[1] * batch))


@dataclass(frozen=True, eq=False, repr=False)
class Method(ByValue):
    """A list of branches and one line on it.

    Args:
        branches: at least one; the BatchNorm of the first is the one deployed. Clean images, where there are any, are
            one branch and the first; without them a model is trained on attacked images alone (Madry et al. 2018).
        frozen_batchnorm: BatchNorm keeps its statistics and affine parameters (for pretrained weights; the paper's ST
            baseline after Roth et al. 2020).

    Raises:
        SpecError: there is no branch, or the clean one is repeated or not the first.
    """

    summary: str
    branches: tuple[Branch, ...]
    frozen_batchnorm: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        kinds = [branch.kind for branch in self.branches]
        if not kinds:
            raise SpecError("a method needs at least one branch, and it has none: add one, such as clean")
        if len(kinds) > MOST_BRANCHES:
            raise SpecError(f"a method has at most {MOST_BRANCHES} branches, and this one has {len(kinds):,}")
        if "clean" in kinds[1:]:
            raise SpecError(
                f"only the first branch of a method may be clean, and it has {', '.join(kinds)}: leave one clean "
                "branch, and put it first"
            )

    @property
    def batchnorms(self) -> tuple[str, ...]:
        """The BatchNorm branches in order of appearance; the first is deployed."""
        return tuple(dict.fromkeys(branch.batchnorm for branch in self.branches))
