"""Backbones by name: networks from normalised images ``(N, 3, H, W)`` to features ``(N, F)``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torchvision import models as torchvision_models

from robustdml.errors import SpecError
from robustdml.models.small import SmallResNet
from robustdml.registry import Registry

#: Mean and standard deviation of each channel, of pixels in [0, 1].
Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]

IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def _imagenet(network: nn.Module) -> Statistics:
    return IMAGENET


@dataclass(frozen=True)
class Backbone:
    """A way to make a network.

    Args:
        summary: one line for listings.
        build: ``build(pretrained, image_size) -> (network, number of features F)``; ``image_size`` is the side in
            pixels, for networks that must know it.
        pretrained: whether weights exist that ``pretrained=True`` downloads.
        statistics: what the images of a network are normalised by: those that its published weights were trained with,
            ImageNet's where it has none.
    """

    summary: str
    build: Callable[[bool, int], tuple[nn.Module, int]]
    pretrained: bool
    statistics: Callable[[nn.Module], Statistics] = _imagenet


def _small(
    widths: Sequence[int], strides: Sequence[int], stem_stride: int, blocks: int, pretrained: bool, image_size: int
) -> tuple[nn.Module, int]:
    if pretrained:
        raise SpecError("the small backbones have no pretrained weights: leave --pretrained out, or choose resnet18")
    return SmallResNet(widths, strides, stem_stride=stem_stride, blocks=blocks), widths[-1]


def _torchvision(name: str, pretrained: bool, image_size: int) -> tuple[nn.Module, int]:
    options: dict[str, object] = {}
    if not pretrained:
        # Made for 224 pixels unless told otherwise; with published weights they stay so.
        if name.startswith("vit_"):
            options["image_size"] = image_size
        if name == "maxvit_t":
            options["input_size"] = (image_size, image_size)
        if name in {"googlenet", "inception_v3"}:
            options |= {"aux_logits": False, "init_weights": True}
    try:
        network = torchvision_models.get_model(name, weights="DEFAULT" if pretrained else None, **options)
    except OSError as error:
        raise SpecError(
            f"the pretrained weights of '{name}' cannot be downloaded ({error}): connect this machine, copy the file "
            f"into {torch.hub.get_dir()}/checkpoints, or leave --pretrained out"
        ) from None
    except (ValueError, AssertionError) as error:
        raise SpecError(f"'{name}' cannot be made for images of {image_size} pixels ({error})") from None
    if name in {"googlenet", "inception_v3"}:
        # The auxiliary classifiers would make its output in training a tuple.
        network.aux_logits, network.AuxLogits, network.aux1, network.aux2 = False, None, None, None
        network.transform_input = False
    if name.startswith("squeezenet"):
        network.classifier = nn.AdaptiveAvgPool2d(1)
        return network, 512
    # The classifier is the last linear layer; what stands before it (pooling, dropout, a hidden layer) stays.
    name_of_last, last = [(key, module) for key, module in network.named_modules() if isinstance(module, nn.Linear)][-1]
    parent, _, leaf = name_of_last.rpartition(".")
    setattr(network.get_submodule(parent), leaf, nn.Identity())
    return network, last.in_features


def _torchvision_statistics(name: str, network: nn.Module) -> Statistics:
    transforms = torchvision_models.get_model_weights(name)["DEFAULT"].transforms()
    return _three(transforms.mean), _three(transforms.std)


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third


BACKBONES: Registry[Backbone] = Registry("backbone")

_STRIDES = (1, 2, 2, 2)
for _name, _summary, _widths, _stem_stride, _blocks in [
    ("resnet-tiny", "4 blocks, 32 to 256 channels, stem of stride 2, for 32 px: the demo's", (32, 64, 128, 256), 2, 1),
    ("resnet-small", "4 blocks, 64 to 512 channels, for 32 px", (64, 128, 256, 512), 1, 1),
    ("resnet18-slim", "ResNet-18 at half width, 3 x 3 stem of stride 2, for 64 px", (32, 64, 128, 256), 2, 2),
    ("resnet18-small", "ResNet-18 with a 3 x 3 stem of stride 2, for 64 px", (64, 128, 256, 512), 2, 2),
]:
    BACKBONES.add(
        _name, Backbone(_summary, partial(_small, _widths, _STRIDES, _stem_stride, _blocks), pretrained=False)
    )
for _name in torchvision_models.list_models(module=torchvision_models):
    BACKBONES.add(
        _name,
        Backbone(
            f"torchvision's {_name}",
            partial(_torchvision, _name),
            pretrained=True,
            statistics=partial(_torchvision_statistics, _name),
        ),
    )


def _timm(name: str, pretrained: bool, image_size: int) -> tuple[nn.Module, int]:
    from robustdml.models import external as hub

    return hub.timm_backbone(name, pretrained)


def _hugging_face(name: str, pretrained: bool, image_size: int) -> tuple[nn.Module, int]:
    from robustdml.models import external as hub

    return hub.hugging_face_backbone(name, pretrained, image_size)


def _factory(path: str, pretrained: bool, image_size: int) -> tuple[nn.Module, int]:
    from robustdml.models import external as hub

    return hub.factory_backbone(path, pretrained, image_size)


def _timm_statistics(network: nn.Module) -> Statistics:
    about = getattr(network, "pretrained_cfg", {})
    return (_three(about["mean"]), _three(about["std"])) if "mean" in about and "std" in about else IMAGENET


def _hugging_face_statistics(name: str, network: nn.Module) -> Statistics:
    from robustdml.models import external

    found = external.hugging_face_statistics(name)
    return IMAGENET if found is None else (_three(found[0]), _three(found[1]))


def _factory_statistics(network: nn.Module) -> Statistics:
    """Those that it says as its attributes ``mean`` and ``std``, three numbers each; else ImageNet's."""
    try:
        return _three(network.mean), _three(network.std)  # type: ignore[arg-type]
    except (AttributeError, TypeError, ValueError):
        return IMAGENET


def find_backbone(name: str) -> Backbone:
    """The backbone of that name: one of `BACKBONES`, ``timm.NAME``, ``hf.NAME`` or ``package.module:factory``.

    Raises:
        UnknownNameError: none of these.
    """
    if ":" in name:
        return Backbone(f"made by {name}", partial(_factory, name), pretrained=False, statistics=_factory_statistics)
    library, dot, rest = name.partition(".")
    if dot and library == "timm":
        return Backbone(f"timm's {rest}", partial(_timm, rest), pretrained=True, statistics=_timm_statistics)
    if dot and library == "hf":
        return Backbone(
            f"{rest} of Hugging Face",
            partial(_hugging_face, rest),
            pretrained=True,
            statistics=partial(_hugging_face_statistics, rest),
        )
    return BACKBONES[name]
