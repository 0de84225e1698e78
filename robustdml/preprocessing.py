"""How an image becomes a model's input: resized, cut to a square, normalised. It belongs to the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

from robustdml.errors import SpecError
from robustdml.values import brief, check_fields, check_range, whole

if TYPE_CHECKING:
    from torch import Tensor
    from torchvision.transforms import InterpolationMode

#: Of the pixels of each channel, in [0, 1].
PerChannel = tuple[float, float, float]

#: Nearest takes the pixel under the centre of the new one, as Pillow does; the others are antialiased.
Interpolation = Literal["nearest", "bilinear", "bicubic"]

IMAGENET_MEAN: PerChannel = (0.485, 0.456, 0.406)
IMAGENET_STD: PerChannel = (0.229, 0.224, 0.225)


#: In pixels, of what a model gets or of what that is cut out of.
LARGEST_SIDE = 16_384
#: The side of a square in pixels, or height and width.
Sides = int | tuple[int, int]


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an 8-bit image before a network sees it.

    The normalisation is the model's own work (images outside of it are in [0, 1]); it is named here for those who read.

    Args:
        size: S, the side in pixels of the square that the model gets, cut out of the centre; at least 1. With a height
            it is the width.
        resize: to what the shorter side is brought before, at least S; 0 stands for S. With a height it is the width
            that is covered, or filled, before the cut, the height in proportion.
        squash: bring both sides to ``resize``, whatever that does to the proportions.
        interpolation: of the resize.
        mean: which the model takes away; None where it is not known.
        std: by which it then divides; None where it is not known.
        height: of what the model gets, where that is no square (re-identification takes 256 x 128); 0 for a square.

    Raises:
        SpecError: a value out of its range.
    """

    size: int
    resize: int = 0
    squash: bool = False
    interpolation: Interpolation = "bilinear"
    mean: PerChannel | None = None
    std: PerChannel | None = None
    height: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.size < 1 or self.height < 0:
            raise SpecError(f"the image size must be at least 1 pixel, and it is {min(self.sides)}")
        object.__setattr__(self, "height", 0 if self.height == self.size else self.height)
        object.__setattr__(self, "resize", self.resize or self.size)
        for name in ("size", "resize", "height"):
            check_range(name, getattr(self, name), 0, LARGEST_SIDE)
        if self.resize < self.size:
            raise SpecError(f"resize={self.resize} must be at least the {self.size} pixels that are cut out of it")
        if self.interpolation not in get_args(Interpolation):
            known = ", ".join(get_args(Interpolation))
            raise SpecError(f"images cannot be resized by '{self.interpolation}': known: {known}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is None:
                continue
            object.__setattr__(self, name, tuple(values))  # JSON has lists
            least = 0.0 if name == "mean" else 1e-6
            if len(values) != 3 or not all(least <= value <= 1.0 for value in values):
                raise SpecError(
                    f"{name}={tuple(values)} must be three numbers, one for each channel, in [{least:g}, 1]"
                )

    @classmethod
    def plain(cls, size: Sides) -> Preprocessing:
        """The view of a model that says nothing of it: the centre of a square, and all of other sides."""
        height, width = height_and_width(size)
        return cls(width, squash=height != width, height=height)

    def at(self, size: Sides) -> Preprocessing:
        """The same for inputs of other sides: the share that the crop leaves out is kept."""
        height, width = height_and_width(size)
        return replace(self, size=width, resize=self.resize * width // self.size, height=height)

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of what the model gets."""
        return self.height or self.size, self.size

    @property
    def interpolation_mode(self) -> InterpolationMode:
        """The interpolation as torchvision names it."""
        from torchvision.transforms import InterpolationMode

        return InterpolationMode("nearest-exact" if self.interpolation == "nearest" else self.interpolation)

    def square(self, image: Tensor) -> Tensor:
        """What the model gets of an image, a square but for a height: uint8, ``(3, H, W)`` to ``(3, *sides)``."""
        if tuple(image.shape[1:]) == self.sides and self.resize == self.size:
            return image
        from torchvision.transforms.v2 import functional  # slow to import, and small images need none of it

        tall = round(self.resize * self.sides[0] / self.size)
        if self.squash:
            target = [tall, self.resize]
        elif self.height:
            height, width = image.shape[1:]
            scale = max(tall / height, self.resize / width)
            target = [max(tall, round(height * scale)), max(self.resize, round(width * scale))]
        else:
            target = [self.resize]
        resized = functional.resize(image, target, interpolation=self.interpolation_mode, antialias=True)
        square: Tensor = functional.center_crop(resized, list(self.sides))
        return square

    @property
    def view(self) -> str:
        """What is done outside of the model, in words: ``shorter side to 232 (bicubic), centre crop 224``."""
        cut = in_pixels(self.sides) if self.height else f"{self.size}"
        whole = in_pixels((round(self.resize * self.sides[0] / self.size), self.resize)) if self.height else self.resize
        verb = "both sides" if self.squash else "enough to cover" if self.height else "shorter side"
        resized = f"{verb}{'' if verb.endswith('cover') else ' to'} {whole} ({self.interpolation})"
        return resized if self.squash and self.resize == self.size else f"{resized}, centre crop {cut}"

    def __str__(self) -> str:
        """All of it: the `view`, then ``mean 0.485 / 0.456 / 0.406, std 0.229 / 0.224 / 0.225``."""
        parts = [self.view]
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None:
                parts.append(f"{name} {' / '.join(f'{value:.4g}' for value in values)}")
        return ", ".join(parts)


def height_and_width(size: Sides) -> tuple[int, int]:
    """Of sides, of which a square has one."""
    return (size, size) if isinstance(size, int) else size


def in_pixels(size: Sides) -> str:
    """``224``, or height and width as ``256 x 128``."""
    return str(size) if isinstance(size, int) else f"{size[0]} x {size[1]}"


def whole_sides(given: object) -> Sides:
    """Sides that were given as an argument: one whole number, or height and width; of a square its side.

    Raises:
        SpecError: they are neither.
    """
    given = given.tolist() if hasattr(given, "tolist") else given  # of NumPy, pandas and torch
    if not isinstance(given, tuple | list):
        return whole("image_size", given)
    if len(given) != 2:
        raise SpecError(f"image_size={brief(given)} must be a whole number, or height and width")
    height, width = (whole("image_size", side) for side in given)
    return width if height == width else (height, width)


def check_image_size(image_size: Sides) -> None:
    """Refuse a side that no network here can use.

    Raises:
        SpecError: it is outside 8 to 2048 pixels.
    """
    if not all(8 <= side <= 2048 for side in height_and_width(image_size)):
        raise SpecError(f"image_size {in_pixels(image_size)} must be between 8 and 2048 pixels")


def three(values: Sequence[float]) -> PerChannel:
    """The numbers of three channels.

    Raises:
        SpecError: there are more or fewer.
    """
    if len(values) != 3:
        raise SpecError(f"{tuple(values)} must be three numbers, one for each channel: only RGB images are prepared")
    try:
        first, second, third = (float(value) for value in values)
    except (TypeError, ValueError):
        raise SpecError(f"{brief(values)} must be three numbers, one for each channel") from None
    return first, second, third


def declared(module: object) -> Preprocessing | None:
    """What a model, or any module, says of its input: its attribute ``preprocessing``; None where it says nothing.

    The attribute is a `Preprocessing`, or a mapping with its arguments, such as
    ``{"size": 224, "resize": 256, "interpolation": "bicubic"}``. Anything else is no declaration.

    Raises:
        SpecError: such a mapping with other keys, or values that cannot be.
    """
    found = getattr(module, "preprocessing", None)
    if isinstance(found, Preprocessing) or not isinstance(found, Mapping):
        return found if isinstance(found, Preprocessing) else None
    try:
        return Preprocessing(**found)
    except TypeError as error:
        raise SpecError(
            f"the preprocessing that {type(module).__name__} declares cannot be read ({error}): give size, and resize, "
            "squash, interpolation, mean and std where they are known"
        ) from None
