"""What the readers of published data sets share: their lists, their counts, and an error that says what to download."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from robustdml.data.dataset import Integers, RetrievalDataset
from robustdml.data.images import ImageSource
from robustdml.data.protocol import Protocol, SameClass
from robustdml.errors import DataError


@dataclass(frozen=True)
class Publication:
    """A data set that others have published, for messages.

    Attributes:
        title: its usual name.
        origin: where it comes from: files and an address.
        layout: what the unpacked folder holds.
    """

    title: str
    origin: str
    layout: str

    @property
    def fetch(self) -> str:
        """What to download and where it goes, for the end of a message."""
        return f"get {self.title} from {self.origin}, and give as root the folder that holds {self.layout}"

    def lines(self, path: Path) -> list[str]:
        """The lines of one of its lists.

        Raises:
            DataError: the file is missing, or is no text.
        """
        try:
            return path.read_text(encoding="utf-8-sig").splitlines()
        except OSError:
            raise DataError(f"{self.title} has no '{path.name}', expected at '{path}': {self.fetch}") from None
        except UnicodeDecodeError:
            raise DataError(f"'{path}' is damaged, as it is no text: {self.fetch}") from None

    def rows(self, path: Path, pattern: str, form: str, header: int = 0) -> list[tuple[str, ...]]:
        """The lines of a list, each taken apart; empty lines are skipped.

        Args:
            path: the list.
            pattern: a regular expression for a whole line, with a group for each value.
            form: the same in words.
            header: how many lines at the top are no data.

        Raises:
            DataError: the file is missing, or a line does not match.
        """
        found = []
        for number, line in enumerate(self.lines(path), start=1):
            if number <= header or not line.strip():
                continue
            match = re.fullmatch(pattern, line.strip())
            if match is None:
                raise DataError(f"line {number} of '{path}' is '{line}': it must be {form}; {self.fetch}")
            found.append(match.groups())
        return found

    def check_files(self, paths: Sequence[Path]) -> None:
        """Make sure that all images are there.

        Raises:
            DataError: some are missing.
        """
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(paths)} images of {self.title} are missing, the first is '{missing[0]}': "
                f"{self.fetch}"
            )

    def check_counts(self, found: Mapping[str, int], expected: Mapping[str, int]) -> None:
        """Make sure that each part has as many images as the published one.

        Raises:
            DataError: a part has more or fewer.
        """
        if dict(found) != dict(expected):
            wanted = ", ".join(f"{count:,} {part}" for part, count in expected.items())
            there = ", ".join(f"{found[part]:,} {part}" for part in expected)
            raise DataError(f"{self.title} has {wanted} images, and {there} were found: {self.fetch}")


def leave_self_out(
    name: str,
    images: ImageSource,
    labels: Integers,
    class_names: Sequence[str],
    is_train: npt.NDArray[np.bool_],
    protocol: str,
    image_size: int,
    augmentation: str = "crop-flip",
    rules: Protocol | None = None,
) -> RetrievalDataset:
    """A data set whose test images are query and gallery at once.

    Args:
        name: as in `RetrievalDataset`, like the others that are not listed here.
        is_train: (N,): which images are trained on; all others are tested.
        protocol: the split in words, without a full stop; how test images search is added.
        rules: None is `SameClass` with its usual metrics.

    Raises:
        DataError: see `RetrievalDataset`.
    """
    test = np.flatnonzero(~is_train)
    return RetrievalDataset(
        name=name,
        images=images,
        labels=labels,
        class_names=tuple(class_names),
        train=np.flatnonzero(is_train),
        query=test,
        gallery=test,
        protocol=f"{protocol}, where each test image searches all the others.",
        image_size=image_size,
        augmentation=augmentation,
        rules=rules or SameClass(),
    )


def folder_with(root: Path, marker: str, *inner: str) -> Path:
    """The folder that holds ``marker``: ``root``, or a folder in it of one of the names ``inner``; else ``root``."""
    return next((folder for folder in (root, *(root / name for name in inner)) if (folder / marker).exists()), root)
