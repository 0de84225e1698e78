"""CUB200-2011 (Wah, Branson, Welinder, Perona, Belongie, 2011), in its own layout."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from robustdml.data.dataset import RetrievalDataset
from robustdml.data.images import FileImages
from robustdml.data.official import Publication, by_class_number, class_folders, folder_with, leave_self_out
from robustdml.errors import DataError

CUB = Publication(
    title="CUB200-2011",
    origin="https://www.vision.caltech.edu/datasets/cub_200_2011/ (CUB_200_2011.tgz)",
    layout="images/, images.txt, image_class_labels.txt and classes.txt",
)
TRAIN_CLASSES = 100
LISTS = ("classes.txt", "image_class_labels.txt", "images.txt")
COUNTS = {"training": 5_864, "test": 5_924}


def load_cub(root: Path, verify: bool = True) -> RetrievalDataset:
    """Birds of 200 species: trained on classes 1 to 100, tested on 101 to 200, leave-self-out (Song et al., 2016).

    A mirror without the lists is read by its class folders, ``images/001.Black_footed_Albatross/`` and so on.

    Args:
        root: the unpacked folder ``CUB_200_2011``, or the folder that holds it.
        verify: whether the counts must be those of the published data set.

    Raises:
        DataError: a list or an image is missing, a list cannot be read, or there are more or fewer images.
    """
    folder = folder_with(root, "images.txt", "CUB_200_2011", "cub200")
    if not (folder / "images.txt").exists():
        images = folder_with(root, "images", "CUB_200_2011", "cub200") / "images"
        if images.is_dir() and not any((images.parent / name).exists() for name in LISTS):
            return _from_folders(images, verify)
    name_of = _table(folder / "classes.txt", r"(\d+)\s+(\S.*)", "a class id and a name")
    class_of = _table(folder / "image_class_labels.txt", r"(\d+)\s+(\d+)", "an image id and a class id")
    path_of = _table(folder / "images.txt", r"(\d+)\s+(\S.*)", "an image id and a path")
    ids = [_entry(class_of, image, "image_class_labels.txt") for image in path_of]
    present, labels = np.unique([int(number) for number in ids], return_inverse=True)
    is_train = present[labels] <= TRAIN_CLASSES
    if verify:
        CUB.check_counts({"training": int(is_train.sum()), "test": int((~is_train).sum())}, COUNTS)
    paths = [folder / "images" / path for path in path_of.values()]
    CUB.check_files(paths)
    seen = int((present <= TRAIN_CLASSES).sum())
    return leave_self_out(
        name="cub",
        images=FileImages(paths),
        labels=labels,
        class_names=[_entry(name_of, str(number), "classes.txt") for number in present],
        is_train=is_train,
        protocol=(
            f"Trained on the first {seen} classes of CUB200-2011 and tested on the {len(present) - seen} unseen others"
        ),
        image_size=224,
    )


def _from_folders(images: Path, verify: bool) -> RetrievalDataset:
    """By the names of the class folders, which begin with the number of the class."""
    tree = class_folders(images)
    numbers = [re.match(r"\d+(?=\.)", name) for name in tree]
    if not all(numbers):
        wrong = next(name for name, number in zip(tree, numbers, strict=True) if not number)
        raise DataError(
            f"the class folder '{wrong}' in '{images}' begins with no class number (001.Black_footed_Albatross): "
            f"{CUB.fetch}"
        )
    ids = np.repeat([int(number[0]) for number in numbers if number], [len(files) for files in tree.values()])
    return by_class_number("cub", CUB, TRAIN_CLASSES, tree, ids, COUNTS if verify else None)


def _table(path: Path, pattern: str, form: str) -> dict[str, str]:
    table: dict[str, str] = {}
    for number, value in CUB.rows(path, pattern, f"{form}, with a space between"):
        table[number] = value
    return table


def _entry(table: dict[str, str], number: str, name: str) -> str:
    if number not in table:
        raise DataError(f"'{name}' of CUB200-2011 has no line for number {number}: {CUB.fetch}")
    return table[number]
