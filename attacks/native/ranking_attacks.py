"""The field's ranking attacks: a goal, and the project's one gradient loop."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustdml.contracts import Gallery, Goal, References
from robustdml.errors import SpecError
from robustdml.results import AttackEntry
from robustdml.seeding import stream
from robustdml.threat import ThreatModel
from robustdml.values import check_fields

from ..attack_entry import native_entry
from .pgd import PGD


@dataclass(frozen=True)
class _Loop:
    goal: Goal
    eps: float
    steps: int = 20
    step: float | None = None
    start: float = 1.0
    best: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
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
        return native_entry(self.goal.name, self, self.goal, "madry2018towards", name=self.goal.title)


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
        check_fields(self)
        super().__post_init__()
        if self.items < 1:
            raise SpecError(f"items={self.items} must be at least 1")

    def entry(self) -> AttackEntry:
        """Its row in the results."""
        name = f"{self.goal.title} on {self.items} items"
        return native_entry(self.goal.name, self, self.goal, "madry2018towards", name=name, side="gallery")

    def poisoned_rows(self, gallery: Gallery, *, seed: int) -> Tensor:
        """Items drawn from the gallery by the seed, in order."""
        count = min(self.items, len(gallery))
        chosen = stream(seed, "items", 0).choice(len(gallery), count, replace=False)
        return torch.from_numpy(chosen).sort().values.to(gallery.ids.device)
