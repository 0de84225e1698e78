"""The project's own attacks: projected gradient ascent, and noise."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robustdml.attacks import MTAX, PGD, STAX, Margin, Noise, Shift, build_attack
from robustdml.contracts import Gallery, References
from robustdml.errors import SpecError

EPS = 12 / 255
GOALS = [Shift(), Margin(), STAX(), MTAX()]
EVERY_GOAL = pytest.mark.parametrize("goal", GOALS, ids=repr)


def value(goal, world, images, seed=3):
    with torch.no_grad():
        return goal.objective(world.references, seed=seed)(world.model(images))


@pytest.mark.parametrize(
    "attack", [Noise(EPS, trials=4), *[PGD(goal, EPS, steps=4, restarts=2) for goal in GOALS]], ids=repr
)
def test_a_query_gets_the_same_images_in_any_batch_and_order(world, attack):
    whole = attack(*world.all, seed=3)
    for chosen in [[0], [4], [5, 4, 3, 2, 1, 0], [2, 0, 5]]:
        part = attack(*world.rows(torch.tensor(chosen)), seed=3)
        assert torch.allclose(part, whole[chosen], atol=1e-6), chosen


@pytest.mark.parametrize("attack", [Noise(EPS, trials=1), PGD(STAX(), EPS, steps=1, step=1e-6)], ids=repr)
def test_start_noise_belongs_to_the_query(world, attack):
    # Two queries with the same pixels get different noise; so would one query with two seeds.
    twins = replace(world, images=world.images[:1].repeat(6, 1, 1, 1))
    images = attack(*twins.all, seed=3)
    assert all(not torch.allclose(one, other, atol=1e-3) for one, other in itertools.combinations(images, 2))


@EVERY_GOAL
def test_the_best_iterate_is_at_least_as_good_as_the_last(world, goal):
    # Steps of the whole budget overshoot, so that the last iterate is often not the best.
    best = PGD(goal, EPS, steps=5, step=1.5)
    last = replace(best, best=False)
    best_value, last_value = value(goal, world, best(*world.all, seed=3)), value(goal, world, last(*world.all, seed=3))
    assert (best_value >= last_value - 1e-6).all()
    assert (best_value > last_value + 1e-4).any()


@EVERY_GOAL
def test_the_best_iterate_is_among_those_of_the_loop(world, goal):
    # Replayed step by step: an attack of k steps without `best` is the k-th iterate.
    attack = PGD(goal, EPS, steps=5, step=1.5)
    iterates = [replace(attack, steps=count, best=False)(*world.all, seed=3) for count in range(1, 6)]
    values = torch.stack([value(goal, world, images) for images in iterates])
    found = attack(*world.all, seed=3)
    assert (value(goal, world, found) >= values.amax(0) - 1e-6).all()
    for row in range(6):
        start_is_best = value(goal, world, found)[row] > values[:, row].max() + 1e-6
        assert start_is_best or any(torch.allclose(found[row], images[row], atol=1e-6) for images in iterates)


@EVERY_GOAL
@pytest.mark.parametrize("best", [True, False], ids=["best", "last"])
def test_restarts_never_make_it_worse(world, goal, best):
    attack = PGD(goal, EPS, steps=3, step=1.0, best=best)
    values = [value(goal, world, replace(attack, restarts=count)(*world.all, seed=3)) for count in (1, 3)]
    assert (values[1] >= values[0] - 1e-6).all()
    assert (values[1] > values[0] + 1e-5).any()


@EVERY_GOAL
def test_more_steps_are_stronger(world, goal):
    few, many = (PGD(goal, EPS, steps=steps) for steps in (1, 8))
    assert value(goal, world, many(*world.all, seed=3)).mean() > value(goal, world, few(*world.all, seed=3)).mean()


def test_the_default_step_is_a_share_of_the_steps(world):
    implicit, explicit = PGD(STAX(), EPS, steps=5), PGD(STAX(), EPS, steps=5, step=0.5)
    assert torch.equal(implicit(*world.all, seed=3), explicit(*world.all, seed=3))


@pytest.mark.parametrize("goal", [Margin(), STAX(), MTAX()], ids=repr)
def test_one_full_step_from_the_clean_image_changes_every_free_pixel_by_eps(world, goal):
    images = PGD(goal, EPS, steps=1, step=1.0, start=0.0, best=False)(*world.all, seed=3)
    change = (images - world.images).abs()
    free = (world.images > EPS) & (world.images < 1 - EPS)
    assert 0.5 < free.float().mean() < 0.98
    assert torch.allclose(change[free], torch.tensor(EPS), atol=1e-6)


@EVERY_GOAL
def test_fgsm_uses_its_budget_in_full(world, goal):
    attack = replace(build_attack(f"fgsm(goal={goal.name})", EPS), best=False)
    change = (attack(*world.all, seed=3) - world.images).abs()
    free = (world.images > EPS) & (world.images < 1 - EPS)
    # The random start takes up to a tenth back; half of the pixels stepped in its direction and are clipped to eps.
    assert (change[free] >= 0.9 * EPS - 1e-6).all()
    assert (torch.isclose(change[free], torch.tensor(EPS), atol=1e-6)).float().mean() > 0.4
    assert torch.allclose(attack.threat.distance(change, 0 * change), torch.tensor(EPS), atol=1e-6)


def test_the_start_is_within_its_share_of_the_budget(world):
    images = PGD(STAX(), EPS, steps=1, step=1e-6, start=0.25, best=False)(*world.all, seed=3)
    change = (images - world.images).abs()
    assert change.max() <= 0.25 * EPS + 1e-5
    assert change.max() > 0.24 * EPS


def test_a_start_at_the_clean_image_is_refused_where_it_has_no_gradient():
    with pytest.raises(SpecError, match="goal 'shift' has no gradient at the clean image: choose start above 0"):
        PGD(Shift(), EPS, start=0.0)
    assert PGD(Margin(), EPS, start=0.0).start == 0


class Linear(nn.Module):
    """Flatten, a fixed matrix, the sphere: a model whose gradient fits on a line."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def forward(self, images):
        return F.normalize(images.flatten(1) @ self.matrix.T, dim=1)


@pytest.mark.parametrize("targets", [1, 3])
def test_one_step_is_the_sign_of_the_gradient_derived_by_hand(targets):
    generator = torch.Generator().manual_seed(4)
    matrix = torch.randn(5, 3 * 4 * 4, generator=generator)
    images = torch.rand(6, 3, 4, 4, generator=generator)
    points = F.normalize(torch.randn(9, 5, generator=generator), dim=1)
    model = Linear(matrix)
    gallery = Gallery(points, torch.arange(9) % 3, torch.arange(9))
    with torch.no_grad():
        references = References(gallery, model(images), torch.arange(6) % 3, torch.arange(6) + 50)
    goal = STAX() if targets == 1 else MTAX(targets)
    found = PGD(goal, EPS, steps=1, step=1.0, start=0.0, best=False)(model, images, references, seed=2)

    # With z = W x, e = z / |z| and d = |e - t|: dd/de = (e - t) / d, de/dz = (I - e e') / |z|, dz/dx = W.
    w, x = matrix.double().numpy(), images.flatten(1).double().numpy()
    expected = np.empty_like(x)
    for row, items in enumerate(goal.target_rows(references, seed=2).tolist()):
        z = w @ x[row]
        e = z / np.sqrt(z @ z)
        slope = np.zeros(5)
        for item in items:
            t = points[item].double().numpy()
            slope += (e - t) / np.sqrt((e - t) @ (e - t)) / targets
        gradient = w.T @ ((np.eye(5) - np.outer(e, e)) / np.sqrt(z @ z)) @ slope
        assert np.abs(gradient).min() > 1e-5  # no sign hangs on rounding
        expected[row] = np.clip(x[row] - EPS * np.sign(gradient), 0, 1)
    assert np.allclose(found.flatten(1).numpy(), expected, atol=1e-6)


def test_noise_is_in_the_ball_or_in_its_corners(world):
    free = (world.images > EPS) & (world.images < 1 - EPS)
    uniform = (Noise(EPS, trials=1)(*world.all, seed=3) - world.images)[free] / EPS
    assert 0.3 < uniform.abs().mean() < 0.7
    assert uniform.abs().max() <= 1 + 1e-5
    assert abs(uniform.mean()) < 0.1
    both = (Noise(EPS, trials=2)(*world.all, seed=3) - world.images).abs() / EPS
    corner = [bool(torch.allclose(row[kept], torch.ones(()), atol=1e-4)) for row, kept in zip(both, free, strict=True)]
    assert 0 < sum(corner) < 6  # the second draw is a corner; it won for some of the queries


def test_more_trials_of_noise_are_never_worse_by_the_margin(world):
    values = [value(Margin(), world, Noise(EPS, trials=trials)(*world.all, seed=3)) for trials in (1, 2, 8)]
    assert (values[1] >= values[0] - 1e-6).all()
    assert (values[2] >= values[1] - 1e-6).all()
    assert (values[2] > values[0] + 1e-5).any()
