"""Files that are either whole or absent: the one way in which this project writes, and JSON that proves itself."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from robustdml.errors import StorageError

_CHECKSUM = "checksum"
#: Of what was being written when a process was killed; its number says which.
_TEMPORARY = re.compile(r"\..*\.(\d+)\.tmp", re.DOTALL)
#: Bytes of a name that a temporary one keeps, so that it is no longer than a file system allows.
_NAME = 200
#: Folders that must stay what they are (see `standing`), and what they are.
_STANDING: dict[str, tuple[int, int]] = {}

#: Why a file cannot be written, and what to do about it, by the error of the system.
_CAUSES = {
    errno.ENOSPC: ("the disk is full", "free some space"),
    errno.EDQUOT: ("your share of the disk is used up", "free some of it"),
    errno.EFBIG: ("files may not become that large", "raise the limit (ulimit -f)"),
    errno.EROFS: ("the disk is read-only", "make it writable or choose another place"),
    errno.EACCES: ("there is no permission", "change its permissions or choose another place"),
    errno.EPERM: ("there is no permission", "change its permissions or choose another place"),
    errno.ENOENT: ("its folder is gone", "see what removes it"),
    errno.ESTALE: ("its folder is gone", "see what removes it"),
    errno.ENOTDIR: ("there is a file in the place of a folder", "move it away or choose another place"),
    errno.EEXIST: ("there is a file in the place of a folder", "move it away or choose another place"),
    errno.EISDIR: ("there is a folder in its place", "move it away or choose another place"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
    errno.EIO: ("the disk reports a fault", "look after the disk"),
}
#: Errors of folders that cannot be brought to the disk by themselves.
_NOT_SYNCED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EACCES, errno.EBADF}


def is_there(path: Path) -> bool:
    """Whether there is such a file or folder; no name that the system would refuse is one."""
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, or holds a zero
        return False


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within the block, ``path`` is written: what the system refuses is said in a sentence.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        unknown = (error.strerror or type(error).__name__, "check the disk and the permissions")
        why, remedy = _CAUSES.get(error.errno or 0, unknown)
        raise StorageError(
            f"'{path}' cannot be written ({why}): what was finished before is kept; {remedy}, and repeat the command "
            "to go on"
        ) from error
    except ValueError as error:  # a name with a zero in it, or one that no file can have
        raise StorageError(f"{str(path)!r} cannot be written ({error}): choose another name") from error


def check_writable(*paths: Path) -> None:
    """Make sure, before hours of computing, that these files will be able to be written; nothing stays behind.

    Raises:
        StorageError: one cannot be written as things are.
    """
    for path in paths:
        with writing(path):
            if path.is_dir():
                raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
            path.is_symlink()  # refuses a name that is too long
            there = next(folder for folder in (path.parent, *path.parent.parents) if is_there(folder))
            with tempfile.TemporaryFile(dir=there):
                pass


@contextmanager
def standing(folder: Path) -> Iterator[None]:
    """Within the block, nothing is written below ``folder`` once it was removed, or replaced by another.

    What a run had finished would be missing there, and the rest would be taken for the whole.
    """
    place = os.path.abspath(folder)  # noqa: PTH100 -- with links as they are
    _STANDING[place] = _which(place)
    try:
        yield
    finally:
        _STANDING.pop(place, None)


def check_standing(folder: Path) -> None:
    """Make sure that all folders of `standing` around ``folder``, or it itself, are what they were.

    Raises:
        StorageError: one was removed or replaced.
    """
    place = os.path.abspath(folder)  # noqa: PTH100
    for known, which in _STANDING.items():
        if place == known or place.startswith(known + os.sep):
            try:
                gone = _which(known) != which
            except OSError:
                gone = True
            if gone:
                raise StorageError(
                    f"'{known}' was removed, moved or replaced while it was written into: put it back and repeat the "
                    "command to go on, or begin anew in another place"
                )


def _which(place: str) -> tuple[int, int]:
    found = os.stat(place)  # noqa: PTH116
    return found.st_dev, found.st_ino


def write_bytes(path: Path, data: bytes) -> Path:
    """Write a file under a temporary name and rename it, so that a reader never sees half of it; return its path.

    When this returns, it is on the disk, and so is its name. What is no ordinary file (``/dev/stdout``, a pipe) is
    written as it is; of a link, what it points to is replaced.

    Raises:
        StorageError: it cannot be written; what was there before is as it was.
    """
    with writing(path):
        if path.exists() and not path.is_file() and not path.is_dir():
            path.write_bytes(data)
            return path
        target = path.resolve() if path.is_symlink() else path
        check_standing(target.parent)
        _make_folders(target.parent)
        if not _STANDING:
            clear_temporaries(target.parent, target.name)
        temporary = target.with_name(f".{_shortened(target.name)}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        _settle(target.parent)
    return path


def _shortened(name: str) -> str:
    return os.fsdecode(os.fsencode(name)[:_NAME])


def _make_folders(folder: Path) -> None:
    """Like ``mkdir -p``; the names of new folders are on the disk, too."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
        if folder == folder.parent:
            break
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        _settle(each.parent)


def _settle(folder: Path) -> None:
    """Bring the names in a folder to the disk, where that is known."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_SYNCED:
            raise
    finally:
        os.close(descriptor)


def clear_temporaries(folder: Path, name: str | None = None) -> None:
    """Take away what processes were writing when they were killed.

    Args:
        folder: in which.
        name: of the file that it would have become; None takes all, below the folder too, which nobody else may be
            writing into.
    """
    found = folder.rglob(".*.tmp") if name is None else folder.glob(f".{glob.escape(_shortened(name))}.*.tmp")
    for path in list(found):
        of = _TEMPORARY.fullmatch(path.name)
        if of and (name is None or not _runs(int(of[1]))):
            with contextlib.suppress(OSError):
                path.unlink()


def _runs(process: int) -> bool:
    """Whether another process of that number is running here."""
    if os.name == "nt" or process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def write_text(path: Path, text: str) -> Path:
    """`write_bytes` for UTF-8 text; half of a character, as names of files can hold, is written as ``\\udcff``."""
    return write_bytes(path, text.encode(errors="backslashreplace"))


def strict_json(data: bytes | str) -> Any:
    """Read JSON that says one thing only: no name twice, no NaN or infinity; and is nested at most 100 times.

    Raises:
        ValueError: it is no such JSON.
    """
    try:
        found = json.loads(data, object_pairs_hook=_each_once, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    # What could just be read may be too deep for what is done with it.
    level = [found]
    for _ in range(_NESTED):
        level = [part for held in level if isinstance(held, _HOLDING) for part in _parts(held)]
    if level:
        raise ValueError("it is nested too deeply")
    return found


#: How often JSON may be nested, and in what.
_NESTED, _HOLDING = 100, (dict, list)


def _parts(held: Any) -> list[Any]:
    """What is in a list or the values of a dict, and may hold more."""
    return [part for part in (held.values() if isinstance(held, dict) else held) if isinstance(part, _HOLDING)]


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
