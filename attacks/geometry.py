"""What a norm lends to a gradient loop: a random start, the direction of a step, and the way back into the ball.

Shapes: images, perturbations and gradients are ``(N, C, H, W)``; a radius is one number, or ``(N, 1, 1, 1)``.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from robustdml.seeding import stream, uniform_like
from robustdml.threat import norm_of, project_ball

Radius: TypeAlias = "float | Tensor"

#: The norms of the project's gradient attacks.
GEOMETRIES = ("linf", "l2", "l1")

# Each halves the interval of the shift that the L1 projection looks for; float32 has no more digits.
_BISECTIONS = 30


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


def step_direction(gradient: Tensor, images: Tensor, norm: str, pixels: Tensor | None = None) -> Tensor:
    """The direction of steepest ascent, of length 1 in the norm; zero where the gradient is.

    For L1 the steepest step changes one value only; it is spread evenly over the ``pixels`` values with the largest
    slope (Tramer & Boneh 2019), of those that [0, 1] leaves room to change (Croce & Hein 2021).

    Args:
        images: where the gradient was taken.
        pixels: L1 only, how many values a step changes, ``(N,)`` int64.
    """
    if norm == "linf":
        return gradient.sign()
    if norm == "l2":
        direction: Tensor = gradient / norm_of(gradient, "l2").clamp_min(1e-20)[:, None, None, None]
        return direction
    assert pixels is not None
    stuck = ((images <= 0) & (gradient < 0)) | ((images >= 1) & (gradient > 0))
    slope = gradient.masked_fill(stuck, 0).flatten(1)
    size = slope.abs()
    ordered = size.sort(dim=1, descending=True).values
    smallest = ordered.gather(1, pixels.clamp(1, size.shape[1])[:, None] - 1)
    signs = slope.sign() * (size >= smallest)
    direction = signs / signs.abs().sum(1, keepdim=True).clamp_min(1)
    return direction.view_as(gradient)


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
