"""What the readers of published data sets share: their lists, their counts, and an error that says what to download."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from robustdml.data.dataset import Integers, RetrievalDataset
from robustdml.data.finding import Finding
from robustdml.data.images import FileImages, ImageSource
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


def by_class_number(
    name: str,
    published: Publication,
    train_classes: int,
    tree: Mapping[str, Sequence[Path]],
    numbers: npt.NDArray[np.int64],
    counts: Mapping[str, int] | None,
) -> RetrievalDataset:
    """A data set of class folders that trains on the first classes and tests on the others, leave-self-out.

    Args:
        tree: the images of each class, in the order of the classes.
        numbers: (N,): the number of the class of each image, from 1 on.
        counts: how many training and test images there must be; None does not ask.

    Raises:
        DataError: there are more or fewer, or see `RetrievalDataset`.
    """
    is_train = numbers <= train_classes
    if counts is not None:
        published.check_counts({"training": int(is_train.sum()), "test": int((~is_train).sum())}, counts)
    present, labels = np.unique(numbers, return_inverse=True)
    seen = int((present <= train_classes).sum())
    return leave_self_out(
        name=name,
        images=FileImages([path for files in tree.values() for path in files]),
        labels=labels,
        class_names=list(tree),
        is_train=is_train,
        protocol=(
            f"Trained on the first {seen} classes of {published.title} and tested on the {len(present) - seen} "
            "unseen others"
        ),
        image_size=224,
    )


def folder_with(root: Path, marker: str, *inner: str) -> Path:
    """The folder that holds ``marker``: ``root``, one in it of the names ``inner``, or any in it; else ``root``.

    Mirrors pack a data set into folders of other names, and so do programs that unpack it.
    """
    named = [root, *(root / name for name in inner)]
    others = [] if any((folder / marker).exists() for folder in named) else folders_in(root)
    others += [folder / name for folder in others for name in inner]
    return next((folder for folder in (*named, *others) if (folder / marker).exists()), root)


def class_folders(images: Path) -> dict[str, list[Path]]:
    """The images of each class folder, both sorted: what mirrors keep that leave the lists out."""
    return Finding(images).classes(images)


def folders_in(root: Path) -> list[Path]:
    """The folders in a folder, sorted, but for hidden ones."""
    return (
        []
        if not root.is_dir()
        else sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    )
