"""Queries that lie in the gallery a second time, under another name."""

from __future__ import annotations

import hashlib

import faiss
import numpy as np
import numpy.typing as npt
from torch.nn import functional as F

from robustdml.data import RetrievalSplit
from robustdml.data.tensors import ImageTensors
from robustdml.flag_kinds import FLAG_KINDS
from robustdml.results import Flag

#: Cells along each side, the largest difference of two copies in grey levels, and how many candidates are looked at.
_GRID, _DIFFERENCE, _CANDIDATES = 8, 1.0, 8


def copies(split: RetrievalSplit, images: ImageTensors) -> list[Flag]:
    """Flags about copies of queries in the gallery: all equal pixels, or means of a grid of cells that are equal.

    Raises:
        DataError: an image cannot be read.
    """
    rows = np.union1d(split.query, split.gallery)
    cells, names = zip(*(_looks(images, int(row)) for row in rows), strict=True)
    looks, digests = np.stack(cells), np.array(names)
    query, gallery = np.searchsorted(rows, split.query), np.searchsorted(rows, split.gallery)
    index = faiss.IndexFlatL2(looks.shape[1])
    index.add(looks[gallery])
    _, found = index.search(looks[query], min(_CANDIDATES, len(gallery)))
    near = np.abs(looks[gallery][found] - looks[query][:, None]).max(2) <= _DIFFERENCE
    items, asked = split.gallery[found], split.query[:, None]
    near &= (items != asked) & ~split.rules.ignored(asked, items)
    equal = near & (digests[gallery][found] == digests[query][:, None])
    apart = equal & (split.labels[items] != split.labels[asked])
    flags = []
    if near.any():
        all_equal, count = int(equal.any(1).sum()), int(near.any(1).sum())
        flags.append(
            FLAG_KINDS["copies-in-gallery"].flag(
                f"{count} of {len(query)} queries have a copy of their image in the gallery under another name "
                f"({all_equal} equal pixel for pixel, {count - all_equal} nearly)."
            )
        )
    if apart.any():
        flags.append(
            FLAG_KINDS["copies-disagree"].flag(
                f"{int(apart.any(1).sum())} of {len(query)} queries have an identical image in the gallery with "
                "another label."
            )
        )
    return flags


def _looks(images: ImageTensors, row: int) -> tuple[npt.NDArray[np.float32], str]:
    """The means of an image's cells, and a hash of its pixels."""
    image = images.original(row)
    means = F.adaptive_avg_pool2d(image[None].float(), _GRID).flatten().numpy()
    digest = hashlib.sha256(f"{tuple(image.shape)}".encode() + image.contiguous().numpy().tobytes()).hexdigest()
    return means, digest
