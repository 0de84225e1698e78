"""What the ranking papers report, against plain sorting."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import kendalltau

from robustdml.evaluation.analyses.ranking_measures import MEASURES, Points, Sight, measured


def on_sphere(random, count, dim=6):
    points = random.standard_normal((count, dim))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(params=[True, False], ids=["leave-self-out", "gallery"])
def sight(request):
    """Five attacked images, among forty gallery items or apart from them; twelve queries search."""
    random = np.random.default_rng(0)
    gallery = Points(on_sphere(random, 40), random.permutation(1000)[:40])
    before = gallery.embeddings[:5] if request.param else on_sphere(random, 5)
    ids = gallery.ids[:5] if request.param else np.arange(5) + 2000
    searchers = Points(on_sphere(random, 12), np.array([*gallery.ids[10:16], *range(3000, 3006)]))
    targets = np.stack([random.permutation(np.arange(5, 40))[:4] for _ in range(5)])
    return Sight(gallery, searchers, before, on_sphere(random, 5), ids, targets)


def listed(sight, row, point):
    """The gallery rows in the list of an image, without the image itself."""
    order = sorted(range(len(sight.gallery.ids)), key=lambda item: -float(point @ sight.gallery.embeddings[item]))
    return [item for item in order if sight.gallery.ids[item] != sight.ids[row]]


def place(order, item):
    return 100 * order.index(item) / (len(order) - 1)


@pytest.mark.parametrize("goal", ["qa_plus", "qa_minus", "spqa_plus", "spqa_minus"])
def test_rank_percentiles_are_places_in_the_list(sight, goal):
    found = measured(goal, sight)
    for row in range(5):
        for when, point in (("", sight.after[row]), ("_clean", sight.before[row])):
            order = listed(sight, row, point)
            expected = np.mean([place(order, item) for item in sight.targets[row]])
            assert found[f"rank_percentile{when}"][row] == pytest.approx(expected)
            if goal.startswith("sp"):
                near = [item for item in listed(sight, row, sight.before[row]) if item not in sight.targets[row]][:5]
                expected = np.mean([place(order, item) for item in near])
                assert found[f"kept_rank_percentile{when}"][row] == pytest.approx(expected)
    assert set(found) == {
        f"{name}{when}"
        for name in ("rank_percentile", *(["kept_rank_percentile"] if goal.startswith("sp") else []))
        for when in ("", "_clean")
    }


def test_the_first_place_is_0_and_the_last_100_and_equals_share(sight):
    items = sight.gallery.embeddings
    best = Sight(sight.gallery, sight.searchers, sight.before, items[[20] * 5], sight.ids, np.full((5, 1), 20))
    assert measured("qa_plus", best)["rank_percentile"] == pytest.approx([0] * 5)
    worst = Sight(sight.gallery, sight.searchers, sight.before, -items[[20] * 5], sight.ids, np.full((5, 1), 20))
    assert measured("qa_plus", worst)["rank_percentile"] == pytest.approx([100] * 5)
    flat = Points(np.repeat(items[:1], 40, axis=0), sight.gallery.ids)
    same = Sight(flat, sight.searchers, items[[0] * 5], items[[0] * 5], sight.ids, sight.targets)
    assert measured("qa_plus", same)["rank_percentile"] == pytest.approx([50] * 5)


def test_an_attacked_item_is_looked_up_in_the_lists_of_its_queries(sight):
    aimed = np.array([[0, 7], [3, 11], [5, 6], [2, 8], [1, 10]])
    seen = Sight(sight.gallery, sight.searchers, sight.before, sight.after, sight.ids, aimed)
    found = measured("ca_plus", seen)
    for row in range(5):
        for when, point in (("", sight.after[row]), ("_clean", sight.before[row])):
            places = []
            for query in aimed[row]:
                left_out = {sight.ids[row], sight.searchers.ids[query]}
                rivals = [item for item in range(40) if sight.gallery.ids[item] not in left_out]
                scores = [float(sight.searchers.embeddings[query] @ sight.gallery.embeddings[item]) for item in rivals]
                mine = float(sight.searchers.embeddings[query] @ point)
                places.append(100 * np.mean([score > mine for score in scores]))
            assert found[f"rank_percentile{when}"][row] == pytest.approx(np.mean(places))
    assert found.keys() == measured("ca_minus", seen).keys()


def test_cosine_shift_and_retention(sight):
    cosine = measured("tma", sight)["target_cosine"]
    expected = [float(sight.after[row] @ sight.gallery.embeddings[sight.targets[row, 0]]) for row in range(5)]
    assert cosine == pytest.approx(expected, abs=1e-6)
    assert measured("es", sight)["embedding_shift"] == pytest.approx(
        np.linalg.norm(sight.after - sight.before, axis=1), abs=1e-6
    )
    firsts = [listed(sight, row, sight.before[row])[0] for row in range(5)]
    halfway = (sight.after + 1.5 * sight.before) / 2
    for points in (sight.after, halfway):
        seen = Sight(sight.gallery, sight.searchers, sight.before, points, sight.ids, sight.targets)
        kept = [firsts[row] in listed(sight, row, points[row])[:4] for row in range(5)]
        assert measured("gtt", seen)["first_hit_retained"].tolist() == kept


def test_the_order_is_measured_by_kendalls_tau(sight):
    tau = measured("foa", sight)["kendall_tau"]
    for row in range(5):
        scores = [float(sight.after[row] @ sight.gallery.embeddings[item]) for item in sight.targets[row]]
        assert tau[row] == pytest.approx(kendalltau(range(4), [-score for score in scores]).statistic)
        agree = sum(scores[i] > scores[j] for i, j in combinations(range(4), 2))
        assert tau[row] == pytest.approx((2 * agree - 6) / 6)


def test_recall_alone_is_reported_for_the_other_goals(sight):
    assert {"ltm", "gtm", "margin", "hub"}.isdisjoint(MEASURES)
    assert measured("margin", sight) == {}
