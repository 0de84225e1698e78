"""Known-bad models raise their flag before any attack; honest models of other kinds raise none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from known_models import Around, Plain, bad_models, examined, honest_models, small_digits, trained
from squares import QUIET, SmallNet
from torch import nn

from robustdml.attacks import build_suite
from robustdml.data import ArrayImages
from robustdml.data.tensors import ImageTensors
from robustdml.evaluation import evaluate
from robustdml.evaluation.checks.looked_at import looked_at

DIGITS = small_digits()
BAD, HONEST = bad_models(DIGITS), honest_models(DIGITS)


@pytest.mark.parametrize("name", BAD)
def test_known_bad_models_raise_their_flag(name):
    model, wanted = BAD[name]
    assert wanted <= {flag.slug for flag in examined(model, DIGITS, name)}


@pytest.mark.parametrize("name", HONEST)
def test_honest_models_raise_none(name):
    assert [flag.message for flag in examined(HONEST[name], DIGITS, name)] == []


def test_a_classifier_of_as_many_classes_as_there_are_is_noted():
    model = trained(lambda: Plain(len(DIGITS.class_names)), DIGITS, steps=2)
    assert [flag.slug for flag in examined(model, DIGITS, "net")] == ["classifier-head"]


def test_what_cannot_be_asked_is_said():
    class FixedBatch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = Plain()

        def forward(self, images):
            if len(images) == 1:
                raise RuntimeError("a batch of one")
            return self.model(images)

    found = [flag for flag in examined(FixedBatch().eval(), DIGITS, "net") if flag.slug == "not-examined"]
    assert {flag.grade for flag in found} == {"note"}
    assert "a batch of one" in found[0].message


def test_global_random_states_are_left_alone():
    model = HONEST["convolutions, trained"]  # one that draws nothing itself
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    examined(model, DIGITS, "net")
    assert torch.equal(before, torch.random.get_rng_state())


def test_an_evaluation_says_what_was_found_and_keeps_it(squares, tmp_path):
    models = {"net": SmallNet(), "rounds": Around(SmallNet(), lambda images: (images * 255).round() / 255)}
    first = evaluate(models, squares, build_suite("margin", "8/255"), out=tmp_path, options=QUIET)
    assert first.invalid("rounds").slug == "zero-gradients"
    assert first.invalid("net") is None
    again = evaluate(models, squares, build_suite("margin", "8/255"), out=tmp_path, options=QUIET)
    assert again.flags == first.flags


def test_a_model_that_normalises_in_place_is_as_one_that_does_not(squares, tmp_path):
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = SmallNet()

        def forward(self, images):
            return self.net(images.sub_(0.5).div_(0.25))

    apart = Around(SmallNet(), lambda images: (images - 0.5) / 0.25)
    found = evaluate(
        {"in": InPlace(), "out": apart}, squares, build_suite("noise,margin", "8/255"), out=tmp_path, options=QUIET
    )
    assert len({cell.hits for cell in found.cells if cell.attack.startswith("pgd")}) == 1
    assert {cell.status for cell in found.cells} == {"ok"}
    assert "budget-exceeded" not in {flag.slug for flag in found.flags}


def test_without_a_gradient_a_sentence_says_what_to_change(squares, tmp_path):
    class Extractor(SmallNet):
        @torch.no_grad()
        def forward(self, images):
            return super().forward(images)

    found = evaluate({"net": Extractor()}, squares, build_suite("noise,margin", "8/255"), out=tmp_path, options=QUIET)
    assert "@torch.no_grad()" in next(cell.reason for cell in found.cells if cell.reason)
    assert {"no-gradient", "no-gradient-attack"} <= {flag.slug for flag in found.flags}


def test_inference_mode_around_an_evaluation_does_not_matter(squares, tmp_path):
    suite = build_suite("margin", "8/255")
    plain = evaluate({"net": SmallNet()}, squares, suite, out=tmp_path / "plain", options=QUIET)
    with torch.inference_mode():
        within = evaluate({"net": SmallNet()}, squares, suite, out=tmp_path / "within", options=QUIET)
    assert within.cells[0].hits == plain.cells[0].hits


def test_copies_in_the_gallery_are_counted_and_disagreeing_labels_too(squares):
    images = ImageTensors(squares.images, squares.image_size)
    assert looked_at(squares, skip_broken=False, leave_out_copies=False).copies.flags() == []
    pixels = np.stack([images.original(row).permute(1, 2, 0).numpy() for row in range(len(squares.labels))])
    near = pixels[squares.query[:2]].copy()
    near[:, 0, 0] ^= 1  # by one grey level
    twice = np.concatenate([pixels, pixels[squares.query[2:5]], near])
    labels = np.concatenate([squares.labels, squares.labels[squares.query[[2, 3, -1, 0, 1]]]])
    gallery = np.concatenate([squares.gallery, np.arange(len(pixels), len(twice))])
    more = replace(squares, images=ArrayImages(twice), labels=labels, gallery=gallery)
    found = {
        flag.slug: flag.message for flag in looked_at(more, skip_broken=False, leave_out_copies=False).copies.flags()
    }
    assert "5 of 24 queries" in found["copies-in-gallery"]
    assert "(3 equal pixel for pixel, 2 nearly)" in found["copies-in-gallery"]
    assert found["copies-disagree"].startswith("1 of 24 queries")
