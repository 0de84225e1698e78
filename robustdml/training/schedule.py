"""Which images meet in a batch, and how long a step is."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from pytorch_metric_learning.samplers import MPerClassSampler
from pytorch_metric_learning.utils import common_functions

from robustdml.errors import SpecError

_WARMUP_SHARE = 0.1


def batches(
    labels: npt.NDArray[np.int64], batch_size: int, m_per_class: int, seed: int
) -> Iterator[npt.NDArray[np.int64]]:
    """The batches of one epoch: ``m_per_class`` images of each of several classes, by pytorch-metric-learning.

    Within a batch they are laid out by `batch_layout`.

    Args:
        labels: the class of each image.
        batch_size: images of a batch; a multiple of ``m_per_class``.
        m_per_class: images of each class in it.
        seed: of the epoch.

    Yields:
        ``(batch_size,)``: places in ``labels``.
    """
    sampler = MPerClassSampler(labels, m_per_class, batch_size, max(len(labels), batch_size))
    # The sampler draws from a module global; a generator of this epoch makes the epoch repeatable.
    before = common_functions.NUMPY_RANDOM
    common_functions.NUMPY_RANDOM = np.random.RandomState(seed % 2**32)
    try:
        drawn = np.fromiter(iter(sampler), dtype=np.int64)
    finally:
        common_functions.NUMPY_RANDOM = before
    order = batch_layout(batch_size, m_per_class)
    by_class = drawn.reshape(-1, batch_size // m_per_class, m_per_class)
    for batch in by_class:
        taken = [iter(images) for images in batch]
        yield np.array([next(taken[place]) for place in order])


def batch_layout(batch_size: int, m_per_class: int) -> list[int]:
    """Which of the batch's classes, counted from 0, stands at each row.

    Class after class, as MDProp was published: each half of the batch holds its own half of the classes, attacks aim at
    classes of their own half, and a class meets one kind of adversarial image. (Classes that take turns cost MDProp
    clean recall: docs/results.md.) With fewer than four classes a half might hold one alone, without a target: there
    they take turns.
    """
    classes = batch_size // m_per_class
    if classes < 4:
        return [row % classes for row in range(batch_size)]
    return [row // m_per_class for row in range(batch_size)]


def fitting_m_per_class(batch_size: int, classes: int, wanted: int | None, held_out: int = 0) -> int:
    """The images per class of a batch: as wanted, or the fewest (at least 4) that ``classes`` classes allow.

    Args:
        held_out: classes that there are beside those, for the message.

    Raises:
        SpecError: there are fewer than two classes, or a batch would need more than there are.
    """
    if classes < 2:
        raise SpecError(f"training needs images of two classes at least, and there is {classes}: add another class")
    if wanted is not None:
        if batch_size // wanted > classes:
            raise SpecError(
                f"batches of {batch_size} with {wanted} images per class need {batch_size // wanted} classes, there "
                f"are {classes}{f' beside {held_out} held out' if held_out else ''}: raise --m-per-class or lower "
                "--batch-size"
            )
        return wanted
    fits = [m for m in range(2, batch_size // 2 + 1) if batch_size % m == 0 and batch_size // m <= classes]
    if not fits:
        raise SpecError(
            f"no number of images per class divides batches of {batch_size} among {classes} classes: choose an even "
            f"--batch-size, such as {batch_size + 1}"
        )
    return next((m for m in fits if m >= 4), fits[-1])


def rate(schedule: str, step: int, total: int) -> float:
    """The share of the peak learning rate; cosine: a linear warm-up over the first tenth, then half a cosine."""
    if schedule == "constant":
        return 1.0
    warmup = max(1, int(total * _WARMUP_SHARE))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
