"""Starts, steps and projections in each norm, against their definitions."""

from functools import partial

import pytest
import torch

from robustdml.attacks import APGD, PGD, Margin, MinimumNorm, Momentum
from robustdml.attacks.factory import GRADIENT_NORMS
from robustdml.attacks.native.cascade import Cascade
from robustdml.attacks.native.geometry import project, random_perturbation, steepest_step
from robustdml.errors import SpecError
from robustdml.threat import norm_of

EVERY_NORM = pytest.mark.parametrize("norm", GRADIENT_NORMS)
RADIUS = {"linf": 0.2, "l2": 0.7, "l1": 2.0}


def draw(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@EVERY_NORM
def test_starts_are_uniform_in_the_ball(norm):
    # Of a point drawn uniformly from a ball in three dimensions, the norm is 3 / 4 of the radius in the mean, whatever
    # the norm; and an eighth of the points lies in the ball of half the radius.
    images = torch.zeros(4000, 3, 1, 1, dtype=torch.float64)
    noise = random_perturbation(images, torch.arange(4000), 0.2, norm, seed=1, purpose="test")
    size = norm_of(noise, norm) / 0.2
    assert size.max() <= 1 + 1e-6
    assert abs(size.mean() - 3 / 4) < 0.015
    assert abs((size < 0.5).double().mean() - 1 / 8) < 0.02
    assert (noise.mean(0).abs() < 0.01).all()


@EVERY_NORM
def test_a_start_belongs_to_its_query(norm):
    images, ids = torch.zeros(3, 3, 4, 4), torch.tensor([7, 8, 9])
    whole = random_perturbation(images, ids, 0.5, norm, seed=1, purpose="test")
    assert torch.equal(random_perturbation(images[:1], ids[2:], 0.5, norm, seed=1, purpose="test"), whole[2:])
    assert not torch.equal(whole[0], whole[1])
    assert not torch.equal(random_perturbation(images, ids, 0.5, norm, seed=2, purpose="test"), whole)


@EVERY_NORM
def test_a_step_has_its_length_and_none_of_that_length_rises_more(norm):
    gradient, images = draw(5, 3, 4, 4) - 0.5, torch.full((5, 3, 4, 4), 0.5, dtype=torch.float64)
    step = steepest_step(gradient, images, 0.3, norm)
    assert torch.allclose(norm_of(step, norm), torch.tensor(0.3, dtype=torch.float64))
    rise = (gradient * step).sum((1, 2, 3))
    # The largest rise is the length times the dual norm of the gradient.
    dual = {"linf": "l1", "l2": "l2", "l1": "linf"}[norm]
    assert torch.allclose(rise, 0.3 * norm_of(gradient, dual))


def test_an_l1_step_fills_the_room_of_the_steepest_values_in_order():
    gradient = torch.tensor([5.0, -4.0, 3.0, 2.0]).view(1, 1, 2, 2)
    images = torch.tensor([0.9, 0.2, 1.0, 0.5]).view(1, 1, 2, 2)
    step = steepest_step(gradient, images, 0.5, "l1").flatten()
    assert torch.allclose(step, torch.tensor([0.1, -0.2, 0.0, 0.2]))
    spread = steepest_step(gradient, images, 0.5, "l1", torch.tensor([2])).flatten()
    assert torch.allclose(spread, torch.tensor([0.25, -0.25, 0.0, 0.0]))


@EVERY_NORM
def test_no_gradient_is_no_step(norm):
    images = draw(2, 3, 4, 4)
    assert (steepest_step(torch.zeros_like(images), images, 0.3, norm) == 0).all()


@EVERY_NORM
def test_projections_are_in_the_ball_and_in_the_range_and_leave_what_is_there(norm):
    clean, radius = draw(6, 3, 4, 4), RADIUS[norm]
    far = clean + 3 * (draw(6, 3, 4, 4, seed=1) - 0.5)
    near = project(far, clean, radius, norm)
    assert (norm_of(near - clean, norm) <= radius * (1 + 1e-9)).all()
    assert (norm_of(near - clean, norm) > 0.9 * radius).all()
    assert 0 <= near.min() <= near.max() <= 1
    assert torch.allclose(project(near, clean, radius, norm), near, atol=1e-9)


@EVERY_NORM
def test_each_row_may_have_its_own_radius(norm):
    clean = draw(3, 3, 4, 4)
    far = clean + 3 * (draw(3, 3, 4, 4, seed=1) - 0.5)
    radii = torch.tensor([0.1, 0.05, 0.0], dtype=torch.float64)
    whole = project(far, clean, radii[:, None, None, None], norm)
    for row, radius in enumerate(radii.tolist()):
        one = slice(row, row + 1)
        assert torch.allclose(whole[one], project(far[one], clean[one], radius, norm), atol=1e-12)
    assert torch.allclose(whole[2], clean[2])


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_the_projection_is_the_nearest_allowed_image(norm):
    # p is the nearest point of a convex set to z exactly where no point y of the set has (z - p) (y - p) > 0. The
    # largest (z - p) y over the ball and [0, 1] is known: fill the values with the largest factor first.
    clean, radius = draw(6, 3, 4, 4), RADIUS[norm]
    far = clean + 1.5 * (draw(6, 3, 4, 4, seed=1) - 0.5)
    near = project(far, clean, radius, norm)
    factor = far - near
    best = steepest_step(factor, clean, radius, norm)
    if norm == "linf":
        best = (clean + best).clamp(0, 1) - clean
    largest = (factor * best).sum((1, 2, 3))
    reached = (factor * (near - clean)).sum((1, 2, 3))
    assert torch.allclose(reached, largest, atol=1e-6)
    assert (largest > 0.01).all()


@pytest.mark.parametrize(
    "make",
    [
        partial(PGD, Margin(), 1.0),
        partial(APGD, Margin(), 1.0),
        partial(Momentum, Margin(), 1.0),
        partial(MinimumNorm, Margin()),
        partial(Cascade, 1.0),
    ],
)
def test_a_gradient_attack_refuses_a_norm_without_geometry(make):
    with pytest.raises(SpecError, match="norm=l0 is not known: linf, l2, l1"):
        make(norm="l0")
