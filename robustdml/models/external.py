"""Backbones of other packages: timm, Hugging Face, and factories of the user's own."""

from __future__ import annotations

import importlib
import logging
import math
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from robustdml.errors import MissingPackageError, SpecError, UnknownNameError
from robustdml.importing import called
from robustdml.preprocessing import Preprocessing, Sides, height_and_width, three

#: Errors of the hub's client that mean no more than that.
_OFFLINE = {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError"}

#: Said to every loader of transformers. Left out, it asks on a terminal whether a repository's code may run.
_NO_CODE = {"trust_remote_code": False}
#: What is said of training where published weights cannot be had.
_WITHOUT = "leave --pretrained out"


def package(name: str, extra: str) -> Any:
    """A library that brings models.

    Raises:
        MissingPackageError: it is not installed; ``extra`` of this package installs it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingPackageError(
            f"this model needs the package {name} ({error}): pip install 'robustdml[{extra}]'"
        ) from None


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Within the block the Hugging Face hub and its clients write nothing, nor wait for a network that is absent.

    Where the hub's name is not known, what is cached is found and the rest fails at once, not after a minute of trying.
    """
    constants: Any = package("huggingface_hub", "hf").constants
    logs = [logging.getLogger(name) for name in ("", "huggingface_hub", "transformers", "timm", "open_clip")]
    before, levels = constants.HF_HUB_OFFLINE, [log.level for log in logs]
    try:
        constants.HF_HUB_OFFLINE = before or not _known(constants.ENDPOINT)
        for log in logs:
            log.setLevel(logging.CRITICAL)
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


def _known(address: str) -> bool:
    if getproxies():  # which know names themselves
        return True
    try:
        socket.getaddrinfo(urlsplit(address).hostname, 443)
    except OSError:
        return False
    return True


def timm_backbone(
    name: str, pretrained: bool, image_size: Sides | None = None, *, outputs: int = 0, otherwise: str = _WITHOUT
) -> tuple[nn.Module, int]:
    """A network of timm without its classifier.

    Args:
        image_size: for which one that takes images of one size is made, with published weights brought to it by timm;
            None leaves it as published.
        outputs: keep a last layer of so many values; 0 takes it off.
        otherwise: what may be done where its weights cannot be had.

    Raises:
        MissingPackageError: timm is not installed.
        UnknownNameError: it has no model of that name.
        SpecError: its weights cannot be had.
    """
    timm: Any = package("timm", "timm")
    if ":" not in name and name.partition(".")[0] not in timm.list_models():
        raise UnknownNameError("timm model", name, timm.list_models())
    try:
        with quiet_hub():
            published = timm.get_pretrained_cfg(name, allow_unregistered=True)
            fixed = image_size is not None and published is not None and published.fixed_input_size
            options = {"img_size": height_and_width(image_size)} if image_size is not None and fixed else {}
            network = timm.create_model(name, pretrained=pretrained, num_classes=outputs, **options)
    except Exception as error:  # The hub raises errors of whichever client it uses.
        raise SpecError(
            f"timm cannot make '{name}' ({line(error)}): connect this machine for pretrained weights, or {otherwise}"
        ) from None
    if outputs:
        return network, outputs
    # Some heads have a hidden layer after the features: what comes out is what counts.
    return network, int(getattr(network, "head_hidden_size", None) or network.num_features)


class _ImageEncoder(nn.Module):
    """A transformers model that gives one vector per image: its pooled output, else the mean over its tokens.

    Of a model of images and texts it is the vector that is compared with those of texts.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    def forward(self, images: Tensor) -> Tensor:
        encode = getattr(self.network, "get_image_features", self.network)
        output: Any = encode(pixel_values=images)
        if isinstance(output, Tensor):  # as older versions of transformers give image features
            return output
        pooled = getattr(output, "pooler_output", None)
        features: Tensor = output.last_hidden_state if pooled is None else pooled
        # Convolutional encoders keep (N, C, 1, 1); transformers give (N, tokens, C).
        if features.ndim == 4:
            return features.mean((2, 3))
        return features.mean(1) if features.ndim == 3 else features


def hugging_face_backbone(
    name: str, pretrained: bool, image_size: Sides | None, *, otherwise: str = "name a local folder"
) -> tuple[nn.Module, int]:
    """An image encoder of the Hugging Face hub, or of a local folder.

    Its configuration is always needed (from the hub, its cache or the folder); ``pretrained`` says whether its weights
    are loaded too.

    Args:
        image_size: for which a network without weights is made; None leaves it to the configuration.
        otherwise: what may be done where it cannot be had.

    Raises:
        MissingPackageError: transformers is not installed.
        SpecError: it cannot be loaded, lacks weights, or takes no images.
    """
    transformers: Any = package("transformers", "hf")
    missing: set[str] = set()
    try:
        with quiet_hub():
            config = transformers.AutoConfig.from_pretrained(name, **_NO_CODE)
    except Exception as error:  # The hub raises errors of whichever client it uses.
        raise SpecError(
            f"Hugging Face cannot make '{name}' ({line(error)}): connect this machine, or name a local folder"
        ) from None
    try:
        with quiet_hub(), _no_progress(transformers):
            if pretrained:
                network, missing = _loaded(transformers.AutoModel, name)
            else:
                if image_size is not None and hasattr(config, "image_size"):
                    config.image_size = image_size
                network = transformers.AutoModel.from_config(config, **_NO_CODE)
    except Exception as error:  # The hub raises errors of whichever client it uses.
        raise SpecError(
            f"Hugging Face cannot make '{name}' ({line(error)}): connect this machine, or {otherwise}"
        ) from None
    if missing:
        raise SpecError(
            f"'{name}' of Hugging Face has no weights for {len(missing)} tensors of its own network, {min(missing)} "
            "among them, which would be random: choose another, or wrap it as file.py:build"
        )
    features = _features(config)
    images = "pixel_values" in str(network.main_input_name) or hasattr(network, "get_image_features")
    if features is None or not images:
        raise SpecError(f"'{name}' of Hugging Face is no image encoder: choose one such as facebook/dinov2-small")
    return _ImageEncoder(network), int(features)


def _loaded(auto: Any, name: str) -> tuple[nn.Module, set[str]]:
    """A model, and which of its weights are missing; a pooler that was never trained is left out."""
    network, found = auto.from_pretrained(name, output_loading_info=True, **_NO_CODE)
    missing = set(found["missing_keys"])
    if missing and all(key.startswith("pooler.") for key in missing):
        network, found = auto.from_pretrained(name, output_loading_info=True, add_pooling_layer=False, **_NO_CODE)
        missing = set(found["missing_keys"])
    return network, missing


def _features(config: Any) -> int | None:
    """The length of what `_ImageEncoder` gives."""
    vision = getattr(config, "vision_config", None)
    if vision is not None:
        return getattr(config, "projection_dim", None) or _features(vision)
    sizes = getattr(config, "hidden_sizes", None)
    return getattr(config, "hidden_size", None) or (sizes[-1] if sizes else None)


@contextmanager
def _no_progress(transformers: Any) -> Iterator[None]:
    logs = transformers.utils.logging
    shown = logs.is_progress_bar_enabled()
    logs.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logs.enable_progress_bar()


def timm_preprocessing(name: str, network: nn.Module) -> Preprocessing:
    """What timm's evaluation does to the images of a network.

    Raises:
        SpecError: that is not to cut a square out of an RGB image.
    """
    timm: Any = package("timm", "timm")
    about = timm.data.resolve_model_data_config(network)
    _, height, width = about["input_size"]
    if height != width or about["crop_mode"] not in {"center", "squash"}:
        raise SpecError(
            f"timm prepares images of {height} x {width} pixels (crop mode '{about['crop_mode']}') for '{name}', and "
            "here a model gets a square out of the centre: wrap it as file.py:build, its preparation inside"
        )
    return Preprocessing(
        height,
        math.floor(height / about["crop_pct"]),
        squash=about["crop_mode"] == "squash",
        interpolation=about["interpolation"],
        mean=three(about["mean"]),
        std=three(about["std"]),
    )


def hugging_face_processor(name: str) -> Any:
    """A model's own image processor; where it has none, this raises whatever the hub raises."""
    with quiet_hub():
        return package("transformers", "hf").AutoImageProcessor.from_pretrained(name, **_NO_CODE)


def hugging_face_preprocessing(name: str) -> Preprocessing | None:
    """What a model's own image processor does; None where it has none at hand.

    (Where an odd number of pixels is left out, transformers may cut one pixel beside torchvision's centre.)

    Raises:
        SpecError: it does something else than to cut a square out of an RGB image and normalise it.
    """
    try:
        processor = hugging_face_processor(name)
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
            "centre and to normalise it: wrap the model as file.py:build, its preparation inside"
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


def factory_backbone(path: str, pretrained: bool, image_size: Sides) -> tuple[nn.Module, int]:
    """A network of the user's own: ``package.module:factory``, called without arguments.

    It maps normalised images ``(N, 3, H, W)`` to features ``(N, F)`` and says F as its attribute ``num_features``; its
    attribute ``preprocessing`` may say how images are prepared for it (see `robustdml.preprocessing.declared`).

    Raises:
        SpecError: it cannot be imported or called, gives no module, or does not say its number of features.
    """
    if pretrained:
        raise SpecError(f"'{path}' brings its own weights: leave --pretrained out")
    try:
        network = called(path)
    except Exception as error:  # Foreign code may raise anything.
        raise SpecError(f"cannot make the backbone '{path}' ({line(error)}): write package.module:factory") from None
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


def line(error: BaseException) -> str:
    """An error of a library on one line, cut where it is long."""
    if type(error).__name__ in _OFFLINE or "couldn't connect to" in str(error):
        return "it is not in this machine's cache, and the hub cannot be reached"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
