"""The smallest radius that breaks each query: against the exact one of linear embeddings, and what it spends."""

from __future__ import annotations

import numpy as np
import pytest

from robustdml.attacks import build_attack
from robustdml.data import load_dataset
from robustdml.evaluation.checks.calibration import linear_settings
from robustdml.retrieval.embed import Embedder
from robustdml.threat import ThreatModel, norm_of

QUERIES = 12


@pytest.fixture(scope="module", params=["linf", "l2"])
def exact(request):
    """A linear embedding of digits, and between which bounds the smallest eps of each query lies."""
    norm = request.param
    threat = ThreatModel(8 / 255 if norm == "linf" else 0.5, norm)
    (setting,) = linear_settings(load_dataset("digits"), dimensions=(8,), threats=(threat,), queries=QUERIES)
    largest = 0.25 if norm == "linf" else 8.0
    low, high = setting.smallest(largest, halvings=12)
    assert np.isfinite(high).all()
    assert (high - low <= largest / 2**12 + 1e-12).all()
    return setting, setting.judge(), low, high


def sizes(setting, judge, spec):
    """How far the attack went for each query, whether that breaks it, and the gradients it took."""
    name, _, rest = spec.partition("(")
    attack = build_attack(f"{name}(norm={setting.threat.norm}, {rest}", 8 / 255)
    model, part, images = Embedder(judge.model.module).eval(), np.arange(QUERIES), setting.images()
    sent = attack(model, images.clone(), judge.references(part), seed=0)
    right, _ = judge.verdicts(part, sent)
    return norm_of(sent - images, setting.threat.norm).double().numpy(), ~right, model.gradient_images / QUERIES


def test_what_is_found_is_never_below_the_truth_and_a_few_percent_above(exact):
    setting, judge, low, high = exact
    found, broken, gradients = sizes(setting, judge, "bisection(rounds=10)")
    assert broken.all()
    assert 0 < (high == 0).sum() < QUERIES / 2
    assert (found[high == 0] == 0).all()
    assert (found >= low * (1 - 1e-5)).all()
    above = found[high > 0] / high[high > 0]
    assert np.median(above) < 1.02
    assert above.max() < 1.08
    assert gradients < 11 * (20 + 48)


def test_single_items_find_what_the_climb_of_the_margin_passes_by(exact):
    setting, judge, low, _ = exact
    with_items, _, _ = sizes(setting, judge, "bisection(steps=10, rounds=9, items=5)")
    without, broken, _ = sizes(setting, judge, "bisection(steps=10, rounds=9, items=0)")
    assert broken.all()
    assert (without >= low * (1 - 1e-5)).all()
    assert with_items.mean() < without.mean()


def test_the_radius_grows_until_it_breaks_and_the_rounds_bound_the_cost(exact):
    setting, judge, _, high = exact
    coarse, broken, gradients = sizes(setting, judge, "bisection(steps=5, rounds=1, items=0)")
    assert gradients <= 5
    first = {"linf": 4 / 255, "l2": 4 / 255 * (3 * 32 * 32) ** 0.5}[setting.threat.norm]
    assert (coarse <= first * (1 + 1e-5)).all()
    assert not broken[high > first].any()
    finer, now, spent = sizes(setting, judge, "bisection(steps=5, rounds=5, items=0)")
    assert gradients < spent <= 25
    assert now.sum() == QUERIES >= broken.sum()
    assert (finer[broken] <= coarse[broken]).all()
    assert finer.mean() < coarse.mean() or not broken.all()
