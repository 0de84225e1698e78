"""Data sets: one reader each, behind one name each. Tensors are made in `robustdml.data.tensors`, which needs torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from robustdml.data.cars import load_cars
from robustdml.data.cub import load_cub
from robustdml.data.dataset import RetrievalDataset, RetrievalSplit
from robustdml.data.digits import load_digits
from robustdml.data.finding import LeftOut
from robustdml.data.folder import load_flat, load_folder
from robustdml.data.grocery import load_grocery
from robustdml.data.images import ArrayImages, FileImages, ImageSource
from robustdml.data.inshop import load_inshop
from robustdml.data.manifest import load_manifest
from robustdml.data.place import load_place, looks_like_a_place
from robustdml.data.protocol import Protocol, Reidentification, SameClass
from robustdml.data.sop import load_sop
from robustdml.data.torchvision_sets import TORCHVISION_SETS, load_torchvision
from robustdml.errors import DataError
from robustdml.places import check_inside
from robustdml.registry import Registry
from robustdml.values import place as given_place

__all__ = [
    "DATASETS",
    "ArrayImages",
    "DatasetReader",
    "FileImages",
    "ImageSource",
    "LeftOut",
    "Protocol",
    "Reidentification",
    "RetrievalDataset",
    "RetrievalSplit",
    "SameClass",
    "load_dataset",
]


@dataclass(frozen=True)
class DatasetReader:
    """How to get a data set.

    Attributes:
        name: what the user calls it.
        summary: one line for listings.
        needs_root: whether it lies in a folder (or a file) of the user's.
        load: from that path (None where none is needed) to the data set.
    """

    name: str
    summary: str
    needs_root: bool
    load: Callable[[Path | None], RetrievalDataset]


DATASETS: Registry[DatasetReader] = Registry("data set")


def _with_root(name: str, summary: str, load: Callable[[Path], RetrievalDataset], may_be_file: bool = False) -> None:
    DATASETS.add(name, DatasetReader(name, summary, True, partial(_read, name, load, may_be_file)))


def _read(
    name: str, load: Callable[[Path], RetrievalDataset], may_be_file: bool, root: Path | None
) -> RetrievalDataset:
    if root is None:
        where = "a folder or a file" if may_be_file else "a folder"
        here = f"; if you mean the folder '{name}' that is here, write ./{name}" if Path(name).exists() else ""
        raise DataError(f"data set '{name}' is read from {where}: say where it is (root){here}")
    if may_be_file and not root.exists():
        raise DataError(f"the folder or file '{root}' of data set '{name}' does not exist: check the path")
    if not may_be_file and not root.is_dir():
        raise DataError(f"the folder '{root}' of data set '{name}' does not exist, or is a file: check the path")
    return load(root)


def _built_in(name: str, summary: str, load: Callable[[], RetrievalDataset]) -> None:
    DATASETS.add(name, DatasetReader(name, summary, False, partial(_own, name, load)))


def _own(name: str, load: Callable[[], RetrievalDataset], root: Path | None) -> RetrievalDataset:
    if root is not None:
        raise DataError(f"data set '{name}' is built in and reads no folder: leave out '{root}' (root)")
    return load()


_built_in("digits", "handwritten digits, 10 classes, built in: for a first look in seconds", load_digits)
_with_root("folder", "your own images in <class>/, or in parts such as train/<class>/ and test/<class>/", load_folder)
_with_root("flat", "your own images in <class>/, where no folder is a part, whatever it is called", load_flat)
_with_root("manifest", "your own images in a CSV or Parquet table, as in open-metric-learning", load_manifest, True)
_with_root("grocery", "Grocery Store Dataset, 81 classes of photos from shops", load_grocery)
_with_root("cub", "CUB200-2011, 200 species of birds", load_cub)
_with_root("cars", "CARS196 (Stanford Cars), 196 models of cars", load_cars)
_with_root("sop", "Stanford Online Products, 22,634 products", load_sop)
_with_root("inshop", "In-Shop Clothes Retrieval (DeepFashion), 7,982 items, query and gallery apart", load_inshop)
for _entry in TORCHVISION_SETS:
    _with_root(_entry.name, f"{_entry.summary}; downloaded by torchvision", partial(load_torchvision, _entry))


def load_dataset(
    name: Any, root: str | Path | None = None, *, skip_missing: bool = False, allow_outside: bool = False
) -> RetrievalDataset:
    """Read a data set.

    Its images lie below its folder, wherever links lead and whatever a table says: see ``allow_outside``.

    Args:
        name: one of `DATASETS`; or a path, of which it is then found out what lies there: a table, a published data
            set, or a folder of classes; or a table as a frame of pandas, polars or pyarrow.
        root: the folder that holds a data set of such a name, for those that need one; beside the path of a table, the
            folder that its relative paths start from. ``~`` is the home folder.
        skip_missing: of a table, leave out rows whose image is not there, and count them.
        allow_outside: let images lie anywhere but among devices and processes. A frame is the program's own and may
            name any.

    Raises:
        UnknownNameError: there is no data set of that name.
        DataError: the folder is missing, or not wanted, or does not hold what it should; or an image lies outside.
    """
    place = None if root is None else given_place("root", root)
    name = Path(name) if isinstance(name, os.PathLike) else name
    if not isinstance(name, str | Path):
        found, home = load_manifest(name, place, skip_missing=skip_missing), None
    else:
        found = _load_named(name, place, skip_missing=skip_missing)
        home = place or Path(name).expanduser()
        home = home.parent if home.is_file() else home
    if isinstance(found.images, FileImages):
        check_inside(found.images.files, home, allow_outside=allow_outside)
    return found


def _load_named(name: str | Path, place: Path | None, *, skip_missing: bool) -> RetrievalDataset:
    text = str(name)
    if isinstance(name, Path) or (text not in DATASETS and looks_like_a_place(text)):
        return load_place(Path(name).expanduser(), place, skip_missing=skip_missing)
    if text == "manifest" and place is not None and place.exists() and skip_missing:
        return load_manifest(place, skip_missing=True)
    return DATASETS[text].load(place)
