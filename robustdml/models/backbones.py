"""Backbones by name: networks from normalised images ``(N, 3, H, W)`` to features ``(N, F)``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torchvision import models as torchvision_models
from torchvision.models.resnet import BasicBlock

from robustdml.errors import SpecError
from robustdml.registry import Registry


@dataclass(frozen=True)
class Backbone:
    """An entry of the registry.

    Args:
        summary: one line for listings.
        build: ``build(pretrained) -> (network, number of features F)``.
        batchnorm: whether it has BatchNorm layers, which MDProp and AdvProp need.
        pretrained: whether weights exist that ``pretrained=True`` downloads.
    """

    summary: str
    build: Callable[[bool], tuple[nn.Module, int]]
    batchnorm: bool
    pretrained: bool


class SmallResNet(nn.Module):
    """A ResNet for images of 32 to 64 pixels: one BasicBlock (He et al. 2016) per width, strides as given.

    Args:
        widths: channels of each stage.
        strides: stride of each stage.
        stem_stride: stride of the 3 x 3 stem, which replaces the 7 x 7 stem and the pooling made for 224 pixels.
        blocks: BasicBlocks per stage.
    """

    def __init__(self, widths: Sequence[int], strides: Sequence[int], *, stem_stride: int = 1, blocks: int = 1) -> None:
        super().__init__()
        stem = nn.Conv2d(3, widths[0], 3, stride=stem_stride, padding=1, bias=False)
        layers: list[nn.Module] = [stem, nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)]
        channels = widths[0]
        for width, stride in zip(widths, strides, strict=True):
            for index in range(blocks):
                step = stride if index == 0 else 1
                shortcut = None
                if step != 1 or channels != width:
                    projection = nn.Conv2d(channels, width, 1, stride=step, bias=False)
                    shortcut = nn.Sequential(projection, nn.BatchNorm2d(width))
                layers.append(BasicBlock(channels, width, step, shortcut))
                channels = width
        self.layers = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Features ``(N, widths[-1])`` by global average pooling."""
        return self.layers(images).mean((2, 3))  # type: ignore[no-any-return]


def _small(
    widths: Sequence[int], strides: Sequence[int], stem_stride: int, blocks: int, pretrained: bool
) -> tuple[nn.Module, int]:
    if pretrained:
        raise SpecError("the small backbones have no pretrained weights: leave --pretrained out, or choose resnet18")
    return SmallResNet(widths, strides, stem_stride=stem_stride, blocks=blocks), widths[-1]


def _torchvision(name: str, pretrained: bool) -> tuple[nn.Module, int]:
    try:
        network = torchvision_models.get_model(name, weights="DEFAULT" if pretrained else None)
    except OSError as error:
        raise SpecError(
            f"the pretrained weights of '{name}' cannot be downloaded ({error}): connect this machine, copy the file "
            f"into {torch.hub.get_dir()}/checkpoints, or leave --pretrained out"
        ) from None
    # The classifier is the last linear layer; what stands before it (pooling, dropout, a hidden layer) stays.
    name_of_last, last = [(key, module) for key, module in network.named_modules() if isinstance(module, nn.Linear)][-1]
    parent, _, leaf = name_of_last.rpartition(".")
    setattr(network.get_submodule(parent), leaf, nn.Identity())
    return network, last.in_features


BACKBONES: Registry[Backbone] = Registry("backbone")

_STRIDES = (1, 2, 2, 2)
for _name, _summary, _widths, _stem_stride, _blocks in [
    ("resnet-tiny", "4 blocks, 32 to 256 channels, stem of stride 2, for 32 px: the demo's", (32, 64, 128, 256), 2, 1),
    ("resnet-small", "4 blocks, 64 to 512 channels, for 32 px", (64, 128, 256, 512), 1, 1),
    ("resnet18-slim", "ResNet-18 at half width, 3 x 3 stem of stride 2, for 64 px", (32, 64, 128, 256), 2, 2),
    ("resnet18-small", "ResNet-18 with a 3 x 3 stem of stride 2, for 64 px", (64, 128, 256, 512), 2, 2),
]:
    _build = partial(_small, _widths, _STRIDES, _stem_stride, _blocks)
    BACKBONES.add(_name, Backbone(_summary, _build, batchnorm=True, pretrained=False))
for _name, _batchnorm in [
    ("resnet18", True),
    ("resnet34", True),
    ("resnet50", True),
    ("resnet101", True),
    ("resnet152", True),
    ("mobilenet_v2", True),
    ("mobilenet_v3_small", True),
    ("densenet121", True),
    ("efficientnet_b0", True),
    ("vgg11_bn", True),
    ("convnext_tiny", False),
]:
    BACKBONES.add(
        _name, Backbone(f"torchvision's {_name}", partial(_torchvision, _name), batchnorm=_batchnorm, pretrained=True)
    )
