"""Images that a data set holds several times: equal pixel for pixel, or nearly, by how they look."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from robustdml.data import RetrievalDataset
from robustdml.data.survey import Survey
from robustdml.flag_kinds import FLAG_KINDS
from robustdml.results import CopiesEntry, EmbeddingTwins, Flag

Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

#: Two images are nearly equal where their cells, each colour's mean taken away, have a correlation of at least 0.997,
#: their hashes differ in at most 6 of 63 bits, and their cells differ by at most 16 grey levels in the mean. So are an
#: image and itself in JPEG quality 20, a quarter as large, blurred, or 10 % brighter; the closest of 800 digits have
#: 0.989, of 800 photos of groceries 0.9955 (two shots of one thing).
_CORRELATION, _BITS, _LEVELS = 0.997, 6, 16.0
#: How many of the most similar images each is compared with, and how flat an image is that has no structure, in levels.
_CANDIDATES, _FLAT = 8, 1.0
#: Cosine of embeddings from which on a model is said not to tell two images apart.
_SAME_EMBEDDING = 0.9999


@dataclass(frozen=True)
class Copies:
    """Which images are copies of each other.

    Args:
        dataset: whose.
        rows: int64, (N,), ascending: the images that were looked at.
        equal: int64, (N,): images of one number are equal pixel for pixel.
        near: int64, (N,): those of one number are copies of each other, equal or nearly.
    """

    dataset: RetrievalDataset
    rows: Integers
    equal: Integers
    near: Integers

    def entries(self) -> tuple[CopiesEntry, ...]:
        """How many images have a copy, by where it is; only what there is."""
        data = self.dataset
        test = np.union1d(data.query, data.gallery)
        found = []
        for place, of, among, foreign in (
            ("gallery images with a copy in the gallery", data.gallery, data.gallery, False),
            ("queries with a copy in the gallery", data.query, data.gallery, False),
            ("test images with a copy in the training", test, data.train, False),
            ("test images with a copy under another label", test, test, True),
        ):
            every = self._having(of, among, self.near, foreign)
            equal = self._having(of, among, self.equal, foreign)
            if every.any():
                found.append(CopiesEntry(place=place, equal=int(equal.sum()), near=int((every & ~equal).sum())))
        return tuple(found)

    def flags(self) -> list[Flag]:
        """About queries that have a copy in the gallery, or under another label, and test images in the training."""
        data = self.dataset
        return [*self._in_gallery(data), *self._disagreeing(data), *self._in_training(data)]

    def _in_gallery(self, data: RetrievalDataset) -> Iterator[Flag]:
        near, equal = (
            self._having(data.query, data.gallery, groups, judged=True) for groups in (self.near, self.equal)
        )
        if near.any():
            yield FLAG_KINDS["copies-in-gallery"].flag(
                f"{near.sum()} of {len(data.query)} queries have a copy of their image in the gallery under another "
                f"name ({equal.sum()} equal pixel for pixel, {(near & ~equal).sum()} nearly)."
            )

    def _disagreeing(self, data: RetrievalDataset) -> Iterator[Flag]:
        apart = self._having(data.query, data.gallery, self.equal, foreign=True)
        if apart.any():
            yield FLAG_KINDS["copies-disagree"].flag(
                f"{apart.sum()} of {len(data.query)} queries have an identical image in the gallery with another label."
            )

    def _in_training(self, data: RetrievalDataset) -> Iterator[Flag]:
        test = np.union1d(data.query, data.gallery)
        near, equal = (self._having(test, data.train, groups) for groups in (self.near, self.equal))
        if near.any():
            yield FLAG_KINDS["copies-in-training"].flag(
                f"{near.sum()} of {len(test)} test images have a copy among the training images ({equal.sum()} equal "
                f"pixel for pixel, {(near & ~equal).sum()} nearly)."
            )

    def superfluous(self) -> Integers:
        """Rows of the test to leave out, so that no image is in the data set twice.

        Of equal images under several labels all are, as none of the labels can be believed; of copies of training
        images all are; of others all but the first of each label, a query before an item of the gallery.
        """
        data, dropped = self.dataset, []
        test, train, asking = set(np.union1d(data.query, data.gallery).tolist()), set(data.train.tolist()), data.query
        asks = np.isin(self.rows, asking)
        for members in _groups(self.near):
            rows = self.rows[members]
            own = [row for row in rows.tolist() if row in test]
            if any(row in train for row in rows.tolist()):
                dropped += own
                continue
            wrong = set()
            for equal in _groups(self.equal[members]):
                if len(np.unique(data.labels[rows[equal]])) > 1:
                    wrong |= set(rows[equal].tolist())
            order = sorted(own, key=lambda row: (not asks[np.searchsorted(self.rows, row)], row))
            kept: set[int] = set()
            for row in order:
                label = int(data.labels[row])
                if row in wrong or label in kept:
                    dropped.append(row)
                else:
                    kept.add(label)
        return np.array(sorted(dropped), np.int64)

    def _having(
        self, of: Integers, among: Integers, groups: Integers, foreign: bool = False, judged: bool = False
    ) -> Booleans:
        """Which rows of ``of`` have another image of their group in ``among``.

        Args:
            foreign: of another label.
            judged: that the protocol lets them find.
        """
        place = {row: number for number, row in enumerate(self.rows.tolist())}
        members: dict[int, list[int]] = {}
        for row in among.tolist():
            if row in place:
                members.setdefault(int(groups[place[row]]), []).append(row)
        labels, rules = self.dataset.labels, self.dataset.rules
        found = np.zeros(len(of), bool)
        for number, row in enumerate(of.tolist()):
            there = members.get(int(groups[place[row]]), []) if row in place else []
            if not there or there == [row]:
                continue
            others = np.array([other for other in there if other != row], np.int64)
            if foreign:
                others = others[labels[others] != labels[row]]
            if judged and others.size:
                others = others[~rules.ignored(np.array([row]), others)]
            found[number] = bool(others.size)
        return found


def find_copies(dataset: RetrievalDataset, found: Survey) -> Copies:
    """Compare all images that can be read with each other."""
    equal = np.unique(found.digests, return_inverse=True)[1].astype(np.int64)
    count = len(found.rows)
    cells = found.cells.reshape(count, 3, -1)
    structure = (cells - cells.mean(2, keepdims=True)).reshape(count, -1)
    lengths = np.linalg.norm(structure, axis=1, keepdims=True)
    flat = (lengths / np.sqrt(structure.shape[1]) < _FLAT)[:, 0]
    index = faiss.IndexFlatIP(structure.shape[1])
    directions = np.ascontiguousarray(structure / np.maximum(lengths, 1e-6), np.float32)
    index.add(directions)
    similarity, other = index.search(directions, min(_CANDIDATES + 1, count))
    own = np.repeat(np.arange(count), other.shape[1])
    other, similarity = other.ravel(), similarity.ravel()
    close = (own != other) & (similarity >= _CORRELATION) & ~flat[own] & ~flat[other]
    own, other = own[close], other[close]
    alike = (found.hashes[own] != found.hashes[other]).sum(1) <= _BITS
    alike &= np.abs(found.cells[own] - found.cells[other]).mean(1) <= _LEVELS
    # Images that are equal belong together whatever the search returned first of many.
    first = np.unique(equal, return_index=True)[1]
    left = np.concatenate([own[alike], np.arange(count)])
    right = np.concatenate([other[alike], first[equal]])
    graph = coo_matrix((np.ones(len(left), bool), (left, right)), shape=(count, count))
    near = connected_components(graph, directed=False)[1].astype(np.int64)
    return Copies(dataset, found.rows, equal, near)


def embedding_twins(embeddings: npt.NDArray[np.float32], labels: Integers) -> EmbeddingTwins:
    """How many gallery images have another one that the model does not tell from them.

    Args:
        embeddings: (M, D), of length 1.
        labels: int64, (M,).
    """
    index = faiss.IndexFlatIP(embeddings.shape[1])
    index.add(np.ascontiguousarray(embeddings, np.float32))
    similarity, other = index.search(np.ascontiguousarray(embeddings, np.float32), min(_CANDIDATES + 1, len(labels)))
    same = (similarity >= _SAME_EMBEDDING) & (other != np.arange(len(labels))[:, None])
    return EmbeddingTwins(
        cosine=_SAME_EMBEDDING,
        images=int(same.any(1).sum()),
        other_label=int((same & (labels[other] != labels[:, None])).any(1).sum()),
    )


def _groups(numbers: Integers) -> list[Integers]:
    """Places of equal numbers, where there are two or more."""
    order = np.argsort(numbers, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)
    return [part.astype(np.int64) for part in parts if len(part) > 1]
