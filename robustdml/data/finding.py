"""The files below a folder: which of them are photos, and why the others are left out."""

from __future__ import annotations

import csv
import io
import os
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from robustdml.errors import DataError
from robustdml.files import write_text
from robustdml.printable import plain, shown

#: By these a file is a photo, whatever is in it: one that cannot be read is a broken photo, and said to be.
IMAGE_SUFFIXES = (
    ".apng", ".avif", ".avifs", ".bmp", ".dib", ".gif", ".heic", ".heics", ".heif", ".heifs", ".hif", ".icns", ".ico",
    ".j2c", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo", ".pbm", ".pcx", ".pgm", ".pjp",
    ".pjpeg", ".png", ".pnm", ".ppm", ".psd", ".sgi", ".tga", ".tif", ".tiff", ".webp",
)  # fmt: skip
#: What cameras keep beside a photo. Many of them hold a thumbnail that would be taken for the photo.
RAW_SUFFIXES = (
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".iiq", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2",
    ".srw", ".x3f",
)  # fmt: skip
_SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "picasa.ini", "icon\r", "zbthumbnail.info"}
_SYSTEM_FOLDERS = {"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"}

HIDDEN, SYSTEM = "hidden files", "files of the system"
DANGLING, CIRCULAR, REPEATED = "links to nothing", "links in a circle", "further links to an image of the class"
TWINS = "equal files under one name in two spellings of Unicode"
NO_IMAGE, RAW, NO_FILE = "files that are no images", "raw files of cameras", "pipes, sockets and devices"
NO_CLASS, NO_PART, EMPTY = (
    "images in no class folder",
    "files outside of the folders that are used",
    "empty class folders",
)
LONELY_ASKERS = "queries with nothing to find, which are searched but do not ask"
LONELY = "queries with nothing to find"
#: In a run folder.
LEFT_OUT_FILE = "left-out.csv"
BROKEN, COPIES = "images that cannot be read", "copies of other images"


@dataclass(frozen=True)
class LeftOut:
    """Files, or queries, that are no part of a data set, with the reason that they share.

    Args:
        reason: a plural: ``hidden files``.
        names: what a person calls each of them, relative to the folder of the data set.
        files: whether they are files that are not used at all, and not only images in one of their roles.
        details: for each what is wrong with it; or nothing.
    """

    reason: str
    names: tuple[str, ...]
    files: bool = True
    details: tuple[str, ...] = ()


@dataclass
class Finding:
    """What is met on the way through a folder.

    Args:
        root: of the data set; names are relative to it.
    """

    root: Path
    _left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, reason: str, path: Path) -> None:
        """Count a file."""
        self._left_out.setdefault(reason, []).append(shown(path.relative_to(self.root).as_posix()))

    def left_out(self) -> tuple[LeftOut, ...]:
        """What was counted, in the order of the first of each reason."""
        return tuple(LeftOut(reason, tuple(names), files=reason != EMPTY) for reason, names in self._left_out.items())

    def count_loose(self, folder: Path) -> int:
        """How many images were found in ``folder`` itself, in no class folder."""
        inside = {shown(path.relative_to(self.root).as_posix()) for path in folder.iterdir()}
        return len(inside & set(self._left_out.get(NO_CLASS, ())))

    def classes(self, folder: Path) -> dict[str, list[Path]]:
        """The images of each class folder in ``folder``, by its name in Unicode's form C; both sorted.

        Raises:
            DataError: a folder cannot be opened.
        """
        found: dict[str, list[Path]] = {}
        for path in _entries(folder):
            if not path.is_dir():
                for file in self._image(path):
                    self.leave_out(NO_CLASS, file)
                continue
            images = list(self.images(path, frozenset({_real(folder)})))
            if images:
                # Macs store other bytes for the same letters: two folders that read alike are one class.
                found.setdefault(_composed(path.name), []).extend(images)
            elif not any(path.iterdir()):
                self.leave_out(EMPTY, path)
        return {name: self._without_repeats(found[name]) for name in sorted(found)}

    def images(self, folder: Path, above: frozenset[str] = frozenset(), why: str | None = None) -> Iterator[Path]:
        """The images below a folder, sorted; links are followed.

        Args:
            above: the real paths of the folders that hold it.
            why: leave all of them out for this reason.

        Raises:
            DataError: a folder cannot be opened.
        """
        why = why or is_passed_over(folder.name)
        here = _real(folder)
        if here in above:
            self.leave_out(CIRCULAR, folder)
            return
        for path in _entries(folder):
            if path.is_dir():
                yield from self.images(path, above | {here}, why)
            elif why:
                self.leave_out(why, path)
            else:
                yield from self._image(path)

    def leave_out_all(self, paths: Iterable[Path], reason: str = NO_PART) -> None:
        """Count files, and all files below folders."""
        for path in paths:
            if path.is_dir():
                for file in self.images(path, why=is_passed_over(path.name) or reason):
                    raise AssertionError(f"'{file}' should have been left out")
            else:
                self.leave_out(is_passed_over(path.name) or reason, path)

    def _image(self, path: Path) -> Iterator[Path]:
        """The file, where it is an image."""
        suffix = path.suffix.lower()
        why = is_passed_over(path.name)
        if not path.exists():
            self.leave_out(DANGLING, path)
        elif why:
            self.leave_out(why, path)
        elif not path.is_file():
            self.leave_out(NO_FILE, path)
        elif suffix in RAW_SUFFIXES:
            self.leave_out(RAW, path)
        elif suffix in IMAGE_SUFFIXES or _begins_as_an_image(path):
            yield path
        else:
            self.leave_out(NO_IMAGE, path)

    def _without_repeats(self, images: list[Path]) -> list[Path]:
        """Each file once: the file itself before links to it, and one of two that read alike and are equal."""
        home = _real(self.root)
        real = {path: _real(path) for path in images}
        first: dict[str, Path] = {}
        for path in sorted(images, key=lambda path: real[path] != str(Path(home, path.relative_to(self.root)))):
            first.setdefault(real[path], path)
        names: dict[str, Path] = {}
        kept = []
        for path in images:
            if first[real[path]] != path:
                self.leave_out(REPEATED, path)
                continue
            twin = names.setdefault(_composed(path.relative_to(self.root).as_posix()), path)
            if twin is not path and twin.read_bytes() == path.read_bytes():
                self.leave_out(TWINS, path)
            else:
                kept.append(path)
        return kept


def said(left_out: Iterable[LeftOut]) -> str:
    """For the end of a sentence: ``; left out: hidden files (2), links to nothing (1)``; empty where nothing was."""
    reasons = ", ".join(f"{part.reason} ({len(part.names):,})" for part in left_out)
    return f"; left out: {reasons}" if reasons else ""


def write_left_out(left_out: Iterable[LeftOut], run: Path) -> None:
    """Write ``left-out.csv`` into a run folder, where anything was: reason, name and detail of each."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("reason", "name", "detail"))
    for part in (parts := tuple(left_out)):
        details = part.details or ("",) * len(part.names)
        pairs = zip(part.names, details, strict=True)
        rows.writerows((part.reason, _cell(name), _cell(detail)) for name, detail in pairs)
    if parts:
        write_text(run / LEFT_OUT_FILE, text.getvalue())


def _cell(text: str) -> str:
    """A text of strangers as a cell: a spreadsheet takes what begins so for a formula, and carries it out."""
    return plain(f"'{text}" if text.lstrip()[:1] in set("=+-@") else text)


def is_passed_over(name: str) -> str | None:
    """Why a file or folder of that name is no part of any data set; None where it may be."""
    if name.startswith("."):
        return HIDDEN
    return SYSTEM if name.lower() in _SYSTEM_FILES | _SYSTEM_FOLDERS else None


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(
            f"the folder '{shown(str(folder))}' cannot be opened ({error.strerror}): check its permissions"
        ) from None


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", shown(name))


def _real(path: Path) -> str:
    return os.path.realpath(path)


def _begins_as_an_image(path: Path) -> bool:
    """By the first bytes, for files whose name does not say it."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError:
        return False
    return (
        start.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*"))
        or (start[:4], start[8:12]) == (b"RIFF", b"WEBP")
        or (start[4:8] == b"ftyp" and start[8:12] in {b"heic", b"heix", b"heif", b"mif1", b"msf1", b"avif", b"avis"})
    )
