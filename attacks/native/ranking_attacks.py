"""The field's ranking attacks: a goal, and the project's one gradient loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from robustdml.contracts import Gallery, References
from robustdml.errors import SpecError
from robustdml.results import AttackEntry
from robustdml.seeding import stream
from robustdml.threat import ThreatModel

from ..entries import entry_spec
from ..goals.ranking import RankingGoal
from .pgd import PGD


@dataclass(frozen=True)
class _Loop:
    goal: RankingGoal
    eps: float
    steps: int = 20
    step: float | None = None
    start: float = 1.0
    best: bool = True

    def __post_init__(self) -> None:
        self._ascent()  # it knows the ranges

    def _ascent(self) -> PGD:
        return PGD(self.goal, self.eps, steps=self.steps, step=self.step, start=self.start, best=self.best)

    @property
    def threat(self) -> ThreatModel:
        """The L-infinity ball of radius eps."""
        return ThreatModel(self.eps)

    def target_rows(self, references: References, *, seed: int) -> Tensor | None:
        """Those of the goal."""
        return self.goal.target_rows(references, seed=seed)

    def __call__(self, model: nn.Module, images: Tensor, references: References, *, seed: int) -> Tensor:
        """See `robustdml.contracts.Attack`."""
        return self._ascent()(model, images, references, seed=seed)


@dataclass(frozen=True)
class RankingAttack(_Loop):
    """Signed gradient ascent on a ranking goal of a query, L-infinity.

    The published loop is ``start=0, best=false``: it starts at the clean image and takes the last iterate. The default
    is stronger.

    Args:
        goal: what to raise.
        eps: budget, in pixels of [0, 1].
        steps: gradient steps, at least 1.
        step: length of a step as a share of eps; None stands for 2.5 / steps.
        start: radius of the uniform random start as a share of eps, in [0, 1].
        best: return the iterate with the highest value per image; else the last.

    Raises:
        SpecError: a value out of its range.
    """

    def entry(self) -> AttackEntry:
        """Its row in the results."""
        return _entry(self, self.goal, self.goal.title, "query")


@dataclass(frozen=True)
class CandidateAttack(_Loop):
    """Signed gradient ascent on a goal of gallery items, L-infinity: it is called with their images.

    Args:
        goal: what to raise.
        eps: budget, in pixels of [0, 1].
        steps: gradient steps, at least 1.
        step: length of a step as a share of eps; None stands for 2.5 / steps.
        start: radius of the uniform random start as a share of eps, in [0, 1].
        best: return the iterate with the highest value per image; else the last.
        items: how many items of the gallery are attacked (all, where it has fewer), at least 1.

    Raises:
        SpecError: a value out of its range.
    """

    items: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.items < 1:
            raise SpecError(f"items={self.items} must be at least 1")

    def entry(self) -> AttackEntry:
        """Its row in the results."""
        return _entry(self, self.goal, f"{self.goal.title} on {self.items} items", "gallery")

    def poisoned_rows(self, gallery: Gallery, *, seed: int) -> Tensor:
        """Items drawn from the gallery by the seed, in order."""
        count = min(self.items, len(gallery))
        chosen = stream(seed, "items", 0).choice(len(gallery), count, replace=False)
        return torch.from_numpy(chosen).sort().values.to(gallery.ids.device)


def _entry(attack: _Loop, goal: RankingGoal, name: str, side: Literal["query", "gallery"]) -> AttackEntry:
    return AttackEntry(
        spec=entry_spec(goal.name, attack),
        name=name,
        library="robustdml",
        goal=goal.name,
        knowledge="gradients",
        norm="linf",
        side=side,
        citations=(goal.citation, "madry2018towards"),
    )
