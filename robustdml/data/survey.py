"""A first look at all images of a data set: which cannot be read, what was done to others, and how each looks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from robustdml.data.dataset import Integers, RetrievalDataset
from robustdml.data.finding import BROKEN, LeftOut
from robustdml.data.tensors import ImageTensors
from robustdml.errors import DataError

#: Cells along each side of a look; of the picture whose frequencies are hashed, and how many of them along each side.
_GRID, _SIDE, _FREQUENCIES = 8, 32, 8
#: More names than this are no sentence.
_NAMED = 100


@dataclass(frozen=True)
class Survey:
    """What was met when every image was decoded once.

    Attributes:
        rows: int64, (N,), ascending: those that can be read.
        cells: float32, (N, 3 x 64): the mean of each colour in 8 x 8 cells, in grey levels.
        hashes: bool, (N, 63): which low frequencies of the grey picture are above their median (a perceptual hash, as
            in Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010).
        digests: for each a hash of its pixels.
        broken: for rows that cannot be read, why.
        remarks: what was done to an image that a person would not expect, and to which rows.
    """

    rows: Integers
    cells: npt.NDArray[np.float32]
    hashes: npt.NDArray[np.bool_]
    digests: tuple[str, ...]
    broken: dict[int, str]
    remarks: dict[str, list[int]]

    @property
    def count(self) -> int:
        """How many images were tried."""
        return len(self.rows) + len(self.broken)


def survey(dataset: RetrievalDataset, images: ImageTensors, rows: Integers | None = None) -> Survey:
    """Decode images, the queries and the gallery first, so that these are kept where memory is short.

    Args:
        rows: which; None looks at the training images too.
    """
    tested = np.union1d(dataset.query, dataset.gallery)
    wanted = np.concatenate([tested, np.setdiff1d(dataset.train, tested)]) if rows is None else rows
    looks: dict[int, tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_], str]] = {}
    broken: dict[int, str] = {}
    for row in wanted.tolist():
        try:
            looks[row] = _look(images.original(row))
        except DataError as error:
            broken[row] = error.reason or str(error)
    kept = sorted(looks)
    remarks: dict[str, list[int]] = {}
    for row, texts in sorted(images.remarks.items()):
        for text in texts:
            remarks.setdefault(text, []).append(row)
    return Survey(
        rows=np.array(kept, np.int64),
        cells=np.array([looks[row][0] for row in kept], np.float32).reshape(len(kept), -1),
        hashes=np.array([looks[row][1] for row in kept], bool).reshape(len(kept), -1),
        digests=tuple(looks[row][2] for row in kept),
        broken=broken,
        remarks=remarks,
    )


def without_broken(dataset: RetrievalDataset, found: Survey, *, skip: bool) -> RetrievalDataset:
    """The data set without the images that cannot be read.

    Args:
        skip: leave out those of the test; else it is refused where there are any. Training images that cannot be read
            are left out of a data set that is evaluated on.

    Raises:
        DataError: ``skip`` is not set, and images of the test cannot be read; all of them are named. Or too few remain.
    """
    tested = np.intersect1d(list(found.broken), np.union1d(dataset.query, dataset.gallery)).astype(np.int64)
    if tested.size and not skip:
        raise broken_images(dataset, {row: found.broken[row] for row in tested.tolist()}, found.count)
    return leave_out_broken(dataset, found.broken)


def leave_out_broken(dataset: RetrievalDataset, broken: Mapping[int, str]) -> RetrievalDataset:
    """The data set without images that cannot be read.

    Args:
        broken: for their rows, why.

    Raises:
        DataError: too few remain.
    """
    if not broken:
        return dataset
    rows = np.array(sorted(broken), np.int64)
    names = tuple(dataset.images.name(row) for row in rows.tolist())
    return dataset.without(rows, LeftOut(BROKEN, names, details=tuple(broken[row] for row in rows.tolist())))


def broken_images(dataset: RetrievalDataset, broken: Mapping[int, str], total: int) -> DataError:
    """The error that names images that cannot be read, of ``total`` that were tried."""
    named = list(broken.items())[:_NAMED]
    listed = "; ".join(f"{dataset.images.name(row)} ({why})" for row, why in named)
    more = f"; and {len(broken) - _NAMED:,} more" if len(broken) > _NAMED else ""
    return DataError(
        f"{len(broken):,} of {total:,} images cannot be read: {listed}{more}: restore them, take them out, or go on "
        "without them (--skip-broken)"
    )


def _look(image: Tensor) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_], str]:
    """Cells, perceptual hash and digest of an image: uint8, (3, H, W)."""
    pixels = image[None].float()
    cells = F.adaptive_avg_pool2d(pixels, _GRID)[0].flatten(1)
    grey = F.adaptive_avg_pool2d(pixels, _SIDE)[0].mean(0)
    low = (_COSINES @ grey @ _COSINES.T).flatten()[1:]
    digest = hashlib.sha256(f"{tuple(image.shape)}".encode() + image.contiguous().numpy().tobytes()).hexdigest()
    return cells.flatten().numpy(), (low > low.median()).numpy(), digest


def _cosines() -> Tensor:
    """The first rows of the discrete cosine transform (DCT-II)."""
    frequency, place = torch.arange(_FREQUENCIES)[:, None], torch.arange(_SIDE)[None]
    return torch.cos(torch.pi / _SIDE * (place + 0.5) * frequency)


_COSINES = _cosines()
