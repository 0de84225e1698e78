"""What every attack of the suite "all" promises (see `robustdml.contracts.Attack`)."""

import copy
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from robustdml.attacks import SUITES, Margin, Shift, build_attack
from robustdml.models import branch_layout, convert_to_multibn

EPS = 12 / 255
SETTINGS = ["gallery", "leave-self-out", "one row"]
EVERY_ATTACK = pytest.mark.parametrize("spec", SUITES["all"])


def shortened(spec, eps=EPS):
    """The attack with a few steps only, for tests in which its strength is no matter."""
    attack = build_attack(spec, eps)
    return replace(attack, steps=min(attack.steps, 3)) if hasattr(attack, "steps") else replace(attack, trials=3)


def values(attack, world, images, seed):
    """What the attack wants, per query; higher is worse for the model."""
    with torch.no_grad():
        embeddings = world.model(images)
    references, goal = world.references, attack.entry().goal
    if goal in ("margin", "untargeted"):
        return Margin().objective(references, seed=seed)(embeddings)
    if goal == "shift":
        return Shift().objective(references, seed=seed)(embeddings)
    targets = references.gallery.embeddings[attack.target_rows(references, seed=seed)]
    return -(embeddings[:, None] - targets).norm(dim=2).mean(1)


@EVERY_ATTACK
@pytest.mark.parametrize("setting", SETTINGS)
def test_images_are_allowed_and_worse_for_the_model(make_world, capsys, spec, setting):
    world = make_world(setting)
    attack = build_attack(spec, EPS)
    before = world.images.clone()
    adversarial = attack(*world.all, seed=3)
    assert adversarial.shape == world.images.shape
    assert adversarial.dtype == world.images.dtype
    assert not adversarial.requires_grad
    assert torch.isfinite(adversarial).all()
    assert 0 <= adversarial.min() <= adversarial.max() <= 1
    assert attack.threat.eps == EPS
    assert attack.threat.allows(adversarial, world.images).all()
    assert (attack.threat.distance(adversarial, world.images) > 0.9 * EPS).all()
    assert torch.equal(world.images, before)
    assert capsys.readouterr() == ("", "")

    reached, clean = values(attack, world, adversarial, 3), values(attack, world, before, 3)
    corners = [attack.threat.project(before + EPS * torch.randn(before.shape).sign(), before) for _ in range(8)]
    by_chance = max(float((values(attack, world, corner, 3) - clean).mean()) for corner in corners)
    gain = float((reached - clean).mean())
    if spec == "noise":
        assert gain > by_chance
    elif spec.endswith(".PGD(goal=mtax)") or spec.endswith("Descent(goal=mtax)"):
        # Weak: cross entropy pushes away from the rival classes, and the targets are members of these.
        assert gain > 0.02
    else:
        assert gain > max(3 * by_chance, 0.05)
    if spec in ("shift", "margin", "stax", "mtax"):
        assert (reached > clean).all()


@EVERY_ATTACK
def test_the_same_arguments_give_the_same_images_and_another_seed_others(world, spec):
    attack = shortened(spec)
    first = attack(*world.all, seed=3)
    random.seed(9)
    np.random.seed(9)
    torch.manual_seed(9)
    assert torch.equal(attack(*world.all, seed=3), first)
    assert not torch.equal(attack(*world.all, seed=4), first)


@EVERY_ATTACK
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_budget_of_zero_gives_exactly_the_clean_images(make_world, spec, setting):
    world = make_world(setting)
    adversarial = shortened(spec, 0.0)(*world.all, seed=3)
    assert torch.equal(adversarial, world.images)
    assert adversarial is not world.images


@EVERY_ATTACK
@pytest.mark.parametrize("mode", ["train", "eval", "mixed"])
def test_the_model_and_all_global_states_are_as_before(world, spec, mode):
    model = world.model.train(mode != "eval")
    if mode == "mixed":
        model.features[1].eval()
        model.features[0].weight.requires_grad_(False)
    model.head.weight.grad = torch.full_like(model.head.weight, 0.5)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)

    def state():
        return {
            "modes": [module.training for module in model.modules()],
            "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
            "grads": [None if each.grad is None else each.grad.tolist() for each in model.parameters()],
            "values": {name: tensor.tolist() for name, tensor in model.state_dict().items()},
            "python": random.getstate(),
            "numpy": str(np.random.get_state()),
            "torch": torch.get_rng_state().tolist(),
            "gradients are on": torch.is_grad_enabled(),
            "type": torch.get_default_dtype(),
        }

    before, references = state(), copy.deepcopy(world.references)
    adversarial = shortened(spec)(*world.all, seed=3)
    assert state() == before
    for name in ("embeddings", "labels", "ids"):
        assert torch.equal(getattr(world.references, name), getattr(references, name))
        assert torch.equal(getattr(world.references.gallery, name), getattr(references.gallery, name))
    # The attack saw the model in evaluation mode, whatever mode it was in.
    world.model.eval()
    assert torch.equal(shortened(spec)(*world.all, seed=3), adversarial)


@EVERY_ATTACK
def test_the_branch_that_is_selected_is_the_one_attacked(world, spec):
    single = copy.deepcopy(world.model)
    convert_to_multibn(world.model, ["clean", "adv"])
    with torch.no_grad():
        for layer in (world.model.features[1], world.model.features[4]):
            layer.branches["clean"].weight.mul_(-1)  # only the other branch is the model of old
    attack = shortened(spec)
    with branch_layout(world.model, [("adv", None)]):
        through_branch = attack(*world.all, seed=3)
    assert torch.equal(through_branch, attack(single, world.images, world.references, seed=3))


@EVERY_ATTACK
def test_the_targets_are_those_of_the_goal_and_are_drawn_by_the_seed(world, spec):
    attack = build_attack(spec, EPS)
    entry, rows = attack.entry(), attack.target_rows(world.references, seed=3)
    assert (rows is None) == (entry.goal not in ("stax", "mtax"))
    if rows is not None:
        assert rows.shape == (6, 1 if entry.goal == "stax" else 5)
        assert (world.references.gallery.labels[rows] != world.references.labels[:, None]).all()
        assert torch.equal(attack.target_rows(world.references, seed=3), rows)
        assert not torch.equal(attack.target_rows(world.references, seed=4), rows)


@EVERY_ATTACK
def test_attacks_work_where_gradients_are_switched_off(world, spec):
    attack = shortened(spec)
    expected = attack(*world.all, seed=3)
    with torch.no_grad():
        assert torch.equal(attack(*world.all, seed=3), expected)


@EVERY_ATTACK
def test_the_result_needs_no_gradient_where_the_images_do(world, spec):
    attack = shortened(spec)
    expected = attack(*world.all, seed=3)
    images = world.images.clone().requires_grad_()
    adversarial = attack(world.model, images, world.references, seed=3)
    assert not adversarial.requires_grad
    assert torch.equal(adversarial, expected)
    assert images.requires_grad
    assert images.grad is None
