"""What a norm lends to a gradient loop: a random start, the direction of a step, and the way back into the ball.

Shapes: images, perturbations and gradients are ``(N, C, H, W)``.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from robustdml.errors import SpecError
from robustdml.seeding import stream, uniform_like
from robustdml.threat import norm_of, project_ball

from ..factory import GRADIENT_NORMS

#: One radius for all rows, or ``(N, 1, 1, 1)``.
Radius: TypeAlias = "float | Tensor"

# Each halves the interval of the shift that the L1 projection looks for; float32 has no more digits.
_BISECTIONS = 30


def check_norm(norm: str) -> None:
    """Refuse a norm that is not one of `GRADIENT_NORMS`.

    Raises:
        SpecError: it is not.
    """
    if norm not in GRADIENT_NORMS:
        raise SpecError(f"norm={norm} is not known: {', '.join(GRADIENT_NORMS)}")


def random_perturbation(images: Tensor, ids: Tensor, radius: Radius, norm: str, *, seed: int, purpose: str) -> Tensor:
    """A perturbation drawn uniformly from the ball, each row from the stream of its id (Barthe et al. 2005)."""
    if norm == "linf":
        return uniform_like(images, ids, seed=seed, purpose=purpose) * radius
    rows = []
    for item in ids.tolist():
        random = stream(seed, purpose, item)
        shape = tuple(images.shape[1:])
        # With density exp(-|t|^p) for each value, dividing by the p-norm of all and one exponential more is uniform.
        noise = random.normal(0, np.sqrt(0.5), shape) if norm == "l2" else random.laplace(size=shape)
        power = 2 if norm == "l2" else 1
        rows.append(noise / ((np.abs(noise) ** power).sum() + random.exponential()) ** (1 / power))
    return torch.from_numpy(np.stack(rows)).to(images) * radius


def steepest_step(gradient: Tensor, images: Tensor, length: Radius, norm: str, pixels: Tensor | None = None) -> Tensor:
    """The step of a given length along which the value rises most; zero where the gradient is.

    For L1 that step changes the values with the largest slope as far as [0, 1] allows, until the length is used up
    (Croce & Hein 2021, proposition 3.2).

    Args:
        images: where the gradient was taken.
        length: of the step in the norm.
        pixels: L1 only, ``(N,)`` int64: spread the step evenly over so many values instead, those with the largest
            slope that [0, 1] leaves room to change (Tramer & Boneh 2019).
    """
    if norm == "linf":
        return length * gradient.sign()
    if norm == "l2":
        direction: Tensor = gradient / norm_of(gradient, "l2").clamp_min(1e-20)[:, None, None, None]
        return length * direction
    room = torch.where(gradient > 0, 1 - images, images).flatten(1)
    slope = gradient.flatten(1).masked_fill(room <= 0, 0)
    order = slope.abs().argsort(dim=1, descending=True, stable=True)
    limit = torch.as_tensor(length, dtype=slope.dtype, device=slope.device).reshape(-1, 1)
    if pixels is None:
        ordered = room.gather(1, order)
        taken = (limit - (ordered.cumsum(1) - ordered)).clamp_min(0).minimum(ordered)
    else:
        first = torch.arange(slope.shape[1], device=slope.device) < pixels[:, None]
        taken = first * (limit / pixels[:, None])
    sizes = torch.zeros_like(slope).scatter(1, order, taken)
    return (sizes * slope.sign()).view_as(gradient)


def project(adversarial: Tensor, clean: Tensor, radius: Radius, norm: str) -> Tensor:
    """Back into the ball and into [0, 1].

    For L-infinity and L1 it is the nearest image in both at once (for L1 that is what makes attacks strong, Croce &
    Hein 2021); for L2 one projection after the other.
    """
    if norm == "linf":
        return adversarial.clamp(clean - radius, clean + radius).clamp(0.0, 1.0)
    if norm == "l2":
        delta = adversarial.clamp(0.0, 1.0) - clean
        if isinstance(radius, float):
            return (clean + project_ball(delta, radius, "l2")).clamp(0.0, 1.0)
        share: Tensor = radius / norm_of(delta, "l2").clamp_min(1e-12)[:, None, None, None]
        return (clean + delta * share.clamp_max(1.0)).clamp(0.0, 1.0)
    return _project_l1(adversarial - clean, clean, radius)


def _project_l1(delta: Tensor, clean: Tensor, radius: Radius) -> Tensor:
    """The nearest perturbation in the L1 ball that keeps the image in [0, 1], added to the image.

    All values shrink by one amount, and those that would leave [0, 1] stop there; the amount is found by bisection.
    """
    size = delta.abs()
    room = torch.where(delta > 0, 1 - clean, clean)
    limit = torch.as_tensor(radius, dtype=delta.dtype, device=delta.device)

    def shrunk(amount: Tensor) -> Tensor:
        return (size - amount).clamp_min(0).minimum(room)

    def fits(values: Tensor) -> Tensor:
        return values.sum((1, 2, 3), keepdim=True) <= limit

    low = torch.zeros_like(size[:, :1, :1, :1])
    high = size.amax((1, 2, 3), keepdim=True)
    inside = fits(shrunk(low))
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        enough = fits(shrunk(middle))
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return (clean + shrunk(torch.where(inside, 0.0, high)) * delta.sign()).clamp(0.0, 1.0)
