"""What a training step of each method costs, as ratios to a standard step on the same clean batch.

Run: python bench/training_step.py [--backbone resnet18-slim] [--image-size 64] [--batch-size 64] [--rounds 7]

The steps take turns in each round, and each ratio is the median over the rounds: on a shared machine the speed drifts,
and only what ran side by side can be compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import click
import torch
from measuring import RATIOS, in_turns, publish
from torch import Tensor

from robustdml.attacks import GOALS
from robustdml.models import EmbeddingModel, ModelConfig, convert_to_multibn
from robustdml.training import METHODS, TrainConfig, build_loss
from robustdml.training.adversarial import example_maker
from robustdml.training.step import Autocast, step_loss


def stepper(
    method: str, precision: str, backbone: str, image_size: int, images: Tensor, labels: Tensor
) -> Callable[[], float]:
    """A function that makes one whole step and returns its seconds."""
    recipe = METHODS[method]
    model = EmbeddingModel(ModelConfig(backbone, image_size=image_size))
    if len(recipe.batchnorms) > 1:
        convert_to_multibn(model, recipe.batchnorms)
    model.to(memory_format=torch.channels_last)
    network = Autocast(model, torch.device("cpu"), precision == "bf16").train()
    optimizer = torch.optim.Adam(model.parameters())
    loss = build_loss("multisimilarity", None, classes=len(labels.unique()), embedding_dim=128)
    attacks = {
        branch: example_maker(branch, TrainConfig(method=method), model, GOALS)
        for branch in recipe.branches
        if branch.kind != "clean"
    }

    def step() -> float:
        started = time.process_time()
        optimizer.zero_grad(set_to_none=True)
        step_loss(network, images, labels, recipe.branches, attacks, loss, seed=0).backward()
        optimizer.step()
        return time.process_time() - started

    return step


@click.command()
@click.option("--backbone", default="resnet18-slim", show_default=True)
@click.option("--image-size", default=64, show_default=True)
@click.option("--batch-size", default=64, show_default=True)
@click.option("--rounds", default=7, show_default=True)
def main(backbone: str, image_size: int, batch_size: int, rounds: int) -> None:
    """Write the table."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images = torch.rand(batch_size, 3, image_size, image_size).to(memory_format=torch.channels_last)
    labels = torch.arange(batch_size) % (batch_size // 4)
    steps = {
        (method, precision): stepper(method, precision, backbone, image_size, images, labels)
        for method in METHODS
        for precision in ("fp32", "bf16")
    }
    rows = []
    for precision in ("fp32", "bf16"):
        alike = {f"{method}, {precision}": step for (method, kind), step in steps.items() if kind == precision}
        rows += in_turns(alike, f"st, {precision}", rounds)
    publish(
        "training",
        f"A training step on {backbone} at {image_size} px, batch of {batch_size}, as ratios to standard training in "
        f"the same precision; {rounds} rounds.",
        rows,
        RATIOS,
    )


if __name__ == "__main__":
    main()
