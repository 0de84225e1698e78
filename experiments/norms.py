"""resnet-tiny with other layers in place of BatchNorm: is it the normalisation that hurts, or the statistics?

Backbones for `--backbone norms:group`, with this folder on the path of Python; experiments/results.py trains them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustdml.models import find_backbone, load_checkpoint

#: The run folder of the model whose weights and statistics `trained` begins with.
START: Path | None = None


class Affine(nn.Module):
    """What BatchNorm learns without what it measures: a factor and an addend for each channel of ``(N, C, H, W)``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        """``(N, C, H, W)`` to the same."""
        return features * self.weight + self.bias


class StandardisedConv(nn.Conv2d):
    """Filters of mean 0 and, for a variance that a ReLU keeps, of variance 2 / fan-in (Brock et al. 2021, eq. 1)."""

    def forward(self, features: Tensor) -> Tensor:
        """The convolution."""
        variance, mean = torch.var_mean(self.weight, (1, 2, 3), correction=0, keepdim=True)
        size = self.weight[0].numel()
        weight = (self.weight - mean) * torch.rsqrt(variance * size / 2 + 1e-6)
        return F.conv2d(features, weight, self.bias, self.stride, self.padding)


def group() -> nn.Module:
    """GroupNorm, 8 groups (Wu and He 2018): normalises each image by itself."""
    return _changed(nn.BatchNorm2d, lambda layer: nn.GroupNorm(8, layer.num_features))


def affine() -> nn.Module:
    """The affine part of BatchNorm alone: neither normalisation nor statistics."""
    return _changed(nn.BatchNorm2d, lambda layer: Affine(layer.num_features))


def standardised() -> nn.Module:
    """Weight standardisation and the affine part: what is normalised are the weights."""
    return _changed(nn.Conv2d, _standardised, affine())


def trained() -> nn.Module:
    """BatchNorm that has seen data: the network of `START`."""
    network = _changed(nn.BatchNorm2d, lambda layer: layer)
    if START:
        network.load_state_dict(load_checkpoint(START).deployed().backbone.state_dict())
    return network


def _changed(kind: type, new: Callable[..., nn.Module], network: nn.Module | None = None) -> nn.Module:
    """resnet-tiny, or ``network``, with another layer for each of a kind; the weights before are drawn alike."""
    if network is None:
        network, features = find_backbone("resnet-tiny").build(False, 32)
        network.num_features = features  # type: ignore[assignment]
    for name, layer in list(network.named_modules()):
        if isinstance(layer, kind):
            network.set_submodule(name, new(layer))
    return network


def _standardised(layer: nn.Conv2d) -> nn.Module:
    sides = layer.kernel_size, layer.stride, layer.padding
    conv = StandardisedConv(layer.in_channels, layer.out_channels, *sides, bias=False)  # type: ignore[arg-type]
    conv.weight = layer.weight
    return conv
