"""Backbones of other packages: timm, Hugging Face, and factories of the user's own."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from robustdml.errors import MissingPackageError, SpecError, UnknownNameError
from robustdml.importing import load_object


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


def hugging_face_statistics(name: str) -> tuple[Sequence[float], Sequence[float]] | None:
    """Mean and standard deviation of a model's own image processor; None where it has none at hand."""
    transformers: Any = _package("transformers", "hf")
    try:
        about, _ = transformers.ImageProcessingMixin.get_image_processor_dict(name)
    except Exception:  # The hub raises errors of whichever client it uses, and many models have no processor.
        return None
    mean, std = about.get("image_mean"), about.get("image_std")
    return None if mean is None or std is None or len(mean) != 3 or len(std) != 3 else (mean, std)


def factory_backbone(path: str, pretrained: bool, image_size: int) -> tuple[nn.Module, int]:
    """A network of the user's own: ``package.module:factory``, called without arguments.

    It maps normalised images ``(N, 3, H, W)`` to features ``(N, F)`` and says F as its attribute ``num_features``.

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
    return network, features


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
