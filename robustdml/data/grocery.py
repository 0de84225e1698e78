"""The Grocery Store Dataset (Klasson, Zhang, Kjellström, WACV 2019), in its own layout."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from robustdml.data.dataset import RetrievalDataset
from robustdml.data.images import FileImages
from robustdml.errors import DataError

SOURCE = "the data set comes from github.com/marcusklasson/GroceryStoreDataset"


def load_grocery(root: Path) -> RetrievalDataset:
    """Photos of groceries: trained on one half of the fine classes, tested on the other half.

    The halves are drawn once and for all by ``numpy.random.RandomState(0).permutation`` over the class ids, a stream
    that NumPy guarantees: by id, the seen half would be nearly all fruit and the unseen one vegetables and packages.

    Photos come in bursts, so leaving only the query out would be solved by its neighbours in the burst. The data set's
    ``test`` photos, taken in other shops, are therefore the queries, and ``train`` and ``val`` the gallery. The classes
    are told apart by their id, as the folders spell one of them in two ways.

    Args:
        root: the folder that holds ``dataset/``, or ``dataset/`` itself.

    Raises:
        DataError: a list or a photo is missing, or a list cannot be read.
    """
    folder = root / "dataset" if (root / "dataset").is_dir() else root
    names = _class_names(folder)
    paths: list[Path] = []
    labels: list[int] = []
    asks: list[bool] = []
    for part in ("train", "val", "test"):
        for path, label in _photos(folder, f"{part}.txt", names):
            paths.append(path)
            labels.append(label)
            asks.append(part == "test")
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(paths)} photos are missing, the first is '{missing[0]}': "
            f"copy the data set again; {SOURCE}"
        )
    classes, is_query = np.array(labels), np.array(asks)
    count = (len(names) + 1) // 2
    seen = np.isin(classes, np.random.RandomState(0).permutation(len(names))[:count])
    return RetrievalDataset(
        name="grocery",
        images=FileImages(paths),
        labels=classes,
        class_names=names,
        train=np.flatnonzero(seen),
        query=np.flatnonzero(~seen & is_query),
        gallery=np.flatnonzero(~seen & ~is_query),
        protocol=(
            f"Trained on {count} of {len(names)} fine classes, drawn at random once, and tested on the "
            f"{len(names) - count} unseen ones, where the data set's test photos search its train and val photos."
        ),
        image_size=64,
        augmentation="crop-flip",
        train_query=np.flatnonzero(seen & is_query),
    )


def _read(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError:
        raise DataError(f"the grocery data set has no '{path.name}': it is expected at '{path}'; {SOURCE}") from None


def _class_names(folder: Path) -> tuple[str, ...]:
    path = folder / "classes.csv"
    rows = list(csv.DictReader(_read(path)))
    try:
        by_id = {int(row["Class ID (int)"]): row["Class Name (str)"] for row in rows}
    except (KeyError, TypeError, ValueError):
        by_id = {}
    if not by_id or sorted(by_id) != list(range(len(rows))):
        raise DataError(
            f"'{path}' cannot be read: it needs the columns 'Class Name (str)' and 'Class ID (int)', with ids "
            f"from 0 on; {SOURCE}"
        )
    return tuple(by_id[label] for label in range(len(rows)))


def _photos(folder: Path, name: str, names: tuple[str, ...]) -> list[tuple[Path, int]]:
    photos = []
    for number, line in enumerate(_read(folder / name), start=1):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.rsplit(",", 2)]
        if len(fields) != 3 or not fields[1].isdecimal() or int(fields[1]) >= len(names):
            raise DataError(
                f"line {number} of '{folder / name}' is '{line}': it must be a path, a class id below {len(names)} and "
                f"a coarse class id, with commas between; {SOURCE}"
            )
        photos.append((folder / fields[0], int(fields[1])))
    return photos
