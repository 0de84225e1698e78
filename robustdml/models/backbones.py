"""Backbones by name: networks from normalised images ``(N, 3, H, W)`` to features ``(N, F)``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from robustdml.errors import SpecError, UnknownNameError
from robustdml.models.small import SmallResNet
from robustdml.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Preprocessing,
    Sides,
    declared,
    height_and_width,
    in_pixels,
    three,
)
from robustdml.registry import Registry
from robustdml.values import ByValue


def _plain(network: nn.Module) -> Preprocessing:
    return Preprocessing(224, mean=IMAGENET_MEAN, std=IMAGENET_STD)


@dataclass(frozen=True, eq=False, repr=False)
class Backbone(ByValue):
    """A way to make a network.

    Args:
        summary: one line for listings.
        build: ``build(pretrained, image_size) -> (network, number of features F)``; ``pretrained`` may be the name of
            published weights; ``image_size`` is the side in pixels, or height and width, for those that must know it.
        pretrained: whether weights exist that ``pretrained=True`` downloads.
        preprocessing: how the images of a network are prepared: as its published weights ask for; the plain view and
            ImageNet's statistics where it has none.
        weights: the names of its published weights, the newest first, where the library has names for them.
        preprocessing_of: that of weights by name, ``"DEFAULT"`` being the newest; takes precedence over
            ``preprocessing``.
    """

    summary: str
    build: Callable[[bool | str, Sides], tuple[nn.Module, int]]
    pretrained: bool
    preprocessing: Callable[[nn.Module], Preprocessing] = _plain
    weights: Callable[[], tuple[str, ...]] = tuple
    preprocessing_of: Callable[[str], Preprocessing] | None = None

    def named_weights(self, pretrained: bool | str) -> str | None:
        """The name of the weights that ``pretrained`` stands for; None where there are none, or none with a name.

        Raises:
            UnknownNameError: it names weights that do not exist.
            SpecError: it names weights, and those of this backbone have no names.
        """
        known = self.weights() if pretrained else ()
        if not isinstance(pretrained, str):
            return next(iter(known), None)
        if not known:
            raise SpecError(
                f"weights '{pretrained}': only torchvision's backbones have several by name, and this is "
                f"{self.summary}: leave --weights out (timm's are named in --backbone, as timm.resnet50.tv_in1k)"
            )
        if pretrained not in known:
            raise UnknownNameError(f"weights of {self.summary}:", pretrained, known)
        return pretrained

    def prepared(self, network: nn.Module, pretrained: bool | str) -> Preprocessing:
        """How the images of a network are prepared that was built from those weights."""
        if self.preprocessing_of is None:
            return self.preprocessing(network)
        return self.preprocessing_of(pretrained if isinstance(pretrained, str) else "DEFAULT")


def _small(
    widths: Sequence[int],
    strides: Sequence[int],
    stem_stride: int,
    blocks: int,
    pretrained: bool | str,
    image_size: Sides,
) -> tuple[nn.Module, int]:
    if pretrained:
        raise SpecError("the small backbones have no pretrained weights: leave --pretrained out, or choose resnet18")
    return SmallResNet(widths, strides, stem_stride=stem_stride, blocks=blocks), widths[-1]


def torchvision_backbone(
    name: str, pretrained: bool | str, image_size: Sides, *, outputs: int = 0, otherwise: str = "leave --pretrained out"
) -> tuple[nn.Module, int]:
    """A classification network of torchvision without its classifier.

    Args:
        outputs: keep a last layer of so many values; 0 takes it off.
        otherwise: what may be done where its weights cannot be had.

    Raises:
        SpecError: its weights cannot be had, or it cannot be made for that image size.
    """
    from torchvision import models as torchvision_models

    options: dict[str, object] = {"num_classes": outputs} if outputs else {}
    if not pretrained:
        # Made for 224 pixels unless told otherwise; with published weights they stay so.
        if name.startswith("vit_"):
            if not isinstance(image_size, int):
                raise SpecError(
                    f"'{name}' takes squares only, and images of {in_pixels(image_size)} pixels are asked for"
                )
            options["image_size"] = image_size
        if name == "maxvit_t":
            options["input_size"] = height_and_width(image_size)
        if name in {"googlenet", "inception_v3"}:
            options |= {"aux_logits": False, "init_weights": True}
    weights = pretrained if isinstance(pretrained, str) else "DEFAULT" if pretrained else None
    try:
        network = torchvision_models.get_model(name, weights=weights, **options)
    except OSError as error:
        raise SpecError(
            f"the pretrained weights of '{name}' cannot be downloaded ({error}): connect this machine, or get "
            f"{torchvision_models.get_model_weights(name)[str(weights)].url} elsewhere and put it into "
            f"{torch.hub.get_dir()}/checkpoints, or {otherwise}"
        ) from None
    except (ValueError, AssertionError) as error:
        raise SpecError(f"'{name}' cannot be made for images of {in_pixels(image_size)} pixels ({error})") from None
    if name in {"googlenet", "inception_v3"}:
        # The auxiliary classifiers would make its output in training a tuple.
        network.aux_logits, network.AuxLogits, network.aux1, network.aux2 = False, None, None, None
        network.transform_input = False
    if outputs:
        return network, outputs
    if name.startswith("squeezenet"):
        network.classifier = nn.AdaptiveAvgPool2d(1)
        return network, 512
    # The classifier is the last linear layer; what stands before it (pooling, dropout, a hidden layer) stays.
    name_of_last, last = [(key, module) for key, module in network.named_modules() if isinstance(module, nn.Linear)][-1]
    parent, _, leaf = name_of_last.rpartition(".")
    setattr(network.get_submodule(parent), leaf, nn.Identity())
    return network, last.in_features


def _torchvision_weights(name: str) -> tuple[str, ...]:
    from torchvision import models as torchvision_models

    known = torchvision_models.get_model_weights(name)
    newest = known["DEFAULT"].name
    return (newest, *(weights.name for weights in known if weights.name != newest))


def torchvision_preprocessing(name: str, weights: str) -> Preprocessing:
    """What is done to the images of a network of torchvision, by those of its published weights."""
    from torchvision import models as torchvision_models

    about = torchvision_models.get_model_weights(name)[weights].transforms()
    mean, std = three(about.mean), three(about.std)
    if name in {"googlenet", "inception_v3"}:
        # Their weights want other statistics than these transforms, which `transform_input` would put right.
        mean = std = (0.5, 0.5, 0.5)
    return Preprocessing(
        about.crop_size[0], about.resize_size[0], interpolation=about.interpolation.value, mean=mean, std=std
    )


def _torchvision_backbones() -> Iterator[tuple[str, Backbone]]:
    """Every classification network of torchvision, a library that takes as long to import as torch does."""
    from torchvision import models as torchvision_models

    for name in torchvision_models.list_models(module=torchvision_models):
        yield (
            name,
            Backbone(
                f"torchvision's {name}",
                partial(torchvision_backbone, name),
                pretrained=True,
                weights=partial(_torchvision_weights, name),
                preprocessing_of=partial(torchvision_preprocessing, name),
            ),
        )


BACKBONES: Registry[Backbone] = Registry("backbone", _torchvision_backbones)

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


def _timm(name: str, pretrained: bool | str, image_size: Sides) -> tuple[nn.Module, int]:
    from robustdml.models import external

    return external.timm_backbone(name, bool(pretrained), image_size)


def _hugging_face(name: str, pretrained: bool | str, image_size: Sides) -> tuple[nn.Module, int]:
    from robustdml.models import external

    return external.hugging_face_backbone(name, bool(pretrained), image_size)


def _factory(path: str, pretrained: bool | str, image_size: Sides) -> tuple[nn.Module, int]:
    from robustdml.models import external

    return external.factory_backbone(path, bool(pretrained), image_size)


def _timm_preprocessing(name: str, network: nn.Module) -> Preprocessing:
    from robustdml.models import external

    return external.timm_preprocessing(name, network)


def _hugging_face_preprocessing(name: str, network: nn.Module) -> Preprocessing:
    from robustdml.models import external

    return external.hugging_face_preprocessing(name) or _plain(network)


def _factory_preprocessing(network: nn.Module) -> Preprocessing:
    """As it declares (see `robustdml.preprocessing.declared`); what it leaves out is as in `_plain`."""
    found, plain = declared(network), _plain(network)
    return plain if found is None else replace(found, mean=found.mean or plain.mean, std=found.std or plain.std)


def is_code(name: str) -> bool:
    """Whether a backbone's name is that of code to be run, and not of a network that a library makes."""
    return ":" in name and _library(name) is None


def _library(name: str) -> tuple[str, str] | None:
    """``("timm", "resnet18")`` of ``timm:resnet18`` and of ``timm.resnet18``; None for other names."""
    for mark in ":.":
        library, found, rest = name.partition(mark)
        if found and library in {"timm", "hf"}:
            return library, rest
    return None


def find_backbone(name: str) -> Backbone:
    """The backbone of that name: one of `BACKBONES`, ``timm:NAME``, ``hf:NAME`` or ``package.module:factory``.

    Raises:
        UnknownNameError: none of these.
    """
    if is_code(name):
        return Backbone(
            f"made by {name}", partial(_factory, name), pretrained=False, preprocessing=_factory_preprocessing
        )
    library, rest = _library(name) or ("", name)
    if library == "timm":
        return Backbone(
            f"timm's {rest}",
            partial(_timm, rest),
            pretrained=True,
            preprocessing=partial(_timm_preprocessing, rest),
        )
    if library == "hf":
        return Backbone(
            f"{rest} of Hugging Face",
            partial(_hugging_face, rest),
            pretrained=True,
            preprocessing=partial(_hugging_face_preprocessing, rest),
        )
    return BACKBONES[name]
