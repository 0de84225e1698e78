"""Metrics and search against loops written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from robustdml.retrieval.metrics import METRIC_NAMES, per_query, score
from robustdml.retrieval.search import GalleryIndex


def unit(random, count, dim=5):
    values = random.normal(size=(count, dim)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_metrics_equal_a_loop():
    random = np.random.default_rng(0)
    relevant = random.random((40, 30)) < 0.3
    counts = np.maximum(relevant.sum(1), 1) - random.integers(0, 2, 40) * (relevant.sum(1) > 1)
    values = per_query(relevant, counts)
    for row, (hits, total) in enumerate(zip(relevant.tolist(), counts.tolist(), strict=True)):
        for k in (1, 2, 4, 8):
            assert values[f"recall_at_{k}"][row] == float(any(hits[:k]))
        assert values["r_precision"][row] == pytest.approx(sum(hits[:total]) / total)
        average = sum(sum(hits[: i + 1]) / (i + 1) for i in range(total) if hits[i]) / total
        assert values["map_at_r"][row] == pytest.approx(average)


def test_a_perfect_ranking_scores_one_and_a_reversed_one_zero():
    counts = np.array([3, 3])
    relevant = np.array([[True] * 3 + [False] * 9, [False] * 9 + [True] * 3])
    values = per_query(relevant, counts)
    for name in METRIC_NAMES:
        assert values[name].tolist() == [1.0, 0.0], name


def test_search_equals_sorting_all_similarities():
    random = np.random.default_rng(1)
    gallery, queries = unit(random, 50), unit(random, 7)
    ids = random.permutation(1000)[:50].astype(np.int64)
    ranked = GalleryIndex(gallery, ids).rank(queries, np.full(7, -5), 12)
    expected = ids[np.argsort(-(queries @ gallery.T), axis=1)[:, :12]]
    assert (ranked == expected).all()


def test_a_query_never_finds_itself_even_among_exact_duplicates():
    random = np.random.default_rng(2)
    gallery = unit(random, 20)
    gallery[5] = gallery[11]  # an exact duplicate of item 11: ties put either one first
    ids = np.arange(100, 120)
    ranked = GalleryIndex(gallery, ids).rank(gallery, ids, 19)
    for row in range(20):
        assert ids[row] not in ranked[row]
        assert sorted(ranked[row]) == sorted(set(ids) - {ids[row]})
    assert ranked[11][0] == 105
    assert ranked[5][0] == 111


def test_an_attacked_query_that_left_its_own_item_still_skips_it():
    gallery = np.eye(4, dtype=np.float32)
    ids = np.arange(4)
    moved = gallery[[1]]  # query 0 was moved onto item 1; its own item is far away, at an unknown rank
    assert GalleryIndex(gallery, ids).rank(moved, np.array([0]), 3)[0].tolist()[0] == 1
    assert 0 not in GalleryIndex(gallery, ids).rank(moved, np.array([0]), 3)[0]


def test_ranks_beyond_the_gallery_are_filled_with_minus_one():
    gallery = np.eye(3, dtype=np.float32)
    ranked = GalleryIndex(gallery, np.arange(3)).rank(gallery, np.arange(3), 8)
    assert (ranked[:, :2] >= 0).all()
    assert (ranked[:, 2:] == -1).all()


def test_the_interval_is_over_classes_and_repeats_with_its_seed():
    labels = np.repeat(np.arange(4), 25)
    by_class = {name: (labels < 2).astype(float) for name in METRIC_NAMES}  # classes wholly right or wholly wrong
    mixed = {name: np.tile([1.0, 0.0], 50) for name in METRIC_NAMES}
    wide, narrow = score(by_class, labels, seed=0), score(mixed, labels, seed=0)
    assert wide.metrics.recall_at_1 == narrow.metrics.recall_at_1 == 0.5
    assert wide.recall_at_1_high - wide.recall_at_1_low > 0.5
    assert narrow.recall_at_1_high - narrow.recall_at_1_low < 0.05
    assert score(by_class, labels, seed=0) == wide


@pytest.mark.parametrize("classes", [1, 4, 100])
def test_where_all_queries_end_alike_the_interval_is_the_exact_one_of_as_many_queries(classes):
    labels = np.repeat(np.arange(classes) * 3, 5)
    for right in (0, 1):
        found = score({name: np.full(len(labels), float(right)) for name in METRIC_NAMES}, labels, seed=0)
        expected = binomtest(right * len(labels), len(labels)).proportion_ci(0.95, method="exact")
        assert found.recall_at_1_low == pytest.approx(expected.low, abs=1e-12)
        assert found.recall_at_1_high == pytest.approx(expected.high, abs=1e-12)
        assert 0 < found.recall_at_1_high - found.recall_at_1_low < 1


def test_a_single_hit_leaves_the_interval_to_the_bootstrap():
    labels = np.repeat(np.arange(50), 2)
    values = np.zeros(100)
    values[7] = 1.0
    found = score(dict.fromkeys(METRIC_NAMES, values), labels, seed=0)
    assert found.recall_at_1_low == 0
    assert found.metrics.recall_at_1 < found.recall_at_1_high < 1
