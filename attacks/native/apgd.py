"""APGD (Croce & Hein 2020) on embedding goals: gradient ascent that chooses its step lengths itself."""

from __future__ import annotations

import math
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

from .geometry import Radius, check_norm, project, random_perturbation, steepest_step
from .gradient import Best, gradient_entry, value_and_gradient, value_of

# The constants of the papers. How far a step follows its own gradient, and not the step before:
_MOMENTUM = 0.75
# the share of steps that must have raised the value for the length to stay as it is;
_RISING = 0.75
# L1 (Croce & Hein 2021): the share of values that the first steps change, and by how much it and the step shrink.
_FIRST_SHARE, _FEWER, _SHORTER, _SHORTEST = 0.2, 1.5, 1.5, 0.1


@dataclass(frozen=True)
class APGD:
    """Projected gradient ascent that halves its step per query where the value stalls, and goes on from the best image.

    L-infinity and L2 follow Croce & Hein 2020, L1 (sparse steps, shorter and sparser as the value stalls) Croce & Hein
    2021. Unlike the versions of attack libraries it returns the image with the highest value whether or not that
    breaks the query.

    Args:
        goal: what to raise.
        eps: budget, in pixels of [0, 1].
        steps: gradient steps, at least 1.
        restarts: independent random starts in the ball, at least 1; the best per query is returned.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        samples: forward passes that value and gradient are the mean of (see `robustdml.attacks.PGD`), at least 1.

    Raises:
        SpecError: a value out of its range.
    """

    goal: Goal
    eps: float
    steps: int = 50
    restarts: int = 1
    norm: str = "linf"
    samples: int = 1

    def __post_init__(self) -> None:
        check_fields(self)
        check_norm(self.norm)
        if self.steps < 1 or self.restarts < 1 or self.samples < 1:
            raise SpecError(
                f"steps={self.steps}, restarts={self.restarts} and samples={self.samples} must all be at least 1"
            )

    @property
    def threat(self) -> ThreatModel:
        """The ball of radius eps."""
        return ThreatModel(self.eps, self.norm)

    def entry(self) -> AttackEntry:
        """Its row in the results."""
        return gradient_entry("apgd", self, "croce2021mind" if self.norm == "l1" else "croce2020reliable")

    def target_rows(self, references: References, *, seed: int) -> Tensor | None:
        """Those of the goal."""
        return self.goal.target_rows(references, seed=seed)

    def __call__(self, model: nn.Module, images: Tensor, references: References, *, seed: int) -> Tensor:
        """See `robustdml.contracts.Attack`."""
        images, ids = images.detach(), references.ids
        objective = self.goal.objective(references, seed=seed)
        found = Best(images)
        with untouched(model):
            torch.manual_seed(derive_seed(seed, "model", ids.tolist()))
            for restart in range(self.restarts):
                noise = random_perturbation(images, ids, self.eps, self.norm, seed=seed, purpose=f"start{restart}")
                start = project(images + noise, images, self.eps, self.norm)
                best = ascend(
                    model, objective, images, start, self.eps, self.norm, steps=self.steps, samples=self.samples
                )
                found.keep(best.images, best.values)
        return found.images


def ascend(
    model: nn.Module,
    objective: Objective,
    clean: Tensor,
    start: Tensor,
    eps: Radius,
    norm: str,
    *,
    steps: int,
    samples: int = 1,
) -> Best:
    """One run of APGD.

    Args:
        clean: ``(N, C, H, W)``, the centres of the balls.
        start: where to begin, within the balls.
        eps: radius of all balls, or of each.
    """
    pace = _Sparse(clean, eps, steps) if norm == "l1" else _Halving(clean, eps, steps)
    value, gradient = value_and_gradient(model, objective, start, samples)
    best, best_gradient = Best(start, value), gradient.clone()
    current = before = start
    for step in range(1, steps + 1):
        following = current + steepest_step(gradient, current, pace.length, norm, pace.pixels)
        following = project(following, clean, eps, norm)
        if step > 1 and norm != "l1":
            following = current + _MOMENTUM * (following - current) + (1 - _MOMENTUM) * (current - before)
            following = project(following, clean, eps, norm)
        before, current, last = current, following, value
        if step == steps:
            best.keep(current, value_of(model, objective, current, samples))
            break
        value, gradient = value_and_gradient(model, objective, current, samples)
        better = best.keep(current, value)
        best_gradient = torch.where(_each(better), gradient, best_gradient)
        back = pace.after(step, value > last, best)
        if back is not None:
            # The momentum ends there too: it belongs to the way that is given up.
            before, current = (torch.where(_each(back), best.images, part) for part in (before, current))
            gradient = torch.where(_each(back), best_gradient, gradient)
            value = torch.where(back, best.values, value)
    return best


def _each(rows: Tensor) -> Tensor:
    return rows[:, None, None, None]


class _Halving:
    """The steps of Croce & Hein 2020, section 3.1: from 2 eps, halved at checkpoints where progress is poor."""

    pixels = None

    def __init__(self, clean: Tensor, eps: Radius, steps: int) -> None:
        self.length = 2 * eps * torch.ones_like(clean[:, :1, :1, :1])
        self._checkpoints = _checkpoints(steps)
        self._last = 0
        self._rises = clean.new_zeros(len(clean))
        self._halved = torch.zeros(len(clean), dtype=torch.bool, device=clean.device)
        self._best = clean.new_full((len(clean),), -torch.inf)

    def after(self, step: int, rose: Tensor, best: Best) -> Tensor | None:
        """Count a step, and at a checkpoint say which queries go back to their best image."""
        self._rises += rose
        if step not in self._checkpoints:
            return None
        stalled = ~self._halved & (best.values <= self._best)
        self._halved = (self._rises < _RISING * (step - self._last)) | stalled
        self.length = torch.where(self._halved[:, None, None, None], self.length / 2, self.length)
        self._best, self._last = best.values.clone(), step
        self._rises.zero_()
        return self._halved


class _Sparse:
    """The steps of Croce & Hein 2021, section 3.2: the number of values that change follows that of the best image."""

    def __init__(self, clean: Tensor, eps: Radius, steps: int) -> None:
        self._clean, self._size = clean, clean[0].numel()
        self._longest = eps * torch.ones_like(clean[:, :1, :1, :1])
        self._every = max(1, math.ceil(0.04 * steps))
        self._changed = clean.new_full((len(clean),), self._size)
        self.length = self._longest
        self.pixels = torch.full((len(clean),), max(1, int(_FIRST_SHARE * self._size)), device=clean.device)

    def after(self, step: int, rose: Tensor, best: Best) -> Tensor | None:
        """At a checkpoint, adapt to the best image and say which queries go back to it."""
        if step % self._every:
            return None
        changed = (best.images != self._clean).sum((1, 2, 3)).clamp_min(1)
        sparser = changed < 0.95 * self._changed
        shorter = (self.length / _SHORTER).maximum(self._longest * _SHORTEST)
        self.length = torch.where(sparser[:, None, None, None], self._longest, shorter)
        self.pixels = (changed / _FEWER).long().clamp_min(1)
        self._changed = changed
        return sparser


def _checkpoints(steps: int) -> set[int]:
    """When the step may be halved: shares 0, 0.22, 0.41, … of the steps, ever closer (Croce & Hein 2020, eq. 4)."""
    before, share, found = 0.0, 0.22, set()
    while share <= 1:
        # Rounded first, so that 0.57 of 100 steps is 57 in binary too.
        found.add(math.ceil(round(share * steps, 6)))
        before, share = share, share + max(share - before - 0.03, 0.06)
    return found
