"""Which paths are those of files, and which files a list of files may name."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from robustdml.errors import DataError
from robustdml.printable import shown

#: What looks like files there is devices, processes and settings; but for memory that is used as a disk.
_SPECIAL, _ORDINARY = ("/proc", "/sys", "/dev"), ("/dev/shm",)


def special(path: Path) -> bool:
    """Whether a path, wherever its links lead, is one of devices or processes and not of files."""
    try:
        found = Path(os.path.realpath(path))
    except (OSError, ValueError):  # No path at all: whoever opens it says so.
        return False
    places = {str(place) for place in (found, *found.parents)}
    return bool(places & set(_SPECIAL)) and not places & set(_ORDINARY)


def check_inside(files: Iterable[Path], root: Path | None, *, allow_outside: bool) -> None:
    """Refuse files that a list, or a link, of a data set from somewhere else leads to.

    Args:
        files: of the data set.
        root: its folder, which may be a link itself; None where there is none.
        allow_outside: let files lie anywhere but among devices and processes.

    Raises:
        DataError: one lies outside of the folder, or is none.
    """
    home = None if root is None or allow_outside else os.path.realpath(root)
    # Folders are followed once, and files only where they are links: data sets have hundreds of thousands.
    folders: dict[Path, tuple[str, bool]] = {}
    for file in files:
        parent = file.parent
        if parent not in folders:
            real = os.path.realpath(parent)
            folders[parent] = real, _within(home, real) and not special(Path(real))
        real, fits = folders[parent]
        if fits and not file.is_symlink():
            continue
        real = os.path.realpath(file)
        if special(Path(real)):
            raise DataError(f"'{shown(str(file))}' leads to '{shown(real)}', which is no image but the system's own")
        if not _within(home, real):
            raise DataError(
                f"'{shown(str(file))}' leads to '{shown(real)}', outside of the data's folder '{shown(str(root))}': "
                "copy it there, give --root, or --allow-outside (allow_outside=True) if you trust who made the data set"
            )


def _within(home: str | None, path: str) -> bool:
    return home is None or path == home or path.startswith(home.rstrip(os.sep) + os.sep)
