"""Digits with few images of each training class: batches are drawn as from all of them, in a fraction of the time."""

from __future__ import annotations

import dataclasses

import numpy as np

from robustdml.data import RetrievalDataset, load_dataset


def few_digits(per_class: int) -> RetrievalDataset:
    """The built-in digits with the first ``per_class`` images of each training class."""
    data = load_dataset("digits")
    labels = data.labels[data.train]
    few = np.concatenate([data.train[labels == label][:per_class] for label in np.unique(labels)])
    return dataclasses.replace(data, train=few)
