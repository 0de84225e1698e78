"""The Grocery Store Dataset (Klasson, Zhang, Kjellström, WACV 2019), in its own layout."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from robustdml.data.dataset import RetrievalDataset
from robustdml.data.images import FileImages
from robustdml.data.official import Publication, folder_with
from robustdml.errors import DataError

GROCERY = Publication(
    title="the Grocery Store Dataset",
    origin="https://github.com/marcusklasson/GroceryStoreDataset",
    layout="dataset/ with classes.csv, train.txt, val.txt, test.txt and the photos",
)


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
    folder = folder_with(root, "classes.csv", "dataset")
    names = _class_names(folder)
    paths: list[Path] = []
    labels: list[int] = []
    asks: list[bool] = []
    for part in ("train", "val", "test"):
        for path, label in _photos(folder, f"{part}.txt", names):
            paths.append(path)
            labels.append(label)
            asks.append(part == "test")
    GROCERY.check_files(paths)
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


def _class_names(folder: Path) -> tuple[str, ...]:
    path = folder / "classes.csv"
    rows = list(csv.DictReader(GROCERY.lines(path)))
    try:
        by_id = {int(row["Class ID (int)"]): row["Class Name (str)"] for row in rows}
    except (KeyError, TypeError, ValueError):
        by_id = {}
    if not by_id or sorted(by_id) != list(range(len(rows))):
        raise DataError(
            f"'{path}' cannot be read: it needs the columns 'Class Name (str)' and 'Class ID (int)', with ids "
            f"from 0 on; {GROCERY.fetch}"
        )
    return tuple(by_id[label] for label in range(len(rows)))


def _photos(folder: Path, name: str, names: tuple[str, ...]) -> list[tuple[Path, int]]:
    form = f"a path, a class id below {len(names)} and a coarse class id, with commas between"
    known = "|".join(str(label) for label in range(len(names)))
    rows = GROCERY.rows(folder / name, rf"(.+?)\s*,\s*({known})\s*,[^,]*", form)
    return [(folder / file, int(label)) for file, label in rows]
