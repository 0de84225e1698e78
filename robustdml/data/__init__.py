"""Data sets: one reader each, behind one name each. Tensors are made in `robustdml.data.tensors`, which needs torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from robustdml.data.dataset import RetrievalDataset, RetrievalSplit
from robustdml.data.digits import load_digits
from robustdml.data.folder import load_folder
from robustdml.data.grocery import load_grocery
from robustdml.data.images import ArrayImages, FileImages, ImageSource
from robustdml.errors import DataError
from robustdml.registry import Registry

__all__ = [
    "DATASETS",
    "ArrayImages",
    "DatasetReader",
    "FileImages",
    "ImageSource",
    "RetrievalDataset",
    "RetrievalSplit",
    "load_dataset",
]


@dataclass(frozen=True)
class DatasetReader:
    """How to get a data set.

    Attributes:
        name: what the user calls it.
        summary: one line for listings.
        needs_root: whether it lies in a folder of the user's.
        load: from that folder (None where none is needed) to the data set.
    """

    name: str
    summary: str
    needs_root: bool
    load: Callable[[Path | None], RetrievalDataset]


DATASETS: Registry[DatasetReader] = Registry("data set")


def _with_root(name: str, summary: str, load: Callable[[Path], RetrievalDataset]) -> None:
    def checked(root: Path | None) -> RetrievalDataset:
        if root is None:
            raise DataError(f"data set '{name}' is read from a folder: say where it is (root)")
        if not root.is_dir():
            raise DataError(f"the folder '{root}' of data set '{name}' does not exist, or is a file: check the path")
        return load(root)

    DATASETS.add(name, DatasetReader(name, summary, True, checked))


def _built_in(name: str, summary: str, load: Callable[[], RetrievalDataset]) -> None:
    def checked(root: Path | None) -> RetrievalDataset:
        if root is not None:
            raise DataError(f"data set '{name}' is built in and reads no folder: leave out '{root}' (root)")
        return load()

    DATASETS.add(name, DatasetReader(name, summary, False, checked))


_built_in("digits", "handwritten digits, 10 classes, built in: for a first look in seconds", load_digits)
_with_root("folder", "your own images in train/<class>/ and test/<class>/", load_folder)
_with_root("grocery", "Grocery Store Dataset, 81 classes of photos from shops", load_grocery)


def load_dataset(name: str, root: str | Path | None = None) -> RetrievalDataset:
    """Read a data set.

    Args:
        name: one of `DATASETS`.
        root: the folder that holds it, for those that need one; ``~`` is the home folder.

    Raises:
        UnknownNameError: there is no data set of that name.
        DataError: the folder is missing, or not wanted, or does not hold what it should.
    """
    return DATASETS[name].load(None if root is None else Path(root).expanduser())
