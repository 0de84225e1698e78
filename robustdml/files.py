"""Files that are either whole or absent, and run folders that belong to one run."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from robustdml.errors import RunFolderError

#: Whose the run folder is; and, of an evaluation, what it is going to do.
SPEC_FILE, PLAN_FILE = "spec.json", "plan.json"
_CHECKSUM = "checksum"


def is_there(path: Path) -> bool:
    """Whether there is such a file or folder; no name that the system would refuse is one."""
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, or holds a zero
        return False


def write_bytes(path: Path, data: bytes) -> Path:
    """Write a file under a temporary name and rename it, so that a reader never sees half of it; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_text(path: Path, text: str) -> Path:
    """`write_bytes` for UTF-8 text."""
    return write_bytes(path, text.encode())


def strict_json(data: bytes | str) -> Any:
    """Read JSON that says one thing only: no name twice, no NaN or infinity.

    Raises:
        ValueError: it is no such JSON.
    """
    try:
        return json.loads(data, object_pairs_hook=_each_once, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"'{next(name for name in names if names.count(name) > 1)}' stands there twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def checksum(value: Any) -> str:
    """SHA-256 over what a JSON value says, however it is written."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def sealed(content: Mapping[str, Any]) -> str:
    """The text of a JSON object with a checksum over all of it; `unsealed` reads it."""
    return json.dumps({**content, _CHECKSUM: checksum(dict(content))}, indent=1)


def unsealed(found: Mapping[str, Any]) -> dict[str, Any]:
    """What `sealed` was given, as `strict_json` read it back.

    Raises:
        ValueError: it has no checksum, or was changed since it was written.
    """
    content = {name: value for name, value in found.items() if name != _CHECKSUM}
    if _CHECKSUM not in found:
        raise ValueError("it has no checksum")
    if found[_CHECKSUM] != checksum(content):
        raise ValueError("it was changed since it was written: its content does not fit its checksum")
    return content


def fingerprint(value: Any) -> str:
    """A short hash of a JSON value: the identity of a run."""
    return content_hash(json.dumps(value, sort_keys=True).encode())


def content_hash(data: bytes) -> str:
    """A short hash of bytes, for names of files that are equal when their content is."""
    return hashlib.sha256(data).hexdigest()[:16]


def claim_run_folder(folder: Path, spec: dict[str, Any]) -> str:
    """Make ``folder`` the home of the run that ``spec`` describes, or find that it already is; return the fingerprint.

    Raises:
        RunFolderError: the folder holds another run, or files that are no run, or is a file.
    """
    identity = fingerprint(spec)
    path = folder / SPEC_FILE
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"'{folder}' is a file, not a folder: choose another --out")
    # Folders that a file manager, git or a synchronising program has seen are empty all the same.
    others = [item for item in folder.iterdir() if item != path and item.name[0] != "."] if folder.is_dir() else []
    if path.is_file():
        try:
            found = json.loads(path.read_text())
            there = dict(found["spec"]), found["fingerprint"]
        except (ValueError, KeyError, TypeError):
            raise RunFolderError(f"'{path}' is damaged: choose another --out, or delete that folder") from None
        if there[1] == identity:
            return identity
        # A run that failed before it made anything leaves its spec alone; there is nothing to protect.
        if others:
            if spec.get("kind") != there[0].get("kind"):
                raise RunFolderError(f"'{folder}' holds a run of another command: choose another --out")
            differing = sorted(key for key in {*spec, *there[0]} if spec.get(key) != there[0].get(key))
            named = [_difference(key, there[0].get(key), spec.get(key)) for key in differing]
            raise RunFolderError(
                f"'{folder}' holds another run (it differs in: {', '.join(named)}): "
                "choose another --out, delete that folder, or repeat that run's command to resume it"
            )
    elif others:
        raise RunFolderError(f"'{folder}' is not empty and holds no run of robustdml: choose another --out")
    write_text(path, json.dumps({"fingerprint": identity, "spec": spec}, indent=1))
    return identity


#: What a changed field of a run's identity means, and where it is a table, what a changed value in it means.
_MEANINGS = {
    "dataset_fingerprint": ("the images or the labels of the data set", ""),
    "models": ("the models", "the weights of"),
    "foreign": ("the code of attacks or surrogates", "the code or the surrogate of"),
    "packages": ("the libraries", "the version of"),
    "version": ("the version of robustdml", ""),
}


def _difference(key: str, before: Any, after: Any) -> str:
    whole, part = _MEANINGS.get(key, (key, f"{key} of"))
    try:
        old, new = dict(before), dict(after)
    except (TypeError, ValueError):
        return whole
    changed = [str(name) for name in old if name in new and old[name] != new[name]]
    return f"{part} {', '.join(changed)}" if part and changed and set(old) == set(new) else whole
