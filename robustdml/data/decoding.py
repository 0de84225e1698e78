"""From a file to an upright RGB image, whatever camera, phone or microscope wrote it."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

#: What cameras, microscopes and X-ray machines put into 16 bits.
_BITS = (8, 10, 12, 14, 16)
#: Pillow refuses what today's phones make (200 megapixels); more than so many pixels are no photo.
_MOST_PIXELS = 2**29
#: More pictures in these files are previews, depth maps or sizes of one picture.
_ONE_PICTURE = {"MPO", "ICO", "ICNS", "PSD"}
#: Layers of which the last is transparency.
_WITH_ALPHA = (2, 4)
_WHITE_IS_ZERO, _MAX_SAMPLE, _PHOTOMETRIC = 0, 281, 262


def read_image(path: Path) -> tuple[Image.Image, tuple[str, ...]]:
    """Decode a file: its first picture, upright by its EXIF tag, transparency over white, mode RGB.

    Values of 16 bits are brought to the range that is used: the least of 8, 10, 12, 14 and 16 bits that holds them (and
    the largest value that the file names, where it does).

    Returns:
        The image, and what was done that a person would not expect (``the first of 12 pictures``).

    Raises:
        ValueError: its values have no known range, or it needs a package.
        Exception: whatever Pillow's decoders meet: OSError, SyntaxError, struct.error, IndexError, …
    """
    with _undisturbed():
        image: Image.Image
        try:
            image = Image.open(path, formats=_formats())
        except UnidentifiedImageError:
            image = _opened_by_heif(path)
        with image:
            remarks = []
            count = 1 if image.format in _ONE_PICTURE else _pictures(image)
            if count > 1:
                remarks.append(f"the first of {count} pictures")
            deep = _deep(image, path)
            if deep is not None:
                bits = _used_bits(image, deep)
                if bits < 16:
                    remarks.append(f"{bits} of its 16 bits are used")
                shallow = (deep >> (bits - 8)).astype(np.uint8)
                if deep.ndim == 3 and deep.shape[2] in _WITH_ALPHA:  # which need not have as many bits
                    shallow[..., -1] = deep[..., -1] >> (8 if deep[..., -1].max() >= 2**bits else bits - 8)
                if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
                    shallow = 255 - shallow
                exif = image.getexif()
                flat = Image.fromarray(shallow)
                flat.getexif().update(exif)
            else:
                flat = image
            flat.load()  # Asked for EXIF data first, a PNG would be decoded there, and its damage taken for theirs.
            try:
                upright = ImageOps.exif_transpose(flat)
            except Exception:  # EXIF data are written by anyone, and as the standard says by few.
                upright = flat
                remarks.append("its EXIF data cannot be read, so it was not turned")
            return _to_rgb(upright), tuple(remarks)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Pillow without its warnings, about metadata mostly, and with its limit of pixels raised."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = _MOST_PIXELS // 2  # It warns above this, and refuses above twice as many.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _formats() -> list[str]:
    """What Pillow reads by itself: PostScript it hands to a program, and that is code."""
    Image.init()
    return [name for name in Image.ID if name != "EPS"]


def _pictures(image: Image.Image) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # A later picture is damaged; the first may be whole.
        return 1


def _opened_by_heif(path: Path) -> Image.Image:
    with path.open("rb") as file:
        start = file.read(12)
    if start[4:8] != b"ftyp":
        raise UnidentifiedImageError
    try:
        heif = importlib.import_module("pillow_heif")  # an extra
    except ImportError:
        raise ValueError("it is a HEIC or AVIF photo, which needs: pip install 'robustdml[heif]'") from None
    heif.register_heif_opener()
    return Image.open(path)


def _deep(image: Image.Image, path: Path) -> npt.NDArray[np.uint16] | None:
    """The values of an image of 16 bits; None where Pillow has all there is.

    Returns:
        (H, W), or (H, W, C) where C = 2 is grey and transparency.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in {"PNG", "PPM"}):
        return _values(image)
    rawmodes = {mode for tile in getattr(image, "tile", ()) for mode in _rawmodes(tile)}
    mode = next((mode for mode in rawmodes if ";16" in mode), None)
    if mode is None:
        return None
    # Pillow keeps the upper byte of each value; read as if in the other order of bytes, the lower one.
    other = mode[:-1] + {"B": "L", "L": "B", "N": "B"}[mode[-1]]
    if mode == "LA;16B":  # of which there is no other order; but its four bytes can be read as four layers
        found = _read_as(path, mode, "RGBA")
        return _joined(found[..., 0::2], found[..., 1::2])
    return _joined(_values(image), _read_as(path, mode, other))


def _read_as(path: Path, mode: str, other: str) -> npt.NDArray[np.uint16]:
    """The file's values as bytes in another raw mode of Pillow than its own."""
    with Image.open(path, formats=_formats()) as again:
        again.tile = [_with_rawmode(tile, mode, other) for tile in again.tile]
        return _values(again)


def _values(image: Image.Image) -> npt.NDArray[np.uint16]:
    values: npt.NDArray[np.uint16] = np.asarray(image).astype(np.uint16)
    return values


def _joined(upper: npt.NDArray[np.uint16], lower: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    values: npt.NDArray[np.uint16] = upper * np.uint16(256) + lower
    return values


def _used_bits(image: Image.Image, values: npt.NDArray[np.uint16]) -> int:
    if image.format == "PPM":  # its range is in its header, and Pillow scales by it
        return 16
    named = getattr(image, "tag_v2", {}).get(_MAX_SAMPLE, 0)
    colours = values[..., :-1] if values.ndim == 3 and values.shape[2] in _WITH_ALPHA else values
    top = max(int(colours.max()), *(named if isinstance(named, tuple) else (named,)))
    return next((bits for bits in _BITS if top < 2**bits), 16)


def _rawmodes(tile: Any) -> list[str]:
    args = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
    return [part for part in args if isinstance(part, str)]


def _with_rawmode(tile: Any, mode: str, other: str) -> Any:
    args = tile[3]
    changed = tuple(other if part == mode else part for part in args) if isinstance(args, tuple) else other
    return tile._replace(args=changed) if hasattr(tile, "_replace") else (*tile[:3], changed)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels have mode {image.mode}, whose range is unknown")
    if image.mode == "LAB":
        lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.applyTransform(image, ImageCms.buildTransform(lab, rgb, "LAB", "RGB")) or image
    # Dropping the alpha channel would show the hidden colours below it, which are arbitrary.
    if {"A", "a"} & set(image.getbands()) or "transparency" in image.info:
        layer = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")
