"""The arithmetic of training examples as MDProp was published, for comparisons; the default differs where it was odd.

Published: the targets are a permutation of the part's own embeddings (an image may meet itself or its class), the loss
is the squared mean over targets and images of the L2 distance, the start lies within 0.0005, and all of it happens
after normalisation: eps = 0.01 there is about 0.57/255 in pixels, and images are clipped to the range of the part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from robustdml.models import evaluation_mode
from robustdml.seeding import stream, uniform_like
from robustdml.training.processes import ALONE, Processes

#: Radius of the start noise, after normalisation.
START = 0.0005


@dataclass(frozen=True)
class PublishedExamples:
    """STAX (one target) or MTAX (several) as published (arXiv 2211.16253 and its code's behaviour).

    Args:
        targets: T, at least 1.
        eps: L-infinity budget after normalisation.
        steps: signed gradient steps of eps / steps each.
        mean: of the model's normalisation, per channel.
        std: of the model's normalisation, per channel.
        processes: those that share the batch; each has some row of the part.
        first: the row of the batch at which the part begins.
    """

    targets: int
    eps: float
    steps: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    processes: Processes = ALONE
    first: int = 0

    def target_rows(self, count: int, *, seed: int) -> Tensor:
        """``(N, T)``: T permutations of the N = ``count`` images of a part."""
        columns = [stream(seed, "permutation", number).permutation(count) for number in range(self.targets)]
        return torch.from_numpy(np.stack(columns, axis=1))

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, *, seed: int) -> Tensor:
        """Images ``(n, 3, H, W)``, in pixels (they may leave [0, 1] a little, as published), from such images.

        Each aims at the clean embeddings of others of the part, whatever their ``labels``, ``(N,)``.
        """
        part = slice(self.first, self.first + len(labels))
        mean = images.new_tensor(self.mean).view(3, 1, 1)
        std = images.new_tensor(self.std).view(3, 1, 1)
        clean = (images.detach() - mean) / std
        lowest, highest = self.processes.extremes(clean)
        ids = torch.arange(len(labels))[self.processes.places(part)]
        current = clean + START * uniform_like(images, ids, seed=seed, purpose="start0")
        rows = self.target_rows(len(labels), seed=seed)[ids].to(images.device)
        with evaluation_mode(model), torch.enable_grad():
            with torch.no_grad():
                wanted = self.processes.gather(model(images.detach()), [part])[rows]  # (n, T, D)
            for _ in range(self.steps):
                current = current.detach().requires_grad_()
                distance = (model(current * std + mean)[:, None] - wanted).square().sum(2)
                # The small constant keeps the root's gradient finite where an image is its own target.
                loss = (distance + 1e-12).sqrt().mean().square()
                (gradient,) = torch.autograd.grad(loss, current)
                moved = current.detach() - self.eps / self.steps * gradient.sign()
                current = torch.maximum(torch.minimum(moved, clean + self.eps), clean - self.eps)
                current = current.clamp(lowest, highest)
        return current.detach() * std + mean
