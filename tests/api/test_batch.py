"""One attack on one batch of somebody's training loop."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import robustdml
from robustdml.attacks import GOALS, PGD, build_attack
from robustdml.contracts import Gallery, References, batch_references
from robustdml.errors import AttackError, AttackUnsound, BudgetError, CheckpointError, RobustDMLError, SpecError
from robustdml.results import AttackEntry
from robustdml.threat import ThreatModel

EPS = 8 / 255
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Normalised(nn.Module):
    """A network behind the normalisation that others do in their transforms."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, pixels):
        return self.network(normalise(pixels))


def normalise(pixels):
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.LazyLinear(6))
    model = nn.Sequential(*layers)
    model(torch.rand(2, 3, 12, 12))
    return model


def batch(count=8):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, 12, 12, generator=generator), torch.arange(count) // 2


def distances(model, one, other):
    return (nn.functional.normalize(model(one)) - nn.functional.normalize(model(other))).norm(dim=1)


@pytest.mark.parametrize(
    "spec", ["mtax(targets=3)", "margin", "noise", "torchattacks.PGD(goal=stax)", "art.FastGradientMethod", "cascade"]
)
def test_the_images_are_within_the_budget_and_the_range(spec):
    images, labels = batch()
    found = robustdml.attack(network(), images, labels, spec, eps="8/255", effort="quick")
    assert found.shape == images.shape
    assert not found.requires_grad
    assert 0 < (found - images).abs().max() <= EPS + 1e-6
    assert found.min() >= 0
    assert found.max() <= 1


def test_it_is_the_attack_of_evaluations_with_the_batch_as_its_gallery():
    model, (images, labels) = network().eval(), batch()
    with torch.no_grad():
        known = batch_references(nn.functional.normalize(model(images)), labels)
    attack = build_attack("mtax(targets=3)", EPS)
    unit = nn.Sequential(model, _Unit())
    assert torch.equal(
        robustdml.attack(model, images, labels, "mtax(targets=3)", EPS, seed=5), attack(unit, images, known, seed=5)
    )
    assert torch.equal(robustdml.attack(model, images, labels, attack, seed=5), attack(unit, images, known, seed=5))


class _Unit(nn.Module):
    def forward(self, embeddings):
        return nn.functional.normalize(embeddings)


def test_it_moves_each_image_towards_other_classes():
    model, (images, labels) = network().eval(), batch()
    found = robustdml.attack(model, images, labels, "shift", 0.1)
    assert (distances(model, found, images) > 0.05).all()


def states(model):
    return (
        {name: value.clone() for name, value in model.state_dict().items()},
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [id(parameter.grad) for parameter in model.parameters()],
        [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None],
        torch.get_rng_state(),
        random.getstate(),
        repr(np.random.get_state()),
    )


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.mark.parametrize("spec", ["mtax(targets=3)", "torchattacks.PGD(goal=stax)", "art.FastGradientMethod"])
def test_the_model_and_every_random_state_are_as_before(spec):
    model, (images, labels) = network().train(), batch()
    model[0].weight.requires_grad_(False)
    model(images).sum().backward()
    before = states(model)
    kept = images.clone()
    robustdml.attack(model, images, labels, spec, EPS, effort="quick")
    assert same(states(model), before)
    assert torch.equal(images, kept)


def test_the_same_arguments_give_the_same_images_and_another_seed_others():
    model, (images, labels) = network(), batch()
    first, again, other = (robustdml.attack(model, images, labels, "margin", EPS, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_it_works_where_nothing_has_a_gradient(context):
    model, (images, labels) = network(), batch()
    expected = robustdml.attack(model, images, labels, "margin", EPS)
    with context():
        found = robustdml.attack(model, images.clone(), labels.clone(), "margin", EPS)
        made_there = network()
        assert torch.equal(robustdml.attack(made_there, images.clone(), labels, "margin", EPS), expected)
    assert torch.equal(found, expected)


def test_a_training_step_with_it_learns_as_one_without():
    """Two lines of a loop: nothing of the attack is left in what the optimiser sees."""
    model, (images, labels) = network().train(), batch()
    adversarial = robustdml.attack(model, images, labels, "stax", EPS)
    torch.manual_seed(2)
    model(torch.cat([images, adversarial])).square().mean().backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    again = network().train()
    torch.manual_seed(2)
    again(torch.cat([images, adversarial])).square().mean().backward()
    assert all(map(torch.equal, gradients, [parameter.grad for parameter in again.parameters()]))


def test_normalised_images_are_attacked_in_pixels():
    inner, (images, labels) = network(), batch()
    plain = robustdml.attack(Normalised(inner), images, labels, "margin", "8/255", seed=1)
    found = robustdml.attack(inner, normalise(images), labels, "margin", "8/255", seed=1, mean=MEAN, std=list(STD))
    assert torch.allclose(found, normalise(plain), atol=1e-4)


def test_the_gallery_may_be_another():
    model, (images, labels) = network(), batch()
    gallery, classes = torch.rand(20, 3, 12, 12), np.arange(20) % 5
    by_images = robustdml.attack(model, images, labels, "margin", EPS, references=(gallery, classes))
    with torch.no_grad():
        embeddings = network().eval()(gallery)
    by_embeddings = robustdml.attack(model, images, labels, "margin", EPS, references=(embeddings, classes.tolist()))
    assert torch.equal(by_images, by_embeddings)
    assert not torch.equal(by_images, robustdml.attack(model, images, labels, "margin", EPS))
    unit = nn.functional.normalize(embeddings)
    known = References(
        Gallery(unit, torch.from_numpy(classes), torch.arange(8, 28)),
        nn.functional.normalize(network().eval()(images)).detach(),
        labels,
        torch.arange(8),
    )
    assert torch.equal(robustdml.attack(model, images, labels, "margin", EPS, references=known), by_images)
    assert (
        robustdml.attack(model, images, labels, "universal", EPS, references=(gallery, classes)).shape == images.shape
    )


def test_labels_eps_and_seed_may_be_of_numpy_and_pandas():
    model, (images, labels) = network(), batch()
    expected = robustdml.attack(model, images, labels, "margin", EPS, seed=2)
    table = pd.DataFrame({"label": labels.numpy(), "seed": 2})
    for given in (labels.tolist(), labels.numpy().astype(np.int32), table["label"].to_numpy()):
        found = robustdml.attack(model, images, given, "margin", np.float64(EPS), seed=table["seed"].iloc[0])
        assert torch.equal(found, expected)


def test_wrapped_half_and_double_models_and_images():
    model, (images, labels) = network(), batch()
    expected = robustdml.attack(model, images, labels, "margin", EPS)
    assert torch.equal(robustdml.attack(nn.DataParallel(model), images, labels, "margin", EPS), expected)
    double = robustdml.attack(network().double(), images.double(), labels, "margin", EPS)
    assert double.dtype == torch.float64
    assert (double - images.double()).abs().max() <= EPS + 1e-6
    half = images.half()
    found = robustdml.attack(model, half, labels, "margin", EPS)
    assert found.dtype == torch.float32
    assert (found - half.float()).abs().max() <= EPS + 1e-6


@dataclass(frozen=True)
class Rude:
    """An attack that leaves its budget, and if told so changes the weights, or fails."""

    manner: str
    threat = ThreatModel(EPS)

    def entry(self):
        return AttackEntry(
            spec="rude", name="rude", library="mine", goal="", knowledge="gradients", norm="linf", citations=()
        )

    def target_rows(self, references, *, seed):
        return None

    def __call__(self, model, images, references, *, seed):
        if self.manner == "weights":
            with torch.no_grad():
                next(model.parameters()).add_(1)
        if self.manner == "shape":
            return images[:1]
        if self.manner == "fails":
            raise ZeroDivisionError("by zero")
        return images + 1


def test_attacks_of_others_are_held_to_the_same():
    model, (images, labels) = network(), batch()
    weights = model[0].weight.clone()
    found = robustdml.attack(model, images, labels, Rude("far"))
    assert (found - images).abs().max() <= EPS + 1e-6
    assert found.max() <= 1
    with pytest.raises(AttackUnsound, match="changed the model's weights"):
        robustdml.attack(model, images, labels, Rude("weights"))
    assert torch.equal(model[0].weight, weights)
    with pytest.raises(AttackError, match="it returned shape"):
        robustdml.attack(model, images, labels, Rude("shape"))
    with pytest.raises(AttackError, match="rude failed: ZeroDivisionError: by zero"):
        robustdml.attack(model, images, labels, Rude("fails"))


IMAGES, LABELS = batch()
REFUSED = {
    "bytes": (lambda: ((IMAGES * 255).byte(), LABELS), r"images are torch.uint8.*images.float\(\) / 255"),
    "levels": (lambda: (IMAGES * 255, LABELS), r"range from .*divide by 255"),
    "normalised": (lambda: (normalise(IMAGES), LABELS), r"normalised already, give mean=... and std=... of it"),
    "NaN": (lambda: (IMAGES * float("nan"), LABELS), r"range from nan"),
    "an array": (lambda: (IMAGES.numpy(), LABELS), "images=.* must be a tensor"),
    "one image": (lambda: (IMAGES[0], LABELS[:1]), r"shape \(3, 12, 12\), and it must be \(N, 3, H, W\)"),
    "grey": (lambda: (IMAGES[:, :1], LABELS), r"must be \(N, 3, H, W\)"),
    "no image": (lambda: (IMAGES[:0], LABELS[:0]), r"must be \(N, 3, H, W\)"),
    "too few labels": (lambda: (IMAGES, LABELS[:3]), r"shape \(3,\), and they must be 8 whole numbers"),
    "labels of floats": (lambda: (IMAGES, LABELS.float()), "must be 8 whole numbers"),
    "labels of words": (lambda: (IMAGES, list("abcdefgh")), "labels=.* must be 8 whole numbers"),
    "suite": (lambda: (IMAGES, LABELS, "quick"), "'quick' is a suite of attacks, and a batch gets one"),
    "unknown": (lambda: (IMAGES, LABELS, "mtaxx"), "did you mean 'mtax'"),
    "goal": (lambda: (IMAGES, LABELS, GOALS["margin"]()), "is no attack"),
    "a list": (lambda: (IMAGES, LABELS, [build_attack("margin", EPS)]), "is no attack"),
    "eps of a built one": (lambda: (IMAGES, LABELS, PGD(GOALS["margin"](), 0.1), 0.1), "has its budget.*leave eps out"),
    "too large": (lambda: (IMAGES, LABELS, "margin", 8), "eps"),
    "word": (lambda: (IMAGES, LABELS, "margin", "much"), "eps 'much' is not a number"),
    "poison": (lambda: (IMAGES, LABELS, "hub"), "changes items of a gallery.*robustdml.evaluate"),
    "for all": (lambda: (IMAGES, LABELS, "universal"), r"give references=\(images, labels\)"),
    "one class": (lambda: (IMAGES, LABELS * 0, "mtax"), "5 targets of other classes asked for, the gallery has 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_one_sentence(name):
    arguments, sentence = REFUSED[name]
    with pytest.raises(RobustDMLError, match=sentence) as caught:
        robustdml.attack(network(), *arguments())
    assert isinstance(caught.value, SpecError | BudgetError | AttackError | RobustDMLError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"seed": -1}, "seed=-1 must be at least 0"),
        ({"seed": "1"}, "seed='1' must be a whole number"),
        ({"mean": MEAN}, "mean and std go together"),
        ({"mean": (0.5,), "std": (0.5,)}, "must be three numbers"),
        ({"mean": MEAN, "std": (1, 1, 1)}, "not normalised by these mean and std"),
        ({"mean": MEAN, "std": (0, 1, 1)}, "std"),
        ({"effort": "hard"}, "unknown effort 'hard'"),
        ({"references": IMAGES}, r"must be a pair \(gallery, labels\)"),
        ({"references": (IMAGES, LABELS[:2])}, "labels of the gallery are .* must be 8 whole numbers"),
        ({"references": batch_references(torch.rand(3, 6), LABELS[:3])}, "are of 3 queries, and there are 8 images"),
    ],
)
def test_an_option_that_cannot_be_is_one_sentence(options, sentence):
    with pytest.raises(SpecError if "effort" not in options else RobustDMLError, match=sentence):
        robustdml.attack(network(), IMAGES, LABELS, **options)


def test_a_model_that_gives_no_embeddings_is_one_sentence():
    with pytest.raises(CheckpointError, match=r"the model gives \(8, 3, 12, 12\) for images"):
        robustdml.attack(nn.Identity(), IMAGES, LABELS)
    with pytest.raises(SpecError, match="must be a torch module"):
        robustdml.attack("timm:resnet18", IMAGES, LABELS)
    with pytest.raises(CheckpointError, match="not finite"):
        robustdml.attack(nn.Sequential(nn.Flatten(), nn.Threshold(2, float("nan"))), IMAGES, LABELS)
