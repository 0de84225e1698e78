"""Nearest neighbours by faiss, exact, with the query itself left out by id."""

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
    """

    def __init__(self, embeddings: Floats, ids: Integers) -> None:
        self._index = faiss.IndexFlatIP(embeddings.shape[1])
        self._index.add(np.ascontiguousarray(embeddings, dtype=np.float32))
        self._ids = ids

    def rank(self, queries: Floats, query_ids: Integers, k: int) -> Integers:
        """The ids of the ``k`` nearest items of each query, nearest first, without the query's own id.

        Args:
            queries: ``(N, D)`` float32, each of length 1.
            query_ids: ``(N,)`` int64.
            k: at least 1.

        Returns:
            ``(N, k)`` int64; -1 fills rows that are longer than the gallery.
        """
        wanted = min(k + 1, len(self._ids))
        _, rows = self._index.search(np.ascontiguousarray(queries, dtype=np.float32), wanted)
        found = self._ids[rows]
        # Left out by id, not by rank or distance: duplicates and ties put another image at rank 0, and an attacked
        # query is no longer its own nearest neighbour. A stable sort moves the own id behind the last place.
        order = np.argsort(found == query_ids[:, None], axis=1, kind="stable")
        ranked = np.take_along_axis(found, order, axis=1)
        ranked[np.take_along_axis(found == query_ids[:, None], order, axis=1)] = -1
        result = np.full((len(queries), k), -1, dtype=np.int64)
        width = min(k, wanted)
        result[:, :width] = ranked[:, :width]
        return result
