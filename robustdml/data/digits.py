"""The demo data set: scikit-learn's handwritten digits, which need no download."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from robustdml.data.dataset import RetrievalDataset
from robustdml.data.images import ArrayImages

SIDE = 32


def load_digits() -> RetrievalDataset:
    """1,797 digits, 8 by 8 pixels brought to 32 by 32: trained on 0 to 4, tested on 5 to 9, leave-self-out."""
    table = _table()
    labels = table[:, -1].astype(np.int64)
    test = np.flatnonzero(labels >= 5)
    return RetrievalDataset(
        name="digits",
        images=ArrayImages(np.stack([_enlarge(image) for image in table[:, :-1].reshape(-1, 8, 8)])),
        labels=labels,
        class_names=tuple(f"digit {digit}" for digit in range(10)),
        train=np.flatnonzero(labels < 5),
        query=test,
        gallery=test,
        protocol=(
            "Trained on the handwritten digits 0 to 4 and tested on the unseen digits 5 to 9, where each test image "
            "searches all the others."
        ),
        image_size=SIDE,
        augmentation="shift",
    )


def _table() -> npt.NDArray[np.float64]:
    """One row per digit: its 64 pixels and its label, from scikit-learn's file.

    Not by scikit-learn's own function: the package takes half as long to import as torch does.
    """
    spec = importlib.util.find_spec("sklearn")
    assert spec is not None  # a dependency of robustdml
    assert spec.submodule_search_locations is not None
    (folder,) = spec.submodule_search_locations
    with gzip.open(Path(folder, "datasets", "data", "digits.csv.gz"), "rt") as file:
        return np.loadtxt(file, delimiter=",")


def _enlarge(image: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    # The pixels count the ink in 4 by 4 cells: 0 to 16.
    grey = Image.fromarray(np.round(image * (255 / 16)).astype(np.uint8))
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGB"))
