"""From decoded pixels to the input of a model: the view of an evaluation, and the random views of training."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torchvision.transforms import v2

from robustdml.errors import UnknownNameError

View = Callable[[Tensor], Tensor]


def evaluation_view(image_size: int) -> View:
    """Short side to ``image_size`` (antialiased bilinear), then the square in the centre.

    Returns:
        A function from uint8 (3, H, W) to float32 (3, image_size, image_size) in [0, 1]; it uses no randomness.
    """
    return _chain(partial(_square, side=image_size), _to_float)


def augmentation(name: str, image_size: int) -> View:
    """The random view of training with that name.

    Args:
        name: ``none``, the view of an evaluation; ``shift``, which then shifts by up to 1/16, turns by up to 10 degrees
            and scales by 0.9 to 1.1 and fills with black; ``crop``, a random crop of 40 to 100 % of the area;
            ``crop-flip``, the same with a random mirror image.
        image_size: side of the result in pixels.

    Returns:
        A function from uint8 (3, H, W) to float32 (3, image_size, image_size) in [0, 1]. Its randomness comes from
        torch's global CPU generator.

    Raises:
        UnknownNameError: there is no augmentation of that name.
    """
    if name not in _AUGMENTATIONS:
        raise UnknownNameError("augmentation", name, _AUGMENTATIONS)
    return _AUGMENTATIONS[name](image_size)


def _shift(image_size: int) -> View:
    # Digits stand on black, so black is what a shift uncovers.
    move = v2.RandomAffine(
        degrees=10, translate=(1 / 16, 1 / 16), scale=(0.9, 1.1), interpolation=v2.InterpolationMode.BILINEAR, fill=0
    )
    return _chain(partial(_square, side=image_size), move, _to_float)


def _crop(image_size: int) -> View:
    return _chain(v2.RandomResizedCrop(image_size, scale=(0.4, 1.0), antialias=True), _to_float)


def _crop_flip(image_size: int) -> View:
    return _chain(_crop(image_size), v2.RandomHorizontalFlip())


def _chain(*steps: View) -> View:
    # Not a lambda: worker processes that are spawned receive views by pickle.
    return partial(_apply, steps)


def _apply(steps: tuple[View, ...], image: Tensor) -> Tensor:
    for step in steps:
        image = step(image)
    return image


def _square(image: Tensor, side: int) -> Tensor:
    resized = v2.functional.resize(image, [side], antialias=True)
    square: Tensor = v2.functional.center_crop(resized, [side, side])
    return square


def _to_float(image: Tensor) -> Tensor:
    converted: Tensor = v2.functional.to_dtype(image, torch.float32, scale=True)
    return converted


_AUGMENTATIONS: dict[str, Callable[[int], View]] = {
    "crop": _crop,
    "crop-flip": _crop_flip,
    "none": evaluation_view,
    "shift": _shift,
}
