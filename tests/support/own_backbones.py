"""Backbones of a user, for `package.module:factory`."""

from __future__ import annotations

from torch import nn


class Own(nn.Module):
    """A network that says how many features it gives."""

    num_features = 12

    def forward(self, images):
        return images.mean((2, 3)).repeat(1, 4)


class Prepared(Own):
    """A network that says how images are prepared for it."""

    preprocessing = {"size": 224, "resize": 280, "interpolation": "bicubic"}  # noqa: RUF012


class Silent(nn.Module):
    """A network that does not."""


def broken():
    raise RuntimeError("no such file:\nweights.pt")
