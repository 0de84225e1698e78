"""Eight noisy images of two classes, each of which searches all the others."""

from __future__ import annotations

import numpy as np

from robustdml.data import ArrayImages, RetrievalDataset


def small() -> RetrievalDataset:
    random = np.random.default_rng(0)
    return RetrievalDataset(
        name="small",
        images=ArrayImages(random.integers(0, 255, (8, 8, 8, 3)).astype(np.uint8)),
        labels=np.repeat(np.arange(2), 4),
        class_names=("a", "b"),
        train=np.arange(0),
        query=np.arange(8),
        gallery=np.arange(8),
        protocol="Small.",
        image_size=8,
        augmentation="none",
    )
