"""`Straightened`: what a model answers is as it was, and gradients go through what has no slope."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from robustdml.models import Straightened


class Net(nn.Module):
    """A network with something before and something after it."""

    def __init__(self, before=lambda images: images, after=lambda values: values):
        super().__init__()
        self.body, self.before, self.after = Body(), before, after

    def forward(self, images):
        return self.after(self.body(self.before(images)))


class Body(nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, 5)

    def forward(self, images):
        return self.head(self.conv((images - 0.5) / 0.25).relu().mean((2, 3)))


def images(count=3):
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def gradient(model, at):
    asked = at.clone().requires_grad_()
    (found,) = torch.autograd.grad(model(asked).square().sum(), asked)
    return found


def in_place(values):
    return (values * 255).round_() / 255


def without_gradient(values):
    with torch.no_grad():
        return values * 1.0


THROUGH = {
    "round": lambda x: (x * 255).round() / 255,
    "round in place": in_place,
    "floor": lambda x: torch.floor(x * 31) / 31,
    "ceil": lambda x: (x * 31).ceil() / 31,
    "floor division": lambda x: (x // (1 / 31)) / 31,
    "division that rounds": lambda x: torch.div(x, 1 / 31, rounding_mode="floor") / 31,
    "remainder": lambda x: x - x % (1 / 31),
    "detach": lambda x: x.detach(),
    "data": lambda x: x.data,
    "no_grad": without_gradient,
    "clamp": lambda x: x.clamp(0.4, 0.6),
}


@pytest.mark.parametrize("name", THROUGH)
def test_what_has_no_slope_is_passed_straight_through(name):
    at, model = images(), Net(THROUGH[name])
    straight = Straightened(model, around=False)
    assert torch.equal(straight(at.clone().requires_grad_()), model(at))
    # The network's own gradient, where it was asked.
    expected = gradient(model.body, THROUGH[name](at))
    assert torch.allclose(gradient(straight, at), expected, atol=1e-5)
    assert not torch.allclose(expected, torch.zeros(()))


@pytest.mark.parametrize("after", [torch.sign, lambda z: (7 * z).round() / 7, lambda z: z.detach() + 0.01 * z])
def test_behind_the_network_too(after):
    at, model = images(), Net(after=after)
    straight = Straightened(model, around=False)
    assert torch.equal(straight(at.clone().requires_grad_()), model(at))
    assert float(gradient(straight, at).norm()) > 0


class Noise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values):
        return values.clone()

    @staticmethod
    def backward(ctx, gradient):
        return torch.full_like(gradient, torch.nan)


def jpeg(values):
    found = []
    for image in values.detach().mul(255).round().byte().permute(0, 2, 3, 1).numpy():
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=95)
        found.append(torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1))
    return torch.stack(found).float() / 255


AROUND = {
    "jpeg": jpeg,
    "other backward": Noise.apply,
    "whole numbers": lambda x: (x * 255).byte().float() / 255,
    "other colours": lambda x: (x.flip(1).detach() - 0.4) / 0.2,
}


@pytest.mark.parametrize("name", AROUND)
def test_around_what_comes_before_the_network(name):
    # Smooth images, for JPEG.
    at = nn.functional.interpolate(images(2)[:, :, :2, :2], size=16, mode="bilinear")
    model = Net(AROUND[name])
    straight = Straightened(model, around=True)
    assert torch.equal(straight(at.clone().requires_grad_()), model(at))
    made = AROUND[name](at)
    expected = gradient(model.body, made)
    if name == "other colours":  # by the map of colours
        expected = expected.flip(1) / 0.2
    found = gradient(straight, at)
    cosine = nn.functional.cosine_similarity(found.flatten(1), expected.flatten(1))
    assert float(cosine.min()) > 0.95


def test_each_image_by_itself():
    at, straight = images(), Straightened(Net(jpeg), around=True)
    alone = torch.cat([gradient(straight, image[None]) for image in at])
    assert torch.allclose(gradient(straight, at), alone, atol=1e-5)


def test_an_honest_model_is_as_it_was_and_no_hook_is_left():
    at, model = images(), Net()
    assert torch.equal(gradient(Straightened(model, around=False), at), gradient(model, at))
    assert torch.allclose(gradient(Straightened(model, around=True), at), gradient(model, at), rtol=1e-3, atol=1e-6)
    assert not any(module._forward_pre_hooks for module in model.modules())
    with torch.no_grad():
        assert torch.equal(Straightened(model, around=True)(at), model(at))
