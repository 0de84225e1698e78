"""A data set of coloured squares, a small model that tells them apart, and attacks that misbehave."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from robustdml.config import RunOptions
from robustdml.data import ArrayImages, RetrievalDataset
from robustdml.results import AttackEntry
from robustdml.threat import ThreatModel

QUIET = RunOptions(device="cpu", progress=False)


def make_dataset(classes: int = 6, per_class: int = 8, size: int = 10) -> RetrievalDataset:
    """Half of the classes to train on, half to test on, each a noisy colour; every test image is query and item."""
    random = np.random.default_rng(0)
    colours = random.integers(60, 196, (classes, 1, 1, 3))
    labels = np.repeat(np.arange(classes), per_class)
    noise = random.integers(-50, 51, (len(labels), size, size, 3))
    images = (colours[labels] + noise).clip(0, 255).astype(np.uint8)
    test = np.flatnonzero(labels >= classes // 2)
    return RetrievalDataset(
        name="squares",
        images=ArrayImages(images),
        labels=labels,
        class_names=tuple(f"colour {index}" for index in range(classes)),
        train=np.flatnonzero(labels < classes // 2),
        query=test,
        gallery=test,
        protocol="Trained on half of the colours, tested on the other half.",
        image_size=size,
        augmentation="none",
    )


class SmallNet(nn.Module):
    """A BatchNorm network whose outputs are on purpose not normalised."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(3, 12, 3, stride=2)
            self.norm = nn.BatchNorm2d(12)
            self.head = nn.Linear(12, 8, bias=False)
            self.norm(self.conv(torch.rand(64, 3, 10, 10)))  # statistics that are not 0 and 1
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return 7 * self.head(self.norm(self.conv(images)).mean((2, 3)))


@dataclass(frozen=True)
class FakeAttack:
    """An attack made of a function of (model, images), with a memory of its calls."""

    change: object
    eps: float = 8 / 255
    name: str = "fake"
    knowledge: str = "gradients"
    goal: str = "margin"
    calls: list[int] = field(default_factory=list, compare=False)

    @property
    def threat(self) -> ThreatModel:
        return ThreatModel(self.eps)

    def entry(self) -> AttackEntry:
        return AttackEntry(
            spec=self.name, name=self.name, library="tests", goal=self.goal, knowledge=self.knowledge, norm="linf",
            citations=("unknown2026",),
        )  # fmt: skip

    def target_rows(self, references, *, seed):
        return None

    def __call__(self, model, images, references, *, seed):
        self.calls.append(len(images))
        return self.change(model, images)


class NamelessAttack(FakeAttack):
    """An attack of a user's that describes itself with something else than an `AttackEntry`."""

    def __init__(self, eps: float) -> None:
        super().__init__(change=None, eps=eps)

    def entry(self):
        return {"name": "mine"}
