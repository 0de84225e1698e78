"""Nearest neighbours by faiss, exact, without what the protocol leaves out, and with ties counted against the model."""

from __future__ import annotations

import faiss
import numpy as np
import numpy.typing as npt

from robustdml.data.protocol import Protocol

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

#: Rows that are hashed at once.
_AT_ONCE = 4096


def distinct_rows(points: Floats) -> tuple[Integers, Integers]:
    """The first of each of the distinct rows of ``(M, D)``, and for each row which of these it equals."""
    keys = np.concatenate([_keys(points[start : start + _AT_ONCE]) for start in range(0, len(points), _AT_ONCE)])
    _, place, counts = np.unique(keys, return_inverse=True, return_counts=True)
    likely = np.flatnonzero(counts[place] > 1)  # Equal rows have equal keys; others might, too.
    same = np.arange(len(points))
    if len(likely):
        rows = points[likely] + np.float32(0)  # makes -0 the 0 that it equals
        _, first, group = np.unique(rows, axis=0, return_index=True, return_inverse=True)
        same[likely] = likely[first[group.ravel()]]
    firsts, found = np.unique(same, return_inverse=True)
    return firsts, found


def _keys(points: Floats) -> npt.NDArray[np.uint64]:
    """A hash of each row."""
    bits = (points + np.float32(0)).view(np.uint32).astype(np.uint64)
    odd = np.random.default_rng(0).integers(0, 2**63, points.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    keys: npt.NDArray[np.uint64] = (bits * odd).sum(1, dtype=np.uint64)
    return keys


class GalleryIndex:
    """A searchable gallery.

    Args:
        embeddings: ``(M, D)`` float32, each of length 1.
        ids: ``(M,)`` int64, unique.
        protocol: says of ids which items a query ignores, and which are relevant to it.
    """

    def __init__(self, embeddings: Floats, ids: Integers, protocol: Protocol) -> None:
        # Each embedding is searched once: BLAS may round equal rows differently in different places, and equal
        # embeddings must tie wherever they stand.
        points = np.ascontiguousarray(embeddings, dtype=np.float32)
        first, group = distinct_rows(points)
        #: The matrix itself where all are different: it may be most of the memory.
        self._points = points if len(first) == len(points) else points[first]
        self._sizes = np.bincount(group)
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._ids = ids[np.argsort(group, kind="stable")]
        self._protocol = protocol

    def rank(self, queries: Floats, query_ids: Integers, k: int) -> Integers:
        """The ids of the ``k`` nearest items of each query, nearest first, without those that it ignores.

        Among items of equal similarity those that are not relevant come first, then the smaller id.

        Args:
            queries: ``(N, D)`` float32, each of length 1.
            query_ids: ``(N,)`` int64.
            k: at least 1.

        Returns:
            ``(N, k)`` int64; -1 fills rows that are longer than what there is to find.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        result = np.full((len(queries), k), -1, dtype=np.int64)
        waiting = np.arange(len(queries))
        # One for the query itself, and one to see whether the last place is tied.
        width = k + 2
        while len(waiting):
            width = min(width, len(self._sizes))
            similarities, groups = faiss.knn(queries[waiting], self._points, width, faiss.METRIC_INNER_PRODUCT)
            unsettled = []
            for row, query in enumerate(waiting):
                found = self._ordered(similarities[row], groups[row], query_ids[query], k)
                if found is None:
                    unsettled.append(query)
                else:
                    result[query, : len(found)] = found
            waiting = np.array(unsettled, np.int64)
            width *= 4
        return result

    def _ordered(self, similarities: Floats, groups: Integers, query_id: int, k: int) -> Integers | None:
        """The first ``k`` items of some groups; None where other groups may tie with the last place, or hold it."""
        sizes = self._sizes[groups]
        before = np.cumsum(sizes) - sizes
        ids = self._ids[np.repeat(self._starts[groups] - before, sizes) + np.arange(sizes.sum())]
        # Left out by id, not by rank or distance: an attacked query is no longer its own nearest neighbour.
        kept = ~self._protocol.ignored(np.asarray(query_id), ids)
        ids, nearness = ids[kept], np.repeat(similarities, sizes)[kept]
        if len(groups) < len(self._sizes) and (nearness > similarities[-1]).sum() < k:
            return None
        equal = np.concatenate([[False], nearness[1:] == nearness[:-1], [False]])
        tied = equal[1:] | equal[:-1]
        # Ties stand side by side, so that sorting them alone, which are few, leaves all others where they are.
        part = ids[tied]
        ids[tied] = part[np.lexsort((part, self._protocol.relevant(np.asarray(query_id), part), -nearness[tied]))]
        found: Integers = ids[:k]
        return found
