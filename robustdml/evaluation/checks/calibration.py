"""Settings in which the truth is known: linear embeddings of a data set's pixels, to tell what attacks miss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from robustdml.contracts import Attack
from robustdml.data import RetrievalDataset, RetrievalSplit
from robustdml.data.images import ArrayImages
from robustdml.data.tensors import ImageTensors
from robustdml.errors import SpecError
from robustdml.evaluation.attacking.queries import attack_shard
from robustdml.evaluation.checks.truth import Booleans, Floats, LinearRetrieval, Truth
from robustdml.evaluation.judge import Judge
from robustdml.retrieval.embed import Embedder
from robustdml.seeding import stream
from robustdml.threat import ThreatModel

#: The budgets of the settings that every attack is measured in.
BUDGETS = (ThreatModel(4 / 255), ThreatModel(8 / 255))

#: Their dimensions: from hardly enough to tell digits apart to nearly as many as there are cells.
DIMENSIONS = (8, 16, 48)


class LinearEmbedding(nn.Module):
    """``z = W x + b`` of all values of an image.

    Args:
        weight: W, ``(D, P)`` with P = 3 x H x W.
        bias: b, ``(D,)``.
    """

    def __init__(self, weight: npt.NDArray[np.float64], bias: npt.NDArray[np.float64]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float32), requires_grad=False)
        self.bias = nn.Parameter(torch.tensor(bias, dtype=torch.float32), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        """``(N, D)``, of any length, from images ``(N, 3, H, W)``."""
        return nn.functional.linear(images.flatten(1), self.weight, self.bias)


@dataclass(frozen=True, eq=False)
class LinearSetting:
    """A linear embedding, images, and a budget.

    Args:
        model: the embedding.
        split: images in memory, of ``size`` pixels a side, queries and gallery.
        threat: the budget.
        size: side of the images in pixels.
    """

    model: LinearEmbedding
    split: RetrievalSplit
    threat: ThreatModel
    size: int

    @property
    def dimensions(self) -> int:
        """D."""
        return len(self.model.bias)

    def truth(self) -> Truth:
        """The exact verdict on each query (images as ``(N, P)``)."""
        retrieval, queries, rivals, relatives = self._problem()
        return retrieval.truth(queries, rivals, relatives, self.threat)

    def smallest(self, largest: float, halvings: int = 16) -> tuple[Floats, Floats]:
        """The smallest eps that breaks each query in the norm of the threat: see `LinearRetrieval.smallest`."""
        retrieval, queries, rivals, relatives = self._problem()
        return retrieval.smallest(queries, rivals, relatives, self.threat.norm, largest=largest, halvings=halvings)

    def _problem(self) -> tuple[LinearRetrieval, Floats, Booleans, Booleans]:
        """What `LinearRetrieval` asks for: the retrieval, the queries, their rivals and their relatives."""
        split, model = self.split, self.model
        gallery, queries = (self._pixels(rows).flatten(1).double().numpy() for rows in (split.gallery, split.query))
        weight, bias = model.weight.double().numpy(), model.bias.double().numpy()
        query, items = split.query[:, None], split.gallery[None]
        relevant, ignored = split.rules.relevant(query, items), split.rules.ignored(query, items)
        return LinearRetrieval(weight, bias, gallery), queries, ~relevant & ~ignored, relevant & ~ignored

    def images(self) -> Tensor:
        """The clean queries, ``(N, 3, H, W)`` in [0, 1]."""
        return self._pixels(self.split.query)

    def _pixels(self, rows: npt.NDArray[np.int64]) -> Tensor:
        return ImageTensors(self.split.images, self.size).batch(rows)

    def judge(self) -> Judge:
        """What says whether an image breaks a query: exact search in float32, as in every evaluation."""
        tensors = ImageTensors(self.split.images, self.size)
        return Judge(Embedder(self.model).eval(), self.split, tensors, torch.device("cpu"), name="a linear embedding")


@dataclass(frozen=True)
class Reached:
    """What attacks reached, one after the other, each on the queries that those before it had left.

    Args:
        broken: ``(N,)`` int64, which of the attacks broke each query, counted from 1; 0 where it was wrong already, and
            -1 where it holds.
        gradients: ``(N,)`` float64, gradients spent on each query (the mean over those attacked together).
    """

    broken: npt.NDArray[np.int64]
    gradients: npt.NDArray[np.float64]

    @property
    def recall(self) -> float:
        """R@1, in [0, 1]."""
        return float((self.broken < 0).mean())


def reached_by(
    attacks: Sequence[Attack], judge: Judge, images: Tensor, *, seed: int = 0, shard_size: int = 64
) -> Reached:
    """Attack the judge's queries, ``images`` ``(N, 3, H, W)``, each attack those that are still right."""
    broken = np.where(judge.clean().values["recall_at_1"] > 0, -1, 0)
    gradients = np.zeros(len(broken))
    for number, attack in enumerate(attacks, 1):
        left = np.flatnonzero(broken < 0)
        for part in np.split(left, range(shard_size, len(left), shard_size)):
            if len(part):
                records = attack_shard(
                    judge, attack, images[part], part, seed=seed, pictured=frozenset(), mapped=frozenset()
                )
                gradients[part] += records.gradient_images / len(part)
                broken[part[records.values["recall_at_1"] == 0]] = number
    return Reached(broken, gradients)


def linear_settings(
    dataset: RetrievalDataset,
    *,
    dimensions: Sequence[int] = DIMENSIONS,
    threats: Sequence[ThreatModel] = BUDGETS,
    grid: int = 8,
    queries: int | None = 300,
    seed: int = 0,
) -> list[LinearSetting]:
    """Random linear embeddings of the test images of a data set, each at each budget.

    The brightness of an image is averaged over the cells of a grid, mapped to D dimensions by a Gaussian matrix, and
    the embeddings are centred and made white (mean 0, covariance 1 over the gallery).

    For L2, whose truth knows no box, the contrast of the images is halved, so that they stay away from black and white.

    Args:
        dataset: its test queries and gallery are used.
        dimensions: D, each from 2 to the number of cells.
        threats: budgets in L-infinity, L2 or L1.
        grid: cells along each side of an image; it divides the data set's image size.
        queries: how many of them, drawn evenly from the classes; None takes all.
        seed: of the Gaussian matrices and the draw.

    Raises:
        SpecError: the grid does not divide the image size, or a dimension is out of its range.
    """
    size = dataset.image_size
    if grid < 2 or size % grid:
        raise SpecError(f"grid={grid} must divide the side of the images, {size} pixels")
    if not all(2 <= count <= grid * grid for count in dimensions):
        raise SpecError(f"dimensions={tuple(dimensions)} must lie between 2 and the number of cells, {grid * grid}")
    chosen = dataset.subset_queries(queries, seed)
    rows = np.union1d(chosen.query, chosen.gallery)
    pixels = ImageTensors(chosen.images, size, cache_bytes=0).batch(rows).mul(255).round().to(torch.uint8)
    plain = pixels.permute(0, 2, 3, 1).contiguous().numpy()
    query, gallery = np.searchsorted(rows, chosen.query), np.searchsorted(rows, chosen.gallery)
    found = []
    for threat in threats:
        array = plain // 2 + 64 if threat.norm == "l2" else plain
        split = RetrievalSplit(ArrayImages(array), chosen.labels[rows], query, gallery)
        for count in dimensions:
            found.append(LinearSetting(_white(array[gallery], count, grid, seed), split, threat, size))
    return found


def _white(images: npt.NDArray[np.uint8], dimensions: int, grid: int, seed: int) -> LinearEmbedding:
    """A random embedding whose values over ``images``, ``(M, H, W, 3)``, have mean 0 and covariance 1."""
    cell = images.shape[1] // grid
    cells = images.reshape(len(images), grid, cell, grid, cell, 3).mean((2, 4, 5)).reshape(len(images), -1) / 255
    random = stream(seed, "calibration", dimensions).standard_normal((dimensions, grid * grid))
    values = cells @ random.T
    scales, axes = np.linalg.eigh(np.cov(values.T))
    mapped = (axes / np.sqrt(scales.clip(1e-12))).T @ random
    spread = np.kron(mapped.reshape(-1, grid, grid), np.full((1, cell, cell), 1 / (3 * cell * cell)))
    weight = np.tile(spread.reshape(dimensions, 1, -1), (1, 3, 1)).reshape(dimensions, -1)
    return LinearEmbedding(weight, -mapped @ cells.mean(0))
