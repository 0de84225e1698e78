"""A budget per channel: every attack on queries keeps to it and uses it up, and none that cannot is run."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robustdml.attacks import build_attack, build_suite
from robustdml.attacks.native.per_channel import PerChannel, StagedPerChannel
from robustdml.contracts import AdaptableAttack, Doubts, Gallery, References, StagedAttack
from robustdml.errors import AttackSkipped, BudgetError
from robustdml.threat import TOLERANCE, ThreatModel, parse_budget

RADII = (2 / 255, 12 / 255, 5 / 255)
THREAT = ThreatModel.per_channel(RADII)
ATTACKS = (
    "pgd(goal=margin)",
    "pgd(goal=stax, steps=20)",
    "fgsm(goal=margin)",
    "apgd(goal=margin, steps=10)",
    "mi(steps=10)",
    "cascade(strength=quick)",
    "square(queries=60)",
    "nes",
    "rays",
    "noise",
    "straight(attack=margin)",
    "torchattacks.PGD(goal=stax)",
    "torchattacks.APGD(steps=5)",
    "art.ProjectedGradientDescent(goal=untargeted)",
    "art.FastGradientMethod",
)


@pytest.mark.parametrize("spec", ATTACKS)
def test_every_attack_keeps_to_the_budget_of_each_channel_and_reaches_it(world, spec):
    attack = build_attack(spec, THREAT, "quick")
    assert attack.threat == THREAT
    assert attack.entry().spec == build_attack(spec, 8 / 255, "quick").entry().spec
    before = world.images.clone()
    sent = attack(*world.all, seed=3)
    assert torch.equal(world.images, before)
    assert THREAT.allows(sent, before).all()
    reached = (sent - before).abs().amax((0, 2, 3))
    assert (reached <= torch.tensor(RADII) + TOLERANCE).all()
    # A black-box search may end before it has used up every channel; a gradient attack does not.
    if attack.entry().knowledge == "gradients":
        assert (reached >= 0.9 * torch.tensor(RADII)).all()
    assert (sent - before).abs().max() > 2 * RADII[0]
    assert torch.equal(sent, attack(*world.all, seed=3))


class Linear(nn.Module):
    """Embeddings that are linear in the pixels up to their length."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 3 * 16, generator=torch.Generator().manual_seed(5)))

    def forward(self, images):
        return F.normalize(images.flatten(1) @ self.weight.T, dim=1)


def test_pgd_reaches_the_corner_that_is_best_of_all():
    """Two dimensions: an image is furthest where the direction turns most, and that is in a corner of the ball."""
    model = Linear()
    image = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(6)) * 0.6 + 0.2
    with torch.no_grad():
        clean = model(image)
    side = torch.stack([-clean[:, 1], clean[:, 0]], 1)  # a quarter turn on
    gallery = Gallery(torch.cat([side, clean]), torch.tensor([1, 0]), torch.tensor([7, 8]))
    references = References(gallery, clean, torch.tensor([0]), torch.tensor([1]))
    sent = build_attack("pgd(goal=stax, steps=100)", THREAT)(model, image, references, seed=0)
    radii = torch.tensor(RADII).view(3, 1, 1)
    best = None
    # The optimum of a ratio of two linear functions of the pixels: the corner for some mixture of both.
    for angle in torch.linspace(0, torch.pi / 2, 400):
        along = (torch.cos(angle) * side - torch.sin(angle) * clean)[0] @ model.weight
        corner = image + radii * along.view(3, 4, 4).sign()
        value = float((model(corner) * side).sum().detach())
        best = value if best is None else max(best, value)
    assert float((model(sent) * side).sum().detach()) == pytest.approx(best, abs=1e-4)


def test_no_channel_is_lost_at_white_and_black():
    """Where the stretched pixels leave [0, 1], the image does not, and the gradient goes on."""
    model = Linear()
    image = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(6)).round()
    with torch.no_grad():
        clean = model(image)
    gallery = Gallery(torch.cat([-clean, clean]), torch.tensor([1, 0]), torch.tensor([7, 8]))
    references = References(gallery, clean, torch.tensor([0]), torch.tensor([1]))
    sent = build_attack("pgd(goal=margin)", THREAT)(model, image, references, seed=0)
    assert sent.min() >= 0
    assert sent.max() <= 1
    assert THREAT.allows(sent, image).all()


def test_equal_channels_are_the_ordinary_attack(world):
    same = parse_budget("8/255:8/255:8/255")
    assert build_attack("mi", same) == build_attack("mi", 8 / 255)
    stretched = PerChannel(
        build_attack("pgd(goal=margin, start=0)", 8 / 255), ThreatModel(8 / 255, channels=(8 / 255,) * 3)
    )
    plain = build_attack("pgd(goal=margin, start=0)", 8 / 255)
    assert torch.equal(stretched(*world.all, seed=1), plain(*world.all, seed=1))


def test_stages_have_the_budget_per_channel_too():
    cascade = build_attack("cascade", THREAT)
    assert isinstance(cascade, StagedPerChannel)
    assert isinstance(cascade, StagedAttack)
    assert {stage.attack.threat for stage in cascade.stages} == {THREAT}
    assert not isinstance(build_attack("mi", THREAT), StagedAttack)


def test_models_whose_gradients_cannot_be_trusted_are_attacked_per_channel_too(world):
    cascade = build_attack("cascade", THREAT)
    assert isinstance(cascade, AdaptableAttack)
    surrogate = copy.deepcopy(world.model)
    doubts = Doubts(misled=True, straight=(False,), surrogates=(("other", surrogate),))
    stages = cascade.adapted(doubts).stages
    kinds = [stage.attack.entry().spec.partition("(")[0] for stage in stages]
    assert kinds == ["mi", "straight", "transfer", "square"]
    for stage in stages:
        assert stage.attack.threat == THREAT
        sent = stage.attack(*world.all, seed=2)
        assert THREAT.allows(sent, world.images).all()
        assert ((sent - world.images).abs().amax((0, 2, 3)) > 0.9 * torch.tensor(RADII)).all()


@pytest.mark.parametrize("spec", ["universal", "qa_plus(candidates=1)", "minimum", "mi(norm=l2)", "mi(eps=4/255)"])
def test_attacks_with_a_budget_of_their_own_keep_it(world, spec):
    attack = build_attack(spec, THREAT, "quick")
    expected = {
        "minimum": ThreatModel(None),
        "mi(norm=l2)": ThreatModel(0.5, "l2"),
        "mi(eps=4/255)": ThreatModel(4 / 255),
    }
    assert attack.threat == expected.get(spec, THREAT)


@pytest.mark.parametrize("spec", ["universal", "ca_plus", "both_sides"])
def test_one_change_for_all_and_changed_galleries_are_skipped_with_a_sentence(world, spec):
    with pytest.raises(AttackSkipped, match=r"takes one eps for all channels, and this budget is 2/255:12/255:5/255"):
        build_attack(spec, THREAT, "quick")(*world.all, seed=0)


def test_a_budget_per_channel_in_a_spec_and_in_a_list():
    (attack,) = build_suite("pgd(goal=stax, eps='0.01/normalised')", "8/255")
    assert attack.threat == parse_budget("0.01/normalised")
    assert [a.threat.text for a in build_suite("mi", [parse_budget("0.01/normalised"), 8 / 255])] == [
        "0.01/normalised (0.584, 0.571, 0.574 of 255)",
        "8/255",
    ]
    with pytest.raises(BudgetError, match=r"eps='0.01/normalised' must be a number above 0"):
        build_suite("mi(norm=l2, eps='0.01/normalised')", "8/255")
