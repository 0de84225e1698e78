"""Whether a model gives photos the embeddings that its own library gives them, from reading the file to the vector."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from robustdml.errors import SpecError
from robustdml.models.guard import evaluation_mode, kept_randomness
from robustdml.preprocessing import Preprocessing

#: The least cosine of the two embeddings of a photo.
LEAST = 0.999


def photos() -> list[Image.Image]:
    """Two photographs that scikit-learn brings along: a temple and a flower, 640 by 320 pixels.

    Twice as wide as high: so an even number of pixels is left out at the sides of a square, and all libraries agree
    where the centre is.
    """
    from sklearn.datasets import load_sample_images  # slow to import

    return [Image.fromarray(array[53:373]) for array in load_sample_images().images]


def agreement(module: nn.Module, preprocessing: Preprocessing, own: Callable[[Image.Image], Tensor]) -> float:
    """The least cosine, over `photos`, between what a model gives and what ``own``, its library, gives.

    Args:
        module: maps images ``(N, 3, S, S)`` in [0, 1] to ``(N, D)``.
        preprocessing: how its images are prepared.
        own: from a photo to the embedding ``(1, D)``.
    """
    found = []
    with kept_randomness(module), evaluation_mode(module), torch.no_grad():
        for photo in photos():
            pixels = torch.as_tensor(np.array(photo)).permute(2, 0, 1)
            ours = module((preprocessing.square(pixels).float() / 255)[None])
            found.append(float(F.cosine_similarity(ours.double(), own(photo).double()).min()))
    return min(found)


def check_agreement(
    name: str, module: nn.Module, preprocessing: Preprocessing, own: Callable[[Image.Image], Tensor]
) -> None:
    """Refuse a model whose embeddings are not those of its library.

    Raises:
        SpecError: the cosine of two embeddings of a photo is below `LEAST`, or is no number.
    """
    cosine = agreement(module, preprocessing, own)
    if not cosine >= LEAST:
        raise SpecError(
            f"'{name}' embeds photos otherwise here than by its library's own processor: their cosine is "
            f"{cosine:.4f}, and at least {LEAST} is asked for: say how its images are prepared (--mean, --std, --size, "
            "--crop, --interpolation), or wrap it as file.py:build, its preparation inside"
        )
