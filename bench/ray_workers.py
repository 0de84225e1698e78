"""What two workers of Ray do in the time of one process, and what it costs to begin them.

Run: python bench/ray_workers.py [--rounds 3] [--shards 16] [--backbone resnet18-slim] [--image-size 64] [--steps 10]

An evaluation of one attack by one process and by two workers, in turns. Seconds are those of the processor for a shard
once all are at work. What Ray's other processes and the one that was started take beside the workers, they take from
the two processors that the workers have: of two, two less that is left for shards, whoever else is at work on the
machine. By the clock is what was seen here.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
import psutil
import torch
from measuring import Row, publish
from torch import Tensor, nn

from robustdml.attacks import build_attack
from robustdml.config import RunOptions
from robustdml.data import ArrayImages, RetrievalDataset
from robustdml.evaluation import evaluate
from robustdml.evaluation.cells import Cells
from robustdml.evaluation.work import Done, Task
from robustdml.models import EmbeddingModel, ModelConfig

#: Images of a class, and queries of a task.
_CLASS, _SHARD = 8, 64


class Noting(nn.Module):
    """A model that notes each gradient step of a whole shard: the process' seconds of the processor, and the clock."""

    def __init__(self, model: nn.Module, notes: Path) -> None:
        super().__init__()
        self.model, self.notes = model, notes

    def forward(self, images: Tensor) -> Tensor:
        """The model's embeddings."""
        if images.requires_grad and len(images) == _SHARD:
            with (self.notes / f"{os.getpid()}.jsonl").open("a") as file:
                file.write(json.dumps([time.process_time(), time.monotonic()]) + "\n")
        embeddings: Tensor = self.model(images)
        return embeddings


@dataclass
class Watched:
    """Seconds of the processor of all processes but workers, and of the clock, whenever a shard is back."""

    seen: list[tuple[float, float]] = field(default_factory=list)

    def look(self) -> None:
        """Note them down."""
        beside = time.process_time()
        for process in psutil.Process().children(recursive=True):
            try:
                if not process.name().startswith("ray::"):
                    beside += sum(process.cpu_times()[:2])
            except psutil.NoSuchProcess:
                continue
        self.seen.append((beside, time.monotonic()))


def measured(model: nn.Module, dataset: RetrievalDataset, steps: int, workers: int | None) -> dict[str, float]:
    """One evaluation: seconds of a shard, of the processor (``cpu``) and by the clock, and those before the first.

    ``beside`` are seconds of the processor that others take in a second of the clock.
    """
    watched, done = Watched(), Cells.done
    attack = build_attack(f"pgd(goal=margin, steps={steps})", 8 / 255)

    def noting(self: Cells, task: Task, found: list[Done]) -> None:
        done(self, task, found)
        watched.look()

    Cells.done = noting  # type: ignore[method-assign]
    started = time.monotonic()
    try:
        with TemporaryDirectory() as folder:
            notes = Path(folder) / "notes"
            notes.mkdir()
            options = RunOptions(
                device="cpu", progress=False, nmi=False, engine="ray" if workers else "inline", workers=workers
            )
            evaluate({"net": Noting(model, notes)}, dataset, [attack], out=Path(folder) / "run", options=options)
            calls = [np.array([json.loads(line) for line in file.open()]) for file in notes.iterdir()]
    finally:
        Cells.done = done  # type: ignore[method-assign]
    # The first step of each shard. A model is examined by such steps too, in this process, before the first.
    starts = [call[-(len(call) // steps * steps) :: steps] for call in calls]
    starts = [start[-len(dataset.query) // _SHARD :] for start in starts if len(start) > 1]
    cycles = [(start[-1] - start[0]) / (len(start) - 1) for start in starts]
    taken, passed = np.subtract(watched.seen[-1], watched.seen[0])
    return {
        "cpu": statistics.mean(float(cycle[0]) for cycle in cycles),
        "beside": float(taken / passed) if workers else 0.0,  # this process only hands out and keeps, then
        "clock": 1 / sum(1 / float(cycle[1]) for cycle in cycles),
        "before": min(float(start[0, 1]) for start in starts) - started,
    }


def world(queries: int, size: int) -> RetrievalDataset:
    """Noisy colours."""
    random = np.random.default_rng(0)
    labels = np.arange(2 * queries) // _CLASS
    images = random.integers(0, 256, (labels[-1] + 1, 1, 1, 3)).repeat(_CLASS, 0)
    images = images + random.integers(-60, 61, (len(labels), size, size, 3))
    every = np.arange(len(labels))
    return RetrievalDataset(
        name="colours",
        images=ArrayImages(images.clip(0, 255).astype(np.uint8)),
        labels=labels,
        class_names=tuple(f"colour {index}" for index in range(labels[-1] + 1)),
        train=every[:0],
        query=every[::2],
        gallery=every,
        protocol="Every second one is a query.",
        image_size=size,
        augmentation="none",
    )


@click.command()
@click.option("--rounds", default=3)
@click.option("--shards", default=16, help="Of 64 queries each.")
@click.option("--backbone", default="resnet18-slim")
@click.option("--image-size", default=64)
@click.option("--steps", default=10)
def main(rounds: int, shards: int, backbone: str, image_size: int, steps: int) -> None:
    """Measure and publish."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = EmbeddingModel(ModelConfig(backbone, embedding_dim=128, image_size=image_size)).eval()
    dataset = world(_SHARD * shards, image_size)
    kinds: dict[str, int | None] = {"one process": None, "two workers of Ray": 2}
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind, workers in kinds.items():
            found[kind].append(measured(model, dataset, steps, workers))
    rows = []
    for kind, workers in kinds.items():
        pairs = list(zip(found["one process"], found[kind], strict=True))
        ratios = [((workers or 1) - other["beside"]) * one["cpu"] / other["cpu"] for one, other in pairs]
        rows.append(
            Row(
                what=kind,
                seconds=statistics.median(other["cpu"] for _, other in pairs),
                ratio=statistics.median(ratios),
                low=min(ratios),
                high=max(ratios),
                beside=statistics.median(other["beside"] for _, other in pairs),
                clock=statistics.median(one["clock"] / other["clock"] for one, other in pairs),
                before=statistics.median(other["before"] for _, other in pairs),
            )
        )
    publish(
        "ray",
        f"PGD of {steps} steps on {backbone} at {image_size} px, {shards} shards of 64 images; {rounds} rounds.",
        rows,
        {
            **{"what": "", "seconds": "CPU s a shard", "beside": "CPU s beside, a second"},
            **{"ratio": "times as fast", "low": "smallest", "high": "largest"},
            **{"clock": "by the clock", "before": "seconds before the first shard"},
        },
    )


if __name__ == "__main__":
    main()
