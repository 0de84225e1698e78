"""Small networks with BatchNorm statistics that are far from 0 and 1."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from robustdml.models import EmbeddingModel, ModelConfig


def make_convnet(dimensions: int = 2) -> nn.Module:
    """Two convolutions with BatchNorm, nested one level, as a map from ``(N, 3, …)`` to ``(N, 4)``."""
    convolution = getattr(nn, f"Conv{dimensions}d")
    normalise = getattr(nn, f"BatchNorm{dimensions}d")
    blocks = [
        nn.Sequential(convolution(before, after, 3, padding=1, bias=False), normalise(after), nn.ReLU())
        for before, after in pairwise([3, 8, 6])
    ]
    return nn.Sequential(*blocks, nn.Flatten(2), Mean(), nn.Linear(6, 4))


class Mean(nn.Module):
    """The mean over the last axis."""

    def forward(self, features: Tensor) -> Tensor:
        return features.mean(2)


def batch(rows: int, dimensions: int = 2, *, seed: int = 0) -> Tensor:
    """Inputs of mean 3 and deviation 2, so that no BatchNorm statistic stays near 0 or 1."""
    return 3 + 2 * torch.randn(rows, 3, *[5] * dimensions, generator=torch.Generator().manual_seed(seed))


def train_a_little(model: nn.Module, inputs: Tensor) -> None:
    """One real step: weights, affine parameters and running statistics all leave their initial values."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.zero_grad()
    model(inputs).square().sum(1).mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    model.eval()


def scramble(model: nn.Module) -> None:
    """Change every weight and every statistic a little, each in its own way."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                change = 0.02 * torch.randn(tensor.shape)
                tensor.add_(change.abs() if name.endswith("running_var") else change)


@pytest.fixture
def convnet() -> Callable[..., nn.Module]:
    """``convnet(dimensions)``: a network that was trained a little."""

    def make(dimensions: int = 2) -> nn.Module:
        model = make_convnet(dimensions)
        train_a_little(model, batch(16, dimensions))
        return model

    return make


@pytest.fixture
def embedding_model() -> EmbeddingModel:
    """An `EmbeddingModel` of the smallest backbone, no weight or statistic of which has its initial value.

    In the memory layout of trained models, which loaded ones have too.
    """
    model = EmbeddingModel(ModelConfig("resnet-tiny", embedding_dim=7, image_size=16))
    scramble(model)
    return model.to(memory_format=torch.channels_last).eval()


@pytest.fixture(name="batch")
def _batch() -> Callable[..., Tensor]:
    """``batch(rows, dimensions, seed=…)``: inputs for a convnet."""
    return batch


@pytest.fixture(name="train_a_little")
def _train_a_little() -> Callable[[nn.Module, Tensor], None]:
    """``train_a_little(model, inputs)``."""
    return train_a_little


@pytest.fixture(name="scramble")
def _scramble() -> Callable[[nn.Module], None]:
    """``scramble(model)``."""
    return scramble
