"""Run folders: each belongs to one run, and one process at a time writes into it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from robustdml.errors import RunFolderError, StorageError
from robustdml.files import check_standing, clear_temporaries, fingerprint, standing, strict_json, write_text, writing
from robustdml.printable import plain

#: Whose the run folder is; and, of an evaluation, what it is going to do.
SPEC_FILE, PLAN_FILE = "spec.json", "plan.json"
#: There while a process writes into the folder: what it holds, and who it is.
LOCK_FILE, WRITER_FILE = ".lock", ".writer.json"
#: Errors of file systems that know no locks.
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}


@contextmanager
def claimed(folder: Path, spec: dict[str, Any]) -> Iterator[str]:
    """Within the block, ``folder`` is the home of the run that ``spec`` describes, and of no other process.

    What processes that were killed had begun to write there is taken away. Gives the fingerprint of the spec.

    Raises:
        RunFolderError: the folder holds another run, or files that are no run, or is a file; or another process is
            writing into it.
        StorageError: it cannot be written into.
    """
    _check(folder, spec)
    with _alone(folder):
        if not _check(folder, spec):
            write_text(folder / SPEC_FILE, json.dumps({"fingerprint": fingerprint(spec), "spec": spec}, indent=1))
        clear_temporaries(folder)
        yield fingerprint(spec)


def _check(folder: Path, spec: dict[str, Any]) -> bool:
    """Whether the folder says that it is the home of this run; raises where it must not become it."""
    path = folder / SPEC_FILE
    with writing(folder):
        if folder.exists() and not folder.is_dir():
            raise RunFolderError(f"'{folder}' is a file, not a folder: choose another --out")
        # Folders that a file manager, git or a synchronising program has seen are empty all the same.
        others = [item for item in folder.iterdir() if item != path and item.name[0] != "."] if folder.is_dir() else []
        data = path.read_bytes() if path.is_file() else None
    if data is None:
        if others:
            raise RunFolderError(f"'{folder}' is not empty and holds no run of robustdml: choose another --out")
        return False
    try:
        found = strict_json(data)
        there = dict(found["spec"]), found["fingerprint"]
    except (ValueError, KeyError, TypeError):
        raise RunFolderError(f"'{path}' is damaged: choose another --out, or delete that folder") from None
    if there[1] == fingerprint(spec):
        return True
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
    return False


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Within the block, no other process is in one of the same folder; a lock ends with the process that holds it."""
    from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

    path = folder / LOCK_FILE
    lock: BaseFileLock = FileLock(path)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            try:
                lock.acquire(blocking=False)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                lock = SoftFileLock(path)
                lock.acquire(blocking=False)
        except Timeout:
            raise RunFolderError(_taken(folder)) from None
    try:
        with standing(folder):
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            about = {"process": os.getpid(), "host": socket.gethostname(), "since": now}
            try:
                write_text(folder / WRITER_FILE, json.dumps(about))
                yield
            finally:
                with contextlib.suppress(OSError, StorageError):
                    check_standing(folder)
                    (folder / WRITER_FILE).unlink(missing_ok=True)
                    # While it is held: who has opened it meanwhile finds that it is gone, and makes another.
                    if not isinstance(lock, SoftFileLock):
                        path.unlink()
    finally:
        lock.release()


def _taken(folder: Path) -> str:
    """Who is writing into the folder, since when, and what can be done."""
    who, since = "another process", ""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found = strict_json((folder / WRITER_FILE).read_bytes())
        begun = datetime.fromisoformat(found["since"])
        minutes = (datetime.now(timezone.utc) - begun).total_seconds() / 60
        host = "" if found["host"] == socket.gethostname() else f" on {plain(str(found['host']))[:60]}"
        who, since = f"process {int(found['process'])}{host}", f" for {max(0, minutes):.0f} minutes"
    return f"'{folder}' is being written by {who}{since}: wait for it, stop it, or choose another --out"


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
