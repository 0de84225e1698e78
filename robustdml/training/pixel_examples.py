"""Training examples by gradient steps on a goal, where each image of a part aims at the part's others.

An attack asks for the clean embeddings of its targets and then takes its steps. Here the first step's forward pass
gives both, which saves one of the passes: for MDProp, an eighth of the whole training step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustdml.contracts import Goal, Objective, batch_references
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
        return make_together(model, [(self, images, labels)], seed=seed)[0]


def make_together(
    model: nn.Module, parts: Sequence[tuple[TrainingExamples, Tensor, Tensor]], *, seed: int
) -> list[Tensor]:
    """The examples of several parts by the same passes: half as many, of twice the images, are faster.

    Args:
        model: its BatchNorm branches are laid out for the images of all parts, one after the other.
        parts: what makes those of a part, own images and the labels of the part (see `TrainingExamples`); all take as
            many steps.
    """
    processes = parts[0][0].processes
    rows = [slice(maker.first, maker.first + len(labels)) for maker, _, labels in parts]
    sizes = [len(images) for _, images, _ in parts]
    clean = torch.cat([images for _, images, _ in parts]).detach()
    if not len(clean):
        # The others wait for this process's embeddings, and a network need not take an empty batch.
        with evaluation_mode(model), torch.no_grad():
            empty = model(clean.new_zeros(1, *clean.shape[1:]))[:0]
            for part in rows:
                processes.gather(empty, [part])
        return [images for _, images, _ in parts]
    ids = [torch.arange(len(labels))[processes.places(part)] for part, (_, _, labels) in zip(rows, parts, strict=True)]
    start, budget = [], []
    for own, (maker, images, _) in zip(ids, parts, strict=True):
        start.append(uniform_like(images, own, seed=seed, purpose="start0") if len(images) else images)
        budget.append(clean.new_full((len(images), 1, 1, 1), maker.eps))
    noise, eps = torch.cat(start), torch.cat(budget)
    current = (clean + START * eps * noise).clamp(0, 1)
    objectives: list[Objective] = []
    with evaluation_mode(model), torch.enable_grad():
        for _ in range(parts[0][0].steps):
            current = current.detach().requires_grad_()
            embeddings = model(current).split(sizes)
            if not objectives:
                for (maker, _, labels), part, own, found in zip(parts, rows, ids, embeddings, strict=True):
                    references = batch_references(processes.gather(found.detach(), [part]), labels)
                    objectives.append(maker.goal.objective(references.rows(own.to(labels.device)), seed=seed))
            values = [objective(found).sum() for objective, found in zip(objectives, embeddings, strict=True)]
            (gradient,) = torch.autograd.grad(torch.stack(values).sum(), current)
            moved = current.detach() + eps / parts[0][0].steps * gradient.sign()
            current = moved.clamp(clean - eps, clean + eps).clamp(0, 1)
    return list(current.detach().split(sizes))
