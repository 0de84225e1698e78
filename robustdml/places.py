"""Which paths are those of files, and which files a list of files may name."""

from __future__ import annotations

import os
from pathlib import Path

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
