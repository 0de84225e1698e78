"""What every attack of the registry promises (see `robustdml.contracts.Attack`), at quick effort.

One table, made of the registry itself: an attack that is added there is tested here.
"""

import copy
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from robustdml.attacks import ATTACKS, SUITES, Margin, build_attack
from robustdml.attacks.building import spec_name
from robustdml.contracts import GalleryAttack
from robustdml.models import branch_layout, convert_to_multibn
from robustdml.threat import ThreatModel, norm_of

pytestmark = pytest.mark.slow

EPS = 12 / 255
EVERY_ATTACK = pytest.mark.parametrize("spec", SUITES["all"])


def variants():
    """Every attack with each of its goals, and with each of its norms."""
    for name, factory in ATTACKS.items():
        if factory.by_name_only:
            continue
        for goal in factory.goals[1:]:
            yield f"{name}(goal={goal})"
        for norm in factory.norms[1:]:
            yield f"{name}(norm={norm})"


#: Attacks of libraries that no suite runs because they are slow: on images this small they are tested too.
SLOW = ["art.CarliniL0Method"]

EVERY_VARIANT = pytest.mark.parametrize("spec", list(dict.fromkeys([*SUITES["all"], *variants(), *SLOW])))

#: By what factor an attack must beat random changes of the same size, by what it knows of the model. Where no norm
#: bounds the change, its size says nothing, and where it knows nothing, it is itself random.
FACTOR = {"gradients": 1.5, "scores": 1.1, "decisions": 1.1, "transfer": 1.1, "none": None}

#: What falls short of that on images of 8 x 8 pixels: another factor, and the reason.
OTHER_FACTOR = {
    "torchattacks.JSMA": (1.1, "it changes one value of a pixel, chance changes all three"),
    "art.CarliniL0Method": (0.3, "it stops where the query breaks, chance changes as many pixels as far as they go"),
    "art.ProjectedGradientDescent(norm=l1)": (1.1, "its steps in L1 are not sparse"),
    "art.ProjectedGradientDescentNumpy(norm=l1)": (1.1, "its steps in L1 are not sparse"),
}

#: Attacks that succeed or return the clean image, and do the latter at quick effort: of them, standard is tested.
AT_STANDARD = {"art.CarliniLInfMethod", "art.CarliniL0Method", "art.ZooAttack(goal=stax)", "art.ZooAttack(goal=mtax)"}


def quick(spec, eps=EPS):
    return build_attack(spec, eps, "quick")


def world_for(make_world, attack):
    """The queries are items of the gallery where it is these that are attacked."""
    return make_world("leave-self-out" if isinstance(attack, GalleryAttack) else "gallery")


def values(attack, world, images, seed):
    """What the attack wants, per query; higher is worse for the model."""
    with torch.no_grad():
        embeddings = world.model(images)
    references, goal = world.references, attack.entry().goal
    own = getattr(attack, "goal", None)
    if hasattr(own, "objective"):
        return own.objective(references, seed=seed)(embeddings).detach()
    if goal in ("margin", "untargeted"):
        return Margin().objective(references, seed=seed)(embeddings)
    targets = references.gallery.embeddings[attack.target_rows(references, seed=seed)]
    return -(embeddings[:, None] - targets).norm(dim=2).mean(1)


def by_chance(attack, world, adversarial, seed):
    """The mean gain of random changes of the sizes that the attack's have, the best of eight tries."""
    norm, gains = attack.threat.norm, []
    clean = values(attack, world, world.images, seed)
    sizes = norm_of(adversarial - world.images, norm).tolist()
    generator = torch.Generator().manual_seed(5)
    for _ in range(8):
        noise = torch.randn(world.images.shape, generator=generator)
        noise = noise.sign() if norm == "linf" else noise * 100
        rows = [
            ThreatModel(min(size, 1.0) if norm == "linf" else size, norm).project(image + each, image)
            for size, image, each in zip(sizes, world.images.split(1), noise.split(1), strict=True)
        ]
        gains.append(float((values(attack, world, torch.cat(rows), seed) - clean).mean()))
    return max(gains)


def check_allowed(attack, world, adversarial):
    assert adversarial.shape == world.images.shape
    assert adversarial.dtype == world.images.dtype
    assert not adversarial.requires_grad
    assert torch.isfinite(adversarial).all()


@EVERY_VARIANT
def test_images_are_allowed_and_worse_for_the_model(make_world, capfd, spec):
    attack = build_attack(spec, EPS, "standard" if {spec, spec_name(spec)} & AT_STANDARD else "quick")
    world, factory = world_for(make_world, attack), ATTACKS[spec_name(spec)]
    before = world.images.clone()
    returned = attack(*world.all, seed=3)
    check_allowed(attack, world, returned)
    assert torch.equal(world.images, before)
    assert capfd.readouterr() == ("", "")
    assert (attack.threat.eps is None) == (factory.budget != "fixed")
    adversarial = attack.threat.project(returned, before)
    assert attack.threat.allows(adversarial, before).all()
    # What the evaluator cuts off is rounding and no more.
    assert (returned - adversarial).abs().max() < 0.01
    assert not torch.equal(adversarial, before)

    gain = float((values(attack, world, adversarial, 3) - values(attack, world, before, 3)).mean())
    factor = FACTOR[factory.knowledge]
    if factor is not None and factory.budget == "unrestricted":
        assert gain > 0.03
    elif factor is not None:
        factor, _ = OTHER_FACTOR.get(spec, (factor, ""))
        assert gain > max(factor * by_chance(attack, world, adversarial, 3), 0.03)


@pytest.mark.parametrize("goal", ["stax", "mtax"])
@pytest.mark.parametrize(
    "name", ["torchattacks.PGD", "torchattacks.MIFGSM", "torchattacks.PGDL2(norm)", "art.ProjectedGradientDescent"]
)
def test_classifier_attacks_come_almost_as_near_to_the_targets_as_native_ones(world, name, goal):
    gains = []
    for spec in (f"pgd(goal={goal})", f"{name.removesuffix('(norm)')}(goal={goal})"):
        if name.endswith("(norm)"):
            spec = spec.replace("pgd(", "pgd(norm=l2, ")
        attack = build_attack(spec, EPS)
        adversarial = attack.threat.project(attack(*world.all, seed=3), world.images)
        gains.append((values(attack, world, adversarial, 3) - values(attack, world, world.images, 3)).mean())
    assert gains[1] > 0.9 * gains[0] > 0.3


@EVERY_ATTACK
@pytest.mark.parametrize("setting", ["leave-self-out", "one row"])
def test_queries_of_the_gallery_and_a_query_alone_are_attacked(make_world, spec, setting):
    attack, world = quick(spec), make_world(setting)
    check_allowed(attack, world, attack(*world.all, seed=3))


@EVERY_ATTACK
def test_the_same_arguments_give_the_same_images(make_world, spec):
    attack = quick(spec)
    world = world_for(make_world, attack)
    first = attack(*world.all, seed=3)
    random.seed(9)
    np.random.seed(9)
    torch.manual_seed(9)
    assert torch.equal(attack(*world.all, seed=3), first)


@pytest.mark.parametrize("spec", [spec for spec in SUITES["all"] if ATTACKS[spec_name(spec)].budget == "fixed"])
def test_a_budget_of_zero_gives_exactly_the_clean_images(make_world, spec):
    # A spec cannot say eps=0 in another norm than L-infinity; the attack itself can.
    attack = replace(quick(spec, 0.0), **({} if quick(spec, 0.0).threat.norm == "linf" else {"eps": 0.0}))
    assert attack.threat.eps == 0
    world = world_for(make_world, attack)
    adversarial = attack(*world.all, seed=3)
    assert torch.equal(adversarial, world.images)
    assert adversarial is not world.images


@EVERY_ATTACK
def test_the_model_and_all_global_states_are_as_before(make_world, spec):
    attack = quick(spec)
    world = world_for(make_world, attack)
    model = world.model.train()
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
    adversarial = attack(*world.all, seed=3)
    assert state() == before
    for name in ("embeddings", "labels", "ids"):
        assert torch.equal(getattr(world.references, name), getattr(references, name))
        assert torch.equal(getattr(world.references.gallery, name), getattr(references.gallery, name))
    # The attack saw the model in evaluation mode, whatever mode it was in; images that ask for gradients, and callers
    # that switched gradients off, are no matter either.
    world.model.eval()
    images = world.images.clone().requires_grad_()
    with torch.no_grad():
        again = attack(world.model, images, world.references, seed=3)
    assert torch.equal(again, adversarial)
    assert not again.requires_grad
    assert images.grad is None


@EVERY_ATTACK
def test_the_branch_that_is_selected_is_the_one_attacked(make_world, spec):
    attack = quick(spec)
    world = world_for(make_world, attack)
    single = copy.deepcopy(world.model)
    convert_to_multibn(world.model, ["clean", "adv"])
    with torch.no_grad():
        for layer in (world.model.features[1], world.model.features[4]):
            layer.branches["clean"].weight.mul_(-1)  # only the other branch is the model of old
    with branch_layout(world.model, [("adv", None)]):
        through_branch = attack(*world.all, seed=3)
    assert torch.equal(through_branch, attack(single, world.images, world.references, seed=3))


@EVERY_VARIANT
def test_the_targets_are_those_of_the_goal_and_are_drawn_by_the_seed(make_world, spec):
    attack = quick(spec)
    if isinstance(attack, GalleryAttack):
        pytest.skip("its targets are queries: tests/attacks/test_poisoning.py")
    world, entry = make_world(), attack.entry()
    rows = attack.target_rows(world.references, seed=3)
    if entry.goal in ("margin", "shift", "untargeted"):
        assert rows is None
    if entry.goal in ("stax", "mtax"):
        assert rows.shape == (6, 1 if entry.goal == "stax" else 5)
        assert (world.references.gallery.labels[rows] != world.references.labels[:, None]).all()
        assert torch.equal(attack.target_rows(world.references, seed=3), rows)
        assert not torch.equal(attack.target_rows(world.references, seed=4), rows)
        assert not torch.equal(attack(*world.all, seed=3), attack(*world.all, seed=4))
