"""A small retrieval problem: four classes, three gallery items each, and a network with BatchNorm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustdml.contracts import Gallery, References

CLASSES, PER_CLASS, SIDE = 4, 3, 8


class Network(nn.Module):
    """Two convolutions with BatchNorm, a linear layer, and points on the unit sphere."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(6),
            nn.LeakyReLU(0.1),  # no pixel without a gradient
            nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.Flatten(),
        )
        self.head = nn.Linear(32, 6, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.head(self.features(images)), dim=1)


def make_model() -> nn.Module:
    """The network with statistics of the images that it will see."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = Network()
    model.train()
    with torch.no_grad():
        for _ in range(20):
            model(make_images(torch.arange(24) % CLASSES, seed=99))
    return model.eval()


def make_images(labels: Tensor, *, seed: int) -> Tensor:
    """A pattern per class with noise; some pixels are clipped at black and white."""
    patterns = torch.rand(CLASSES, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(len(labels), 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    return (0.5 + 0.9 * (patterns[labels] - 0.5) + 0.12 * noise).clamp(0, 1)


@dataclass(frozen=True)
class World:
    """A model, queries, and what an attacker knows of them."""

    model: nn.Module
    images: Tensor
    references: References

    def rows(self, chosen: Tensor) -> tuple[nn.Module, Tensor, References]:
        """The arguments of an attack on a part of the batch."""
        return self.model, self.images[chosen], self.references.rows(chosen)

    @property
    def all(self) -> tuple[nn.Module, Tensor, References]:
        """The arguments of an attack on the whole batch."""
        return self.model, self.images, self.references


def make_world(setting: str = "gallery") -> World:
    """Six queries apart from the gallery, or in it (leave-self-out), or one query alone.

    Three of the six are a whole class, so that in the gallery they cannot all be left out of it at once.
    """
    model = make_model()
    labels = torch.arange(CLASSES * PER_CLASS) % CLASSES
    items = make_images(labels, seed=2)
    chosen = torch.tensor({"one row": [6]}.get(setting, [0, 4, 1, 8, 2, 7]))
    own = setting != "gallery"
    images = items[chosen].clone() if own else make_images(labels[chosen], seed=3)
    with torch.no_grad():
        ids = torch.arange(len(labels)) + 40
        gallery = Gallery(model(items), labels, ids, images=lambda rows: items[rows])
        ids = gallery.ids[chosen] if own else torch.arange(len(chosen)) + 900
        references = References(gallery, model(images), labels[chosen], ids)
    return World(model, images, references)


@pytest.fixture(name="make_world")
def _make_world() -> Callable[[str], World]:
    """``make_world(setting)`` with "gallery", "leave-self-out" or "one row"."""
    return make_world


@pytest.fixture
def world() -> World:
    """Six queries apart from the gallery."""
    return make_world()


def make_references(
    *, own: bool, rows: int = 6, classes: int = 4, per_class: int = 4, dim: int = 8, dtype: torch.dtype = torch.float64
) -> References:
    """Random points on the sphere; with ``own``, the queries are the first gallery items."""
    generator = torch.Generator().manual_seed(7)
    embeddings = F.normalize(torch.randn(classes * per_class, dim, generator=generator, dtype=dtype), dim=1)
    labels = torch.arange(classes * per_class) % classes
    gallery = Gallery(embeddings, labels, torch.randperm(1000, generator=generator)[: len(labels)])
    if own:
        return References(gallery, embeddings[:rows], labels[:rows], gallery.ids[:rows])
    queries = F.normalize(torch.randn(rows, dim, generator=generator, dtype=dtype), dim=1)
    return References(gallery, queries, labels[:rows], torch.arange(rows) + 2000)


@pytest.fixture(name="make_references")
def _make_references() -> Callable[..., References]:
    """``make_references(own=…, rows=…, classes=…, per_class=…, dim=…, dtype=…)``."""
    return make_references
