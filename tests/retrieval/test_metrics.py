"""Metrics and search against loops written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from by_id import same_class
from scipy.stats import binomtest, hypergeom

from robustdml.citations import BIBTEX
from robustdml.retrieval import metrics
from robustdml.retrieval.metrics import METRICS, per_query, score
from robustdml.retrieval.search import GalleryIndex

NAMES = tuple(METRICS)
EVERY = [METRICS[name] for name in NAMES]
BY_FIRST = {"headline": "recall_at_1", "seed": 0}


def unit(random, count, dim=5):
    values = random.normal(size=(count, dim)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_metrics_equal_a_loop():
    random = np.random.default_rng(0)
    relevant = random.random((40, 30)) < 0.3
    counts = np.maximum(relevant.sum(1), 1) - random.integers(0, 2, 40) * (relevant.sum(1) > 1)
    values = per_query(EVERY, relevant, counts)
    for row, (hits, total) in enumerate(zip(relevant.tolist(), counts.tolist(), strict=True)):
        precisions = [sum(hits[: i + 1]) / (i + 1) for i in range(30) if hits[i]]
        among_r = sum(hits[:total])
        expected = {
            **{name: float(any(hits[: METRICS[name].depth])) for name in NAMES if name.startswith("recall")},
            "r_precision": among_r / total,
            "map_at_r": sum(precisions[:among_r]) / total,
            "mean_average_precision": sum(precisions) / total,
        }
        assert {name: values[name][row] for name in NAMES} == pytest.approx(expected)


def test_a_perfect_ranking_scores_one_and_a_reversed_one_zero_where_it_is_not_looked_at_to_the_end():
    counts = np.array([3, 3])
    relevant = np.array([[True] * 3 + [False] * 9, [False] * 9 + [True] * 3])
    values = per_query(EVERY, relevant, counts)
    ends = {name: found.tolist() for name, found in values.items()}
    assert all(found[0] == 1 for found in ends.values())
    assert ends.pop("mean_average_precision")[1] == pytest.approx((1 / 10 + 2 / 11 + 3 / 12) / 3)
    assert {name for name, found in ends.items() if found[1] == 0} == {
        "map_at_r", "r_precision", *(f"recall_at_{rank}" for rank in (1, 2, 4, 5, 8)),
    }  # fmt: skip


def test_values_are_the_same_to_the_last_bit_whatever_else_and_whoever_else_is_measured():
    random = np.random.default_rng(4)
    relevant = random.random((60, 300)) < 0.2
    counts = relevant.sum(1)
    most = int(counts.max())
    whole = per_query(EVERY, relevant, counts)
    for metric in EVERY:
        shallow = relevant[:, : metric.ranks(most, 300)]
        parts = [per_query([metric], shallow[at : at + 7], counts[at : at + 7], most=most) for at in range(0, 60, 7)]
        alone = np.concatenate([part[metric.name] for part in parts])
        assert alone.tobytes() == whole[metric.name].tobytes(), metric.name


def test_a_rank_beyond_the_gallery_is_its_end():
    values = per_query([METRICS["recall_at_1000"]], np.array([[False, True], [False, False]]), np.array([1, 1]))
    assert values["recall_at_1000"].tolist() == [1.0, 0.0]


def test_a_random_ranking_is_expected_to_have_what_the_hypergeometric_distribution_says():
    counts, searched = np.array([1, 7, 40, 3]), np.array([23, 23, 50, 3])
    for metric in EVERY:
        if metric.chance:
            drawn = np.minimum(metric.depth, searched)
            expected = 1 - hypergeom.pmf(0, searched, counts, drawn)
            np.testing.assert_allclose(metric.chance(counts, searched), expected, atol=1e-12)
    assert {metric.name for metric in EVERY if metric.chance} == {name for name in NAMES if name.startswith("recall")}


@pytest.mark.parametrize("name", NAMES)
def test_a_metric_says_what_it_is_and_whose(name):
    metric = METRICS[name]
    assert metric.name == name
    assert metric.title
    assert metric.description
    assert not metric.description.endswith(".")
    assert metric.citation in BIBTEX


def test_search_equals_sorting_all_similarities():
    random = np.random.default_rng(1)
    gallery, queries = unit(random, 50), unit(random, 7)
    ids = random.permutation(1000)[:50].astype(np.int64)
    outside = np.full(7, 1001)
    ranked = GalleryIndex(gallery, ids, same_class((ids, ids), (outside, outside))).rank(queries, outside, 12)
    expected = ids[np.argsort(-(queries @ gallery.T), axis=1)[:, :12]]
    assert (ranked == expected).all()


def test_a_query_never_finds_itself_even_among_exact_duplicates():
    random = np.random.default_rng(2)
    gallery = unit(random, 20)
    gallery[5] = gallery[11]  # an exact duplicate of item 11: ties put either one first
    ids = np.arange(100, 120)
    ranked = GalleryIndex(gallery, ids, same_class((ids, ids))).rank(gallery, ids, 19)
    for row in range(20):
        assert ids[row] not in ranked[row]
        assert sorted(ranked[row]) == sorted(set(ids) - {ids[row]})
    assert ranked[11][0] == 105
    assert ranked[5][0] == 111


def test_an_attacked_query_that_left_its_own_item_still_skips_it():
    gallery = np.eye(4, dtype=np.float32)
    ids = np.arange(4)
    moved = gallery[[1]]  # query 0 was moved onto item 1; its own item is far away, at an unknown rank
    ranked = GalleryIndex(gallery, ids, same_class((ids, ids))).rank(moved, np.array([0]), 3)[0]
    assert ranked[0] == 1
    assert 0 not in ranked


def tied(random, count):
    """Items of few different embeddings, whose inner products are small integers: exact, and equal very often."""
    return random.integers(-1, 2, size=(count, 3)).astype(np.float32), random.integers(4, size=count)


@pytest.mark.parametrize("k", [1, 2, 8, 70])
@pytest.mark.parametrize("seed", range(5))
def test_a_relevant_item_ranks_behind_every_foreign_item_of_equal_similarity(seed, k):
    random = np.random.default_rng(seed)
    gallery, labels = tied(random, 60)
    ids = random.permutation(500)[:60]
    ranked = GalleryIndex(gallery, ids, same_class((ids, labels))).rank(gallery, ids, k)
    for row, query in enumerate(gallery):
        keys = [
            (-sum(float(a) * float(b) for a, b in zip(query, item, strict=True)), label == labels[row], item_id)
            for item, label, item_id in zip(gallery, labels, ids, strict=True)
            if item_id != ids[row]
        ]
        expected = [item_id for *_, item_id in sorted(keys)][:k]
        assert ranked[row].tolist() == expected + [-1] * (k - len(expected))


def test_rankings_do_not_depend_on_the_order_of_the_rows():
    random = np.random.default_rng(9)
    gallery, labels, ids = np.repeat(unit(random, 40), 3, axis=0), random.integers(4, size=120), np.arange(120)
    order = random.permutation(120)
    queries, query_ids = unit(random, 30), np.arange(200, 230)
    protocol = same_class((ids, labels), (query_ids, random.integers(4, size=30)))
    one = GalleryIndex(gallery, ids, protocol).rank(queries, query_ids, 10)
    other = GalleryIndex(gallery[order], ids[order], protocol).rank(queries, query_ids, 10)
    assert (one == other).all()


def test_one_constant_embedding_retrieves_nothing():
    labels, ids = np.arange(40) % 4, np.arange(40)
    gallery = np.tile(unit(np.random.default_rng(3), 1), (40, 1))
    ranked = GalleryIndex(gallery, ids, same_class((ids, labels))).rank(gallery, ids, 9)
    assert not (labels[ranked] == labels[:, None]).any()


def test_ranks_beyond_the_gallery_are_filled_with_minus_one():
    gallery = np.eye(3, dtype=np.float32)
    ids = np.arange(3)
    ranked = GalleryIndex(gallery, ids, same_class((ids, ids))).rank(gallery, ids, 8)
    assert (ranked[:, :2] >= 0).all()
    assert (ranked[:, 2:] == -1).all()


def test_the_interval_is_over_classes_and_repeats_with_its_seed():
    labels = np.repeat(np.arange(4), 25)
    by_class = {name: (labels < 2).astype(float) for name in NAMES}  # classes wholly right or wholly wrong
    mixed = {name: np.tile([1.0, 0.0], 50) for name in NAMES}
    wide, narrow = (
        score(by_class, labels, **BY_FIRST),
        score(mixed, labels, **BY_FIRST),
    )
    assert wide.metrics.recall_at_1 == narrow.metrics.recall_at_1 == 0.5
    assert wide.high - wide.low > 0.5
    assert narrow.high - narrow.low < 0.05
    assert score(by_class, labels, **BY_FIRST) == wide


@pytest.mark.parametrize("classes", [1, 4, 100])
def test_where_all_queries_end_alike_the_interval_is_the_exact_one_of_as_many_queries(classes):
    labels = np.repeat(np.arange(classes) * 3, 5)
    for right in (0, 1):
        found = score(
            {name: np.full(len(labels), float(right)) for name in NAMES}, labels, headline="recall_at_1", seed=0
        )
        expected = binomtest(right * len(labels), len(labels)).proportion_ci(0.95, method="exact")
        assert found.low == pytest.approx(expected.low, abs=1e-12)
        assert found.high == pytest.approx(expected.high, abs=1e-12)
        assert 0 < found.high - found.low < 1


def test_a_single_hit_leaves_the_interval_to_the_bootstrap():
    labels = np.repeat(np.arange(50), 2)
    values = np.zeros(100)
    values[7] = 1.0
    found = score(dict.fromkeys(NAMES, values), labels, **BY_FIRST)
    assert found.low == 0
    assert found.metrics.recall_at_1 < found.high < 1


def test_average_precision_of_long_lists_is_that_of_short_ones(monkeypatch):
    random = np.random.default_rng(0)
    relevant = random.random((9, 200)) < 0.05
    relevant[3] = False
    counts = relevant.sum(1) + 1
    compute = METRICS["mean_average_precision"].compute
    expected = compute(relevant, counts)
    monkeypatch.setattr(metrics, "_LONG", 100)
    np.testing.assert_allclose(compute(relevant, counts), expected, rtol=1e-12)
