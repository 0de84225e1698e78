"""Exact truths of linear embeddings: against plain programs, brute force, exact search, and attacks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize_scalar

from robustdml.attacks import build_attack, build_suite
from robustdml.data import load_dataset
from robustdml.data.tensors import ImageTensors
from robustdml.errors import BudgetError, DataError, SpecError
from robustdml.evaluation.checks import truth as truth_module
from robustdml.evaluation.checks.calibration import linear_settings, reached_by
from robustdml.evaluation.checks.truth import LinearRetrieval
from robustdml.threat import ThreatModel

NORMS = ("linf", "l2", "l1")
SIMILARITIES = ("cosine", "euclidean")


class Problem:
    """A small random retrieval: 6 values an image, 3 dimensions, 9 items in 3 classes, 8 queries."""

    def __init__(self, seed: int, similarity: str = "cosine", size: int = 6, per_class: int = 3) -> None:
        random = np.random.default_rng(seed)
        # For L2 too, away from 0 and 1: there the truth knows no box.
        self.images = random.uniform(0.35, 0.65, (8, size))
        self.gallery = random.uniform(0.2, 0.8, (3 * per_class, size))
        weight, bias = random.standard_normal((3, size)), random.standard_normal(3) * 0.3
        self.retrieval = LinearRetrieval(weight, bias, self.gallery, similarity)
        labels = np.arange(3 * per_class) % 3
        found = labels[self.scores(self.images).argmax(1)]
        found[0] = (found[0] + 1) % 3  # one query is wrong already
        self.same = found[:, None] == labels[None]

    def scores(self, images):
        """Similarities ``(N, M)`` by their definition."""
        model = self.retrieval
        queries, items = (each @ model.weight.T + model.bias for each in (images, self.gallery))
        if model.similarity == "cosine":
            queries, items = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (queries, items))
            return queries @ items.T
        return -np.square(queries[:, None] - items[None]).sum(2)

    def leads(self, images, row):
        """How far the nearest rival is before the nearest relative, for images ``(K, P)`` of one query."""
        scores, same = self.scores(images), self.same[row]
        return scores[:, ~same].max(1) - scores[:, same].max(1)

    def truth(self, threat):
        return self.retrieval.truth(self.images, ~self.same, self.same, threat)

    def affine(self):
        """Slopes and offsets of scores with the same order."""
        model = self.retrieval
        items = self.gallery @ model.weight.T + model.bias
        if model.similarity == "cosine":
            items = items / np.linalg.norm(items, axis=1, keepdims=True)
            return items @ model.weight, items @ model.bias
        return 2 * items @ model.weight, 2 * items @ model.bias - np.square(items).sum(1)


def highest_by_plain_programs(problem, row, threat):
    """The maximum over all rivals of one program with every relative: no bound, no shortcut."""
    slopes, offsets = problem.affine()
    image, same, eps = problem.images[row], problem.same[row], threat.eps
    found = []
    for rival in np.flatnonzero(~same):
        terms, terms_offsets = slopes[rival] - slopes[same], offsets[rival] - offsets[same]
        size = len(image)
        if threat.norm == "linf":
            bounds = [*zip(np.maximum(image - eps, 0), np.minimum(image + eps, 1), strict=True), (None, None)]
            result = linprog(
                np.append(np.zeros(size), -1),
                A_ub=np.hstack([-terms, np.ones((len(terms), 1))]),
                b_ub=terms_offsets,
                bounds=bounds,
            )
        else:  # l1: the image, and a size for each change
            eye, ones = np.eye(size), np.ones((len(terms), 1))
            result = linprog(
                np.append(np.zeros(2 * size), -1),
                A_ub=np.vstack(
                    [
                        np.hstack([-terms, np.zeros_like(terms), ones]),
                        np.hstack([eye, -eye, np.zeros((size, 1))]),
                        np.hstack([-eye, -eye, np.zeros((size, 1))]),
                        np.concatenate([np.zeros(size), np.ones(size), [0]])[None],
                    ]
                ),
                b_ub=np.concatenate([terms_offsets, image, -image, [eps]]),
                bounds=[*((0, 1) for _ in range(size)), *((0, None) for _ in range(size)), (None, None)],
            )
        found.append(-result.fun)
    return max(found)


@pytest.fixture(params=[0, 60], ids=["programs alone", "bounds first"])
def rounds(request, monkeypatch):
    """With no rounds of weights every verdict that is not plain comes from a program."""
    monkeypatch.setattr(truth_module, "_ROUNDS", request.param)
    return request.param


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize(("norm", "sizes"), [("linf", (0.005, 0.015, 0.03, 0.06)), ("l1", (0.02, 0.05, 0.1, 0.2))])
def test_verdicts_are_those_of_plain_programs(rounds, norm, sizes, similarity):
    verdicts, programs = [], 0
    for seed in range(3):
        problem = Problem(seed, similarity)
        for eps in sizes:
            truth = problem.truth(ThreatModel(eps, norm))
            highest = [highest_by_plain_programs(problem, row, ThreatModel(eps, norm)) for row in range(8)]
            assert truth.broken.tolist() == [value >= 0 for value in highest]
            # The bound on a query that holds is above the truth, and below 0.
            assert (truth.bound[~truth.broken] >= np.array(highest)[~truth.broken] - 1e-9).all()
            assert (truth.bound[~truth.broken] < 0).all()
            verdicts, programs = verdicts + truth.broken.tolist(), programs + truth.programs
    assert 0.2 < np.mean(verdicts) < 0.8
    assert rounds or programs > 20


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_in_l2_verdicts_are_those_of_the_dual_of_two_relatives(rounds, similarity):
    verdicts, programs = [], 0
    for seed in range(6):
        problem = Problem(seed, similarity, per_class=2)
        slopes, offsets = problem.affine()
        for eps in (0.02, 0.06, 0.12):
            truth = problem.truth(ThreatModel(eps, "l2"))
            for row, image in enumerate(problem.images):
                highest = -np.inf
                for rival in np.flatnonzero(~problem.same[row]):
                    first, second = (slopes[rival] - slopes[problem.same[row]]).copy()
                    one, other = offsets[rival] - offsets[problem.same[row]] + np.array([first, second]) @ image

                    def dual(share, first=first, second=second, one=one, other=other, eps=eps):
                        slope = share * first + (1 - share) * second
                        return share * one + (1 - share) * other + eps * np.linalg.norm(slope)

                    within = minimize_scalar(dual, bounds=(0, 1), method="bounded", options={"xatol": 1e-12}).fun
                    highest = max(highest, min(within, dual(0.0), dual(1.0)))
                assert truth.broken[row] == (highest >= 0), (seed, eps, row, highest)
            verdicts, programs = verdicts + truth.broken.tolist(), programs + truth.programs
    assert 0.2 < np.mean(verdicts) < 0.8
    assert rounds or programs > 20


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_what_it_returns_is_allowed_and_breaks_and_no_search_breaks_more(norm, similarity):
    random, broken = np.random.default_rng(5), 0
    eps = {"linf": 0.015, "l2": 0.025, "l1": 0.04}[norm]
    for seed in range(8):
        problem = Problem(seed, similarity)
        truth = problem.truth(ThreatModel(eps, norm))
        change = truth.images - problem.images
        size = {"linf": np.abs(change).max(1), "l2": np.linalg.norm(change, axis=1), "l1": np.abs(change).sum(1)}[norm]
        assert (size <= eps * (1 + 1e-9)).all()
        assert ((truth.images >= 0) & (truth.images <= 1)).all()
        corners = random.choice([-1.0, 1.0], (4000, 6))
        if norm == "l2":
            corners = random.standard_normal((4000, 6))
            corners /= np.linalg.norm(corners, axis=1, keepdims=True)
        if norm == "l1":
            corners = np.sign(corners) * random.dirichlet(np.full(6, 0.3), 4000)
        for row, image in enumerate(problem.images):
            lead = problem.leads(truth.images[row : row + 1], row)[0]
            assert (lead >= -1e-12) == truth.broken[row]
            searched = problem.leads(image + eps * np.vstack([corners, 0.5 * corners]), row).max()
            assert truth.broken[row] or searched < 0
        broken += truth.broken.sum()
    assert 10 < broken < 54


@pytest.mark.parametrize("norm", NORMS)
def test_values_with_equal_weights_are_one_variable_and_nothing_is_lost(norm):
    """Each value three times with a third of the weight, and a budget that reaches as far."""
    eps = {"linf": 0.05, "l2": 0.1, "l1": 0.2}[norm]
    factor = {"linf": 1.0, "l2": 3**0.5, "l1": 3.0}[norm]
    for seed in range(6):
        problem = Problem(seed)
        single = problem.truth(ThreatModel(eps, norm))
        model = problem.retrieval
        threefold = LinearRetrieval(np.tile(model.weight / 3, 3), model.bias, np.tile(model.gallery, 3))
        images = np.tile(problem.images, 3)
        many = threefold.truth(images, ~problem.same, problem.same, ThreatModel(eps * factor, norm))
        assert many.broken.tolist() == single.broken.tolist()
        means = many.images.reshape(8, 3, 6).mean(1)
        for row in np.flatnonzero(many.broken):
            assert problem.leads(means[row : row + 1], row)[0] >= -1e-9
        assert (
            ThreatModel(eps * factor, norm)
            .allows(torch.tensor(many.images).view(8, 1, 3, 6), torch.tensor(images).view(8, 1, 3, 6))
            .all()
        )


@pytest.mark.parametrize("norm", NORMS)
def test_a_larger_budget_breaks_what_a_smaller_one_does_and_none_breaks_what_is_wrong(norm):
    problem, before = Problem(3), np.zeros(8, bool)
    clean = np.array([problem.leads(image[None], row)[0] >= 0 for row, image in enumerate(problem.images)])
    for eps in (0.0, 0.01, 0.03, 0.1, 0.3, 0.9):
        truth = problem.truth(ThreatModel(eps, norm))
        assert (truth.broken >= before).all()
        if not eps:
            assert truth.broken.tolist() == clean.tolist()
            assert np.array_equal(truth.images, problem.images)
        before = truth.broken
    assert clean.sum() < before.sum()


def test_a_tie_counts_against_the_model():
    # One value, two items: the query at 0.5 is nearer to the item at 0.4; half way to the other one lies 0.6.
    model = LinearRetrieval(np.ones((1, 1)), np.zeros(1), np.array([[0.4], [0.8]]), "euclidean")
    same = np.array([[True, False]])
    for eps, broken in [(0.1 + 1e-9, True), (0.1 - 1e-9, False)]:
        assert model.truth(np.array([[0.5]]), ~same, same, ThreatModel(eps)).broken[0] == broken
    tie = LinearRetrieval(np.ones((1, 1)), np.zeros(1), np.array([[0.25], [0.75]]), "euclidean")
    assert tie.truth(np.array([[0.5]]), ~same, same, ThreatModel(0.0)).broken[0]


def test_items_that_are_neither_count_for_nothing_and_without_rivals_all_holds():
    problem = Problem(1)
    rivals, relatives = ~problem.same, problem.same.copy()
    threat = ThreatModel(0.06)
    none = problem.retrieval.truth(problem.images, np.zeros_like(rivals), relatives, threat)
    assert none.recall == 1
    rivals[:, 0] = relatives[:, 0] = False
    kept = replace(problem.retrieval, gallery=problem.gallery[1:])
    with_it = problem.retrieval.truth(problem.images, rivals, relatives, threat)
    without = kept.truth(problem.images, rivals[:, 1:], relatives[:, 1:], threat)
    assert with_it.broken.tolist() == without.broken.tolist()
    with pytest.raises(DataError, match="query 0 has no relatives"):
        problem.retrieval.truth(problem.images, rivals, np.zeros_like(rivals), threat)


def test_what_has_no_truth_is_refused():
    problem = Problem(0)
    for threat in (ThreatModel(None), ThreatModel(3.0, "l0")):
        with pytest.raises(BudgetError, match="an exact truth needs a fixed budget in L-infinity, L2 or L1"):
            problem.truth(threat)
    with pytest.raises(DataError, match=r"must have the shapes \(D, P\), \(D,\) and \(M, P\)"):
        LinearRetrieval(np.ones((2, 3)), np.ones(3), np.ones((4, 3)))


# --- Settings on pixels ----------------------------------------------------------------------------------------------

THREATS = (ThreatModel(8 / 255), ThreatModel(0.5, "l2"), ThreatModel(16.0, "l1"))


@pytest.fixture(scope="module", params=THREATS, ids=str)
def measured(request):
    """A setting of 60 queries with its truth."""
    (setting,) = linear_settings(load_dataset("digits"), dimensions=(8,), threats=(request.param,), queries=60)
    return setting, setting.truth(), setting.judge()


def test_embeddings_of_a_setting_have_mean_0_and_covariance_1():
    setting = linear_settings(load_dataset("digits"), dimensions=(16,), queries=20)[0]
    with torch.no_grad():
        values = setting.model(ImageTensors(setting.split.images, setting.size).batch(setting.split.gallery)).double()
    assert torch.allclose(values.mean(0), torch.zeros(16, dtype=torch.float64), atol=1e-3)
    assert torch.allclose(values.T.cov(), torch.eye(16, dtype=torch.float64), atol=1e-3)


def test_exact_search_confirms_the_images_of_the_truth(measured):
    setting, truth, judge = measured
    images = torch.tensor(truth.images, dtype=torch.float32).view_as(setting.images())
    assert setting.threat.allows(images, setting.images()).all()
    places = np.arange(len(images))
    nothing = torch.zeros(len(images))
    records = judge.records(places, images, images - setting.images(), nothing, nothing > 0, None, (), frozenset())
    assert ((records.values["recall_at_1"] == 0) == truth.broken).all()


def test_no_attack_breaks_what_the_truth_says_holds_and_the_turns_come_near(measured):
    setting, truth, judge = measured
    norm, eps = setting.threat.norm, setting.threat.eps
    budget = "" if norm == "linf" else f", norm={norm}, eps={eps}"
    attacks = build_suite(f"mi(steps=20{budget}),mi(goal=item_margin, rivals=3, predict=8{budget})", 8 / 255)
    pgd = [build_attack(f"pgd(goal=margin{budget})", 8 / 255)]
    stages, single, plain = (reached_by(each, judge, setting.images()) for each in (attacks, attacks[:1], pgd))
    for reached in (stages, single, plain):
        assert (truth.broken[reached.broken >= 0]).all()
    assert truth.recall <= stages.recall <= single.recall <= plain.recall
    assert stages.recall - truth.recall <= 1.5 / 60
    assert 0 < truth.recall < 0.95
    assert set(stages.broken) >= {-1, 1}
    # Where it held against twenty steps, it cost twenty gradients; what was wrong already cost none.
    assert (stages.gradients[stages.broken == 0] == 0).all()
    assert (stages.gradients[stages.broken == -1] > 20).all()


def test_settings_are_drawn_by_the_seed_and_are_each_dimension_at_each_budget():
    digits = load_dataset("digits")
    first, again, other = (linear_settings(digits, queries=12, seed=seed) for seed in (0, 0, 1))
    assert [(each.dimensions, each.threat.text) for each in first] == [
        (dimensions, eps) for eps in ("4/255", "8/255") for dimensions in (8, 16, 48)
    ]
    assert torch.equal(first[0].model.weight, again[0].model.weight)
    assert not torch.equal(first[0].model.weight, other[0].model.weight)
    assert first[0].images().shape == (12, 3, 32, 32)
    for wrong in ({"grid": 5}, {"dimensions": (1,)}, {"dimensions": (65,)}):
        with pytest.raises(SpecError, match=r"grid=5 must divide|must lie between 2 and the number of cells, 64"):
            linear_settings(digits, **wrong)
