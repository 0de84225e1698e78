"""Rows of a data set to batches of pixels in [0, 1]."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustdml.data.augment import augmentation, to_float
from robustdml.data.images import REMARKS, ImageSource
from robustdml.preprocessing import Preprocessing

RowNumbers = Sequence[int] | npt.NDArray[np.int64]


class ImageTensors:
    """Images as an evaluation sees them, decoded once while memory allows.

    Args:
        images: where the images come from.
        preprocessing: how they are made a model's input; a number S stands for the plain ``Preprocessing(S)``: the
            shorter side to S pixels, and the square in the centre.
        cache_bytes: how much memory images may take, 0 decodes anew each time. They are kept as models see them, which
            is most often smaller than they are, and as they are while there is room. It changes only the speed.

    Raises:
        SpecError: the number is below 1.
    """

    def __init__(self, images: ImageSource, preprocessing: int | Preprocessing, cache_bytes: int = 2 * 1024**3) -> None:
        self._decoded = _Decoded(images, cache_bytes)
        self._prepare(preprocessing)

    def _prepare(self, preprocessing: int | Preprocessing) -> None:
        self.preprocessing = Preprocessing(preprocessing) if isinstance(preprocessing, int) else preprocessing

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which decodes for itself."""
        return {"_decoded": self._decoded, "preprocessing": self.preprocessing}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._decoded = state["_decoded"]
        self._prepare(state["preprocessing"])

    def prepared(self, preprocessing: Preprocessing) -> ImageTensors:
        """The same images for another model; what is decoded is shared."""
        other = copy.copy(self)
        other._prepare(preprocessing)
        return other

    def batch(self, rows: RowNumbers) -> Tensor:
        """The images of those rows: float32, (n, 3, S, S), in [0, 1].

        Raises:
            DataError: an image cannot be read.
        """
        views = [to_float(self._decoded.view(int(row), self.preprocessing)) for row in rows]
        return _stack(views, self.preprocessing.sides)

    def original(self, row: int) -> Tensor:
        """One image at its own size: uint8, (3, H, W). It may be shared with the cache, so do not change it in place.

        Raises:
            DataError: the image cannot be read.
        """
        return self._decoded(row)

    @property
    def remarks(self) -> dict[int, tuple[str, ...]]:
        """What was done to images that a person would not expect, by their rows; of those that were decoded so far."""
        return self._decoded.remarks


class _Decoded:
    """Images by row, and views of them, kept as far as the memory goes that they may take: views before images."""

    def __init__(self, images: ImageSource, cache_bytes: int) -> None:
        self._images, self._free = images, cache_bytes
        self._cache: dict[int, Tensor] = {}
        self._views: dict[tuple[Preprocessing, int], Tensor] = {}
        self.remarks: dict[int, tuple[str, ...]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which fills a cache of its own."""
        used = sum(tensor.nbytes for kept in (self._cache, self._views) for tensor in kept.values())
        return {**self.__dict__, "_cache": {}, "_views": {}, "_free": self._free + used}

    def view(self, row: int, preprocessing: Preprocessing) -> Tensor:
        """An image as a model sees it, but in uint8."""
        found = self._views.get((preprocessing, row))
        if found is not None:
            return found
        image = self(row)
        view = preprocessing.square(image)
        if view.nbytes >= image.nbytes:  # The image itself is what is kept.
            return view
        view = view.clone(memory_format=torch.contiguous_format)  # and not what it was cut from
        self._make_room(view.nbytes, preprocessing)
        if view.nbytes <= self._free:
            self._free -= view.nbytes
            self._views[preprocessing, row] = view
        return view

    def _make_room(self, wanted: int, preprocessing: Preprocessing) -> None:
        """Give up images, and then what models saw that came before."""
        while self._free < wanted and self._cache:
            self._free += self._cache.pop(next(iter(self._cache))).nbytes
        while self._free < wanted and self._views:
            oldest = next(iter(self._views))
            if oldest[0] == preprocessing:
                break
            self._free += self._views.pop(oldest).nbytes

    def __call__(self, row: int) -> Tensor:
        found = self._cache.get(row)
        if found is not None:
            return found
        loaded = self._images.load(row)
        if said := loaded.info.get(REMARKS):
            self.remarks[row] = said
        image = torch.as_tensor(np.array(loaded)).permute(2, 0, 1)
        if image.nbytes <= self._free:
            self._cache[row] = image
            self._free -= image.nbytes
        return image


class TrainTensors:
    """Images as training sees them: randomly augmented, each by its own seed.

    A view depends on nothing but the image and its seed, so batches are the same for any number of worker processes
    and any order. Torch's global CPU generator is left as it was; two threads must not draw batches at once.

    Args:
        images: the images; their cache and their preprocessing are used.
        augmentation_name: a name that `robustdml.data.augment.augmentation` knows.
        crop_scale: the smallest share of the area that a random crop takes; None takes the augmentation's own.

    Raises:
        UnknownNameError: there is no augmentation of that name.
        SpecError: a ``crop_scale`` for an augmentation that does not crop.
    """

    def __init__(self, images: ImageTensors, augmentation_name: str, crop_scale: float | None = None) -> None:
        self._images = images
        self._view = augmentation(augmentation_name, images.preprocessing, crop_scale)

    def batch(self, rows: RowNumbers, seeds: RowNumbers) -> Tensor:
        """One random view of each row: float32, (n, 3, S, S), in [0, 1].

        Args:
            rows: the images, n of them; a row may come several times.
            seeds: one integer per row, 0 or more.

        Raises:
            DataError: an image cannot be read.
            ValueError: there are not as many seeds as rows.
        """
        views = []
        with torch.random.fork_rng(devices=[]):
            for row, seed in zip(rows, seeds, strict=True):
                # Not torch.manual_seed, which would reseed the GPUs too, and fork_rng restores only the CPU here.
                torch.default_generator.manual_seed(int(seed))
                views.append(self._view(self._images.original(int(row))))
        return _stack(views, self._images.preprocessing.sides)


def _stack(images: list[Tensor], sides: tuple[int, int]) -> Tensor:
    return torch.stack(images) if images else torch.empty(0, 3, *sides)
