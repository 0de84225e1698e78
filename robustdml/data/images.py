"""Where images come from: files on disk, or an array in memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from robustdml.data.decoding import read_image
from robustdml.errors import DataError
from robustdml.printable import shown
from robustdml.values import ByValue

#: Left, top, right and bottom, in pixels; right and bottom are just outside.
Box = tuple[int, int, int, int]
#: Where an image's ``info`` says, in a tuple of texts, what was done to it that a person would not expect.
REMARKS = "remarks"


class ImageSource(Protocol):
    """Images by index, decoded on demand."""

    def __len__(self) -> int: ...

    def load(self, index: int) -> Image.Image:
        """The image of that index, upright, in mode RGB; its ``info`` may hold `REMARKS`."""

    def name(self, index: int) -> str:
        """What a person calls the image; never an absolute path."""

    def digest(self) -> str:
        """A hash that changes when the images change."""


class FileImages(ByValue):
    """Images in files.

    Names are relative to the deepest folder that holds all the files, so that they and the digest are the same on
    every machine. The digest covers names and sizes in bytes, not contents: it costs no reading of gigabytes.

    Args:
        paths: the files, in the order of their rows; they may have any format that Pillow reads.
        boxes: for each file the part of the upright image to cut out, or None for all of it; None cuts out nothing.
        sizes: for each box the width and height of the image in whose pixels it is counted, or None where it is that of
            the file; None takes the files' own.

    Raises:
        DataError: no paths were given.
        ValueError: there are not as many boxes, or sizes, as paths.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        boxes: Sequence[Box | None] | None = None,
        sizes: Sequence[tuple[int, int] | None] | None = None,
    ) -> None:
        if not paths:
            raise DataError("a data set needs at least one image file, and none was given")
        for name, given in (("boxes", boxes), ("sizes", sizes)):
            if given is not None and len(given) != len(paths):
                raise ValueError(f"{len(given)} {name} for {len(paths)} images")
        self._paths = tuple(Path(path) for path in paths)
        self._boxes = tuple(boxes) if boxes is not None else (None,) * len(self._paths)
        self._sizes = tuple(sizes) if sizes is not None else (None,) * len(self._paths)
        # Relative and absolute paths may be mixed, which have no common folder as they are written.
        self._places = tuple(Path(os.path.normpath(path.absolute())) for path in self._paths)
        self._root = Path(os.path.commonpath([place.parent for place in self._places]))

    @property
    def files(self) -> tuple[Path, ...]:
        """The paths, as they were given."""
        return self._paths

    def __len__(self) -> int:
        return len(self._paths)

    def load(self, index: int) -> Image.Image:
        """Decode one file (see `robustdml.data.decoding.read_image`) and cut out its box.

        Raises:
            DataError: the file is missing, damaged or no image, or smaller than its box.
        """
        path, box = self._paths[index], self._boxes[index]
        try:
            whole, remarks = read_image(path)
            image = whole if box is None else _cut(whole, box, self._sizes[index])
        # Pillow's decoders raise whatever their parsing meets: OSError, SyntaxError, struct.error, IndexError, …
        except Exception as cause:
            raise DataError(
                f"cannot read the image '{shown(str(path))}' ({_reason(cause)}): restore the file, or take it "
                "out of the data set",
                reason=_reason(cause),
            ) from cause
        image.info[REMARKS] = remarks
        return image

    def name(self, index: int) -> str:
        """The file's path below the data set's folder, with forward slashes."""
        return shown(self._places[index].relative_to(self._root).as_posix())

    def digest(self) -> str:
        """SHA-256 of the names, the contents and the boxes of all files; one that cannot be read has no content."""
        hashed = hashlib.sha256()
        for index in range(len(self)):
            box, size = self._boxes[index], self._sizes[index]
            cut = "" if box is None else f"{box}\0" if size is None else f"{box} of {size}\0"
            hashed.update(f"{self.name(index)}\0{self._content(index)}\0{cut}".encode())
        return hashed.hexdigest()

    def _content(self, index: int) -> str:
        try:
            return hashlib.sha256(self._paths[index].read_bytes()).hexdigest()
        except OSError as cause:
            return _reason(cause)


class ArrayImages(ByValue):
    """Images in memory.

    Args:
        array: uint8, (N, H, W, 3), values in [0, 255].

    Raises:
        DataError: the array has another type or shape.
    """

    def __init__(self, array: npt.NDArray[np.uint8]) -> None:
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3 or 0 in array.shape:
            raise DataError(
                f"images in memory must be uint8 of shape (N, H, W, 3), and these are {array.dtype} of shape "
                f"{array.shape}"
            )
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    def load(self, index: int) -> Image.Image:
        """The image as Pillow's, mode RGB."""
        return Image.fromarray(self._array[index])

    def name(self, index: int) -> str:
        """``image 17`` for index 17."""
        return f"image {index}"

    def digest(self) -> str:
        """SHA-256 of the shape and the pixels."""
        hashed = hashlib.sha256(repr(self._array.shape).encode())
        hashed.update(np.ascontiguousarray(self._array).tobytes())
        return hashed.hexdigest()


def _cut(image: Image.Image, box: Box, size: tuple[int, int] | None) -> Image.Image:
    if size is not None and size != image.size:
        if size == image.size[::-1]:
            raise ValueError(f"its box is counted in {size[0]} by {size[1]} pixels, and upright it has the other sides")
        across, down = image.width / size[0], image.height / size[1]
        box = (round(box[0] * across), round(box[1] * down), round(box[2] * across), round(box[3] * down))
        if box[0] == box[2] or box[1] == box[3]:
            raise ValueError(f"its box is less than one of its {image.width} by {image.height} pixels")
    # Pillow would fill what lies outside with black, without a word.
    if box[2] > image.width or box[3] > image.height:
        raise ValueError(f"its box {box} is larger than its {image.width} by {image.height} pixels")
    return image.crop(box)


def _reason(cause: Exception) -> str:
    # The texts of both errors repeat the path, which the message already has.
    if isinstance(cause, UnidentifiedImageError):
        return "it is no image that Pillow knows"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(cause) or type(cause).__name__
