"""CARS196, or Stanford Cars (Krause, Stark, Deng, Fei-Fei, 2013), in either of its two layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robustdml.data.dataset import RetrievalDataset
from robustdml.data.images import FileImages
from robustdml.data.official import Publication, by_class_number, class_folders, folder_with, leave_self_out
from robustdml.errors import DataError

CARS = Publication(
    title="CARS196",
    origin=(
        "a mirror of https://ai.stanford.edu/~jkrause/cars/car_dataset.html (car_ims.tgz with cars_annos.mat; or "
        "cars_train.tgz, cars_test.tgz, car_devkit.tgz and cars_test_annos_withlabels.mat)"
    ),
    layout="car_ims/ and cars_annos.mat; or cars_train/, cars_test/, devkit/ and cars_test_annos_withlabels.mat",
)
TRAIN_CLASSES = 98
COUNTS = {"training": 8_054, "test": 8_131}
LISTS = ("cars_annos.mat", "cars_test_annos_withlabels.mat")


def load_cars(root: Path, verify: bool = True) -> RetrievalDataset:
    """Photos of 196 car models: trained on classes 1 to 98, tested on 99 to 196, leave-self-out (Song et al., 2016).

    A mirror without the lists, ``images/<class>/…``, is read by the names of its class folders, whose order in ASCII is
    that of the class ids.

    Args:
        root: the folder that holds ``cars_annos.mat``, or ``devkit/`` and ``cars_test_annos_withlabels.mat`` (which may
            lie in ``devkit/`` as well), or torchvision's ``stanford_cars/`` with these.
        verify: whether the counts must be those of the published data set.

    Raises:
        DataError: a list or an image is missing, a list cannot be read, or there are more or fewer images.
    """
    folder = folder_with(root, "cars_annos.mat")
    mirror = folder_with(root, "images", "cars196") / "images"
    lists = folder_with(root, "cars_test_annos_withlabels.mat", "devkit", "stanford_cars")
    if mirror.is_dir() and not any((place / name).exists() for place in (folder, lists) for name in LISTS):
        return _from_folders(mirror, verify)
    if (folder / "cars_annos.mat").is_file():
        paths, ids, names = _one_list(folder)
    else:
        paths, ids, names = _devkit(folder_with(root, "cars_train", "stanford_cars"))
    images = FileImages(paths)
    present, labels = np.unique(ids, return_inverse=True)
    if present[0] < 1 or present[-1] > len(names):
        raise DataError(f"a class id of CARS196 is not between 1 and {len(names)}, the number of names: {CARS.fetch}")
    is_train = present[labels] <= TRAIN_CLASSES
    if verify:
        CARS.check_counts({"training": int(is_train.sum()), "test": int((~is_train).sum())}, COUNTS)
    CARS.check_files(paths)
    seen = int((present <= TRAIN_CLASSES).sum())
    return leave_self_out(
        name="cars",
        images=images,
        labels=labels,
        class_names=[names[number - 1] for number in present],
        is_train=is_train,
        protocol=(
            f"Trained on the first {seen} classes of CARS196 and tested on the {len(present) - seen} unseen others"
        ),
        image_size=224,
    )


Listed = tuple[list[Path], npt.NDArray[np.int64], list[str]]


def _one_list(folder: Path) -> Listed:
    path = folder / "cars_annos.mat"
    files, ids = _annotations(path, "relative_im_path")
    return [folder / file for file in files], ids, _names(path)


def _from_folders(images: Path, verify: bool) -> RetrievalDataset:
    tree = class_folders(images)
    numbers = np.repeat(np.arange(1, len(tree) + 1), [len(files) for files in tree.values()])
    # Of a part of the data set the numbers of its classes cannot be known.
    trained = TRAIN_CLASSES if verify or len(tree) > TRAIN_CLASSES else (len(tree) + 1) // 2
    return by_class_number("cars", CARS, trained, tree, numbers, COUNTS if verify else None)


def _nested(folder: Path) -> Path:
    """``cars_train/``, or ``cars_train/cars_train/`` as some mirrors have it."""
    return folder / folder.name if (folder / folder.name).is_dir() else folder


def _devkit(folder: Path) -> Listed:
    devkit = folder_with(folder, "cars_train_annos.mat", "devkit", "car_devkit/devkit")
    answers = folder_with(folder, "cars_test_annos_withlabels.mat", "devkit") / "cars_test_annos_withlabels.mat"
    train, train_ids = _annotations(devkit / "cars_train_annos.mat", "fname")
    test, test_ids = _annotations(answers, "fname")
    photos = {part: _nested(folder / part) for part in ("cars_train", "cars_test")}
    paths = [*(photos["cars_train"] / file for file in train), *(photos["cars_test"] / file for file in test)]
    return paths, np.concatenate([train_ids, test_ids]), _names(devkit / "cars_meta.mat")


def _annotations(path: Path, file_field: str) -> tuple[list[str], npt.NDArray[np.int64]]:
    table = _variable(path, "annotations")
    if not table.dtype.names or not {file_field, "class"} <= set(table.dtype.names):
        raise DataError(f"the annotations in '{path}' have no fields '{file_field}' and 'class': {CARS.fetch}")
    return [str(file) for file in table[file_field]], table["class"].astype(np.int64)


def _names(path: Path) -> list[str]:
    return [str(name) for name in _variable(path, "class_names")]


def _variable(path: Path, name: str) -> npt.NDArray[Any]:
    # Slow to import, and no other data set needs it.
    from scipy.io import loadmat

    if not path.is_file():
        raise DataError(f"CARS196 has no '{path.name}', expected at '{path}': {CARS.fetch}")
    try:
        return np.atleast_1d(loadmat(path, squeeze_me=True)[name])
    # What scipy raises for a damaged file depends on where the damage is: ValueError, TypeError, zlib.error, KeyError …
    except Exception as cause:
        raise DataError(f"'{path}' is damaged, or has no '{name}' ({cause}): {CARS.fetch}") from cause
