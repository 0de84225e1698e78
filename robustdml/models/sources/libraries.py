"""Models that a library makes by name: ``timm:NAME``, ``torchvision:NAME``, ``hf:NAME``, ``open_clip:ARCH/WEIGHTS``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from robustdml.errors import MissingPackageError, SpecError, UnknownNameError
from robustdml.models import backbones, external
from robustdml.models.sources.sourced import Found
from robustdml.preprocessing import Preprocessing, three

#: ``(name, pretrained, outputs)`` to what it is; with ``outputs`` above 0 it keeps a last layer of so many values.
Build = Callable[[str, bool, int], Found]


def _random(library: str, name: str) -> str:
    """How weights that cannot be had are done without."""
    return f"ask for random weights: '{library}:{name}?pretrained=false'"


def _by_own(network: nn.Module, prepare: Callable[[Image.Image], Any]) -> Callable[[Image.Image], Tensor]:
    """What a network gives for an image that its library's own code prepared."""

    def embedding(image: Image.Image) -> Tensor:
        found: Tensor = network(torch.as_tensor(prepare(image))[None])
        return found.flatten(1)

    return embedding


def _timm(name: str, pretrained: bool, outputs: int) -> Found:
    network, _ = external.timm_backbone(name, pretrained, outputs=outputs, otherwise=_random("timm", name))
    data: Any = external.package("timm", "timm").data
    own = data.create_transform(**data.resolve_model_data_config(network))
    return Found(network, f"timm:{name}", external.timm_preprocessing(name, network), _by_own(network, own))


def _torchvision(name: str, pretrained: bool, outputs: int) -> Found:
    from torchvision import models as torchvision_models

    name, _, weights = name.partition("/")
    known = torchvision_models.list_models(module=torchvision_models)
    if name not in known:
        raise UnknownNameError("classification model of torchvision", name, known)
    published = torchvision_models.get_model_weights(name)
    weights = weights or "DEFAULT"
    if weights not in published.__members__:
        raise UnknownNameError(f"weights of torchvision's {name}", weights, published.__members__)
    otherwise = _random("torchvision", name)
    network, _ = backbones.torchvision_backbone(
        name, weights if pretrained else False, 224, outputs=outputs, otherwise=otherwise
    )
    preprocessing = backbones.torchvision_preprocessing(name, weights)
    # Two networks normalise once more, which their preprocessing here has in it already.
    own = None if name in {"googlenet", "inception_v3"} else published[weights].transforms()
    return Found(network, f"torchvision:{name}", preprocessing, own and _by_own(network, own))


def _hugging_face(name: str, pretrained: bool, outputs: int) -> Found:
    if outputs:
        raise SpecError(f"'hf:{name}' has no classifier to keep: leave the head off")
    network, _ = external.hugging_face_backbone(name, pretrained, None, otherwise=_random("hf", name))
    preprocessing = external.hugging_face_preprocessing(name)
    if preprocessing is None:
        return Found(network, f"hf:{name}")
    processor = external.hugging_face_processor(name)
    own = _by_own(network, lambda image: processor(images=image, return_tensors="pt")["pixel_values"][0])
    return Found(network, f"hf:{name}", preprocessing, own)


class _ImageTower(nn.Module):
    """A CLIP as it embeds images."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.network.encode_image(images)
        return found


def _open_clip(name: str, pretrained: bool, outputs: int) -> Found:
    open_clip: Any = external.package("open_clip", "openclip")
    arch, _, tag = (name, "", "") if name.startswith("hf-hub:") else name.partition("/")
    known = open_clip.list_models()
    if not name.startswith("hf-hub:"):
        if arch not in known:
            raise UnknownNameError("architecture of open_clip", arch, known)
        tags = open_clip.list_pretrained_tags_by_model(arch)
        if pretrained and tag not in tags:
            raise SpecError(
                f"open_clip has no weights '{tag}' of {arch}: write open_clip:{arch}/WEIGHTS, of which it knows "
                f"{', '.join(tags) or 'none'}, or 'open_clip:{arch}?pretrained=false' for random ones"
            )
    try:
        with external.quiet_hub():
            network, _, own = open_clip.create_model_and_transforms(
                arch, pretrained=tag or None, load_weights=pretrained
            )
    except Exception as error:  # Whatever its client of the hub raises.
        raise SpecError(
            f"open_clip cannot make '{name}' ({external.line(error)}): connect this machine for pretrained weights, "
            f"or {_random('open_clip', arch)}"
        ) from None
    tower, about = _ImageTower(network), network.visual.preprocess_cfg
    height, width = about["size"] if isinstance(about["size"], tuple | list) else (about["size"],) * 2
    if height != width or about["resize_mode"] not in {"shortest", "squash"} or about["mode"] != "RGB":
        raise SpecError(
            f"open_clip prepares images of {height} x {width} pixels ('{about['resize_mode']}', {about['mode']}) for "
            f"'{name}', and here a model gets a square of RGB: wrap it as file.py:build, its preparation inside"
        )
    preprocessing = Preprocessing(
        height,
        squash=about["resize_mode"] == "squash",
        interpolation=about["interpolation"],
        mean=three(about["mean"]),
        std=three(about["std"]),
    )
    return Found(tower, f"open_clip:{name}", preprocessing, _by_own(tower, own))


def _mteb(name: str, pretrained: bool, outputs: int) -> Found:
    raise MissingPackageError(
        "mteb cannot be installed beside torchattacks (it needs requests 2.26 or newer, and torchattacks 3.5.1 needs "
        f"2.25), and it embeds without gradients: name the model itself, as hf:{name}"
    )


#: By prefix.
LIBRARIES: dict[str, Build] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "hf": _hugging_face,
    "open_clip": _open_clip,
    "mteb": _mteb,
}
