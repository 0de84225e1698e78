"""A budget per channel: any attack on queries, in pixels that are stretched until all channels have the same budget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from robustdml.contracts import (
    AdaptableAttack,
    Attack,
    Doubts,
    FittedAttack,
    IdentifiedAttack,
    References,
    Stage,
    StagedAttack,
    TwoSidedAttack,
    foreign_code,
)
from robustdml.errors import AttackSkipped
from robustdml.results import AttackEntry
from robustdml.threat import ThreatModel

from .straight_through import StraightThrough
from .transfer import Transfer


class _Clamped(torch.autograd.Function):
    """Values brought into [0, 1], with the gradient that they have within."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.clamp(0.0, 1.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


class Stretched(nn.Module):
    """A model of pixels that were divided by a factor per channel.

    A search may leave [0, 1] where a channel was divided by more than 1; what the model sees never does. Beyond, the
    gradient is that at the border, so that an image is not stuck there.

    Args:
        model: maps images ``(N, 3, H, W)`` in [0, 1] to embeddings.
        factors: ``(3, 1, 1)``, at least 1.
    """

    factors: Tensor

    def __init__(self, model: nn.Module, factors: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("factors", factors, persistent=False)

    def pixels(self, images: Tensor) -> Tensor:
        """The images that the model sees."""
        found: Tensor = _Clamped.apply(images * self.factors)
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings of the images before they were divided."""
        embeddings: Tensor = self.model(self.pixels(images))
        return embeddings


@dataclass(frozen=True)
class PerChannel:
    """An attack with a budget per channel, in L-infinity.

    Pixels are divided, channel by channel, by the channel's budget over the smallest one: all then have the smallest as
    their budget, which the attack is given. Every attack that only asks the model and its gradients can be run so.

    Args:
        attack: with the smallest budget of the channels.
        threat: the whole budget.
    """

    attack: Attack
    threat: ThreatModel

    @property
    def goal(self) -> Any:
        """That of the attack, where it has one."""
        return getattr(self.attack, "goal", None)

    def entry(self) -> AttackEntry:
        """Its row in the results: that of the attack."""
        return self.attack.entry()

    def identity(self) -> str:
        """See `robustdml.contracts.IdentifiedAttack`: that of the attack."""
        inner = self.attack
        return inner.identity() if isinstance(inner, IdentifiedAttack) else foreign_code(inner)

    def target_rows(self, references: References, *, seed: int) -> Tensor | None:
        """Those of the attack."""
        return self.attack.target_rows(references, seed=seed)

    def __call__(self, model: nn.Module, images: Tensor, references: References, *, seed: int) -> Tensor:
        """See `robustdml.contracts.Attack`.

        Raises:
            AttackSkipped: the attack makes one change for all images, or changes the gallery.
        """
        entry = self.attack.entry()
        if entry.side != "query" or isinstance(self.attack, FittedAttack | TwoSidedAttack):
            raise AttackSkipped(f"{entry.name} takes one eps for all channels, and this budget is {self.threat.text}")
        assert self.threat.channels is not None
        radii = images.new_tensor(self.threat.channels).view(3, 1, 1)
        stretched = Stretched(model, radii / radii.min())
        load = references.gallery.images
        if load is not None:
            small = replace(references.gallery, images=lambda rows: load(rows) / stretched.factors)
            references = replace(references, gallery=small)
        begin = images / stretched.factors
        found = self.attack(stretched, begin, references, seed=seed)
        # What was left alone comes back bit by bit.
        return torch.where(found == begin, images, stretched.pixels(found))


@dataclass(frozen=True)
class StagedPerChannel(PerChannel):
    """`PerChannel` of an attack in stages, each of which has the budget per channel."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """See `robustdml.contracts.StagedAttack`."""
        assert isinstance(self.attack, StagedAttack)
        return tuple(replace(stage, attack=per_channel(stage.attack, self.threat)) for stage in self.attack.stages)


@dataclass(frozen=True)
class AdaptablePerChannel(StagedPerChannel):
    """`StagedPerChannel` of an attack that goes other ways on models whose gradients cannot be trusted."""

    def adapted(self, doubts: Doubts) -> StagedPerChannel:
        """See `robustdml.contracts.AdaptableAttack`."""
        assert isinstance(self.attack, AdaptableAttack)
        return StagedPerChannel(self.attack.adapted(doubts), self.threat)


def per_channel(attack: Attack, threat: ThreatModel) -> Attack:
    """An attack with the smallest budget of the channels, made one with the whole budget.

    What runs another attack on another model, or on this one with other gradients, runs it so itself.
    """
    if isinstance(attack, StraightThrough | Transfer):
        return replace(attack, attack=per_channel(attack.attack, threat))
    if isinstance(attack, AdaptableAttack):
        return AdaptablePerChannel(attack, threat)
    return StagedPerChannel(attack, threat) if isinstance(attack, StagedAttack) else PerChannel(attack, threat)
