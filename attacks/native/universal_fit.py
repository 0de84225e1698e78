"""One change for all queries, made from gallery images alone: what a universal perturbation and a patch share.

The images that the change is computed on are a seeded sample of the gallery, without those that it will be judged on.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from robustdml.contracts import Gallery, Goal, References
from robustdml.errors import AttackSkipped
from robustdml.seeding import stream

#: Fewer images than this say nothing of images never seen.
_FEWEST = 4


def sample(gallery: Gallery, avoid: Tensor, count: int, *, seed: int) -> tuple[Tensor, References]:
    """Gallery images to learn from, ``(K, 3, H, W)``, and their references as if they were queries.

    Args:
        gallery: with images.
        avoid: ids, ``(L,)``, that must not be among them.
        count: K, or as many as there are.
        seed: of the draw.

    Raises:
        AttackSkipped: there are no images, or too few that are not to be avoided.
    """
    if gallery.images is None:
        raise AttackSkipped("the gallery has no images at hand to compute one change for all queries from")
    free = torch.nonzero(~torch.isin(gallery.ids, avoid)).flatten()
    if len(free) < _FEWEST:
        raise AttackSkipped(
            f"{len(free)} gallery images are no queries too, and a change for all queries must not be computed on the "
            "images that it is judged on: attack fewer queries (--max-queries)"
        )
    chosen = stream(seed, "sample", 0).choice(len(free), min(count, len(free)), replace=False)
    rows = free[torch.from_numpy(chosen).sort().values.to(free.device)]
    part = References(gallery, gallery.embeddings[rows], gallery.labels[rows], gallery.ids[rows])
    return gallery.images(rows), part


def learn(
    model: nn.Module,
    goal: Goal,
    apply: Callable[[Tensor, Tensor, int], Tensor],
    change: Tensor,
    update: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    references: References,
    *,
    steps: int,
    batch: int,
    seed: int,
) -> Tensor:
    """Raise the mean value of a goal over the sample by signed gradient steps on one change, batch by batch.

    Args:
        apply: the changed images of ``(change, images, step)``.
        change: where it begins.
        update: the next change, of the change and its gradient.
        images: ``(K, 3, H, W)``, the sample.
        references: of the sample.
        steps: gradient steps.
        batch: images of a step, drawn in turns through the sample.
        seed: of the order.

    Returns:
        The change of the last step.
    """
    order, batch = stream(seed, "order", 0), min(batch, len(images))
    turns, each = -(-steps // (len(images) // batch)), len(images) // batch * batch
    drawn = np.concatenate([order.permutation(len(images))[:each] for _ in range(turns)])
    for step, rows in enumerate(torch.from_numpy(drawn).to(images.device).split(batch)[:steps]):
        objective = goal.objective(references.rows(rows), seed=seed)
        with torch.enable_grad():
            change = change.detach().requires_grad_()
            value = objective(model(apply(change, images[rows], step)))
            (gradient,) = torch.autograd.grad(value.mean(), change)
        change = update(change.detach(), gradient)
    return change.detach()
