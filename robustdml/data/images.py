"""Where images come from: files on disk, or an array in memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from robustdml.errors import DataError

#: Left, top, right and bottom, in pixels; right and bottom are just outside.
Box = tuple[int, int, int, int]


class ImageSource(Protocol):
    """Images by index, decoded on demand."""

    def __len__(self) -> int: ...

    def load(self, index: int) -> Image.Image:
        """The image of that index, upright, in mode RGB."""

    def name(self, index: int) -> str:
        """What a person calls the image; never an absolute path."""

    def digest(self) -> str:
        """A hash that changes when the images change."""


class FileImages:
    """Images in files.

    Names are relative to the deepest folder that holds all the files, so that they and the digest are the same on
    every machine. The digest covers names and sizes in bytes, not contents: it costs no reading of gigabytes.

    Args:
        paths: the files, in the order of their rows; they may have any format that Pillow reads.
        boxes: for each file the part of the upright image to cut out, or None for all of it; None cuts out nothing.

    Raises:
        DataError: no paths were given.
        ValueError: there are not as many boxes as paths.
    """

    def __init__(self, paths: Sequence[Path], boxes: Sequence[Box | None] | None = None) -> None:
        if not paths:
            raise DataError("a data set needs at least one image file, and none was given")
        if boxes is not None and len(boxes) != len(paths):
            raise ValueError(f"{len(boxes)} boxes for {len(paths)} images")
        self._paths = tuple(Path(path) for path in paths)
        self._boxes = tuple(boxes) if boxes is not None else (None,) * len(self._paths)
        self._root = Path(os.path.commonpath([path.parent for path in self._paths]))

    def __len__(self) -> int:
        return len(self._paths)

    def load(self, index: int) -> Image.Image:
        """Decode one file: upright by its EXIF tag, transparency over white, mode RGB.

        Raises:
            DataError: the file is missing, damaged or no image, or smaller than its box.
        """
        path, box = self._paths[index], self._boxes[index]
        try:
            with Image.open(path) as image:
                whole = _to_rgb(ImageOps.exif_transpose(image))
                return whole if box is None else _cut(whole, box)
        # Pillow's decoders raise whatever their parsing meets: OSError, SyntaxError, struct.error, IndexError, …
        except Exception as cause:
            raise DataError(
                f"cannot read the image '{path}' ({_reason(cause)}): restore the file, or take it out of the data set"
            ) from cause

    def name(self, index: int) -> str:
        """The file's path below the data set's folder, with forward slashes."""
        return self._paths[index].relative_to(self._root).as_posix()

    def digest(self) -> str:
        """SHA-256 of the names, the contents and the boxes of all files.

        Raises:
            DataError: a file is missing or cannot be read.
        """
        hashed = hashlib.sha256()
        for index, path in enumerate(self._paths):
            try:
                with path.open("rb") as file:
                    content = hashlib.sha256(file.read())
            except OSError as cause:
                raise DataError(
                    f"cannot find the image '{path}' ({_reason(cause)}): restore the file, or take it out of the set"
                ) from cause
            box = self._boxes[index]
            cut = "" if box is None else f"{box}\0"
            hashed.update(f"{self.name(index)}\0{content.hexdigest()}\0{cut}".encode("utf-8", "surrogateescape"))
        return hashed.hexdigest()


class ArrayImages:
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


def _to_rgb(image: Image.Image) -> Image.Image:
    # Pillow clips deep pixels at 255, which turns a 16-bit photo white without a word.
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels have mode {image.mode}, whose range is unknown")
    # Dropping the alpha channel would show the hidden colours below it, which are arbitrary.
    if "A" in image.getbands() or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _cut(image: Image.Image, box: Box) -> Image.Image:
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
