"""The pictures of a run folder: read only from there, and only when they are pictures."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from robustdml.errors import RunFolderError

_SIGNATURES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}

#: Pictures up to this side stay exact to the pixel; larger ones are shown about as small as this, at this quality.
_EXACT, _QUALITY = 64, 80


def picture_path(folder: Path, name: str) -> Path:
    """The place of a picture that a results file names, with links and ``..`` followed.

    Raises:
        RunFolderError: it lies outside of the folder, or the name cannot be one of a file.
    """
    folder = folder.resolve()
    try:
        path = (folder / name).resolve()
    except (OSError, ValueError) as error:
        raise _unreadable(folder, name, error) from None
    # A results file from someone else must not put other files of this computer into a page that is sent on.
    if not path.is_relative_to(folder):
        raise RunFolderError(
            f"the picture '{name}' of the results lies outside of '{folder}': "
            "a run refers to its own pictures only, so evaluate again"
        )
    return path


def read_picture(folder: Path, name: str) -> tuple[bytes, str]:
    """The bytes of a picture and its media type.

    Raises:
        RunFolderError: it is missing, is no PNG or JPEG, or lies outside of the folder.
    """
    path = picture_path(folder, name)
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise _unreadable(folder, name, error) from None
    for signature, media_type in _SIGNATURES.items():
        if data.startswith(signature):
            return data, media_type
    raise RunFolderError(f"the picture '{name}' in '{folder}' is no PNG or JPEG: evaluate again")


def page_picture(folder: Path, name: str) -> tuple[bytes, str]:
    """A picture as it goes into a page, and its media type: WebP where that is smaller than the file.

    Raises:
        RunFolderError: see `read_picture`; or it cannot be decoded.
    """
    data, media_type = read_picture(folder, name)
    try:
        with Image.open(io.BytesIO(data)) as picture:
            exact = max(picture.size) <= _EXACT
            packed = io.BytesIO()
            picture.convert("RGB").save(packed, "WEBP", lossless=exact, quality=100 if exact else _QUALITY, method=4)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise RunFolderError(f"the picture '{name}' in '{folder}' is damaged ({error}): evaluate again") from None
    small = packed.getvalue()
    return (small, "image/webp") if len(small) < len(data) else (data, media_type)


def _unreadable(folder: Path, name: str, error: OSError | ValueError) -> RunFolderError:
    reason = error.strerror if isinstance(error, OSError) else error
    return RunFolderError(
        f"the picture '{name}' of the results cannot be read from '{folder.resolve()}' ({reason}): "
        "copy the whole run folder, or evaluate again"
    )
