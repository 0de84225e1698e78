"""What all gradient attacks share: value and gradient of a goal, the best image so far, the row in the results."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from robustdml.contracts import Objective
from robustdml.results import AttackEntry, BudgetKind

from ..attack_entry import native_entry


def value_and_gradient(
    model: nn.Module, objective: Objective, images: Tensor, samples: int = 1
) -> tuple[Tensor, Tensor]:
    """The value of each image ``(N,)`` and its gradient ``(N, C, H, W)``, both the mean over ``samples`` passes."""
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        value = objective(model(images))
        for _ in range(samples - 1):
            value = value + objective(model(images))
        if samples > 1:
            value = value / samples
        gradient = gradient_of(value, images)
    return value.detach(), gradient


def gradient_of(value: Tensor, images: Tensor, *, again: bool = False) -> Tensor:
    """The gradient of the sum of some values by the images, 0 where it is no finite number.

    One such pixel (a root, a norm or a logarithm at 0) would else stop the attack on the whole image.

    Args:
        again: whether another gradient of the same passes will be asked for.
    """
    (gradient,) = torch.autograd.grad(value.sum(), images, retain_graph=again)
    return gradient.nan_to_num(0.0, 0.0, 0.0)


@torch.no_grad()
def value_of(model: nn.Module, objective: Objective, images: Tensor, samples: int = 1) -> Tensor:
    """The value of each image ``(N,)``, the mean over ``samples`` passes."""
    value = objective(model(images))
    for _ in range(samples - 1):
        value = value + objective(model(images))
    return value / samples if samples > 1 else value


class Best:
    """Per query, the image with the highest value that was seen.

    Args:
        images: ``(N, C, H, W)``, what it begins with.
        values: ``(N,)``, theirs; None makes any other image better.
    """

    def __init__(self, images: Tensor, values: Tensor | None = None) -> None:
        self.images = images.clone()
        self.values = images.new_full((len(images),), -torch.inf) if values is None else values.to(images)

    def keep(self, images: Tensor, values: Tensor, rows: Tensor | None = None) -> Tensor:
        """Take over the images that are better; returns which, ``(K,)`` bool.

        Args:
            images: ``(K, C, H, W)``.
            values: ``(K,)``, theirs.
            rows: ``(K,)``, the queries that they are of; None stands for all.
        """
        # Not by a mask as an index, whose rows are counted first: a GPU would be waited for at every step.
        at = slice(None) if rows is None else rows
        better = values > self.values[at]
        self.images[at] = torch.where(better[:, None, None, None], images, self.images[at])
        self.values[at] = torch.where(better, values.to(self.values), self.values[at])
        return better


def gradient_entry(kind: str, attack: Any, citation: str, *, family: str | None = None) -> AttackEntry:
    """The row in the results of a gradient attack with a ``goal`` and a ``norm``.

    Args:
        kind: its name in the registry.
        citation: the key of its paper.
        family: what tables call it, if not ``kind``.
    """
    norm = "" if attack.norm == "linf" else f"-{attack.norm}"
    name = f"{family or kind}-{attack.goal.title}{norm}"
    budget: BudgetKind = "minimum" if attack.threat.eps is None else "fixed"
    return native_entry(kind, attack, attack.goal, citation, name=name, budget=budget)
