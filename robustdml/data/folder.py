"""Your own images: a folder for each class, in parts (train/ and test/, query/ and gallery/) or in none."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robustdml.data.dataset import RetrievalDataset, askers
from robustdml.data.finding import LONELY, LONELY_ASKERS, Finding, LeftOut, is_passed_over, said
from robustdml.data.images import FileImages
from robustdml.data.protocol import SameClass
from robustdml.errors import DataError
from robustdml.printable import shown

#: What folders of each part are called, whatever the case; of several that are there the first is used. Market-1501 has
#: longer names.
_PARTS = {
    "train": ("train", "training", "bounding_box_train"),
    "test": ("test", "testing", "val", "valid", "validation"),
    "query": ("query", "queries"),
    "gallery": ("gallery", "bounding_box_test"),
}
#: Side in pixels to which images of one's own are brought where nobody asks for another.
IMAGE_SIZE = 64


def load_folder(root: Path) -> RetrievalDataset:
    """Images in class folders, where no class is in both the training and the test.

    ``test/<class>/…`` is tested, leave-self-out, or ``query/<class>/…`` against ``gallery/<class>/…`` (also within
    ``test/``); ``train/<class>/…`` is trained on and may be missing. Without such parts all of ``<class>/…`` is tested.
    Links to folders are followed. What is left out is counted: hidden files, files of the system, links to nothing,
    files that are no images by name or first bytes (see `robustdml.data.finding`). Of a class with one image in the
    test that image is searched and does not ask.

    Raises:
        DataError: the folder is missing, there is nothing to test, or a class is in the training and in the test.
    """
    if not root.is_dir():
        raise DataError(f"the image folder '{shown(str(root))}' does not exist, or is a file: check the path")
    home = _unwrapped(root)
    return _loaded(home, _parts(home))


def load_flat(root: Path) -> RetrievalDataset:
    """As `load_folder`, where every folder is a class, whatever it is called: all of them are tested, leave-self-out.

    Raises:
        DataError: the folder is missing, or there is nothing to test.
    """
    if not root.is_dir():
        raise DataError(f"the image folder '{shown(str(root))}' does not exist, or is a file: check the path")
    return _loaded(_unwrapped(root), {})


def title_of(root: Path) -> str:
    """What pages call a data set that lies there: the folder's own name, also of ``.``."""
    return shown(root.resolve().name or str(root.resolve()))


def _loaded(root: Path, parts: dict[str, Path]) -> RetrievalDataset:
    """The data set of the folder, where these parts are in it."""
    found = Finding(root)
    inner = _parts(parts["test"]) if "test" in parts else {}
    apart = next((both for both in (parts, inner) if {"query", "gallery"} <= both.keys()), None)
    if apart:
        tested = [apart["query"], apart["gallery"]]
    elif "test" in parts:
        tested = [parts["test"]]
    elif parts:
        raise DataError(
            f"'{shown(str(root))}' has no folder 'test': it needs test/<class>/ with images (or query/<class>/ and "
            "gallery/<class>/), or no such part at all and a folder for each class"
        )
    else:
        tested = [root]
    training = {} if "train" not in parts else found.classes(parts["train"])
    trees = [training, *(found.classes(folder) for folder in tested)]
    if parts:
        used = [*tested, *([parts["train"]] if "train" in parts else [])]
        # Where query/ and gallery/ lie in test/, what else is there counts too.
        for folder in {path.parent for path in used}:
            found.leave_out_all(sorted(path for path in folder.iterdir() if not _holds(path, used)))
    for folder, tree in zip(tested, trees[1:], strict=True):
        if not tree:
            raise _nothing_in(folder, found)
    names = tuple(sorted({name for tree in trees for name in tree}))
    paths = [path for tree in trees for files in tree.values() for path in files]
    labels = np.array([names.index(name) for tree in trees for name, files in tree.items() for _ in files])
    sizes = np.cumsum([sum(map(len, tree.values())) for tree in trees])
    rows = np.arange(len(paths))
    query, gallery = rows[sizes[0] : sizes[1]], rows[sizes[-2] :]
    asking, lonely = askers(labels, query, gallery, SameClass())
    left_out = found.left_out()
    if lonely.size:
        reason = LONELY if apart else LONELY_ASKERS
        alone = tuple(shown(paths[row].relative_to(root).as_posix()) for row in lonely)
        left_out = (*left_out, LeftOut(reason, alone, files=bool(apart)))
    counts = len(training), len(np.unique(labels[sizes[0] :]))
    return RetrievalDataset(
        name="folder",
        images=FileImages(paths),
        labels=labels,
        class_names=names,
        train=rows[: sizes[0]],
        query=asking,
        gallery=gallery,
        protocol=f"{_sentence(root, parts, tested, counts)}{said(left_out)}.",
        image_size=IMAGE_SIZE,
        augmentation="crop-flip",
        title=title_of(root),
        left_out=left_out,
    )


def _sentence(root: Path, parts: dict[str, Path], tested: list[Path], counts: tuple[int, int]) -> str:
    def place(folder: Path) -> str:
        return "/".join((title_of(root), *map(shown, folder.relative_to(root).parts)))

    trained, classes = counts
    if trained:
        start = f"Trained on the {trained} classes in '{place(parts['train'])}' and tested on the {classes} unseen"
    else:
        start = f"Tested on the {classes}"
    if len(tested) == 2:
        asked, searched = map(place, tested)
        return (
            f"{start} classes in '{asked}' and '{searched}', where each image of the first searches those of the second"
        )
    image = "image" if tested == [root] else "test image"
    return f"{start} classes in '{place(tested[0])}', where each {image} searches all the others"


def _holds(path: Path, used: list[Path]) -> bool:
    """Whether it is one of the folders that are used, or around one of them."""
    return any(path == folder or path in folder.parents for folder in used)


def _nothing_in(folder: Path, found: Finding) -> DataError:
    name = shown(str(folder))
    flat = ", or read each folder as a class (--data flat)" if folder != found.root else ""
    if loose := found.count_loose(folder):
        return DataError(
            f"'{name}' has {loose} images and no class folders: retrieval is judged by classes, so put the images of "
            f"each class or object into a folder of its own, or list them in a table (--data manifest){flat}"
        )
    return DataError(f"'{name}' is empty: it needs a folder with images for each class{said(found.left_out())}")


def _unwrapped(root: Path) -> Path:
    """The folder of the data set, where ``root`` holds nothing but it: archives are often unpacked so."""
    inside = [path for path in root.iterdir() if not is_passed_over(path.name)]
    if len(inside) == 1 and inside[0].is_dir() and not _parts(root) and _has_folders_alone(inside[0]):
        return _unwrapped(inside[0])
    return root


def _has_folders_alone(folder: Path) -> bool:
    inside = [path for path in folder.iterdir() if not is_passed_over(path.name)]
    return bool(inside) and all(path.is_dir() for path in inside)


def _parts(folder: Path) -> dict[str, Path]:
    """The folders of parts; among other classes those that hold files alone are classes too, such as trains."""
    inside = {path.name.lower(): path for path in sorted(folder.iterdir(), reverse=True) if path.is_dir()}
    there = {part: [inside[name] for name in names if name in inside] for part, names in _PARTS.items()}
    parts = {part: found[0] for part, found in there.items() if found}
    others = set(inside) - {name for names in _PARTS.values() for name in names}
    with_classes = {part: found for part, found in parts.items() if not _has_files_alone(found)}
    return parts if with_classes or all(map(is_passed_over, others)) else {}


def _has_files_alone(folder: Path) -> bool:
    inside = [path for path in folder.iterdir() if not is_passed_over(path.name)]
    return bool(inside) and not any(path.is_dir() for path in inside)
