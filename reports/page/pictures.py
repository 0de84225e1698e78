"""The pictures of a run folder: read only from there, and only when they are pictures."""

from __future__ import annotations

from pathlib import Path

from robustdml.errors import RunFolderError

_SIGNATURES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


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


def _unreadable(folder: Path, name: str, error: OSError | ValueError) -> RunFolderError:
    reason = error.strerror if isinstance(error, OSError) else error
    return RunFolderError(
        f"the picture '{name}' of the results cannot be read from '{folder.resolve()}' ({reason}): "
        "copy the whole run folder, or evaluate again"
    )
