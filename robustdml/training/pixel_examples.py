"""Training examples by gradient steps on a goal, where each image of a part aims at the part's others.

An attack asks for the clean embeddings of its targets and then takes its steps. Here the first step's forward pass
gives both, which saves one of the passes: for MDProp, an eighth of the whole training step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustdml.contracts import Goal, batch_references
from robustdml.models import evaluation_mode
from robustdml.seeding import uniform_like
from robustdml.training.processes import ALONE, Processes

#: Radius of the start noise as a share of eps, as published (0.0005 of 0.01).
START = 0.05


@dataclass(frozen=True)
class TrainingExamples:
    """Signed gradient steps of eps / steps each from beside the clean image; the last one is the example.

    Args:
        goal: what to raise, such as nearness to items of other classes.
        eps: L-infinity budget, in pixels of [0, 1].
        steps: gradient steps, at least 1.
        processes: those that share the batch.
        first: the row of the batch at which the part begins.
    """

    goal: Goal
    eps: float
    steps: int
    processes: Processes = ALONE
    first: int = 0

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, *, seed: int) -> Tensor:
        """Images ``(n, 3, H, W)`` in [0, 1] from own images of a part, which is of the classes ``labels``, ``(N,)``.

        The targets are embeddings of the part's images where the ascent starts, within `START` of eps of the clean
        ones. The model is left as it was; its mode within is that of evaluation.
        """
        part = slice(self.first, self.first + len(labels))
        images = images.detach()
        if not len(images):
            # The others wait for this process's embeddings, and a network need not take an empty batch.
            with evaluation_mode(model), torch.no_grad():
                self.processes.gather(model(images.new_zeros(1, *images.shape[1:]))[:0], [part])
            return images
        ids = torch.arange(len(labels))[self.processes.places(part)]
        current = images + START * self.eps * uniform_like(images, ids, seed=seed, purpose="start0")
        current = current.clamp(0, 1)
        objective = None
        with evaluation_mode(model), torch.enable_grad():
            for _ in range(self.steps):
                current = current.detach().requires_grad_()
                embeddings = model(current)
                if objective is None:
                    references = batch_references(self.processes.gather(embeddings.detach(), [part]), labels)
                    objective = self.goal.objective(references.rows(ids.to(labels.device)), seed=seed)
                (gradient,) = torch.autograd.grad(objective(embeddings).sum(), current)
                moved = current.detach() + self.eps / self.steps * gradient.sign()
                current = moved.clamp(images - self.eps, images + self.eps).clamp(0, 1)
        return current.detach()
