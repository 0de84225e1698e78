"""What the judge costs beside a bare search by faiss and the metrics of other libraries, in time and memory.

Run: python bench/judge_scale.py [--items 60502] [--queries 60502] [--dimensions 512] [--per-class 5] [--part judge]

Each is a process of its own, so that its memory is its own; the base of all is a process that holds the embeddings.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import faiss
import numpy as np
import numpy.typing as npt
import torch
from measuring import PEERS, Row, peer, publish

Embeddings = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


def world(items: int, dimensions: int, per_class: int) -> tuple[Embeddings, Labels]:
    """Classes that overlap: every item a little nearer to its own class than chance would have it."""
    random = np.random.default_rng(0)
    labels = np.arange(items) // per_class
    centres = random.standard_normal((labels[-1] + 1, dimensions), dtype=np.float32)
    points = np.empty((items, dimensions), np.float32)
    for start in range(0, items, 4096):
        part = centres[labels[start : start + 4096]]
        points[start : start + 4096] = part + 3 * random.standard_normal(part.shape, dtype=np.float32)
        points[start : start + 4096] /= np.linalg.norm(points[start : start + 4096], axis=1, keepdims=True)
    return points, labels


def bare(points: Embeddings, labels: Labels, queries: int) -> None:
    """The nearest neighbours of all queries, and no metric."""
    faiss.knn(points[:queries], points, int(np.bincount(labels).max()) + 1, faiss.METRIC_INNER_PRODUCT)


class _Known(torch.nn.Module):
    """A model that knows its answers: images are the numbers of items."""

    def __init__(self, points: Embeddings) -> None:
        super().__init__()
        self.points = points

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self.points[images[:, 0, 0, 0].long().numpy()])


class _Numbers:  # `ImageTensors` of no images
    """Images that are their own numbers."""

    def batch(self, rows: Labels) -> torch.Tensor:
        return torch.from_numpy(np.asarray(rows, np.float32))[:, None, None, None].expand(-1, 3, 1, 1)


def judge(points: Embeddings, labels: Labels, queries: int) -> None:
    """All metrics of clean retrieval, by the judge of an evaluation."""
    from robustdml.data import ArrayImages, RetrievalDataset
    from robustdml.evaluation.judge import Judge
    from robustdml.retrieval.embed import Embedder

    rows = np.arange(len(labels))
    data = RetrievalDataset(
        name="synthetic",
        images=ArrayImages(np.broadcast_to(np.zeros((1, 1, 1, 3), np.uint8), (len(rows), 1, 1, 3))),
        labels=labels,
        class_names=tuple(map(str, range(labels[-1] + 1))),
        train=rows[:0],
        query=rows[:queries],
        gallery=rows,
        protocol="",
        image_size=1,
        augmentation="none",
    )
    made = Judge(Embedder(_Known(points)).eval(), data.test, _Numbers(), torch.device("cpu"), name="known")  # type: ignore[arg-type]
    print({name: round(float(value.mean()), 4) for name, value in made.clean().values.items()}, file=sys.stderr)


def nmi(points: Embeddings, labels: Labels, queries: int) -> None:
    """The clustering of the gallery."""
    from robustdml.retrieval.clustering import clustered_rows
    from robustdml.retrieval.clustering import nmi as measured

    rows = clustered_rows(labels)
    print(measured(*((points, labels) if rows is None else (points[rows], labels[rows]))), file=sys.stderr)


def pml(points: Embeddings, labels: Labels, queries: int) -> None:
    """pytorch-metric-learning's AccuracyCalculator: R@1, R-precision and MAP@R."""
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    wanted = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
    calculator = AccuracyCalculator(include=wanted, k="max_bin_count", device=torch.device("cpu"))
    query, reference = torch.from_numpy(points[:queries]), torch.from_numpy(points)
    own, all_labels = torch.from_numpy(labels[:queries]), torch.from_numpy(labels)
    print(calculator.get_accuracy(query, own, reference, all_labels, True), file=sys.stderr)


def metrics_of_torch(points: Embeddings, labels: Labels, queries: int) -> None:
    """torchmetrics' RetrievalMAP and hit rate, from its three flat tensors of all pairs, for 256 queries at a time."""
    peer("torchmetrics")
    from torchmetrics.functional.retrieval import retrieval_average_precision, retrieval_hit_rate

    gallery, known = torch.from_numpy(points), torch.from_numpy(labels)
    for start in range(0, queries, 256):
        similarity = gallery[start : min(start + 256, queries)] @ gallery.T
        for row, values in enumerate(similarity, start):
            values[row] = -1
            relevant = known == known[row]
            relevant[row] = False
            retrieval_average_precision(values, relevant)
            retrieval_hit_rate(values, relevant, top_k=1)


PARTS: dict[str, Callable[[Embeddings, Labels, int], None]] = {
    "faiss, bare search": bare,
    "robustdml, all metrics": judge,
    "robustdml, NMI": nmi,
    "pytorch-metric-learning, AccuracyCalculator": pml,
    "torchmetrics, mAP and hit rate": metrics_of_torch,
}


def measured(part: str, items: int, queries: int, dimensions: int, per_class: int) -> Row:
    """Seconds and memory of a part, in a process of its own."""
    arguments = [str(value) for value in (items, queries, dimensions, per_class)]
    names = ("--items", "--queries", "--dimensions", "--per-class")
    options = [text for pair in zip(names, arguments, strict=True) for text in pair]
    found = subprocess.run(
        [sys.executable, __file__, *options, "--part", part],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        check=True,
    )
    return Row(json.loads(found.stdout))


@click.command()
@click.option("--items", default=60_502, show_default=True)
@click.option("--queries", default=60_502, show_default=True)
@click.option("--dimensions", default=512, show_default=True)
@click.option("--per-class", default=5, show_default=True)
@click.option("--name", default="judge", show_default=True, help="of the part of docs/performance.md")
@click.option("--part", type=click.Choice(list(PARTS)), help="measure this one, in this process")
@click.option("--without", multiple=True, type=click.Choice(list(PARTS)))
def main(
    items: int, queries: int, dimensions: int, per_class: int, name: str, part: str | None, without: tuple[str, ...]
) -> None:
    """Write the table."""
    if part:
        torch.set_num_threads(1)
        faiss.omp_set_num_threads(1)
        points, labels = world(items, dimensions, per_class)
        base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.process_time()
        PARTS[part](points, labels, queries)
        seconds = time.process_time() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"what": part, "seconds": seconds, "added": (peak - base) / 2**20, "peak": peak / 2**20}))
        return
    torch.set_num_threads(1)  # as each part has, so that the table says so
    chosen = [each for each in PARTS if each not in without]
    if not Path(PEERS, "torchmetrics").is_dir():
        chosen = [each for each in chosen if not each.startswith("torchmetrics")]
    rows = [measured(each, items, queries, dimensions, per_class) for each in chosen]
    for row in rows:
        row["ratio"] = float(row["seconds"]) / float(rows[0]["seconds"])
    publish(
        name,
        f"{queries:,} queries in a gallery of {items:,} items of {dimensions} dimensions, {per_class:,} to a class.",
        rows,
        {"what": "", "seconds": "CPU s", "ratio": "x bare search", "added": "GiB added", "peak": "GiB in all"},
    )


if __name__ == "__main__":
    main()
