"""Training examples by gradient steps on a goal, where each image of a part aims at the part's others.

An attack asks for the clean embeddings of its targets and then takes its steps. Here the first step's forward pass
gives both, which saves one of the passes: for MDProp, an eighth of the whole training step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustdml.contracts import Raised, batch_references
from robustdml.models import evaluation_mode
from robustdml.seeding import uniform_like

#: Radius of the start noise as a share of eps, as published (0.0005 of 0.01).
START = 0.05


@dataclass(frozen=True)
class TrainingExamples:
    """Signed gradient steps of eps / steps each from beside the clean image; the last one is the example.

    Args:
        goal: what to raise, such as nearness to items of other classes.
        eps: L-infinity budget, in pixels of [0, 1].
        steps: gradient steps, at least 1.
    """

    goal: Raised
    eps: float
    steps: int

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, *, seed: int) -> Tensor:
        """Images ``(N, 3, H, W)`` in [0, 1] from the images of a part, which are of the classes ``labels``, ``(N,)``.

        The targets are embeddings of the part's images where the ascent starts, within `START` of eps of the clean
        ones. The model is left as it was; its mode within is that of evaluation.
        """
        images = images.detach()
        ids = torch.arange(len(images))
        current = images + START * self.eps * uniform_like(images, ids, seed=seed, purpose="start0")
        current = current.clamp(0, 1)
        objective = None
        with evaluation_mode(model), torch.enable_grad():
            for _ in range(self.steps):
                current = current.detach().requires_grad_()
                embeddings = model(current)
                if objective is None:
                    objective = self.goal.objective(batch_references(embeddings.detach(), labels), seed=seed)
                (gradient,) = torch.autograd.grad(objective(embeddings).sum(), current)
                moved = current.detach() + self.eps / self.steps * gradient.sign()
                current = moved.clamp(images - self.eps, images + self.eps).clamp(0, 1)
        return current.detach()
