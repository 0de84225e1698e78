"""The embedding model: images in [0, 1] to points on the unit sphere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from robustdml.errors import SpecError
from robustdml.models.backbones import find_backbone
from robustdml.models.guard import into_evaluation
from robustdml.models.outputs import as_matrix, described, remedy
from robustdml.preprocessing import (
    Interpolation,
    PerChannel,
    Preprocessing,
    Sides,
    height_and_width,
    in_pixels,
    whole_sides,
)
from robustdml.preprocessing import check_image_size as check_image_size
from robustdml.values import LARGEST_DIM, brief, check_fields, check_range

_LEFT_TO_BACKBONE = ("mean", "std", "resize", "squash", "interpolation")


@dataclass(frozen=True)
class ModelConfig:
    """What rebuilds an `EmbeddingModel`.

    Args:
        backbone: a name of `robustdml.models.BACKBONES`, or another that `find_backbone` knows.
        embedding_dim: D, from 1 to 65,536.
        image_size: of the images that it was made for, in pixels: the side of a square, or height and width.
        mean: of the pixels of each channel, in [0, 1], which the model takes away; None stands for the backbone's own.
        std: of the pixels of each channel, above 0, by which it then divides; None stands for the backbone's own.
        resize: to what an image's shorter side is brought before the square of ``image_size`` is cut out of the centre;
            None stands for the backbone's own, in proportion where ``image_size`` is another. With a height it is of
            the width (see `robustdml.preprocessing.Preprocessing`).
        squash: bring both sides to ``resize``; None stands for the backbone's own.
        interpolation: of the resize: nearest, bilinear or bicubic; None stands for the backbone's own.

    Raises:
        SpecError: a value out of its range.
    """

    backbone: str
    embedding_dim: int = 128
    image_size: Sides = 64
    mean: PerChannel | None = None
    std: PerChannel | None = None
    resize: int | None = None
    squash: bool | None = None
    interpolation: Interpolation | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        check_range("embedding_dim", self.embedding_dim, 1, LARGEST_DIM)
        object.__setattr__(self, "image_size", whole_sides(self.image_size))  # JSON has lists
        check_image_size(self.image_size)
        checked = self.preprocessing
        object.__setattr__(self, "mean", checked.mean)
        object.__setattr__(self, "std", checked.std)
        object.__setattr__(self, "resize", self.resize if self.resize is None else checked.resize)

    @property
    def preprocessing(self) -> Preprocessing:
        """How an image becomes the input; what is left to the backbone is as in the plain view."""
        height, width = height_and_width(self.image_size)
        return Preprocessing(
            width,
            self.resize or 0,
            squash=bool(self.squash),
            interpolation=self.interpolation or "bilinear",
            mean=self.mean,
            std=self.std,
            height=height,
        )

    def completed(self, own: Callable[[], Preprocessing]) -> ModelConfig:
        """The configuration with what was left to the backbone, whose ``own()`` is asked only where something was."""
        missing = [name for name in _LEFT_TO_BACKBONE if getattr(self, name) is None]
        found = own().at(self.image_size) if missing else None
        return replace(self, **{name: getattr(found, name) for name in missing})

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


class EmbeddingModel(nn.Module):
    """Normalise, backbone without its classifier, linear embedding, L2 norm.

    Normalisation is inside, so that a budget always means pixels.

    Args:
        config: what to build; the model's own ``config`` has the preprocessing that was left to the backbone.
        pretrained: start from the backbone's published weights (downloaded by torchvision), the newest or those of
            that name.

    Raises:
        UnknownNameError: no such backbone or weights.
        SpecError: pretrained weights do not exist or cannot be had.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ModelConfig, *, pretrained: bool | str = False) -> None:
        super().__init__()
        backbone = find_backbone(config.backbone)
        backbone.named_weights(pretrained)
        self.backbone, features = backbone.build(pretrained, config.image_size)
        self.config = config = config.completed(lambda: backbone.prepared(self.backbone, pretrained))
        self.head = nn.Linear(features, config.embedding_dim)
        self.register_buffer("mean", torch.tensor(config.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(3, 1, 1), persistent=False)

    def __repr__(self) -> str:
        """In one line; the networks are its ``backbone`` and ``head``."""
        count = sum(parameter.numel() for parameter in self.parameters())
        return f"EmbeddingModel({brief(self.config)}, {count / 1e6:.3g} million parameters)"

    @property
    def preprocessing(self) -> Preprocessing:
        """How an image becomes its input."""
        return self.config.preprocessing

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings ``(N, D)`` of length 1 from ``images``, ``(N, 3, H, W)`` in [0, 1].

        Raises:
            SpecError: the backbone gives no features ``(N, F)``.
        """
        output = self.backbone((images - self.mean) / self.std)
        features = as_matrix(output, len(images))
        if features is None:
            mode = "training" if self.training else "evaluation"
            raise SpecError(
                f"backbone '{self.config.backbone}' gives {described(output)} for {len(images)} images in {mode} mode, "
                f"and features (N, F) are asked for: {remedy(output)}"
            )
        return F.normalize(self.head(features).float(), dim=1)


def check_backbone(config: ModelConfig) -> bool:
    """Whether the backbone has BatchNorm; refuses one that cannot take images of that size.

    Shapes only are computed, on torch's meta device, so that even a large network takes no memory. (RegNets compute
    their widths with tensors, which that device cannot, and a factory of the user's may load weights: they are made in
    full.)

    Raises:
        UnknownNameError: no such backbone.
        SpecError: it cannot take images of that size.
    """
    device = "cpu" if config.backbone.startswith("regnet") or ":" in config.backbone else "meta"
    with torch.device(device), torch.random.fork_rng(devices=[]), torch.no_grad():
        model = EmbeddingModel(config)
        try:
            into_evaluation(model)
            model(torch.zeros(2, 3, *config.preprocessing.sides))
        except SpecError:
            raise
        except Exception as error:  # Foreign networks may raise anything.
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise SpecError(
                f"backbone '{config.backbone}' cannot take images of {in_pixels(config.image_size)} pixels ({reason}): "
                "choose another --image-size or --backbone"
            ) from None
    return any(isinstance(module, _BatchNorm) for module in model.modules())
