"""Projected gradient ascent on a goal: the loop behind ``pgd``, ``fgsm`` and ``mifgsm``."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustdml.contracts import Goal, Objective, References
from robustdml.errors import SpecError
from robustdml.models import untouched
from robustdml.results import AttackEntry
from robustdml.seeding import derive_seed
from robustdml.threat import ThreatModel
from robustdml.values import check_fields

from .geometry import check_norm, project, random_perturbation, steepest_step
from .gradient import Best, gradient_entry, value_and_gradient, value_of


@dataclass(frozen=True)
class PGD:
    """Projected gradient ascent with steps of one length (Madry et al. 2018) on an embedding goal.

    With one step of the full budget it is FGSM (Goodfellow et al. 2015), with momentum MI-FGSM (Dong et al. 2018).

    Args:
        goal: what to raise.
        eps: budget, in pixels of [0, 1].
        steps: gradient steps, at least 1.
        step: length of a step as a share of eps; None stands for 2.5 / steps.
        start: radius of the uniform random start as a share of eps, in [0, 1]. 0 starts at the clean image, which the
            goal must allow (at the clean image `Shift` has no gradient).
        restarts: independent random starts, at least 1; the best per query is returned.
        best: return the iterate with the highest value per query, at the cost of one more forward pass; else the last.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        momentum: share of the past gradients kept in each step, at least 0; each gradient counts with L1 length 1.
        samples: forward passes that value and gradient are the mean of, for models that are random in evaluation mode
            (expectation over transformation, Athalye et al. 2018), at least 1. Such a model draws from the global
            random state, which is seeded for each batch: for it alone the result depends on the batch.

    Raises:
        SpecError: a value out of its range.
    """

    goal: Goal
    eps: float
    steps: int = 20
    step: float | None = None
    start: float = 1.0
    restarts: int = 1
    best: bool = True
    norm: str = "linf"
    momentum: float = 0.0
    samples: int = 1

    def __post_init__(self) -> None:
        check_fields(self)
        check_norm(self.norm)
        if self.steps < 1 or self.restarts < 1:
            raise SpecError(f"steps={self.steps} and restarts={self.restarts} must both be at least 1")
        if not 0 <= self.start <= 1 or (self.step is not None and self.step <= 0):
            raise SpecError(
                f"start={self.start} must be in [0, 1] and step={self.step} above 0: both are shares of eps"
            )
        if self.momentum < 0 or self.samples < 1:
            raise SpecError(f"momentum={self.momentum} must be at least 0 and samples={self.samples} at least 1")
        if self.start == 0 and self.goal.flat_at_clean:
            raise SpecError(f"goal '{self.goal.name}' has no gradient at the clean image: choose start above 0")

    @property
    def threat(self) -> ThreatModel:
        """The ball of radius eps."""
        return ThreatModel(self.eps, self.norm)

    def entry(self) -> AttackEntry:
        """Its row in the results."""
        if self.steps == 1:
            return gradient_entry("pgd", self, "goodfellow2015explaining", family="fgsm")
        if self.momentum:
            return gradient_entry("pgd", self, "dong2018boosting", family="mifgsm")
        return gradient_entry("pgd", self, "madry2018towards")

    def target_rows(self, references: References, *, seed: int) -> Tensor | None:
        """Those of the goal."""
        return self.goal.target_rows(references, seed=seed)

    def __call__(self, model: nn.Module, images: Tensor, references: References, *, seed: int) -> Tensor:
        """See `robustdml.contracts.Attack`."""
        images = images.detach()
        objective = self.goal.objective(references, seed=seed)
        with untouched(model):
            torch.manual_seed(derive_seed(seed, "model", references.ids.tolist()))
            found = Best(*self._ascend(model, images, references.ids, objective, seed, 0))
            for restart in range(1, self.restarts):
                found.keep(*self._ascend(model, images, references.ids, objective, seed, restart))
        return found.images

    def _ascend(
        self, model: nn.Module, images: Tensor, ids: Tensor, objective: Objective, seed: int, restart: int
    ) -> tuple[Tensor, Tensor]:
        step = self.eps * (2.5 / self.steps if self.step is None else self.step)
        current = images
        if self.start:
            noise = random_perturbation(
                images, ids, self.start * self.eps, self.norm, seed=seed, purpose=f"start{restart}"
            )
            current = project(images + noise, images, self.eps, self.norm)
        best = Best(current)
        velocity = torch.zeros_like(images)
        for _ in range(self.steps):
            value, gradient = value_and_gradient(model, objective, current, self.samples)
            best.keep(current, value)
            if self.momentum:
                length = gradient.abs().sum((1, 2, 3), keepdim=True).clamp_min(1e-20)
                gradient = velocity = self.momentum * velocity + gradient / length
            following = current + steepest_step(gradient, current, step, self.norm)
            current = project(following, images, self.eps, self.norm)
        if not self.best and self.restarts == 1:
            # The value of the last iterate is not needed, and would cost a forward pass.
            return current, best.values
        value = value_of(model, objective, current, self.samples)
        if not self.best:
            return current, value
        best.keep(current, value)
        return best.images, best.values
