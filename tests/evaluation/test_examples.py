"""Which queries and attacks are pictured, and how large the pictures are."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from squares import make_dataset

from robustdml.evaluation.analyses.examples import pictured_queries, shown_attacks
from robustdml.evaluation.pictures import thumbnail
from robustdml.results import AttackEntry, Cell, Metrics, Score
from robustdml.threat import ThreatModel


def entry(name, **changes):
    return AttackEntry(
        **{"spec": name, "name": name, "library": "own", "goal": "margin", "knowledge": "gradients", "norm": "linf"}
        | {"citations": ()}
        | changes
    )


def cell(attack, eps, recall, norm="linf"):
    score = Score(metrics=Metrics({"recall_at_1": recall}), headline="recall_at_1", low=0, high=1)
    return Cell(model="net", attack=attack, threat=ThreatModel(eps, norm), status="ok", score=score, hits="0")


@pytest.mark.parametrize(("size", "expected"), [(32, 24), (64, 24), (65, 12), (128, 12), (224, 8)])
def test_larger_pictures_are_kept_of_fewer_queries(size, expected):
    dataset = make_dataset(classes=8, per_class=20)
    found = pictured_queries(dataset, size, 0)
    assert len(found) == expected
    assert found <= set(dataset.query.tolist())
    counts = np.unique(dataset.labels[sorted(found)], return_counts=True)[1]
    assert len(counts) == 4
    assert counts.max() - counts.min() <= 1


def test_the_strongest_attack_and_the_strongest_mtax_of_the_headline_budget_are_shown():
    attacks = [entry("pgd"), entry("weak", goal="mtax"), entry("strong", goal="mtax"), entry("l2", norm="l2")]
    cells = [cell("pgd", 8 / 255, 0.1), cell("weak", 8 / 255, 0.5), cell("strong", 8 / 255, 0.3)]
    cells += [cell("pgd", 16 / 255, 0.0), cell("l2", 1.0, 0.0, "l2")]
    assert [(found.spec, at.eps) for found, at in shown_attacks(cells, attacks)] == [
        ("pgd", 8 / 255),
        ("strong", 8 / 255),
    ]


def test_a_run_without_an_l_infinity_attack_shows_the_norm_that_it_has():
    attacks = [entry("l2", norm="l2"), entry("l0", norm="l0"), entry("patch", budget="unrestricted")]
    cells = [cell("l0", 10.0, 0.0, "l0"), cell("l2", 0.5, 0.2, "l2"), cell("patch", None, 0.0)]
    assert [(found.spec, at.eps) for found, at in shown_attacks(cells, attacks)] == [("l2", 0.5)]
    assert shown_attacks(cells[2:], attacks) == []


@pytest.mark.parametrize(("side", "expected"), [(32, 32), (96, 96), (224, 96)])
def test_results_are_pictured_small(side, expected):
    picture = Image.open(io.BytesIO(thumbnail(torch.full((3, side, side), 0.4))))
    assert picture.size == (expected, expected)
    assert picture.getpixel((5, 5)) == (102, 102, 102)
