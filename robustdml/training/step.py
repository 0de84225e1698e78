"""One training step of every method: make the adversarial images, forward all branches at once, one loss.

Shapes: N clean images of the batch; A adversarial ones, made from parts of it. Of several processes each makes and
forwards those of its own rows, n and a of them; all compute the loss of all.
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
from robustdml.models.features import captured_features
from robustdml.training.pixel_examples import TrainingExamples, make_together
from robustdml.training.processes import ALONE, Processes


class ExampleMaker(Protocol):
    """What makes the training images of a branch."""

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, *, seed: int) -> Tensor:
        """Images ``(n, 3, H, W)``, from own images in [0, 1] of a part of the classes ``labels``, ``(N,)``.

        The model stays as it is.
        """
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
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    branch: Branch,
    attack: ExampleMaker,
    *,
    seed: int,
    processes: Processes = ALONE,
) -> Tensor:
    """Attack the part of the batch that ``branch`` names, in evaluation mode, through the branch's own BatchNorm.

    The targets are embeddings of other images of the same part: of another class, or, for unadversarial images, of the
    own one.

    Returns:
        Images ``(a, 3, H, W)`` in [0, 1].
    """
    rows = branch.rows(len(labels))
    with branch_layout(model, [(branch.batchnorm, None)]):
        return attack(model, images[processes.own(rows)], labels[rows], seed=seed)


def _together(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    branches: Sequence[Branch],
    attacks: Mapping[Branch, ExampleMaker],
    *,
    seed: int,
    processes: Processes,
) -> dict[Branch, Tensor]:
    """What `adversarial_part` makes of each branch, by the same passes for all that take as many steps."""
    found: dict[Branch, Tensor] = {}
    makers = {branch: maker for branch, maker in attacks.items() if isinstance(maker, TrainingExamples)}
    for steps in {maker.steps for maker in makers.values()}:
        alike = [branch for branch in branches if branch in makers and makers[branch].steps == steps]
        if len(alike) < 2:
            continue
        rows = [branch.rows(len(labels)) for branch in alike]
        own = [images[processes.own(part)] for part in rows]
        parts = [(makers[branch], image, labels[part]) for branch, image, part in zip(alike, own, rows, strict=True)]
        layout: list[tuple[str, int | None]] = [
            (branch.batchnorm, len(image)) for branch, image in zip(alike, own, strict=True) if len(image)
        ]
        with branch_layout(model, layout or [(alike[0].batchnorm, None)]):
            found.update(zip(alike, make_together(model, parts, seed=seed), strict=True))
    return found


def step_loss(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    branches: Sequence[Branch],
    attacks: Mapping[Branch, ExampleMaker],
    loss: nn.Module,
    *,
    seed: int,
    processes: Processes = ALONE,
) -> Tensor:
    """The loss of one step (MDProp, arXiv 2211.16253).

    Args:
        model: in training mode, with the BatchNorm branches of ``branches``.
        images: ``(n, 3, H, W)`` in [0, 1], own rows of the batch.
        labels: ``(N,)``, of the whole batch.
        branches: which images the step trains on.
        attacks: the attack of each branch but the clean one.
        loss: maps embeddings and labels of all N + A images to a scalar; one with ``pooling`` is given the
            backbone's features ``(N + A, F)`` too, pooled in that way.
        seed: of the targets and start noise of this step.
        processes: those that the batch is shared among.
    """
    all_rows = [branch.rows(len(labels)) for branch in branches]
    together = _together(model, images, labels, branches, attacks, seed=seed, processes=processes)
    parts, part_labels, layout = [], [], []
    for branch, rows in zip(branches, all_rows, strict=True):
        if branch.kind == "clean":
            parts.append(images[processes.own(rows)])
        elif branch in together:
            parts.append(together[branch])
        else:
            attack = attacks[branch]
            parts.append(adversarial_part(model, images, labels, branch, attack, seed=seed, processes=processes))
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
        pooling = getattr(loss, "pooling", None)
        capture: AbstractContextManager[list[Tensor]] = (
            captured_features(model, pooling) if pooling else nullcontext([])
        )
        with capture as features, processes.batchnorm(), processes.randomness(seed, shared=False):
            embeddings = model(batch)
    ordered = [all_rows[index] for index in order]
    gathered = [processes.gather(part, ordered) for part in (embeddings, *(part.float() for part in features))]
    with processes.randomness(seed, shared=True):
        value: Tensor = loss(gathered[0], batch_labels, *gathered[1:])
    return value
