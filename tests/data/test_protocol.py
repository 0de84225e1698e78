"""Who is relevant and who is left out: worked out by hand, against loops, and for kinds that are not shipped."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from robustdml.data import ArrayImages, RetrievalDataset
from robustdml.data.protocol import Protocol, Reidentification, SameClass
from robustdml.errors import DataError

#: Row by row: who it is, and which camera took it. Rows 0 and 1 ask, the others are searched.
IDENTITIES = np.array([0, 1, 0, 0, 1, 0, 1, 2])
CAMERAS = np.array([0, 1, 0, 1, 1, 2, 0, 0])
QUERIES, GALLERY = np.array([0, 1]), np.arange(2, 8)


@dataclass(frozen=True, eq=False)
class Pairs(Protocol):
    """Relevance that is listed, as where one photo shows several things: no label says it."""

    pairs: frozenset[tuple[int, int]]

    def relevant(self, queries, items):
        queries, items = np.broadcast_arrays(queries, items)
        found = [pair in self.pairs for pair in zip(queries.ravel().tolist(), items.ravel().tolist(), strict=True)]
        return np.array(found, bool).reshape(items.shape)

    def ignored(self, queries, items):
        return np.asarray(queries == items)

    def identity(self):
        return {**super().identity(), "pairs": sorted(self.pairs)}


def test_reidentification_by_hand():
    protocol = Reidentification(CAMERAS, IDENTITIES)
    # Query 0 (identity 0, camera 0): row 2 is of its own camera; rows 3 and 5 are to be found.
    # Query 1 (identity 1, camera 1): row 4 is of its own camera; row 6 is to be found.
    searched = [[item for item in GALLERY if not protocol.ignored(query, item)] for query in QUERIES]
    found = [[item for item in GALLERY if protocol.relevant(query, item)] for query in QUERIES]
    assert searched == [[3, 4, 5, 6, 7], [2, 3, 5, 6, 7]]
    assert [[item for item in right if item in others] for right, others in zip(found, searched, strict=True)] == [
        [3, 5], [6],
    ]  # fmt: skip
    assert [count.tolist() for count in protocol.counts(QUERIES, GALLERY)] == [[2, 1], [5, 5]]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("cameras", [1, 3])
def test_counts_equal_those_of_any_protocol(seed, cameras):
    """The general way looks at every pair."""
    random = np.random.default_rng(seed)
    labels, taken_by = random.integers(5, size=60), random.integers(cameras, size=60)
    queries, gallery = random.permutation(60)[:20], random.permutation(60)[:40]
    for protocol in (SameClass(labels), Reidentification(taken_by, labels)):
        expected = Protocol.counts(protocol, queries, gallery)
        for found, naive in zip(protocol.counts(queries, gallery), expected, strict=True):
            np.testing.assert_array_equal(found, naive)


def test_a_query_in_the_gallery_is_left_out_of_its_own_list():
    rows = np.arange(8)
    for protocol in (SameClass(IDENTITIES), Reidentification(CAMERAS, IDENTITIES)):
        assert protocol.ignored(rows, rows).all()


@pytest.mark.parametrize(
    "other",
    [
        SameClass(IDENTITIES, metrics=("recall_at_1",)),
        SameClass(IDENTITIES, headline="map_at_r"),
        SameClass(IDENTITIES[::-1]),
        Reidentification(CAMERAS, IDENTITIES, metrics=SameClass(IDENTITIES).metrics),
    ],
)
def test_the_identity_holds_all_that_changes_a_number(other):
    assert other.identity() != SameClass(IDENTITIES).identity()
    assert SameClass(IDENTITIES.copy()).identity() == SameClass(IDENTITIES).identity()


def dataset(protocol):
    return RetrievalDataset(
        name="people",
        images=ArrayImages(np.zeros((10, 2, 2, 3), np.uint8)),
        labels=np.append(IDENTITIES, [3, 3]),
        class_names=tuple("abcd"),
        train=np.array([8, 9]),
        query=QUERIES,
        gallery=GALLERY,
        protocol="Four people.",
        image_size=2,
        augmentation="none",
        **({} if protocol is None else {"rules": protocol}),
    )


def test_the_data_set_gives_the_protocol_and_is_known_by_it():
    plain = dataset(None)
    people = dataset(Reidentification(np.append(CAMERAS, [0, 1])))
    assert isinstance(plain.test.rules, SameClass)
    assert people.test.rules.identity() == people.rules.identity()
    assert plain.fingerprint() != people.fingerprint()
    assert [data.test.counts()[0].tolist() for data in (plain, people)] == [[3, 2], [2, 1]]
    listed = dataset(Pairs(frozenset({(0, 7), (1, 2), (1, 7)})))
    assert listed.test.counts()[0].tolist() == [1, 2]


def test_a_query_whose_own_camera_took_all_there_is_has_nothing_to_find():
    labels = np.append(IDENTITIES, [3, 3])
    cameras = np.where(labels == 1, 0, np.arange(10))
    with pytest.raises(
        DataError, match="class 'b' has a query to which no gallery image is relevant that may be found"
    ):
        dataset(Reidentification(cameras))


def test_training_images_that_one_camera_took_do_not_ask_in_the_validation():
    labels = np.repeat(np.arange(6), 4)
    cameras = np.where(labels == 0, 0, np.arange(24) % 2)
    data = replace(
        dataset(None),
        images=ArrayImages(np.zeros((24, 2, 2, 3), np.uint8)),
        labels=labels,
        class_names=tuple("abcdef"),
        train=np.arange(16),
        query=np.arange(16, 24),
        gallery=np.arange(16, 24),
        rules=Reidentification(cameras),
    )
    asked = {seed: data.split_validation(2, seed)[1].query for seed in range(20)}
    assert all((labels[query] != 0).all() for query in asked.values())
    assert {len(query) for query in asked.values()} == {4, 8}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SameClass(IDENTITIES, metrics=("map_at_r",), headline="map_at_r"), "must hold 'recall_at_1'"),
        (lambda: SameClass(IDENTITIES, headline="recall_at_5"), "the headline 'recall_at_5'"),
        (lambda: SameClass(IDENTITIES, metrics=("recall_at_1", "recall_at_1")), "each metric once"),
        (lambda: Reidentification(CAMERAS[1:], IDENTITIES), "cameras must be 8 integers from 0 on"),
        (lambda: Reidentification(CAMERAS - 1, IDENTITIES), "begin at -1"),
    ],
)
def test_a_protocol_that_cannot_be_is_refused(make, message):
    with pytest.raises(DataError, match=message):
        make()
