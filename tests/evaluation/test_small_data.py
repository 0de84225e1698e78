"""Tests of few images: right numbers, and no flag that the data alone would raise."""

from dataclasses import replace

import numpy as np
import pytest
from squares import QUIET, SmallNet, make_dataset

from robustdml.attacks import build_suite
from robustdml.evaluation import evaluate

ABOUT_THE_MODEL = {"near-chance", "collapse", "attack-failed", "no-attempt", "no-gradient-attack", "large-eps"}


def part(counts):
    """The first so many test images of each class."""
    data = make_dataset()
    classes = np.unique(data.labels[data.query])
    rows = [data.query[data.labels[data.query] == label][:count] for label, count in zip(classes, counts, strict=False)]
    return replace(data, query=np.concatenate(rows), gallery=np.concatenate(rows))


def run(data, tmp_path, attacks="standard,mtax,noise"):
    return evaluate({"net": SmallNet()}, data, build_suite(attacks, "8/255"), out=tmp_path, options=QUIET)


@pytest.mark.compatible(
    "Small data", "fewer images of other classes than MTAX has targets", "skipped with the reason, not failed"
)
def test_fewer_images_than_targets(tmp_path):
    results = run(part([2, 2]), tmp_path)
    assert [cell.status for cell in results.cells if "mtax" in cell.attack] == ["skipped"]
    assert "failed" not in {cell.status for cell in results.cells}
    assert not {flag.slug for flag in results.flags} & {"attack-failed"}


@pytest.mark.compatible(
    "Small data", "a chance of one half or more; classes of very different size", "chance is computed; no flag for it"
)
@pytest.mark.parametrize("counts", [(2, 2), (6, 2), (8, 3)])
def test_a_large_chance_raises_no_flag(tmp_path, counts):
    results = run(part(counts), tmp_path)
    total = sum(counts)
    expected = sum(count * (count - 1) / (total - 1) for count in counts) / total
    assert results.dataset.chance == pytest.approx(expected)
    assert not {flag.slug for flag in results.flags} & {"collapse", "attack-failed"}
    if expected >= 0.5:
        assert "near-chance" not in {flag.slug for flag in results.flags}


@pytest.mark.compatible(
    "Small data", "one query, or a gallery of one image", "evaluated; the model is not blamed for it"
)
def test_one_query_against_one_image(tmp_path):
    data = part([2])
    results = run(replace(data, query=data.query[:1], gallery=data.gallery[1:]), tmp_path, "noise,margin")
    assert (results.dataset.queries, results.dataset.gallery, results.dataset.chance) == (1, 1, 1.0)
    assert results.models[0].clean.value == 1.0
    assert not {flag.slug for flag in results.flags} & ABOUT_THE_MODEL


@pytest.mark.compatible(
    "Small data", "one class alone", "evaluated, at a chance of 1, and a flag says that no answer is wrong"
)
def test_one_class_alone(tmp_path):
    results = run(part([6]), tmp_path, "noise,margin")
    assert results.dataset.chance == 1.0
    assert results.worst[0].score.value == 1.0
    assert "no-wrong-answer" in {flag.slug for flag in results.flags}
    assert not {flag.slug for flag in results.flags} & ABOUT_THE_MODEL
