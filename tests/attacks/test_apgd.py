"""APGD, and what all native gradient attacks promise: bounds, the best image, one image per query, known optima."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robustdml.attacks import (
    APGD,
    MTAX,
    PGD,
    STAX,
    Margin,
    MinimumNorm,
    NearestNegative,
    Shift,
    build_attack,
)
from robustdml.attacks.native.apgd import _checkpoints
from robustdml.attacks.native.gradient import value_and_gradient
from robustdml.contracts import Gallery, References
from robustdml.errors import SpecError
from robustdml.threat import norm_of

EPS = 12 / 255
GOALS = [Shift(), Margin(), NearestNegative(), STAX(), MTAX()]
NORMS = {"linf": EPS, "l2": 0.4, "l1": 3.0}
EVERY_NORM = pytest.mark.parametrize("norm", NORMS)


def value(goal, world, images, seed=3):
    with torch.no_grad():
        return goal.objective(world.references, seed=seed)(world.model(images))


def test_the_checkpoints_are_those_of_the_paper():
    assert sorted(_checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert sorted(_checkpoints(1)) == [1]


@EVERY_NORM
@pytest.mark.parametrize("goal", GOALS, ids=repr)
@pytest.mark.parametrize("kind", [PGD, APGD], ids=["pgd", "apgd"])
def test_every_goal_is_raised_in_every_norm_within_the_budget(world, kind, goal, norm):
    attack = kind(goal, NORMS[norm], steps=10, norm=norm)
    images = attack(*world.all, seed=3)
    assert attack.threat.allows(images, world.images).all()
    assert (attack.threat.distance(images, world.images) > 0.9 * NORMS[norm]).all()
    gain = value(goal, world, images) - value(goal, world, world.images)
    assert (gain > 0.02).all()
    assert attack.entry().norm == norm


@EVERY_NORM
@pytest.mark.parametrize("kind", [PGD, APGD], ids=["pgd", "apgd"])
def test_a_budget_of_zero_is_the_clean_image_in_every_norm(world, kind, norm):
    images = kind(Margin(), 0.0, steps=3, norm=norm)(*world.all, seed=3)
    assert torch.equal(images, world.images)


def test_steps_of_its_own_choice_beat_steps_of_any_one_length(world):
    adaptive = value(Margin(), world, APGD(Margin(), EPS, steps=30)(*world.all, seed=3)).mean()
    for step in (0.03, 0.3, 1.0):
        fixed = value(Margin(), world, PGD(Margin(), EPS, steps=30, step=step)(*world.all, seed=3)).mean()
        assert adaptive > fixed - 1e-3


@EVERY_NORM
def test_more_steps_and_restarts_are_never_worse(world, norm):
    one = APGD(Margin(), NORMS[norm], steps=10, norm=norm)
    values = [value(Margin(), world, attack(*world.all, seed=3)) for attack in (one, replace(one, restarts=3))]
    assert (values[1] >= values[0] - 1e-6).all()
    assert (values[1] > values[0] + 1e-5).any()
    long = value(Margin(), world, replace(one, steps=40)(*world.all, seed=3))
    assert long.mean() > values[0].mean()


def test_momentum_changes_the_way_and_still_rises(world):
    plain, heavy = PGD(Margin(), EPS, steps=8, start=0.0), PGD(Margin(), EPS, steps=8, start=0.0, momentum=1.0)
    images = heavy(*world.all, seed=3)
    assert not torch.equal(images, plain(*world.all, seed=3))
    assert (value(Margin(), world, images) > value(Margin(), world, world.images) + 0.05).all()
    # With one step there is no past: momentum changes nothing.
    assert torch.equal(replace(heavy, steps=1)(*world.all, seed=3), replace(plain, steps=1)(*world.all, seed=3))


class RowByRow(nn.Module):
    """A model that is called with one image at a time: libraries sum in another order for another batch size."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.model(image[None]) for image in images])


@pytest.mark.slow
@pytest.mark.parametrize(
    "spec",
    [
        *(
            "mi(steps=4)",
            "mi(goal=item_margin, rivals=2, steps=4)",
            "mi(goal=item_margin, predict=3, steps=4)",
            "pgd(steps=4)",
            "pgd(goal=stax, steps=4)",
            "apgd(steps=6)",
            "apgd(goal=shift, steps=6, restarts=2)",
        ),
        *("apgd(norm=l2, steps=6)", "apgd(norm=l1, steps=6)", "minimum(steps=3, rounds=3)"),
        *("bisection(steps=3, rounds=4, items=2)", "bisection(norm=l2, steps=3, rounds=3, items=0)"),
        *("square(queries=12)", "nes(queries=22, population=4)", "rays(queries=12)"),
    ],
)
def test_a_query_gets_the_same_images_for_every_batch_size_and_order(make_world, spec):
    world = make_world("gallery")
    count = 64
    noise = torch.randn(count, *world.images.shape[1:], generator=torch.Generator().manual_seed(5))
    images = (world.images[torch.arange(count) % 6] + 0.05 * noise).clamp(0, 1)
    labels = world.references.labels[torch.arange(count) % 6]
    model = RowByRow(world.model)
    with torch.no_grad():
        references = References(world.references.gallery, model(images), labels, torch.arange(count) + 500)
    attack = build_attack(spec, EPS)
    whole = attack(model, images, references, seed=3)

    def in_parts(order):
        found = torch.empty_like(whole)
        for rows in order:
            found[rows] = attack(model, images[rows], references.rows(rows), seed=3)
        return found

    assert torch.allclose(in_parts(torch.arange(count).split(8)), whole, atol=1e-6)
    assert torch.allclose(in_parts(torch.arange(count).split(1)), whole, atol=1e-6)
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(in_parts([shuffled]), whole, atol=1e-6)


class Trembling(nn.Module):
    """A model with noise in evaluation mode too."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images + 0.2 * torch.randn_like(images))


@pytest.mark.parametrize("kind", [PGD, APGD], ids=["pgd", "apgd"])
def test_a_random_model_is_attacked_in_the_mean_and_the_same_way_each_time(world, kind):
    model = Trembling(world.model)
    attack = kind(STAX(), EPS, steps=10, samples=12)
    torch.manual_seed(1)
    first = attack(model, world.images, world.references, seed=3)
    torch.manual_seed(2)
    assert torch.equal(attack(model, world.images, world.references, seed=3), first)
    single = replace(attack, samples=1)(model, world.images, world.references, seed=3)
    goal = STAX().objective(world.references, seed=3)
    torch.manual_seed(3)
    with torch.no_grad():
        mean_of = [torch.stack([goal(model(images)) for _ in range(200)]).mean() for images in (first, single)]
    assert mean_of[0] > mean_of[1]


def test_value_and_gradient_are_means_over_the_samples(world):
    model, goal = Trembling(world.model), Margin().objective(world.references, seed=0)
    torch.manual_seed(7)
    value_of_4, gradient_of_4 = value_and_gradient(model, goal, world.images, 4)
    torch.manual_seed(7)
    singles = [value_and_gradient(model, goal, world.images) for _ in range(4)]
    assert torch.allclose(value_of_4, torch.stack([one for one, _ in singles]).mean(0), atol=1e-6)
    assert torch.allclose(gradient_of_4, torch.stack([one for _, one in singles]).mean(0), atol=1e-5)


# --- A decision whose boundary is known ------------------------------------------------------------------------------

RADII = {"linf": 0.02, "l2": 0.15, "l1": 0.25}


class Line(nn.Module):
    """An affine map to the half circle: its first coordinate says on which side of a plane in pixel space one is."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        along = (images - 0.5).flatten(1) @ self.weight
        return F.normalize(torch.stack([along, torch.ones_like(along)], 1), dim=1)


def known_boundary(norm: str) -> tuple[nn.Module, torch.Tensor, References]:
    """Queries whose distance to the boundary of retrieval is ``RADII[norm]`` in that norm, and a gallery of two."""
    generator = torch.Generator().manual_seed(6)
    weight = torch.randn(3 * 6 * 6, generator=generator)
    model = Line(weight)
    # The distance from a plane is the value over the dual norm of its normal.
    dual = {"linf": "l1", "l2": "l2", "l1": "linf"}[norm]
    depth = RADII[norm] * norm_of(weight.view(1, 3, 6, 6), dual)
    images = 0.5 + 0.05 * torch.randn(8, 3 * 6 * 6, generator=generator)
    images = images - ((images - 0.5) @ weight + depth)[:, None] * weight / weight.square().sum()
    points = F.normalize(torch.tensor([[-1.0, 1.0], [1.0, 1.0]]), dim=1)
    gallery = Gallery(points, torch.tensor([0, 1]), torch.tensor([0, 1]))
    images = images.view(8, 3, 6, 6)
    with torch.no_grad():
        references = References(gallery, model(images), torch.zeros(8, dtype=torch.int64), torch.arange(8) + 10)
    return model, images, references


@EVERY_NORM
@pytest.mark.parametrize("spec", ["mi", "pgd", "apgd(steps=20)", "apgd(goal=nearest_negative, steps=20)", "mifgsm"])
def test_attacks_break_a_query_beyond_its_distance_and_not_within(norm, spec):
    model, images, references = known_boundary(norm)
    margin = Margin().objective(references, seed=0)
    for share, breaks in [(1.25, True), (0.8, False)]:
        attack = replace(build_attack(spec, 0.1), norm=norm, eps=share * RADII[norm])
        with torch.no_grad():
            reached = margin(model(attack(model, images, references, seed=1)))
        assert ((reached > 0) == breaks).all(), share


@EVERY_NORM
def test_the_smallest_budget_is_near_the_distance(norm):
    model, images, references = known_boundary(norm)
    found = MinimumNorm(Margin(), norm=norm)(model, images, references, seed=1)
    with torch.no_grad():
        assert (Margin().objective(references, seed=0)(model(found)) > 0).all()
    size = norm_of(found - images, norm)
    assert (size >= RADII[norm] * 0.999).all()
    assert (size <= RADII[norm] * 1.1).all()


def test_the_smallest_budget_leaves_wrong_queries_alone_and_tries_on_the_others(world):
    labels = world.references.labels.clone()
    labels[0] = (labels[0] + 1) % 4  # its own class is another one now: the first hit is wrong from the start
    references = replace(world.references, labels=labels)
    assert Margin().objective(references, seed=0)(references.embeddings)[0] > 0
    found = MinimumNorm(Margin(), steps=2, rounds=1)(world.model, world.images, references, seed=3)
    assert torch.equal(found[0], world.images[0])
    assert (norm_of(found - world.images, "linf")[1:] > 0.9 * 4 / 255).all()


# --- A planted decoy -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_planted_decoy_is_found(make_world):
    """Embeddings that are known to be reachable stand in the gallery under a wrong label: the attack must reach them.

    A retrieval version of the planted examples of Zimmermann et al. 2022. The decoy is no trivial hit: at the clean
    image an item of the own class is nearer, and random corners of the ball do not reach the decoy.
    """
    world = make_world("gallery")
    count = 60
    noise = torch.randn(count, *world.images.shape[1:], generator=torch.Generator().manual_seed(8))
    images = (world.images[torch.arange(count) % 6] + 0.03 * noise).clamp(0, 1)
    labels = world.references.labels[torch.arange(count) % 6]
    gallery = world.references.gallery
    with torch.no_grad():
        references = References(gallery, world.model(images), labels, torch.arange(count) + 500)
    # Some steps away from the clean embedding, whichever way they lead.
    planted = PGD(Shift(), EPS, steps=5)(world.model, images, references, seed=4)
    with torch.no_grad():
        decoys, clean = world.model(planted), references.embeddings
    found, corners, right = [], [], []
    for row in range(count):
        one = torch.tensor([row])
        own = gallery.labels == labels[row]
        with_decoy = Gallery(
            # The own class and the decoy: nothing else can make the first hit wrong.
            torch.cat([gallery.embeddings[own], decoys[one]]),
            torch.cat([gallery.labels[own], labels[one] + 10]),
            torch.arange(int(own.sum()) + 1),
        )
        part = References(with_decoy, clean[one], labels[one], references.ids[one])
        margin = Margin().objective(part, seed=0)
        right.append(bool(margin(clean[one]) < 0))
        if not right[-1]:
            continue
        with torch.no_grad():
            adversarial = APGD(Margin(), EPS, steps=40)(world.model, images[one], part, seed=1)
            found.append(bool(margin(world.model(adversarial)) > 0))
            random = build_attack("noise", EPS)(world.model, images[one], part, seed=1)
            corners.append(bool(margin(world.model(random)) > 0))
    assert sum(right) > 0.5 * count
    assert sum(found) >= 0.95 * len(found)
    assert sum(corners) < 0.5 * len(corners)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("apgd(steps=0)", "steps=0, restarts=1 and samples=1 must all be at least 1"),
        ("pgd(momentum=-1)", "momentum=-1 must be at least 0 and samples=1 at least 1"),
        ("pgd(samples=0)", "momentum=0.0 must be at least 0 and samples=0 at least 1"),
        ("mifgsm(steps=0)", "steps=0 and restarts=1 must both be at least 1"),
        ("minimum(rounds=0)", "steps=20 and rounds=0 must both be at least 1"),
        ("bisection(items=-1)", "steps=20 and rounds=10 must both be at least 1, and items=-1 at least 0"),
    ],
)
def test_values_out_of_range_are_refused(spec, sentence):
    with pytest.raises(SpecError) as caught:
        build_attack(spec, EPS)
    assert str(caught.value).startswith(sentence)
