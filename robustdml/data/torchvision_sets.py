"""Data sets that torchvision downloads, made zero-shot: half of the classes trains, the other half is tested."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robustdml.data.dataset import RetrievalDataset
from robustdml.data.images import ArrayImages, FileImages
from robustdml.data.official import Publication, leave_self_out
from robustdml.errors import DataError

Pixels = npt.NDArray[np.uint8]

#: A server that does not answer for so many seconds counts as out of reach.
PATIENCE = 60.0


@dataclass(frozen=True)
class Part:
    """What torchvision calls a split: uint8 pixels (N, H, W, 3) or N paths, N class numbers, and the classes' names."""

    images: Pixels | list[Path]
    labels: Sequence[int]
    names: Sequence[str]


@dataclass(frozen=True)
class TorchvisionSet:
    """How to get a data set out of torchvision.

    Attributes:
        name: what the user calls it.
        summary: one line for listings.
        dataset: the class in ``torchvision.datasets``.
        published: what to download and where it goes, for messages.
        parts: the arguments of each of its splits; all are used.
        read: from an instance of the class to its images and labels, without decoding files.
        image_size: as in `RetrievalDataset`.
        augmentation: as in `RetrievalDataset`.
        apart: whether the authors gave the splits different classes; then the first split trains and the others test.
    """

    name: str
    summary: str
    dataset: str
    published: Publication
    parts: tuple[dict[str, object], ...]
    read: Callable[[Any], Part]
    image_size: int
    augmentation: str
    apart: bool = False


def load_torchvision(entry: TorchvisionSet, root: Path) -> RetrievalDataset:
    """Read a data set as torchvision stores it, and download it where it is not there.

    All splits are joined. The first half of the classes (in torchvision's order, rounded up) trains, the second half is
    tested, leave-self-out; where the authors' own splits differ in their classes, they are kept.

    Args:
        entry: which one.
        root: the folder that torchvision calls root too.

    Raises:
        DataError: it is not there and cannot be downloaded, it is damaged, or images are missing.
    """
    parts = [entry.read(data) for data in _opened(entry, root)]
    names = list(dict.fromkeys(name for part in parts for name in part.names))
    label_of = {name: label for label, name in enumerate(names)}
    labels = np.array([label_of[part.names[label]] for part in parts for label in part.labels], np.int64)
    trained = len(set(parts[0].names)) if entry.apart else (len(names) + 1) // 2
    paths = [path for part in parts if isinstance(part.images, list) for path in part.images]
    images: ArrayImages | FileImages
    if paths:
        entry.published.check_files(paths)
        # torchvision lists some folders in the order of the file system, which differs between machines.
        order = sorted(range(len(paths)), key=lambda row: paths[row].as_posix())
        images, labels = FileImages([paths[row] for row in order]), labels[order]
    else:
        images = ArrayImages(np.concatenate([part.images for part in parts if not isinstance(part.images, list)]))
    split = f"the {trained} classes of its training split" if entry.apart else f"the first {trained} classes"
    return leave_self_out(
        name=entry.name,
        images=images,
        labels=labels,
        class_names=names,
        is_train=labels < trained,
        protocol=(
            f"All images of {entry.published.title}, trained on {split} and tested on the {len(names) - trained} "
            "unseen others"
        ),
        image_size=entry.image_size,
        augmentation=entry.augmentation,
    )


def _opened(entry: TorchvisionSet, root: Path) -> list[Any]:
    # torchvision raises RuntimeError for what is missing, and whatever its parsing meets for what is damaged.
    with suppress(Exception):
        return _open(entry, root, download=False)
    try:
        # Older ones announce what they unpack on standard output, which belongs to results.
        with _patience(PATIENCE), redirect_stdout(sys.stderr):
            return _open(entry, root, download=True)
    except Exception as cause:
        raise DataError(
            f"{entry.published.title} is missing or incomplete in '{root}', and downloading it failed "
            f"({str(cause) or type(cause).__name__}): {entry.published.fetch}"
        ) from cause


def _open(entry: TorchvisionSet, root: Path, download: bool) -> list[Any]:
    # Slow to import, with torch behind it.
    from torchvision import datasets

    kind = getattr(datasets, entry.dataset)
    return [kind(root=str(root), download=download, **options) for options in entry.parts]


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


# torchvision decodes an image whenever its label is asked for, so lists are taken from the attributes below; the tests
# open every data set here with torchvision's own class and notice a renamed one.


def _coloured(data: Any) -> Part:
    return Part(data.data, data.targets, data.classes)


def _grey(data: Any) -> Part:
    return Part(np.repeat(data.data.numpy()[..., None], 3, axis=3), data.targets.tolist(), data.classes)


def _house_numbers(data: Any) -> Part:
    return Part(data.data.transpose(0, 2, 3, 1), data.labels.tolist(), [f"digit {digit}" for digit in range(10)])


def _files(data: Any) -> Part:
    return Part([Path(path) for path in data._image_files], data._labels, data.classes)


def _flowers(data: Any) -> Part:
    # Older versions of torchvision do not know the names.
    names = getattr(data, "classes", [f"flower {number}" for number in range(1, 103)])
    return Part([Path(path) for path in data._image_files], data._labels, names)


def _pets(data: Any) -> Part:
    return Part([Path(path) for path in data._images], data._labels, data.classes)


def _characters(data: Any) -> Part:
    folder, names = Path(data.target_folder), [Path(name).as_posix() for name in data._characters]
    # In the order of the file system: sorted, so that labels are the same on every machine.
    ordered = sorted(names)
    images = [folder / names[label] / file for file, label in data._flat_character_images]
    return Part(images, [ordered.index(names[label]) for _, label in data._flat_character_images], ordered)


_TRAIN_AND_TEST: tuple[dict[str, object], ...] = ({"train": True}, {"train": False})


def _splits(*names: str) -> tuple[dict[str, object], ...]:
    return tuple({"split": name} for name in names)


def _idx_files(folder: str) -> str:
    return f"{folder}/raw/ with the four unpacked files {{train,t10k}}-{{images-idx3,labels-idx1}}-ubyte"


TORCHVISION_SETS = (
    TorchvisionSet(
        "cifar10", "CIFAR-10, 10 classes of small photos", "CIFAR10",
        Publication("CIFAR-10", "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", "cifar-10-batches-py/"),
        _TRAIN_AND_TEST, _coloured, 32, "crop-flip",
    ),
    TorchvisionSet(
        "cifar100", "CIFAR-100, 100 classes of small photos", "CIFAR100",
        Publication("CIFAR-100", "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", "cifar-100-python/"),
        _TRAIN_AND_TEST, _coloured, 32, "crop-flip",
    ),
    TorchvisionSet(
        "mnist", "MNIST, 10 classes of handwritten digits", "MNIST",
        Publication("MNIST", "https://ossci-datasets.s3.amazonaws.com/mnist/", _idx_files("MNIST")),
        _TRAIN_AND_TEST, _grey, 32, "shift",
    ),
    TorchvisionSet(
        "fashion-mnist", "Fashion-MNIST, 10 classes of small grey photos of clothes", "FashionMNIST",
        Publication("Fashion-MNIST", "https://github.com/zalandoresearch/fashion-mnist", _idx_files("FashionMNIST")),
        _TRAIN_AND_TEST, _grey, 32, "shift",
    ),
    TorchvisionSet(
        "kmnist", "KMNIST, 10 classes of cursive Japanese characters", "KMNIST",
        Publication("KMNIST", "http://codh.rois.ac.jp/kmnist/", _idx_files("KMNIST")),
        _TRAIN_AND_TEST, _grey, 32, "shift",
    ),
    TorchvisionSet(
        "svhn", "SVHN, 10 classes of digits from house numbers", "SVHN",
        Publication("SVHN", "http://ufldl.stanford.edu/housenumbers/", "train_32x32.mat and test_32x32.mat"),
        _splits("train", "test"), _house_numbers, 32, "crop",
    ),
    TorchvisionSet(
        "omniglot", "Omniglot, 1,623 handwritten characters of 50 alphabets, split as its authors do", "Omniglot",
        Publication(
            "Omniglot", "https://github.com/brendenlake/omniglot/tree/master/python",
            "omniglot-py/ with images_background.zip, images_evaluation.zip and the folders unpacked from them",
        ),
        ({"background": True}, {"background": False}), _characters, 64, "crop", apart=True,
    ),
    TorchvisionSet(
        "flowers102", "Oxford Flowers 102, 102 classes of flowers", "Flowers102",
        Publication(
            "Oxford Flowers 102", "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
            "flowers-102/ with jpg/ (from 102flowers.tgz), imagelabels.mat and setid.mat",
        ),
        _splits("train", "val", "test"), _flowers, 224, "crop-flip",
    ),
    TorchvisionSet(
        "fgvc-aircraft", "FGVC-Aircraft, 100 variants of aeroplanes", "FGVCAircraft",
        Publication("FGVC-Aircraft", "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/", "fgvc-aircraft-2013b/"),
        _splits("trainval", "test"), _files, 224, "crop-flip",
    ),
    TorchvisionSet(
        "oxford-pets", "Oxford-IIIT Pet, 37 breeds of cats and dogs", "OxfordIIITPet",
        Publication(
            "Oxford-IIIT Pet", "https://www.robots.ox.ac.uk/~vgg/data/pets/",
            "oxford-iiit-pet/ with images/ and annotations/",
        ),
        _splits("trainval", "test"), _pets, 224, "crop-flip",
    ),
    TorchvisionSet(
        "food101", "Food-101, 101 dishes", "Food101",
        Publication("Food-101", "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/", "food-101/"),
        _splits("train", "test"), _files, 224, "crop-flip",
    ),
    TorchvisionSet(
        "dtd", "Describable Textures Dataset, 47 textures", "DTD",
        Publication(
            "Describable Textures Dataset", "https://www.robots.ox.ac.uk/~vgg/data/dtd/ (dtd-r1.0.1.tar.gz)", "dtd/dtd/"
        ),
        _splits("train", "val", "test"), _files, 224, "crop-flip",
    ),
    TorchvisionSet(
        "sun397", "SUN397, 397 kinds of scenes", "SUN397",
        Publication("SUN397", "https://vision.princeton.edu/projects/2010/SUN/ (SUN397.tar.gz)", "SUN397/"),
        ({},), _files, 224, "crop-flip",
    ),
)  # fmt: skip
