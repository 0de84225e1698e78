"""The data set that an evaluation uses: every image looked at once, and what is left out of it said."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from robustdml.data import LeftOut, RetrievalDataset
from robustdml.data.finding import COPIES
from robustdml.data.survey import survey, without_broken
from robustdml.data.tensors import ImageTensors
from robustdml.evaluation.checks.copies import Copies, find_copies
from robustdml.results import CountedFiles

#: How many names stand in the results.
_NAMED = 5


@dataclass(frozen=True)
class LookedAt:
    """A data set, and what was found in it.

    Args:
        dataset: without what is left out.
        images: its images; those of the test are decoded as far as memory allows.
        copies: which of them are copies of each other.
        remarks: what was done to images, and what these are called.
    """

    dataset: RetrievalDataset
    images: ImageTensors
    copies: Copies
    remarks: tuple[LeftOut, ...]


def looked_at(dataset: RetrievalDataset, *, skip_broken: bool, leave_out_copies: bool) -> LookedAt:
    """Decode all images of a data set and leave out what is to be left out.

    Raises:
        DataError: images cannot be read, and ``skip_broken`` is not set; or too little is left.
    """
    images = ImageTensors(dataset.images, dataset.image_size)
    found = survey(dataset, images)
    dataset = without_broken(dataset, found, skip=skip_broken)
    copies = find_copies(dataset, found)
    if leave_out_copies and (rows := copies.superfluous()).size:
        names = tuple(dataset.images.name(row) for row in rows.tolist())
        dataset = dataset.without(rows, LeftOut(COPIES, names))
        copies = replace(copies, dataset=dataset)
    used = np.union1d(np.union1d(dataset.query, dataset.gallery), dataset.train)
    remarks = tuple(
        LeftOut(text, tuple(dataset.images.name(row) for row in rows if row in used), files=False)
        for text, rows in found.remarks.items()
    )
    return LookedAt(dataset, images, copies, remarks)


def counted(part: LeftOut) -> CountedFiles:
    """For the results: the count, and the first few names."""
    details = part.details or ("",) * len(part.names)
    named = [f"{name} ({detail})" if detail else name for name, detail in zip(part.names, details, strict=True)]
    return CountedFiles(what=part.reason, count=len(part.names), names=tuple(named[:_NAMED]))
