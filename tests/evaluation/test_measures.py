"""What the ranking papers report, against plain sorting."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import kendalltau

from robustdml.attacks import GOALS
from robustdml.errors import UnknownNameError
from robustdml.evaluation.measures import MEASURES, AttackedEmbeddings, Points, Similarities, measured, paired


def on_sphere(random, count, dim=6):
    points = random.standard_normal((count, dim))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(params=[True, False], ids=["leave-self-out", "gallery"])
def attacked(request):
    """Five attacked images, among forty gallery items or apart from them."""
    random = np.random.default_rng(0)
    gallery = Points(on_sphere(random, 40), random.permutation(1000)[:40])
    before = gallery.embeddings[:5] if request.param else on_sphere(random, 5)
    ids = gallery.ids[:5] if request.param else np.arange(5) + 2000
    targets = np.stack([random.permutation(np.arange(5, 40))[:4] for _ in range(5)])
    return AttackedEmbeddings(gallery, None, before, on_sphere(random, 5), ids, targets, np.equal)


def listed(attacked, row, point):
    """The gallery rows in the list of an image, without the image itself."""
    order = sorted(range(len(attacked.gallery.ids)), key=lambda item: -float(point @ attacked.gallery.embeddings[item]))
    return [item for item in order if attacked.gallery.ids[item] != attacked.ids[row]]


def place(order, item):
    return 100 * order.index(item) / (len(order) - 1)


def test_what_the_protocol_leaves_out_has_no_place_in_a_list(attacked):
    """As if it were not in the gallery at all."""
    even = replace(attacked, ignored=lambda queries, items: (queries == items) | (items % 2 == 1))
    kept = np.flatnonzero((attacked.gallery.ids % 2 == 0) | np.isin(attacked.gallery.ids, attacked.ids))
    chosen = np.stack([[row for row in np.flatnonzero(attacked.gallery.ids % 2 == 0) if row >= 5][:4]] * 5)
    fewer = replace(
        attacked,
        gallery=Points(attacked.gallery.embeddings[kept], attacked.gallery.ids[kept]),
        targets=np.searchsorted(kept, chosen),
        ignored=even.ignored,
    )
    found, expected = (measured(["rank_percentile"], seen) for seen in (replace(even, targets=chosen), fewer))
    assert all((found[name] == expected[name]).all() for name in expected)
    assert (
        found["rank_percentile"] != measured(["rank_percentile"], replace(attacked, targets=chosen))["rank_percentile"]
    ).any()


@pytest.mark.parametrize("goal", ["qa_plus", "qa_minus", "spqa_plus", "spqa_minus"])
def test_rank_percentiles_are_places_in_the_list(attacked, goal):
    found = measured(GOALS[goal]().measures, attacked)
    for row in range(5):
        for when, point in (("", attacked.after[row]), ("_clean", attacked.before[row])):
            order = listed(attacked, row, point)
            expected = np.mean([place(order, item) for item in attacked.targets[row]])
            assert found[f"rank_percentile{when}"][row] == pytest.approx(expected)
            if goal.startswith("sp"):
                near = [
                    item for item in listed(attacked, row, attacked.before[row]) if item not in attacked.targets[row]
                ][:5]
                expected = np.mean([place(order, item) for item in near])
                assert found[f"kept_rank_percentile{when}"][row] == pytest.approx(expected)
    assert set(found) == {
        f"{name}{when}"
        for name in ("rank_percentile", *(["kept_rank_percentile"] if goal.startswith("sp") else []))
        for when in ("", "_clean")
    }


def test_the_first_place_is_0_and_the_last_100_and_equals_share(attacked):
    items = attacked.gallery.embeddings
    best = replace(attacked, after=items[[20] * 5], targets=np.full((5, 1), 20))
    assert measured(["rank_percentile"], best)["rank_percentile"] == pytest.approx([0] * 5)
    worst = replace(best, after=-items[[20] * 5])
    assert measured(["rank_percentile"], worst)["rank_percentile"] == pytest.approx([100] * 5)
    flat = Points(np.repeat(items[:1], 40, axis=0), attacked.gallery.ids)
    same = replace(attacked, gallery=flat, before=items[[0] * 5], after=items[[0] * 5])
    assert measured(["rank_percentile"], same)["rank_percentile"] == pytest.approx([50] * 5)


def test_an_attacked_item_is_looked_up_in_the_lists_of_its_queries(attacked):
    aimed = np.array([[0, 7], [3, 11], [5, 6], [2, 8], [1, 10]])
    gallery, random = attacked.gallery, np.random.default_rng(1)
    searchers = Points(on_sphere(random, 12), np.array([*gallery.ids[10:16], *range(3000, 3006)]))
    seen = replace(attacked, searchers=searchers, targets=aimed)
    found = measured(["rank_percentile"], seen)
    for row in range(5):
        for when, point in (("", attacked.after[row]), ("_clean", attacked.before[row])):
            places = []
            for query in aimed[row]:
                left_out = {attacked.ids[row], searchers.ids[query]}
                rivals = [item for item in range(40) if attacked.gallery.ids[item] not in left_out]
                scores = [float(searchers.embeddings[query] @ attacked.gallery.embeddings[item]) for item in rivals]
                mine = float(searchers.embeddings[query] @ point)
                places.append(100 * np.mean([score > mine for score in scores]))
            assert found[f"rank_percentile{when}"][row] == pytest.approx(np.mean(places))


def test_cosine_shift_and_retention(attacked):
    cosine = measured(["target_cosine"], attacked)["target_cosine"]
    expected = [float(attacked.after[row] @ attacked.gallery.embeddings[attacked.targets[row, 0]]) for row in range(5)]
    assert cosine == pytest.approx(expected, abs=1e-6)
    assert measured(["embedding_shift"], attacked)["embedding_shift"] == pytest.approx(
        np.linalg.norm(attacked.after - attacked.before, axis=1), abs=1e-6
    )
    firsts = [listed(attacked, row, attacked.before[row])[0] for row in range(5)]
    halfway = (attacked.after + 1.5 * attacked.before) / 2
    for points in (attacked.after, halfway):
        seen = replace(attacked, after=points)
        kept = [firsts[row] in listed(attacked, row, points[row])[:4] for row in range(5)]
        assert measured(["first_hit_retained"], seen)["first_hit_retained"].tolist() == kept


def test_the_order_is_measured_by_kendalls_tau(attacked):
    tau = measured(["kendall_tau"], attacked)["kendall_tau"]
    for row in range(5):
        scores = [float(attacked.after[row] @ attacked.gallery.embeddings[item]) for item in attacked.targets[row]]
        assert tau[row] == pytest.approx(kendalltau(range(4), [-score for score in scores]).statistic)
        agree = sum(scores[i] > scores[j] for i, j in combinations(range(4), 2))
        assert tau[row] == pytest.approx((2 * agree - 6) / 6)


def test_recall_alone_is_reported_for_the_other_goals(attacked):
    assert not {goal for goal in ("ltm", "gtm", "margin", "hub") if GOALS[goal]().measures}
    assert measured([], attacked) == {}


def test_goals_name_measures_that_there_are():
    assert {name for goal in GOALS.values() for name in goal().measures} == set(MEASURES)


def test_an_unknown_measure_is_named(attacked):
    with pytest.raises(UnknownNameError, match="unknown measure 'rank': "):
        measured(["rank"], attacked)


def test_comparisons_are_exact_and_equal_embeddings_tie():
    """As in float64, although most are made in float32: of items that are nearer to each other than float32 tells."""
    random = np.random.default_rng(0)
    centre = random.normal(size=96)
    items = (centre + 1e-4 * random.normal(size=(300, 96))).astype(np.float32)
    items[200:210] = items[:10]
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    points, mine = items[50:58] + np.float32(0), np.arange(3, 11)
    similarity = Similarities(points, items)
    exact = np.stack([paired(np.broadcast_to(point, items.shape), items) for point in points])
    counted = random.random((8, 300)) < 0.9
    chosen = np.take_along_axis(exact, mine[:, None], 1)
    nearer, equal = similarity.ahead(chosen[:, 0], counted)
    assert nearer.tolist() == ((exact > chosen) & counted).sum(1).tolist()
    assert equal.tolist() == ((exact == chosen) & counted).sum(1).tolist()
    assert equal.max() == 2  # an item and its copy
    order = np.argsort(np.where(counted, -exact, np.inf), axis=1, kind="stable")
    assert np.array_equal(similarity.nearest(7, counted), order[:, :7])
