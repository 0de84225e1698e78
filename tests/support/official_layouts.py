"""Small imitations of published data sets in their own layouts: enough classes to train on, a colour each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

SIDE = 40
#: Numbers of the classes: twelve on the training side of each split, six on the other.
CUB, CARS = [*range(89, 101), *range(101, 107)], [*range(87, 99), *range(99, 105)]
EACH = 3


def photo(path: Path, label: int, number: int) -> None:
    """A noisy square in the colour of its class."""
    random = np.random.default_rng([label, number])
    colour = np.random.default_rng(label).integers(40, 216, 3)
    pixels = (colour + random.integers(-30, 31, (SIDE, SIDE, 3))).clip(0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def cub(root: Path) -> Path:
    folder, images, classes = root / "CUB_200_2011", [], []
    for label in CUB:
        for number in range(EACH):
            path = f"{label:03d}.Bird/Bird_{number:04d}.jpg"
            photo(folder / "images" / path, label, number)
            images.append(f"{len(images) + 1} {path}\n")
            classes.append(f"{len(images)} {label}\n")
    (folder / "images.txt").write_text("".join(images))
    (folder / "image_class_labels.txt").write_text("".join(classes))
    (folder / "classes.txt").write_text("".join(f"{label} {label:03d}.Bird\n" for label in range(1, 201)))
    return folder


def _annotations(rows: list[tuple[str, int]], file_field: str) -> np.ndarray:
    kinds = [(file_field, object), ("bbox_x1", object), ("class", object), ("test", object)]
    return np.array([(file, 1, label, 0) for file, label in rows], kinds)


_CAR_NAMES = np.array([f"Car {label}" for label in range(1, 197)], object)


def cars(root: Path) -> Path:
    """One list: car_ims/ and cars_annos.mat."""
    folder = root / "cars"
    rows = [(f"car_ims/{label:03d}{number:03d}.jpg", label) for label in CARS for number in range(EACH)]
    for number, (path, label) in enumerate(rows):
        photo(folder / path, label, number)
    savemat(
        folder / "cars_annos.mat", {"annotations": _annotations(rows, "relative_im_path"), "class_names": _CAR_NAMES}
    )
    return folder


def cars_devkit(root: Path) -> Path:
    """Two lists: cars_train/, cars_test/ and devkit/, in which both halves of the classes lie mixed."""
    folder = root / "cars"
    for part, numbers, file in (
        ("train", (0, 1), folder / "devkit" / "cars_train_annos.mat"),
        ("test", (2,), folder / "cars_test_annos_withlabels.mat"),
    ):
        rows = [(f"{label:03d}{number:02d}.jpg", label) for label in CARS for number in numbers]
        for number, (path, label) in enumerate(rows):
            photo(folder / f"cars_{part}" / path, label, number)
        file.parent.mkdir(exist_ok=True)
        savemat(file, {"annotations": _annotations(rows, "fname")})
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": _CAR_NAMES})
    return folder


def sop(root: Path) -> Path:
    folder, place = root / "Stanford_Online_Products", 0
    for part, products in (("train", range(1, 13)), ("test", range(11319, 11325))):
        lines = ["image_id class_id super_class_id path\n"]
        for product in products:
            for number in range(EACH):
                place += 1
                path = f"bicycle_final/{product}_{number}.JPG"
                photo(folder / path, product, number)
                lines.append(f"{place} {product} 1 {path}\n")
        (folder / f"Ebay_{part}.txt").write_text("".join(lines))
    return folder


def inshop(root: Path) -> Path:
    folder, lines = root / "inshop", []
    for item in range(1, 19):
        for number in range(EACH):
            part = "train" if item <= 12 else "query" if number == 0 else "gallery"
            path = f"img/WOMEN/Dresses/id_{item:08d}/{number:02d}_1_front.jpg"
            photo(folder / path, item, number)
            lines.append(f"{path:<70}id_{item:08d} {part}\n")
    (folder / "Eval").mkdir(parents=True)
    head = f"{len(lines)}\nimage_name item_id evaluation_status\n"
    (folder / "Eval" / "list_eval_partition.txt").write_text(head + "".join(lines))
    return folder


#: By the name of a layout; the data set is what stands before the hyphen.
LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "cub": cub, "cars": cars, "cars-devkit": cars_devkit, "sop": sop, "inshop": inshop,
}  # fmt: skip
