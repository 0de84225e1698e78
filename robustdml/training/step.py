"""One training step of every method: make the adversarial images, forward all branches at once, one loss.

Shapes: N clean images of the batch; A adversarial ones, made from parts of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from robustdml.branches import Branch
from robustdml.models import branch_layout
from robustdml.models.embedding import captured_features


class ExampleMaker(Protocol):
    """What makes the training images of a branch."""

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, *, seed: int) -> Tensor:
        """Images ``(N, 3, H, W)``, from images in [0, 1] of the classes ``labels``, ``(N,)``; the model stays as is."""
        ...


class Autocast(nn.Module):
    """A model whose forward pass runs in bfloat16 where it is safe; its embeddings are float32 again.

    Args:
        model: an `EmbeddingModel`, which leaves autocast before it normalises.
        device: where it runs.
        enabled: else it is the model itself.
    """

    def __init__(self, model: nn.Module, device: torch.device, enabled: bool) -> None:
        super().__init__()
        self.model = model
        self._context = partial(torch.autocast, device.type, dtype=torch.bfloat16, enabled=enabled)

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings ``(N, D)`` float32."""
        with self._context():
            embeddings: Tensor = self.model(images)
        return embeddings.float()


def adversarial_part(
    model: nn.Module, images: Tensor, labels: Tensor, branch: Branch, attack: ExampleMaker, *, seed: int
) -> Tensor:
    """Attack the part of the batch that ``branch`` names, in evaluation mode, through the branch's own BatchNorm.

    The targets are embeddings of other images of the same part: of another class, or, for unadversarial images, of the
    own one.

    Returns:
        Images ``(A, 3, H, W)`` in [0, 1].
    """
    rows = branch.rows(len(images))
    with branch_layout(model, [(branch.batchnorm, None)]):
        return attack(model, images[rows], labels[rows], seed=seed)


def step_loss(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    branches: Sequence[Branch],
    attacks: Mapping[Branch, ExampleMaker],
    loss: nn.Module,
    *,
    seed: int,
) -> Tensor:
    """The loss of one step (MDProp, arXiv 2211.16253).

    Args:
        model: in training mode, with the BatchNorm branches of ``branches``.
        images: ``(N, 3, H, W)`` in [0, 1].
        labels: ``(N,)``.
        branches: which images the step trains on.
        attacks: the attack of each branch but the clean one.
        loss: maps embeddings and labels of all N + A images to a scalar; one with ``needs_features`` is given the
            backbone's features ``(N + A, F)`` too.
        seed: of the targets and start noise of this step.
    """
    parts, part_labels, layout = [], [], []
    for branch in branches:
        rows = branch.rows(len(images))
        if branch.kind == "clean":
            parts.append(images[rows])
        else:
            parts.append(adversarial_part(model, images, labels, branch, attacks[branch], seed=seed))
        part_labels.append(labels[rows])
        layout.append((branch.batchnorm, len(parts[-1])))
    # Rows of one BatchNorm branch must meet in one call, or their statistics would be of parts: neighbours are merged.
    order = sorted(range(len(layout)), key=lambda index: [name for name, _ in layout].index(layout[index][0]))
    merged: list[tuple[str, int]] = []
    for name, size in (layout[index] for index in order):
        if merged and merged[-1][0] == name:
            merged[-1] = (name, merged[-1][1] + size)
        else:
            merged.append((name, size))
    with branch_layout(model, merged):
        batch, batch_labels = (torch.cat([rows[index] for index in order]) for rows in (parts, part_labels))
        needed = getattr(loss, "needs_features", False)
        capture: AbstractContextManager[list[Tensor]] = captured_features(model) if needed else nullcontext([])
        with capture as features:
            embeddings = model(batch)
    value: Tensor = loss(embeddings, batch_labels, *(part.float() for part in features))
    return value
