"""The demo data set: scikit-learn's handwritten digits, which need no download."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from robustdml.data.dataset import RetrievalDataset
from robustdml.data.images import ArrayImages

SIDE = 32


def load_digits() -> RetrievalDataset:
    """1,797 digits, 8 by 8 pixels brought to 32 by 32: trained on 0 to 4, tested on 5 to 9, leave-self-out."""
    # Slow to import, and no other data set needs it.
    from sklearn import datasets

    bunch = datasets.load_digits()
    labels = bunch.target.astype(np.int64)
    test = np.flatnonzero(labels >= 5)
    return RetrievalDataset(
        name="digits",
        images=ArrayImages(np.stack([_enlarge(image) for image in bunch.images])),
        labels=labels,
        class_names=tuple(f"digit {digit}" for digit in range(10)),
        train=np.flatnonzero(labels < 5),
        query=test,
        gallery=test,
        summary=(
            "Trained on the handwritten digits 0 to 4 and tested on the unseen digits 5 to 9, where each test image "
            "searches all the others."
        ),
        image_size=SIDE,
        augmentation="shift",
    )


def _enlarge(image: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    # The pixels count the ink in 4 by 4 cells: 0 to 16.
    grey = Image.fromarray(np.round(image * (255 / 16)).astype(np.uint8))
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGB"))
