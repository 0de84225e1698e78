"""How an embedding space is laid out by class, as the MDProp paper reports it beside recall: NMI and pi-ratio.

Both are of clean embeddings ``(M, D)`` with labels ``(M,)``, and both take the cosine as retrieval does. Higher NMI is
better, up to 1; a lower ratio means denser classes that are further apart.
"""

from __future__ import annotations

import faiss
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

#: As in the published evaluations (Roth et al. 2020, and MDProp after them).
_ITERATIONS = 20
#: Distances of one iteration: three times those of Stanford Online Products.
_MOST = 2**31
#: Cosine distances below this are rounding: float32 does not tell such embeddings apart.
_NO_DISTANCE = 1e-12


def clustered_rows(labels: Integers, *, most: int = _MOST) -> Integers | None:
    """The rows of so many classes, drawn by a fixed seed, that their items and clusters have ``most`` distances.

    Returns:
        None where those of all have no more. NMI of fewer classes is higher: whoever shows it says of how many it is.
    """
    classes, place = np.unique(labels, return_inverse=True)
    if len(labels) * len(classes) <= most:
        return None
    drawn = np.random.default_rng(0).permutation(len(classes))
    items = np.cumsum(np.bincount(place)[drawn])
    count = max(2, int((items * np.arange(1, len(classes) + 1) <= most).sum()))
    return np.flatnonzero(np.isin(place, drawn[:count]))


def nmi(embeddings: Floats, labels: Integers, *, seed: int = 0) -> float | None:
    """Normalised mutual information, in [0, 1], of the classes and a k-means clustering with as many clusters.

    faiss clusters from random items, by 20 iterations or until nothing moves. Published figures are of one start, too
    (Roth et al. 2020); the best of several is up to .03 higher. The mutual information is divided by the
    mean of both entropies.

    Args:
        embeddings: each of length 1, finite.
        labels: the class of each.
        seed: of the items that it starts from.

    Returns:
        None where every embedding would give one value: for a single class, and where each item is a class.
    """
    classes = len(np.unique(labels))
    if not 1 < classes < len(labels):
        return None
    points = np.ascontiguousarray(embeddings, dtype=np.float32)
    means = faiss.Kmeans(
        points.shape[1],
        classes,
        niter=_ITERATIONS,
        seed=seed,
        # All points are used, however few or many there are: faiss would warn of few and take a sample of many.
        min_points_per_centroid=1,
        max_points_per_centroid=len(points),
    )
    means.train(points)
    _, clusters = means.index.search(points, 1)
    # Rounding may carry it past its bounds.
    return float(np.clip(_mutual_information(labels, clusters[:, 0]), 0, 1))


def _mutual_information(labels: Integers, clusters: Integers) -> float:
    """Mutual information of two groupings over the mean of their entropies; one of them has two groups or more."""
    # Of the table of both only what occurs: of 12,000 classes and clusters, a gigabyte is empty.
    both = np.stack([labels, clusters.astype(np.int64)])
    counts = [np.unique(part, axis=1, return_counts=True)[1] for part in (both[:1], both[1:], both)]
    entropies = [_entropy(part / len(labels)) for part in counts]
    return 2 * (entropies[0] + entropies[1] - entropies[2]) / (entropies[0] + entropies[1])


def _entropy(shares: npt.NDArray[np.float64]) -> float:
    return float(-(shares * np.log(shares)).sum())


def pi_ratio(embeddings: Floats, labels: Integers) -> float | None:
    """Mean distance within classes over mean distance between class centres: the density of Roth et al. 2020.

    Distances are ``1 - cosine``, and centres are means brought to length 1, as in the code of that paper. Within a
    class it is the mean over all pairs of different items, then the mean over classes of two items or more, large and
    small alike; between classes it is the mean over all pairs of different centres. A class of one item has a centre
    and adds no distance within (there, the code takes the largest of the other classes).

    Args:
        embeddings: not zero, finite; of any length, as only directions count.
        labels: the class of each.

    Returns:
        At least 0. None where it is undefined: for a single class, where no class has two items, where centres
        coincide (all embeddings being the same, say), and where a class has no direction on average.
    """
    points = _directions(embeddings.astype(np.float64))
    _, group, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if len(sizes) < 2 or sizes.max() < 2:
        return None
    totals = np.zeros((len(sizes), points.shape[1]))
    np.add.at(totals, group, points)
    if np.square(totals / sizes[:, None]).sum(1).min() < _NO_DISTANCE:
        return None
    within = [_mean_distance(total, size) for total, size in zip(totals, sizes, strict=True) if size > 1]
    between = _mean_distance(_directions(totals).sum(0), len(sizes))
    return float(np.mean(within)) / between if between > _NO_DISTANCE else None


def _directions(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    lengths: npt.NDArray[np.float64] = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / lengths


def _mean_distance(total: npt.NDArray[np.float64], count: int) -> float:
    """Mean cosine distance over pairs of ``count`` different vectors of length 1 whose sum is ``total``, ``(D,)``.

    The cosines of all pairs, each vector with itself included, add up to the squared length of the sum.
    """
    return max(0.0, float((count**2 - total @ total) / (count * (count - 1))))
