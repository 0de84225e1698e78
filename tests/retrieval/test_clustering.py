"""NMI and the pi-ratio: by hand, against naive loops, and unmoved by what must not matter."""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import pytest
from scipy.spatial.distance import cosine
from scipy.stats import ortho_group

from robustdml.retrieval.clustering import clustered_rows, nmi, pi_ratio


def at_angles(*degrees: float) -> np.ndarray:
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def clouds(classes: int = 5, each: int = 40, spread: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Points on the sphere around one axis for each class, and their labels."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), each)
    points = np.eye(16)[labels] + spread * random.normal(size=(len(labels), 16))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32), labels


def mislabelled() -> tuple[np.ndarray, np.ndarray]:
    """Clear clusters, every third item of which has another class's label: both measures are far from their ends."""
    points, labels = clouds()
    return points, np.where(np.arange(len(labels)) % 3 == 0, (labels + 1) % 5, labels)


def test_nmi_by_hand():
    """Two clusters of four; the first is of class a, the second holds one a and three b."""
    points = at_angles(0, 1, 2, 3, 180, 181, 182, 183)
    clusters = log(2)
    classes = -(5 / 8 * log(5 / 8) + 3 / 8 * log(3 / 8))
    left = -(1 / 4 * log(1 / 4) + 3 / 4 * log(3 / 4)) / 2
    expected = (classes - left) / ((classes + clusters) / 2)
    assert nmi(points, np.array([0, 0, 0, 0, 0, 1, 1, 1])) == pytest.approx(expected)


def test_nmi_is_1_for_perfect_clusters_and_0_for_labels_that_they_do_not_tell():
    points, labels = clouds()
    assert nmi(points, labels) == pytest.approx(1)
    assert nmi(points, np.tile(np.arange(5), 40)) == pytest.approx(0, abs=1e-9)


def test_nmi_is_of_the_first_start_and_not_of_the_best():
    """All starts of these end with two clouds in one cluster, in different ways: the best would flatter."""
    points, labels = clouds(classes=12)
    assert nmi(points, labels) < max(nmi(points, labels, seed=seed) for seed in range(5)) - 0.003


def test_of_many_classes_whole_ones_are_drawn_as_many_as_may_be_clustered():
    labels = np.repeat(np.arange(100), 7)
    assert clustered_rows(labels, most=70_000) is None
    rows = clustered_rows(labels, most=17_499)
    found, sizes = np.unique(labels[rows], return_counts=True)
    assert len(found) == 49  # 49 * 49 * 7 = 16,807, and 50 * 50 * 7 = 17,500
    assert set(sizes) == {7}
    assert np.array_equal(rows, clustered_rows(labels, most=17_499))
    assert len(np.unique(labels[clustered_rows(labels, most=1)])) == 2


def test_pi_ratio_by_hand():
    """Within: (0 + 1 + 1) / 3 and 1. Between: the centres (2, 1) and (-1, -1)."""
    points, labels = at_angles(0, 0, 90, 180, 270), np.array([0, 0, 0, 1, 1])
    assert pi_ratio(points, labels) == pytest.approx(((2 / 3 + 1) / 2) / (1 + 3 / sqrt(10)))


def test_a_class_of_one_item_has_a_centre_and_no_distance_within():
    """Within: 1 and 1. Between: 2, 1 and 1."""
    assert pi_ratio(at_angles(0, 90, 180, 270, 135), np.array([0, 0, 1, 1, 2])) == pytest.approx(3 / 4)


def test_pi_ratio_equals_naive_loops():
    random = np.random.default_rng(1)
    points, labels = random.normal(size=(60, 7)).astype(np.float32), random.integers(6, size=60)
    groups = [points[labels == label].astype(float) for label in range(6)]
    within = [np.mean([cosine(a, b) for i, a in enumerate(own) for b in own[i + 1 :]]) for own in groups]
    centres = [np.mean([item / np.linalg.norm(item) for item in own], axis=0) for own in groups]
    between = [cosine(a, b) for i, a in enumerate(centres) for b in centres[i + 1 :]]
    assert pi_ratio(points, labels) == pytest.approx(np.mean(within) / np.mean(between))


@pytest.mark.parametrize("measure", [nmi, pi_ratio])
def test_neither_rotation_nor_names_nor_order_matter(measure):
    points, labels = mislabelled()
    value = measure(points, labels)
    assert 0.1 < value < 0.9
    rotation = ortho_group.rvs(16, random_state=2).astype(np.float32)
    assert measure(points @ rotation, labels) == pytest.approx(value, rel=1e-4)
    assert measure(points, np.array([70, -3, 12, 5, 8])[labels]) == pytest.approx(value)
    order = np.random.default_rng(3).permutation(len(labels))
    assert measure(points[order], labels[order]) == pytest.approx(value)


def test_denser_classes_have_a_lower_ratio():
    assert pi_ratio(*clouds(spread=0.05)) < pi_ratio(*clouds(spread=0.1)) < pi_ratio(*mislabelled())


def test_nmi_is_the_same_every_time():
    random = np.random.default_rng(4)
    points, labels = random.normal(size=(400, 8)).astype(np.float32), random.integers(40, size=400)
    assert len({nmi(points, labels) for _ in range(3)}) == 1


@pytest.mark.parametrize("measure", [nmi, pi_ratio])
@pytest.mark.parametrize("labels", [np.zeros(6, int), np.arange(6)], ids=["one class", "a class each"])
def test_there_is_no_value_where_it_says_nothing(measure, labels):
    assert measure(at_angles(0, 10, 20, 30, 40, 50), labels) is None


def test_identical_embeddings_tell_no_classes_and_have_no_ratio():
    points, labels = np.tile(at_angles(33), (12, 1)), np.repeat(np.arange(3), 4)
    assert nmi(points, labels) == 0
    assert pi_ratio(points, labels) is None
    # Neither has a space whose differences are those of rounding.
    points[:4] = at_angles(33.00001)
    assert (points[0] != points[4]).any()
    assert pi_ratio(points, labels) is None


def test_a_class_without_a_direction_has_no_ratio():
    assert pi_ratio(at_angles(0, 180, 90, 91), np.array([0, 0, 1, 1])) is None
