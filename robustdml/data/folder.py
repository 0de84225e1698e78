"""Your own images: a folder for each class, under train/ and test/."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robustdml.data.dataset import RetrievalDataset
from robustdml.data.images import FileImages
from robustdml.errors import DataError

# torchvision's IMG_EXTENSIONS, written out so that listing a folder needs no torch.
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def load_folder(root: Path) -> RetrievalDataset:
    """Images in ``train/<class>/…`` and ``test/<class>/…``, where no class is in both; leave-self-out.

    Hidden files and folders are skipped, and files that are no images by their extension.

    Raises:
        DataError: the folder, train/ or test/ is missing or empty, a class has too few images, or a class is in both.
    """
    if not root.is_dir():
        raise DataError(f"the image folder '{root}' does not exist, or is a file: check the path")
    trees = {part: _tree(root, part) for part in ("train", "test")}
    names = tuple(sorted({*trees["train"], *trees["test"]}))
    label_of = {name: label for label, name in enumerate(names)}
    paths: list[Path] = []
    labels: list[int] = []
    for tree in trees.values():
        for name, files in tree.items():
            paths += files
            labels += [label_of[name]] * len(files)
    size = sum(len(files) for files in trees["train"].values())
    test = np.arange(size, len(paths))
    return RetrievalDataset(
        name="folder",
        images=FileImages(paths),
        labels=np.array(labels),
        class_names=names,
        train=np.arange(size),
        query=test,
        gallery=test,
        protocol=(
            f"Trained on the {len(trees['train'])} classes in '{root.name}/train' and tested on the "
            f"{len(trees['test'])} unseen classes in '{root.name}/test', where each test image searches all the others."
        ),
        image_size=64,
        augmentation="crop-flip",
    )


def _tree(root: Path, part: str) -> dict[str, list[Path]]:
    folder = root / part
    if not folder.is_dir():
        raise DataError(f"'{root}' has no folder '{part}': it needs train/<class>/ and test/<class>/ with images")
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise DataError(f"'{folder}' is empty: it needs a folder with images for each class")
    return {path.name: _images(path) for path in classes}


def _images(folder: Path) -> list[Path]:
    images = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_EXTENSIONS
        and not any(name.startswith(".") for name in path.relative_to(folder).parts)
        and path.is_file()
    )
    if not images:
        raise DataError(
            f"the class folder '{folder}' has no images: add some ({', '.join(IMAGE_EXTENSIONS)}), or delete the folder"
        )
    return images
