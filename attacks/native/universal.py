"""A universal perturbation for retrieval: one delta that is added to every query (after Li et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from robustdml.contracts import Attack, Gallery, Goal, References
from robustdml.errors import SpecError
from robustdml.models import untouched
from robustdml.results import AttackEntry
from robustdml.seeding import uniform_like
from robustdml.threat import ThreatModel
from robustdml.values import check_fields

from ..attack_entry import native_entry
from .universal_fit import learn, sample


@dataclass(frozen=True)
class Universal:
    """One L-infinity perturbation for all queries, learnt on gallery images and never on the queries.

    Args:
        goal: `Margin` or `Shift`.
        eps: budget, in pixels of [0, 1].
        steps: gradient steps, at least 1.
        step: length of a step as a share of eps, above 0.
        sample: gallery images that it is learnt on (or as many as there are), at least 1.
        batch: images of a step, at least 1.
        delta: ``(1, 3, H, W)`` where it has been computed (see `fitted`).

    Raises:
        SpecError: a value out of its range.
    """

    goal: Goal
    eps: float
    steps: int = 100
    step: float = 0.1
    sample: int = 256
    batch: int = 64
    delta: Tensor | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_fields(self)
        if min(self.steps, self.sample, self.batch) < 1 or not self.step > 0:
            raise SpecError(
                f"steps={self.steps}, sample={self.sample} and batch={self.batch} must be at least 1, "
                f"step={self.step} above 0"
            )

    @property
    def threat(self) -> ThreatModel:
        """The L-infinity ball of radius eps."""
        return ThreatModel(self.eps)

    def entry(self) -> AttackEntry:
        """Its row in the results."""
        return native_entry("universal", self, self.goal, "li2019universal", name=f"universal-{self.goal.title}")

    def target_rows(self, references: References, *, seed: int) -> None:
        """None: untargeted."""

    def fitted(self, model: nn.Module, gallery: Gallery, avoid: Tensor, *, seed: int) -> Attack:
        """See `robustdml.contracts.FittedAttack`."""
        images, references = sample(gallery, avoid, self.sample, seed=seed)
        first = torch.zeros(1, dtype=torch.int64)
        start = uniform_like(images[:1], first, seed=seed, purpose="universal") * self.eps
        step = self.step * self.eps

        def climb(delta: Tensor, gradient: Tensor) -> Tensor:
            return (delta + step * gradient.sign()).clamp(-self.eps, self.eps)

        with untouched(model):
            delta = learn(
                model,
                self.goal,
                lambda delta, batch, _: (batch + delta).clamp(0.0, 1.0),
                start,
                climb,
                images,
                references,
                steps=self.steps,
                batch=self.batch,
                seed=seed,
            )
        return replace(self, delta=delta)

    def __call__(self, model: nn.Module, images: Tensor, references: References, *, seed: int) -> Tensor:
        """See `robustdml.contracts.Attack`."""
        images = images.detach()
        if self.delta is None:
            return self.fitted(model, references.gallery, references.ids, seed=seed)(
                model, images, references, seed=seed
            )
        return self.threat.project(images + self.delta.to(images), images)
