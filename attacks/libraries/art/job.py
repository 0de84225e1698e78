"""One of the problems of a batch, ready to be attacked by ART."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustdml.contracts import Goal

from ..library import Task
from .estimators import Array as Array
from .estimators import ClassifierEstimator


@dataclass(frozen=True)
class Job(Task):
    """A `Task`, and the attack that is wanted on it.

    Args:
        make: builds the attack of ART from its estimator, and from arguments that go before the others.
        goal: what the attack wants.
        params: every parameter of the attack, by name.
    """

    make: Callable[..., Any]
    goal: Goal
    params: Mapping[str, Any]

    @property
    def x(self) -> Array:
        """The images as ART takes them, a copy."""
        array: Array = self.images.cpu().numpy().astype(np.float32, copy=True)
        return array

    @property
    def y(self) -> NDArray[np.int64]:
        """The labels as ART takes them."""
        array: NDArray[np.int64] = self.labels.cpu().numpy()
        return array

    def estimator(self, *, probabilities: bool = False) -> ClassifierEstimator:
        """The classifier as an estimator of ART, of logits or of probabilities."""
        return ClassifierEstimator(self.classifier, self.images, probabilities=probabilities)

    def unsolved(self, logits: Array) -> NDArray[np.bool_]:
        """Which queries have not reached the goal by the classifier's decision on ``logits``, ``(N,)``."""
        reached: NDArray[np.bool_] = logits.argmax(1) == self.y
        return reached if self.targets is None else ~reached

    def rivals(self, logits: Array) -> NDArray[np.int64]:
        """The likeliest class beside the label, ``(N,)``."""
        others = logits.copy()
        others[np.arange(len(others)), self.y] = -np.inf
        found: NDArray[np.int64] = others.argmax(1).astype(np.int64)
        return found
