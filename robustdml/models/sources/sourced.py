"""A network of another library as an embedding model of images in [0, 1], its normalisation inside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn

from robustdml.preprocessing import Preprocessing


@dataclass(frozen=True)
class Found:
    """What a source holds.

    Args:
        network: maps normalised images ``(N, 3, S, S)`` to ``(N, D)``, its classifier taken off.
        architecture: for tables.
        preprocessing: how its images are prepared, as its library says; None where nobody says it.
        own: the embedding ``(1, D)`` of an image by the library's own processor; None where it has none.
        size: S, where the source says that and no more of the preprocessing.
        opaque: the layers inside cannot be seen, so that a classifier left on cannot either.
        black_box: why no gradient leads through it; empty where one does.
    """

    network: nn.Module
    architecture: str
    preprocessing: Preprocessing | None = None
    own: Callable[[Image.Image], Tensor] | None = None
    size: int | None = None
    opaque: bool = False
    black_box: str = ""


class OneSize(nn.Module):
    """A network that takes batches of one size only: others are parted, and filled up with copies."""

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.network, self.size = network, size

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings ``(N, D)`` of images ``(N, 3, S, S)``, N at least 1."""
        parts = []
        for part in images.split(self.size):
            full = torch.cat([part, part[-1:].expand(self.size - len(part), -1, -1, -1)])
            parts.append(self.network(full)[: len(part)])
        return torch.cat(parts)


class SourcedModel(nn.Module):
    """The network of a source, with its normalisation.

    Args:
        found: the network and what is known of it.
        preprocessing: how its images are prepared, ``mean`` and ``std`` included; None where nobody says it, and then
            the network gets the images as they are.

    Attributes:
        published: the preprocessing as its library says it; the user may have said otherwise.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, found: Found, preprocessing: Preprocessing | None) -> None:
        super().__init__()
        self.network, self.architecture = found.network, found.architecture
        self.opaque, self.black_box, self.preprocessing = found.opaque, found.black_box, preprocessing
        self.published = found.preprocessing
        mean = (preprocessing and preprocessing.mean) or (0.0, 0.0, 0.0)
        std = (preprocessing and preprocessing.std) or (1.0, 1.0, 1.0)
        # Part of the fingerprint of the weights: with other statistics it is another model.
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """What the network gives ``(N, D)`` for ``images``, ``(N, 3, S, S)`` in [0, 1]."""
        output: Tensor = self.network((images - self.mean) / self.std)
        # Convolutional encoders may keep two sides of one pixel.
        return (
            output.flatten(1)
            if isinstance(output, Tensor) and output.ndim == 4 and output[0, 0].numel() == 1
            else output
        )
