"""The attacks of ART that need no classifier: they are given the embedding model and the goal of retrieval itself."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ...goals.search import foreign, nearest_item
from .estimators import EmbeddingEstimator
from .job import Array, Job


class _Values:
    """The value of the goal at images of some queries; what was just asked is not computed again.

    SquareAttack asks for its criterion and for its loss at the same images in every iteration.
    """

    def __init__(self, job: Job) -> None:
        self._objective = job.goal.objective(job.references, seed=job.batch_seed)
        self._clean = job.references.embeddings
        self._estimator = EmbeddingEstimator(job.model, job.images)
        self._known: dict[int, tuple[bytes, float]] = {}

    def __call__(self, images: Array, rows: NDArray[np.int64]) -> Array:
        """Higher is worse for the model; ``(K,)`` for images ``(K, 3, H, W)`` of the queries ``rows``."""
        keys = [image.tobytes() for image in images]
        new = [at for at, row in enumerate(rows.tolist()) if self._known.get(row, (b"",))[0] != keys[at]]
        if new:
            found = self.of_embeddings(self._estimator.predict(images[new]), rows[new])
            for at, value in zip(new, found.tolist(), strict=True):
                self._known[int(rows[at])] = (keys[at], value)
        return np.array([self._known[row][1] for row in rows.tolist()], dtype=np.float32)

    def of_embeddings(self, embeddings: Array, rows: NDArray[np.int64]) -> Array:
        """The same, of embeddings ``(K, D)``: a goal knows the whole batch, so the others stay at their clean ones."""
        everyone = self._clean.clone()
        everyone[torch.as_tensor(rows).to(everyone.device)] = torch.as_tensor(embeddings).to(everyone)
        answer: Array = self._objective(everyone).cpu().numpy()[rows]
        return answer


class _Square(EmbeddingEstimator):
    """Predicts values of the goal, so that the criterion need not embed what the loss embeds again."""

    def __init__(self, job: Job, values: _Values) -> None:
        super().__init__(job.model, job.images)
        self._values = values

    def predict(self, x: Array, batch_size: int = 128, **kwargs: object) -> Array:
        """``(N, 1)``; ART asks for all queries only."""
        return self._values(np.asarray(x), np.arange(len(x)))[:, None]


def square(job: Job) -> Array:
    """Square with the value of the goal as its loss; it is done with a query when the margin says that it is lost.

    For targets there is no such moment: it goes on to the last query of its budget.
    """
    values = _Values(job)
    ends = job.goal.name == "margin"

    def lost(predictions: Array, rows: Array) -> NDArray[np.bool_]:
        reached: NDArray[np.bool_] = (predictions[:, 0] > 0) & ends
        return reached

    def loss(images: Array, rows: Array) -> Array:
        return -values(images, rows[:, 0].astype(np.int64))

    # ART makes tiles odd, and fails where one is as large as the image.
    height, width = job.images.shape[2:]
    share = min(job.params["p_init"], (min(height, width) - 2) ** 2 / (height * width))
    attack = job.make(_Square(job, values), adv_criterion=lost, loss=loss, p_init=share)
    result: Array = attack.generate(job.x, y=np.arange(len(job.images), dtype=np.float32)[:, None])
    return result


def features(job: Job) -> Array:
    """Towards the embedding of a guide: the targets' mean, or, untargeted, the nearest item of another class."""
    gallery, references = job.references.gallery.embeddings, job.references
    if job.targets is not None:
        guides = gallery[job.targets].mean(1)
    else:
        guides = gallery[nearest_item(references.embeddings, gallery, foreign(references))]
    attack = job.make(EmbeddingEstimator(job.model, job.images, guides))
    result: Array = attack.generate(job.x, y=EmbeddingEstimator.guide_images(job.x))
    return result
