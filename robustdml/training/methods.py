"""Training methods as lists of branches: which kinds of image a batch holds, and through which BatchNorm each goes.

Names as in the paper (arXiv 2211.16253, PMLR 222:1231-1246): ST, AT, AdvProp-D (AP'), MP', MDProp (MP''), MP'''.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from robustdml.errors import SpecError, UnknownNameError
from robustdml.registry import Registry
from robustdml.threat import ThreatModel

#: Clean images, or images made from them: pushed towards one foreign item, towards several, towards the own class
#: (unadversarial), or over the retrieval margin.
Kind = Literal["clean", "stax", "mtax", "unadversarial", "margin"]
_WITH_TARGETS = ("mtax", "unadversarial")


@dataclass(frozen=True)
class Branch:
    """One kind of image in the training batch.

    Args:
        kind: the clean images, or how others are made from them.
        batchnorm: the BatchNorm branch that they go through; methods with one name only keep ordinary BatchNorm.
        part: which of the clean images they are made from, as shares of the batch: (from, to).
        targets: T of ``mtax`` and ``unadversarial``; None takes the run's.
        eps: budget in pixels of [0, 1]; None takes the run's.
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
    steps: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UnknownNameError("kind of branch", str(self.kind), get_args(Kind))
        if not isinstance(self.batchnorm, str) or not self.batchnorm.isidentifier():
            raise SpecError(f"batchnorm='{self.batchnorm}' of a branch must be a word such as clean or stax")
        start, stop = self.part
        if not 0 <= start < stop <= 1:
            raise SpecError(f"part={list(self.part)} of branch '{self.kind}' must be two shares, 0 <= from < to <= 1")
        if self.kind == "clean" and (self.part != (0.0, 1.0) or (self.targets, self.eps, self.steps) != (None,) * 3):
            raise SpecError("the clean branch is the whole batch as it is: it has no part, targets, eps or steps")
        if self.targets is not None and (self.kind not in _WITH_TARGETS or self.targets < 1):
            raise SpecError(f"targets={self.targets} of branch '{self.kind}': at least 1, for {_WITH_TARGETS} only")
        if self.steps is not None and self.steps < 1:
            raise SpecError(f"steps={self.steps} of branch '{self.kind}' must be at least 1")
        if self.eps is not None:
            ThreatModel(self.eps)

    def rows(self, batch: int) -> slice:
        """The rows of a batch of ``batch`` clean images; odd halves are rounded so that parts meet without a gap."""
        return slice(round(self.part[0] * batch), round(self.part[1] * batch))


@dataclass(frozen=True)
class Method:
    """A list of branches and one line on it.

    Args:
        branches: exactly one of them is clean, and it comes first: its BatchNorm is the one deployed.
        frozen_batchnorm: BatchNorm keeps its statistics and affine parameters (for pretrained weights; the paper's ST
            baseline after Roth et al. 2020).

    Raises:
        SpecError: the clean branch is missing, repeated or not the first.
    """

    summary: str
    branches: tuple[Branch, ...]
    frozen_batchnorm: bool = False

    def __post_init__(self) -> None:
        kinds = [branch.kind for branch in self.branches]
        if kinds.count("clean") != 1 or kinds[0] != "clean":
            raise SpecError(f"a method needs exactly one clean branch, the first; this one has {kinds or 'no branch'}")

    @property
    def batchnorms(self) -> tuple[str, ...]:
        """The BatchNorm branches in order of appearance; the first is deployed."""
        return tuple(dict.fromkeys(branch.batchnorm for branch in self.branches))


_CLEAN = Branch("clean")
_FIRST, _SECOND = (0.0, 0.5), (0.5, 1.0)
_MDPROP = (_CLEAN, Branch("stax", "stax", _FIRST), Branch("mtax", "mtax", _SECOND))
_FOUR = (
    _CLEAN,
    Branch("stax", "stax", (0.0, 1 / 3)),
    Branch("mtax", "mtax3", (1 / 3, 2 / 3), targets=3),
    Branch("mtax", "mtax5", (2 / 3, 1.0), targets=5),
)

METHODS: Registry[Method] = Registry("method")
for _name, _method in {
    "st": Method("standard training: clean images only", (_CLEAN,)),
    "at": Method("clean and STAX images through one BatchNorm", (_CLEAN, Branch("stax"))),
    "advprop": Method("AdvProp-D (AP'): clean and STAX images, a BatchNorm each", (_CLEAN, Branch("stax", "stax"))),
    "mp1": Method("MP': clean and MTAX images, a BatchNorm each", (_CLEAN, Branch("mtax", "mtax"))),
    "mdprop": Method(
        "MDProp (MP''): clean, STAX (first half of the batch) and MTAX (second half), a BatchNorm each", _MDPROP
    ),
    "mp3": Method("MP''': clean, STAX, MTAX with T = 3 and with T = 5 (a third each), four BatchNorms", _FOUR),
    "unadversarial": Method(
        "clean images and images pushed towards their own class, a BatchNorm each",
        (_CLEAN, Branch("unadversarial", "unadversarial")),
    ),
    "unadversarial-shared": Method(
        "clean images and images pushed towards their own class, one BatchNorm", (_CLEAN, Branch("unadversarial"))
    ),
    "st-frozen": Method("standard training with frozen BatchNorm, for pretrained weights", (_CLEAN,), True),
    "at-frozen": Method("AT with frozen BatchNorm, for pretrained weights", (_CLEAN, Branch("stax")), True),
}.items():
    METHODS.add(_name, _method)
