"""Projected gradient ascent on a goal: the one loop behind ``pgd`` and ``fgsm``."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustdml.contracts import References
from robustdml.errors import SpecError
from robustdml.models import untouched
from robustdml.results import AttackEntry
from robustdml.seeding import uniform_like
from robustdml.threat import ThreatModel

from .goals import Goal, Objective
from .spec import entry_spec


@dataclass(frozen=True)
class PGD:
    """Projected gradient ascent with signed steps (Madry et al. 2018) on an embedding goal, L-infinity.

    With one step of the full budget it is FGSM (Goodfellow et al. 2015).

    Args:
        goal: what to raise.
        eps: budget, in pixels of [0, 1].
        steps: gradient steps, at least 1.
        step: length of a step as a share of eps; None stands for 2.5 / steps.
        start: radius of the uniform random start as a share of eps, in [0, 1]. 0 starts at the clean image, which the
            goal must allow (at the clean image `Shift` has no gradient).
        restarts: independent random starts, at least 1; the best per query is returned.
        best: return the iterate with the highest value per query, at the cost of one more forward pass; else the last.

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

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1:
            raise SpecError(f"steps={self.steps} and restarts={self.restarts} must both be at least 1")
        if not 0 <= self.start <= 1 or (self.step is not None and self.step <= 0):
            raise SpecError(
                f"start={self.start} must be in [0, 1] and step={self.step} above 0: both are shares of eps"
            )
        if self.start == 0 and self.goal.flat_at_clean:
            raise SpecError(f"goal '{self.goal.name}' has no gradient at the clean image: choose start above 0")

    @property
    def threat(self) -> ThreatModel:
        """The L-infinity ball of radius eps."""
        return ThreatModel(self.eps)

    def entry(self) -> AttackEntry:
        """Its row in the results."""
        family, citation = ("fgsm", "goodfellow2015explaining") if self.steps == 1 else ("pgd", "madry2018towards")
        return AttackEntry(
            spec=entry_spec("pgd", self),
            name=f"{family}-{self.goal.name}",
            library="robustdml",
            goal=self.goal.name,
            knowledge="gradients",
            norm="linf",
            citations=(citation, *(("singh2023mdprop",) if self.goal.name in {"stax", "mtax"} else ())),
        )

    def target_rows(self, references: References, *, seed: int) -> Tensor | None:
        """Those of the goal."""
        return self.goal.target_rows(references, seed=seed)

    def __call__(self, model: nn.Module, images: Tensor, references: References, *, seed: int) -> Tensor:
        """See `robustdml.contracts.Attack`."""
        images = images.detach()
        objective = self.goal.objective(references, seed=seed)
        with untouched(model):
            result, value = self._ascend(model, images, references.ids, objective, seed, 0)
            for restart in range(1, self.restarts):
                again, again_value = self._ascend(model, images, references.ids, objective, seed, restart)
                better = again_value > value
                result[better], value[better] = again[better], again_value[better]
        return result

    def _ascend(
        self, model: nn.Module, images: Tensor, ids: Tensor, objective: Objective, seed: int, restart: int
    ) -> tuple[Tensor, Tensor]:
        threat = self.threat
        step = self.eps * (2.5 / self.steps if self.step is None else self.step)
        current = images
        if self.start:
            noise = uniform_like(images, ids, seed=seed, purpose=f"start{restart}")
            current = threat.project(images + noise * (self.start * self.eps), images)
        best = current.clone()
        best_value = torch.full((len(images),), -torch.inf, device=images.device)
        for _ in range(self.steps):
            with torch.enable_grad():
                current = current.detach().requires_grad_()
                value = objective(model(current))
                (gradient,) = torch.autograd.grad(value.sum(), current)
            self._keep(best, best_value, current.detach(), value.detach())
            current = threat.project(current.detach() + step * gradient.sign(), images)
        if not self.best and self.restarts == 1:
            return current, best_value
        with torch.no_grad():
            value = objective(model(current))
        if not self.best:
            return current, value
        self._keep(best, best_value, current, value)
        return best, best_value

    @staticmethod
    def _keep(best: Tensor, best_value: Tensor, current: Tensor, value: Tensor) -> None:
        better = value > best_value
        best[better] = current[better]
        best_value[better] = value[better]
