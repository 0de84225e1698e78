"""Nearest neighbours by faiss, exact, with the query itself left out by id and ties counted against the model."""

from __future__ import annotations

import faiss
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


class GalleryIndex:
    """A searchable gallery.

    Args:
        embeddings: ``(M, D)`` float32, each of length 1.
        ids: ``(M,)`` int64, unique.
        labels: ``(M,)`` int64, the class of each.
    """

    def __init__(self, embeddings: Floats, ids: Integers, labels: Integers) -> None:
        # Each embedding is searched once, in an order of its own: BLAS may round equal rows differently in different
        # places, and equal embeddings must tie wherever they stand. Adding 0 makes -0 the 0 that it equals.
        points = np.ascontiguousarray(embeddings, dtype=np.float32) + np.float32(0)
        keys = points.view(np.dtype((np.void, points.shape[1] * points.itemsize))).ravel()
        _, first, group = np.unique(keys, return_index=True, return_inverse=True)
        self._index = faiss.IndexFlatIP(points.shape[1])
        self._index.add(points[first])
        order = np.argsort(group.ravel(), kind="stable")
        self._sizes = np.bincount(group.ravel())
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._ids, self._labels = ids[order], labels[order]

    def rank(self, queries: Floats, query_ids: Integers, query_labels: Integers, k: int) -> Integers:
        """The ids of the ``k`` nearest items of each query, nearest first, without the query's own id.

        Among items of equal similarity those of another class than the query's come first, then the smaller id.

        Args:
            queries: ``(N, D)`` float32, each of length 1.
            query_ids: ``(N,)`` int64.
            query_labels: ``(N,)`` int64.
            k: at least 1.

        Returns:
            ``(N, k)`` int64; -1 fills rows that are longer than the gallery.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        result = np.full((len(queries), k), -1, dtype=np.int64)
        waiting = np.arange(len(queries))
        # One for the query itself, and one to see whether the last place is tied.
        width = k + 2
        while len(waiting):
            width = min(width, len(self._sizes))
            similarities, groups = self._index.search(queries[waiting], width)
            whole = similarities > similarities[:, -1:]
            settled = (width == len(self._sizes)) | ((self._sizes[groups] * whole).sum(1) > k)
            for row in np.flatnonzero(settled):
                query = waiting[row]
                found = self._ordered(similarities[row], groups[row], query_ids[query], query_labels[query])[:k]
                result[query, : len(found)] = found
            # Only where the last place is tied with items that may not have been returned.
            waiting = waiting[~settled]
            width *= 4
        return result

    def _ordered(self, similarities: Floats, groups: Integers, query_id: int, query_label: int) -> Integers:
        """The ids of all items of some groups, in the order of `rank`."""
        sizes = self._sizes[groups]
        before = np.cumsum(sizes) - sizes
        places = np.repeat(self._starts[groups] - before, sizes) + np.arange(sizes.sum())
        ids = self._ids[places]
        order = np.lexsort((ids, self._labels[places] == query_label, -np.repeat(similarities, sizes)))
        # Left out by id, not by rank or distance: an attacked query is no longer its own nearest neighbour.
        ranked = ids[order]
        others: Integers = ranked[ranked != query_id]
        return others
