"""Training methods as lists of branches: which kinds of image a batch holds, and through which BatchNorm each goes.

Names as in the paper (mdprop: arXiv 2211.16253, PMLR 222:1231-1246): ST, AT, AdvProp-D (AP') and MDProp (MP'').
"""

from __future__ import annotations

from dataclasses import dataclass

from robustdml.registry import Registry


@dataclass(frozen=True)
class Branch:
    """One kind of image in the training batch.

    Args:
        goal: None for the clean images; else the goal of the attack that makes them from clean ones (``"stax"``, …).
        batchnorm: the BatchNorm branch that they go through; methods with one name only keep ordinary BatchNorm.
        part: which of the clean images they are made from, as shares of the batch: (from, to).
    """

    goal: str | None
    batchnorm: str
    part: tuple[float, float] = (0.0, 1.0)

    def rows(self, batch: int) -> slice:
        """The rows of a batch of ``batch`` clean images; odd halves are rounded so that parts meet without a gap."""
        return slice(round(self.part[0] * batch), round(self.part[1] * batch))


@dataclass(frozen=True)
class Method:
    """A list of branches, the clean one first, and one line on it."""

    summary: str
    branches: tuple[Branch, ...]

    @property
    def batchnorms(self) -> tuple[str, ...]:
        """The BatchNorm branches in order of appearance; the first is deployed."""
        return tuple(dict.fromkeys(branch.batchnorm for branch in self.branches))


_CLEAN = Branch(None, "clean")

METHODS: Registry[Method] = Registry("method")
METHODS.add("st", Method("standard training: clean images only", (_CLEAN,)))
METHODS.add("at", Method("clean and STAX images through one BatchNorm", (_CLEAN, Branch("stax", "clean"))))
METHODS.add("advprop", Method("AdvProp-D: clean and STAX images, a BatchNorm each", (_CLEAN, Branch("stax", "stax"))))
METHODS.add(
    "mdprop",
    Method(
        "MDProp: clean, STAX (first half of the batch) and MTAX (second half), a BatchNorm each",
        (_CLEAN, Branch("stax", "stax", (0.0, 0.5)), Branch("mtax", "mtax", (0.5, 1.0))),
    ),
)
