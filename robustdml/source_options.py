"""What a user says of a model's source beside its name."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from robustdml.errors import SpecError
from robustdml.preprocessing import (
    Interpolation,
    PerChannel,
    Preprocessing,
    Sides,
    check_image_size,
    three,
    whole_sides,
)
from robustdml.values import check_fields


@dataclass(frozen=True)
class SourceOptions:
    """How a source is loaded, and what it does not say itself.

    What is given of the preprocessing takes precedence over what the model's library says.

    Args:
        arch: the network of which a file holds the weights: another source, such as ``timm:resnet50``.
        mean, std: of the pixels of each channel, in [0, 1]; given together.
        size: S, the side in pixels of the square that the model gets, or height and width. Alone it changes no module
            of the user's own, to which an evaluation gives images of any ``image_size``.
        crop: the share of the resized image's shorter side that the square keeps, in (0, 1], such as 0.875.
        interpolation: of the resize.
        keep_head: leave the last layer of the weights on, where it would be taken off as a classifier.
        trust_pickle: unpickle a file, which runs whatever code it holds.
        trust_code: import the code that a run folder names as its backbone.

    Raises:
        SpecError: a value out of its range.
    """

    arch: str | None = None
    mean: PerChannel | None = None
    std: PerChannel | None = None
    size: Sides | None = None
    crop: float | None = None
    interpolation: Interpolation | None = None
    keep_head: bool = False
    trust_pickle: bool = False
    trust_code: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if (self.mean is None) != (self.std is None):
            raise SpecError("mean and std go together: give both, or neither")
        if self.crop is not None and not 0 < self.crop <= 1:
            raise SpecError(f"crop={self.crop} must be in (0, 1]: the share of the shorter side that the square keeps")
        for name in ("mean", "std"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, three(getattr(self, name)))
        if self.size is not None:
            object.__setattr__(self, "size", whole_sides(self.size))
            check_image_size(self.size)
        self.completed(Preprocessing.plain(self.size or 224), "the model")  # refuses what cannot be

    @property
    def prepares(self) -> bool:
        """Whether anything is said of the preprocessing."""
        return any(getattr(self, name) is not None for name in ("mean", "std", "size", "crop", "interpolation"))

    def completed(self, own: Preprocessing | None, name: str) -> Preprocessing | None:
        """How images are prepared: as the model's library says, and as is said here; None where nothing is known.

        Raises:
            SpecError: something is said here and the size is known nowhere.
        """
        if not self.prepares:
            return own
        if own is None and self.size is None:
            raise SpecError(f"'{name}' does not say what size its images have: give --size too")
        found = own or Preprocessing.plain(self.size or 0)
        found = found if self.size is None else found.at(self.size)
        changes: dict[str, Any] = {
            key: getattr(self, key) for key in ("mean", "std", "interpolation") if getattr(self, key) is not None
        }
        if self.crop is not None:
            changes["resize"] = math.floor(found.size / self.crop)
        return replace(found, **changes)
