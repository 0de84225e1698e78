"""Nearest neighbours by faiss, exact, without what the protocol leaves out, and with ties counted against the model."""

from __future__ import annotations

from typing import Any, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt

from robustdml.data.protocol import Protocol

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

#: Rows that are hashed at once.
_AT_ONCE = 4096
#: Relevant items whose places are counted one by one; of more the whole list is sorted.
_FEW = 32
#: So many similarities of a row have one maximum.
_PART = 64


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


def _by_row(flat: Integers, shape: tuple[int, ...]) -> list[Integers]:
    """The columns of some places of a matrix, row by row, from their numbers in it."""
    rows, columns = np.divmod(flat, shape[1])
    return np.split(columns, np.searchsorted(rows, np.arange(1, shape[0])))


class Found(NamedTuple):
    """What `GalleryIndex.relevance` finds."""

    relevant: Booleans  #: whether the item at each rank is relevant, ``(N, k)``
    nearest: Integers  #: ids of the nearest items, ``(N, first)``, which -1 fills
    margins: npt.NDArray[
        np.float64
    ]  #: similarity of the nearest other item less that of the nearest relevant, ``(N,)``


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
        self._copies = len(first) < len(points)
        self._sizes = np.bincount(group)
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._ids = ids[np.argsort(group, kind="stable")]
        self._protocol = protocol

    @property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What ranks, by the names that a message gives them."""
        return {
            "the points of the index": self._points,
            "the sizes of the index": self._sizes,
            "the places of the index": self._starts,
            "the ids of the index": self._ids,
        }

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

    def relevance(self, queries: Floats, query_ids: Integers, k: int, first: int) -> Found:
        """What `rank` says of long lists, without making them: an item that is not relevant needs no rank.

        All similarities of the queries are held at once: ask for a few at a time.

        Args:
            queries: ``(N, D)`` float32, each of length 1.
            query_ids: ``(N,)`` int64.
            k: ranks, at least 1.
            first: how many of the nearest items are named.
        """
        similarity = queries @ self._points.T
        if self._copies:
            similarity = np.repeat(similarity, self._sizes, axis=1)
        # By places and not by masks, which are nearly empty: each is a walk through all pairs.
        ignored = np.flatnonzero(self._protocol.ignored(query_ids[:, None], self._ids[None]))
        relevant = self._protocol.relevant(query_ids[:, None], self._ids[None])
        similarity.reshape(-1)[ignored], relevant.reshape(-1)[ignored] = -np.inf, False
        right = np.flatnonzero(relevant)
        places = _by_row(right, similarity.shape)
        found, margins = np.zeros((len(queries), k), bool), np.full(len(queries), np.inf)
        for row, (values, own_places) in enumerate(zip(similarity, places, strict=True)):
            if not len(own_places):
                continue
            own = np.sort(values[own_places])[::-1]
            # Ties count against the model: what is as near and not relevant comes before.
            if len(own) <= _FEW:
                ahead = np.array([np.count_nonzero(values >= value) for value in own])
            else:
                ahead = len(values) - np.searchsorted(np.sort(values), own, side="left")
            ties = np.searchsorted(-own, -own, side="right")  # own items that are counted among them
            ranks = ahead - ties + np.arange(len(own))
            found[row, ranks[ranks < k]] = True
            margins[row] = -own[0]
        top = self._first(similarity, relevant, first)
        similarity.reshape(-1)[right] = -np.inf
        # Without an item that is not relevant nothing can be wrong; two are as far apart as similarities get.
        margins += np.maximum(similarity.max(1), -1.0)
        return Found(found, top, margins)

    def _first(self, similarity: Floats, relevant: Booleans, first: int) -> Integers:
        """The ids of the nearest items of each row, those that are left out having a similarity of minus infinity."""
        top = np.full((len(similarity), first), -1, np.int64)
        width = similarity.shape[1] // _PART
        if width >= first:
            # As many parts have an item at least as near as the least of their maxima: what is not, is not among them.
            parts = similarity[:, : width * _PART].reshape(len(similarity), _PART, width).max(1)
            least = np.partition(parts, width - first, axis=1)[:, width - first]
        else:
            least = np.full(len(similarity), -np.inf, np.float32)
        least = np.maximum(least, np.finfo(np.float32).min)  # of what is left out, nothing is near
        for row, places in enumerate(_by_row(np.flatnonzero(similarity >= least[:, None]), similarity.shape)):
            order = np.lexsort((self._ids[places], relevant[row, places], -similarity[row, places]))[:first]
            top[row, : len(order)] = self._ids[places[order]]
        return top

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
