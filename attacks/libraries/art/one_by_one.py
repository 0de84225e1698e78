"""The attacks of ART that treat one image after the other: they take turns, so that the model sees batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from art.utils import to_categorical
from numpy.typing import NDArray

from robustdml.seeding import derive_seed

from ...goals.search import foreign, nearest_item
from .batched_threads import Ask, run_in_turns
from .estimators import AskingEstimator, ClassifierEstimator
from .job import Array, Job

#: Steps back to the boundary: a 256th of the distance is what may be left.
_HALVINGS = 8

#: Runs an attack on one image: the attack's estimator, the image ``(1, 3, H, W)``, its label ``(1,)``, a start or None.
_Single = Callable[[AskingEstimator, Array, NDArray[np.int64], Array | None], Array]


def scores(job: Job) -> Array:
    """Each image by itself, on probabilities."""
    return _each(job, job.estimator(probabilities=True), _labelled(job))


def logits(job: Job) -> Array:
    """Each image by itself, on logits."""
    return _each(job, job.estimator(), _labelled(job))


def logits_to_the_boundary(job: Job) -> Array:
    """Each image by itself, on logits, and back to the boundary."""
    return _each(job, job.estimator(), _pulled_back(job, _labelled(job)))


def from_an_image(job: Job) -> Array:
    """Each image by itself, from an image that the classifier already takes for the wrong (or the wanted) class."""

    def single(estimator: AskingEstimator, x: Array, y: NDArray[np.int64], start: Array | None) -> Array:
        attack = job.make(estimator)
        found: Array = attack.generate(x, y=to_categorical(y, estimator.nb_classes), x_adv_init=start)
        return found

    # The last step of HopSkipJump goes inwards and is not taken back.
    return _each(job, job.estimator(), _pulled_back(job, single), starts=True)


def in_directions(job: Job) -> Array:
    """SignOPT: untargeted it draws directions, targeted it takes that of an image of the wanted class."""

    def single(estimator: AskingEstimator, x: Array, y: NDArray[np.int64], start: Array | None) -> Array:
        attack = job.make(estimator)
        found: Array = attack.generate(x, y=y, x_init=start)
        return found

    return _each(job, job.estimator(), single, starts=job.targets is not None)


def spatial(job: Job) -> Array:
    """Each image by itself: ART alone would look for the one transformation that suits most of the batch."""

    def single(estimator: AskingEstimator, x: Array, y: NDArray[np.int64], start: Array | None) -> Array:
        found: Array = job.make(estimator).generate(x)
        return found

    return _each(job, job.estimator(), single)


def shadow(job: Job) -> Array:
    """Each image by itself; ART's attack goes towards a label that it is given, and away from one that it predicts."""

    def single(estimator: AskingEstimator, x: Array, y: NDArray[np.int64], start: Array | None) -> Array:
        attack = job.make(estimator)
        attack.framework = "pytorch"  # which of two ways to compute its smoothness; ours is not ART's own estimator
        found: Array = attack.generate(
            x, y=to_categorical(y, estimator.nb_classes) if job.targets is not None else None
        )
        return found

    return _each(job, job.estimator(), single, gradient="loss")


def _labelled(job: Job) -> _Single:
    def single(estimator: AskingEstimator, x: Array, y: NDArray[np.int64], start: Array | None) -> Array:
        found: Array = job.make(estimator).generate(x, y=to_categorical(y, estimator.nb_classes))
        return found

    return single


def _pulled_back(job: Job, attack: _Single) -> _Single:
    """The attack, and then the nearest image to the clean one, on the line to it, that is still decided as wanted."""

    def single(estimator: AskingEstimator, x: Array, y: NDArray[np.int64], start: Array | None) -> Array:
        outside = attack(estimator, x, y, start)
        inside = x
        for _ in range(_HALVINGS):
            middle = ((inside + outside) / 2).astype(np.float32)
            reached = (estimator.predict(middle).argmax(1) == y)[0] == (job.targets is not None)
            inside, outside = (inside, middle) if reached else (middle, outside)
        return outside

    return single


def _each(
    job: Job,
    estimator: ClassifierEstimator,
    single: _Single,
    *,
    starts: bool = False,
    gradient: Literal["loss", "margin"] = "margin",
) -> Array:
    """Run the attack on every query that is not lost yet; the others, and those without a start, stay clean."""
    x, y = job.x, job.y
    rows = np.flatnonzero(job.unsolved(estimator.predict(x)))
    found = _starts(job, estimator, rows) if starts else dict.fromkeys(rows.tolist())
    chosen = list(found)
    seeds = [derive_seed(job.batch_seed, int(job.references.ids[row])) for row in chosen]

    def task(row: int) -> Callable[[Ask], Array]:
        return lambda ask: single(
            AskingEstimator(ask, estimator, gradient), x[row : row + 1], y[row : row + 1], found[row]
        )

    for row, image in zip(chosen, run_in_turns([task(row) for row in chosen], estimator.answer, seeds), strict=True):
        x[row] = image[0]
    return x


def _starts(job: Job, estimator: ClassifierEstimator, rows: NDArray[np.int64]) -> dict[int, Array | None]:
    """The nearest known image that the classifier takes for a wrong (or the wanted) class, for each row that has one.

    Known are the images of the batch, and those of the nearest foreign gallery items or of the targets.
    """
    pool = [job.x]
    references = job.references
    if references.gallery.images is not None:
        if job.targets is not None:
            wanted = job.targets[:, 0]
        else:
            wanted = nearest_item(references.embeddings, references.gallery.embeddings, foreign(references))
        pool.append(references.gallery.images(wanted.unique()).cpu().numpy().astype(np.float32))
    images = np.concatenate(pool)
    classes = estimator.predict(images).argmax(1)
    found: dict[int, Array | None] = {}
    for row in rows.tolist():
        fitting = classes == job.y[row] if job.targets is not None else classes != job.y[row]
        if fitting.any():
            distance = np.square(images[fitting] - images[row]).sum((1, 2, 3))
            found[row] = images[fitting][distance.argmin()][None]
    return found
