"""Objects named on a command line or in a file as ``package.module:name``, and what their code was."""

from __future__ import annotations

import hashlib
import importlib
import sys
from pathlib import Path
from typing import Any


def load_object(path: str) -> Any:
    """The object that ``package.module:name`` names.

    Modules are looked for where Python looks, and before that in the folder where the command is given, which a console
    script does not search by itself. ``sys.path`` is left as it was.

    Raises:
        ImportError: there is no such module, or no such name in it; and whatever the module itself raises.
    """
    module, _, name = path.partition(":")
    if not module.strip() or not name.strip():
        raise ImportError(f"'{path}' is not of the form package.module:name")
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        importlib.invalidate_caches()
        found: Any = importlib.import_module(module.strip())
        for part in name.strip().split("."):
            if not hasattr(found, part):
                raise ImportError(f"module '{module.strip()}' has no '{name.strip()}'")
            found = getattr(found, part)
    finally:
        if added and here in sys.path:
            sys.path.remove(here)
    return found


def code_digest(thing: Any) -> str:
    """SHA-256 of the source file of the module that defines a class or function; empty where there is no file."""
    module = sys.modules.get(getattr(thing, "__module__", ""))
    source = getattr(module, "__file__", None)
    try:
        return hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else ""
    except OSError:
        return ""
