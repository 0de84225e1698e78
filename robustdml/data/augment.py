"""From decoded pixels to the input of a model: the view of an evaluation, and the random views of training."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from robustdml.errors import SpecError, UnknownNameError
from robustdml.preprocessing import Preprocessing

View = Callable[[Tensor], Tensor]


def evaluation_view(preprocessing: Preprocessing) -> View:
    """The view that a model has of an image, but for its normalisation.

    Returns:
        A function from uint8 (3, H, W) to float32 (3, S, S) in [0, 1]; it uses no randomness.
    """
    return _chain(preprocessing.square, to_float)


#: The smallest share of the area that a random crop takes, where nothing else is said.
_CROP_SCALE = 0.4


def crop_scale(name: str, wanted: float | None) -> float | None:
    """The smallest share of the area that the crops of an augmentation take; None where it does not crop.

    Raises:
        SpecError: it does not crop, and a share is wanted.
    """
    crops = name.startswith("crop")
    if wanted is not None and not crops:
        raise SpecError(f"crop_scale={wanted}: the images of this data set are not cropped in training ('{name}')")
    return (wanted or _CROP_SCALE) if crops else None


def augmentation(name: str, preprocessing: Preprocessing, scale: float | None = None) -> View:
    """The random view of training with that name.

    Args:
        name: ``none``, the view of an evaluation; ``shift``, which then shifts by up to 1/16, turns by up to 10 degrees
            and scales by 0.9 to 1.1 and fills with black; ``crop``, a random crop of 40 to 100 % of the area;
            ``crop-flip``, the same with a random mirror image.
        preprocessing: of the model; a random crop takes its size and interpolation.
        scale: another smallest share of the area, for those that crop.

    Returns:
        A function from uint8 (3, H, W) to float32 (3, S, S) in [0, 1]. Its randomness comes from torch's global CPU
        generator.

    Raises:
        UnknownNameError: there is no augmentation of that name.
    """
    if name not in _AUGMENTATIONS:
        raise UnknownNameError("augmentation", name, _AUGMENTATIONS)
    return _AUGMENTATIONS[name](preprocessing, crop_scale(name, scale))


def _none(preprocessing: Preprocessing, scale: float | None) -> View:
    return evaluation_view(preprocessing)


def _shift(preprocessing: Preprocessing, scale: float | None) -> View:
    from torchvision.transforms import v2

    # Digits stand on black, so black is what a shift uncovers.
    move = v2.RandomAffine(
        degrees=10, translate=(1 / 16, 1 / 16), scale=(0.9, 1.1), interpolation=v2.InterpolationMode.BILINEAR, fill=0
    )
    return _chain(preprocessing.square, move, to_float)


def _crop(preprocessing: Preprocessing, scale: float | None) -> View:
    from torchvision.transforms import v2

    crop = v2.RandomResizedCrop(
        preprocessing.sides,
        scale=(scale or _CROP_SCALE, 1.0),
        interpolation=preprocessing.interpolation_mode,
        antialias=True,
    )
    return _chain(crop, to_float)


def _crop_flip(preprocessing: Preprocessing, scale: float | None) -> View:
    from torchvision.transforms import v2

    return _chain(_crop(preprocessing, scale), v2.RandomHorizontalFlip())


def _chain(*steps: View) -> View:
    # Not a lambda: worker processes that are spawned receive views by pickle.
    return partial(_apply, steps)


def _apply(steps: tuple[View, ...], image: Tensor) -> Tensor:
    for step in steps:
        image = step(image)
    return image


def to_float(image: Tensor) -> Tensor:
    """From uint8 to float32 in [0, 1]."""
    return image.to(torch.float32).mul_(1 / 255)


_AUGMENTATIONS: dict[str, Callable[[Preprocessing, float | None], View]] = {
    "crop": _crop,
    "crop-flip": _crop_flip,
    "none": _none,
    "shift": _shift,
}
