"""Backbones of other packages: timm, Hugging Face, and factories of the user's own."""

from __future__ import annotations

import importlib
import math
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from robustdml.errors import MissingPackageError, SpecError, UnknownNameError
from robustdml.importing import load_object
from robustdml.preprocessing import Preprocessing, three


def _package(name: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingPackageError(
            f"backbones '{extra}.…' need the package {name} ({error}): pip install 'robustdml[{extra}]'"
        ) from None


def timm_backbone(name: str, pretrained: bool) -> tuple[nn.Module, int]:
    """A network of timm without its classifier.

    Raises:
        MissingPackageError: timm is not installed.
        UnknownNameError: it has no model of that name.
        SpecError: its weights cannot be had.
    """
    timm: Any = _package("timm", "timm")
    if name.partition(".")[0] not in timm.list_models():
        raise UnknownNameError("timm model", name, timm.list_models())
    try:
        network = timm.create_model(name, pretrained=pretrained, num_classes=0)
    except Exception as error:  # The hub raises errors of whichever client it uses.
        raise SpecError(
            f"timm cannot make '{name}' ({_line(error)}): connect this machine for pretrained weights, or leave "
            "--pretrained out"
        ) from None
    # Some heads have a hidden layer after the features: what comes out is what counts.
    return network, int(getattr(network, "head_hidden_size", None) or network.num_features)


class _ImageEncoder(nn.Module):
    """A transformers model that gives one vector per image: its pooled output, else the mean over its tokens."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        output: Any = self.network(pixel_values=images)
        pooled = getattr(output, "pooler_output", None)
        features: Tensor = output.last_hidden_state if pooled is None else pooled
        # Convolutional encoders keep (N, C, 1, 1); transformers give (N, tokens, C).
        if features.ndim == 4:
            return features.mean((2, 3))
        return features.mean(1) if features.ndim == 3 else features


def hugging_face_backbone(name: str, pretrained: bool, image_size: int) -> tuple[nn.Module, int]:
    """An image encoder of the Hugging Face hub, or of a local folder.

    Its configuration is always needed (from the hub, its cache or the folder); ``pretrained`` says whether its weights
    are loaded too.

    Raises:
        MissingPackageError: transformers is not installed.
        SpecError: it cannot be loaded, or takes no images.
    """
    transformers: Any = _package("transformers", "hf")
    try:
        config = transformers.AutoConfig.from_pretrained(name)
        if not pretrained and hasattr(config, "image_size"):
            config.image_size = image_size
        network = (
            transformers.AutoModel.from_pretrained(name) if pretrained else transformers.AutoModel.from_config(config)
        )
    except Exception as error:  # The hub raises errors of whichever client it uses.
        raise SpecError(
            f"Hugging Face cannot make '{name}' ({_line(error)}): connect this machine, or name a local folder"
        ) from None
    sizes = getattr(config, "hidden_sizes", None)
    features = getattr(config, "hidden_size", None) or (sizes[-1] if sizes else None)
    if features is None or "pixel_values" not in str(network.main_input_name):
        raise SpecError(f"'{name}' of Hugging Face is no image encoder: choose one such as facebook/dinov2-small")
    return _ImageEncoder(network), int(features)


def timm_preprocessing(name: str, network: nn.Module) -> Preprocessing:
    """What timm's evaluation does to the images of a network.

    Raises:
        SpecError: that is not to cut a square out of an RGB image.
    """
    timm: Any = _package("timm", "timm")
    about = timm.data.resolve_model_data_config(network)
    _, height, width = about["input_size"]
    if height != width or about["crop_mode"] not in {"center", "squash"}:
        raise SpecError(
            f"timm prepares images of {height} x {width} pixels (crop mode '{about['crop_mode']}') for '{name}', and "
            "here a model gets a square out of the centre: wrap it as package.module:name, its preparation inside"
        )
    return Preprocessing(
        height,
        math.floor(height / about["crop_pct"]),
        squash=about["crop_mode"] == "squash",
        interpolation=about["interpolation"],
        mean=three(about["mean"]),
        std=three(about["std"]),
    )


def hugging_face_preprocessing(name: str) -> Preprocessing | None:
    """What a model's own image processor does; None where it has none at hand.

    (Where an odd number of pixels is left out, transformers may cut one pixel beside torchvision's centre.)

    Raises:
        SpecError: it does something else than to cut a square out of an RGB image and normalise it.
    """
    transformers: Any = _package("transformers", "hf")
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(name)
        about = processor.to_dict()
    except Exception:  # The hub raises errors of whichever client it uses, and many models have no processor.
        return None
    try:
        found = _read_processor(about)
        same = _prepares_alike(processor, found)
    except (KeyError, TypeError, ValueError, SpecError):
        same = False
    if not same:
        raise SpecError(
            f"the image processor of '{name}' ({type(processor).__name__}) does more than to cut a square out of the "
            "centre and to normalise it: wrap the model as package.module:name, its preparation inside"
        )
    return found


def _read_processor(about: dict[str, Any]) -> Preprocessing:
    wanted = {key: value for key, value in about["size"].items() if value}
    shorter = wanted.get("shortest_edge")
    resize = shorter or wanted["height"]
    size, squash = resize, shorter is None
    if shorter and about.get("crop_pct"):  # ConvNeXT's way
        squash = shorter >= 384
        resize = shorter if squash else int(shorter / about["crop_pct"])
    if about.get("do_center_crop"):
        size = about["crop_size"]["height"]
    normalised = about.get("do_normalize", False)
    return Preprocessing(
        size,
        resize,
        squash=squash,
        interpolation={0: "nearest", 2: "bilinear", 3: "bicubic"}[int(about["resample"])],  # type: ignore[arg-type]
        mean=three(about["image_mean"]) if normalised else (0.0, 0.0, 0.0),
        std=three(about["image_std"]) if normalised else (1.0, 1.0, 1.0),
    )


def _prepares_alike(processor: Any, found: Preprocessing) -> bool:
    """Whether a processor does to a probe what was read from its settings, which do not say all that its code does.

    The probe is smooth, so that a crop one pixel aside makes no difference, and each channel is another wave.
    """
    with torch.device("cpu"):
        rows, columns = torch.linspace(0, 3, 96)[:, None], torch.linspace(0, 4, 128)
        waves = torch.stack([torch.sin(k * rows + (4 - k) * columns) for k in (1, 2, 3)])
        probe = ((waves + 1) * 127).to(torch.uint8)
        theirs = torch.as_tensor(processor(images=probe.numpy(), return_tensors="pt")["pixel_values"])[0]
        mean, std = torch.tensor(found.mean).view(3, 1, 1), torch.tensor(found.std).view(3, 1, 1)
        ours = found.square(probe) / 255
        return theirs.shape == ours.shape and bool((theirs * std + mean - ours).abs().max() < 0.04)


def factory_backbone(path: str, pretrained: bool, image_size: int) -> tuple[nn.Module, int]:
    """A network of the user's own: ``package.module:factory``, called without arguments.

    It maps normalised images ``(N, 3, H, W)`` to features ``(N, F)`` and says F as its attribute ``num_features``; its
    attribute ``preprocessing`` may say how images are prepared for it (see `robustdml.preprocessing.declared`).

    Raises:
        SpecError: it cannot be imported or called, gives no module, or does not say its number of features.
    """
    if pretrained:
        raise SpecError(f"'{path}' brings its own weights: leave --pretrained out")
    try:
        network = load_object(path)()
    except Exception as error:  # Foreign code may raise anything.
        raise SpecError(f"cannot make the backbone '{path}' ({_line(error)}): write package.module:factory") from None
    features = getattr(network, "num_features", None)
    if not isinstance(network, nn.Module) or not isinstance(features, int):
        raise SpecError(
            f"'{path}' must return a torch module with a whole number num_features, the F of its output (N, F)"
        )
    lazy = next((name for name, weight in network.named_parameters() if is_lazy(weight)), None)
    if lazy is not None:
        raise SpecError(
            f"'{lazy}' of '{path}' is a lazy layer's and has no shape yet: give the layer its sizes, or call the "
            "network once on a batch before the factory returns it"
        )
    return network, features


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
