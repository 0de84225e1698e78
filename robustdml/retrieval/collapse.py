"""Whether an embedding space is alive."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from robustdml.results import Health

#: Thresholds of the mark, on purpose far from any working model; untrained networks reach a mean cosine of 0.98.
_COLLAPSED_COSINE, _COLLAPSED_RANK = 0.995, 1.2
#: Fewer embeddings may well be alike: a few images of one class.
_FEWEST = 10


def health(embeddings: npt.NDArray[np.float32]) -> Health:
    """Spread of embeddings ``(M, D)`` of length 1.

    The effective rank is the exponential of the entropy of the singular values (Roy & Vetterli 2007), 1 where all
    embeddings are on one line. The mean cosine is over pairs of different items. A collapsed space is hard to attack,
    because it retrieves nothing: its robust recall means nothing either.
    """
    matrix = embeddings.astype(np.float64)
    values = np.linalg.svd(matrix, compute_uv=False)
    share = values[values > 0] / values.sum()
    rank = float(np.exp(-(share * np.log(share)).sum()))
    count = len(matrix)
    pairs = max(1, count * (count - 1))
    cosine = float(np.clip((np.square(matrix.sum(0)).sum() - np.square(matrix).sum()) / pairs, -1, 1))
    alike = cosine > _COLLAPSED_COSINE or rank < _COLLAPSED_RANK
    return Health(effective_rank=rank, mean_cosine=cosine, collapsed=count >= _FEWEST and alike)
