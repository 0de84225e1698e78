"""Data sets of PyTorch, with their transforms: as pytorch-metric-learning, torchvision and training loops have them."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from robustdml.data import FileImages, ImageSource, RetrievalDataset, SameClass
from robustdml.data.dataset import askers
from robustdml.data.tensors import ImageTensors
from robustdml.errors import DataError, SpecError
from robustdml.evaluation import Subject
from robustdml.models.sources.sourced import Found, SourcedModel
from robustdml.preprocessing import Preprocessing
from robustdml.values import ByValue, brief

Integers = npt.NDArray[np.int64]

#: Steps of torchvision's transforms that change no pixel's place or range but to [0, 1].
_CONVERSIONS = {"ToTensor", "PILToTensor", "ToImage", "ToImageTensor", "ToPILImage", "ToPureTensor", "Identity"}
_TYPES = {"ConvertImageDtype", "ToDtype", "ConvertDtype"}
#: The largest mean difference, in pixels of [0, 1], between an image as its transform gives it and as is done here.
_ALIKE = 0.02
_TRIED = 3
_HELP = "give the transform of the test (Resize, CenterCrop, ToTensor, Normalize), or a RetrievalDataset and a model"


@dataclass(frozen=True)
class TorchData:
    """A data set of PyTorch as one for retrieval.

    Args:
        dataset: its images as they are before the transform.
        view: what the transform does to them, normalisation included; None where it has none.
    """

    dataset: RetrievalDataset
    view: Preprocessing | None

    def seen_by(self, subject: Subject) -> Subject:
        """A model that says nothing of its images gets them as the transform gives them."""
        if self.view is None or self.view.mean is None or subject.preprocessing is not None:
            return subject
        found = Found(subject.module, subject.architecture, self.view)
        return replace(subject, module=SourcedModel(found, self.view).train(subject.module.training))


def is_torch_data(data: Any) -> bool:
    """Whether something is a data set of PyTorch, or queries and gallery as a pair of such."""
    if isinstance(data, tuple | list):
        return len(data) == 2 and all(isinstance(part, Dataset) for part in data)
    return isinstance(data, Dataset)


def torch_data(data: Any) -> TorchData:
    """Read a data set that gives pairs of an image and a label.

    Args:
        data: a `torch.utils.data.Dataset` whose attribute ``transform`` (or ``transforms``) holds torchvision's, as
            those of torchvision and pytorch-metric-learning do, also within `torch.utils.data.Subset`; or a pair of
            such, queries and gallery. Without a transform its images are Pillow's, or tensors ``(3, H, W)`` in [0, 1],
            which are rounded to 8 bits.

    Raises:
        DataError: it gives something else, or no query has anything to find.
        SpecError: its transform draws at random, or does more than to resize, to cut out the centre and to normalise.
    """
    parts = [_Part(part) for part in (data if isinstance(data, tuple | list) else [data])]
    views = {part.view for part in parts}
    if len(views) > 1:
        raise SpecError("queries and gallery have different transforms: give them the same")
    sizes = np.cumsum([0, *(len(part) for part in parts)])
    labels = [label for part in parts for label in part.labels()]
    names = [part.class_names for part in parts if part.class_names]
    classes, places = np.unique(np.array([str(label) for label in labels]), return_inverse=True)
    if names and all(isinstance(label, int) and 0 <= label < len(names[0]) for label in labels):
        class_names: tuple[str, ...] = tuple(map(str, names[0]))
        places = np.array(labels, np.int64)
    else:
        class_names = tuple(map(str, classes))
    rows = np.arange(sizes[-1])
    query, gallery = (rows, rows) if len(parts) == 1 else (rows[: sizes[1]], rows[sizes[1] :])
    places = places.astype(np.int64)
    asking, lonely = askers(places, query, gallery, SameClass())
    said = f"; {len(lonely)} that have nothing to find do not ask" if len(lonely) else ""
    images = _joined(parts)
    first = np.asarray(images.load(0)).shape
    read = next(iter(views))
    view = None if read is None else read.at((first[0], first[1]))
    dataset = RetrievalDataset(
        name=type(parts[0].base).__name__,
        images=images,
        labels=places,
        class_names=class_names,
        train=np.empty(0, np.int64),
        query=asking,
        gallery=gallery,
        protocol=f"{len(asking)} queries search {len(gallery)} images of a data set of PyTorch{said}.",
        image_size=max(first[:2]),
        augmentation="none",
    )
    if view is not None:
        _check_alike(parts[0], ImageTensors(images, dataset.image_size).prepared(view), view)
    return TorchData(dataset, view)


@dataclass(frozen=True)
class _Read:
    """What a transform does; ``size`` 0 where it leaves the images their own."""

    size: int = 0
    height: int = 0
    resize: int = 0
    squash: bool = False
    interpolation: str = "bilinear"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def at(self, sides: tuple[int, int]) -> Preprocessing:
        height, width = (self.height, self.size) if self.size else sides
        return Preprocessing(
            width,
            self.resize or width,
            squash=self.squash or (not self.size and height != width),
            interpolation=self.interpolation,  # type: ignore[arg-type]
            mean=self.mean,  # type: ignore[arg-type]
            std=self.std,  # type: ignore[arg-type]
            height=height,
        )


def _read_transform(transform: Any) -> _Read:
    """What is done to an image, step by step.

    Raises:
        SpecError: something that is not to be read off.
    """
    found = _Read()
    for step in _steps(transform):
        kind = type(step).__name__
        if kind in _CONVERSIONS or kind in _TYPES:
            continue
        if kind == "Resize":
            sides = step.size if isinstance(step.size, int) else tuple(step.size)
            sides = sides[0] if isinstance(sides, tuple) and len(sides) == 1 else sides
            way = str(getattr(step.interpolation, "value", step.interpolation)).removesuffix("-exact")
            if isinstance(sides, int):
                found = replace(found, size=sides, height=sides, resize=sides, interpolation=way)
            else:
                height, width = sides
                found = replace(found, size=width, height=height, resize=width, squash=True, interpolation=way)
        elif kind == "CenterCrop" and found.size:
            height, width = step.size if isinstance(step.size, Sequence) else (step.size, step.size)
            found = replace(found, size=width, height=height)
        elif kind == "Normalize":
            found = replace(found, mean=tuple(map(float, step.mean)), std=tuple(map(float, step.std)))
        elif kind == "ImageClassification":  # torchvision's, of published weights
            cut, resized = step.crop_size[0], step.resize_size[0]
            way = str(step.interpolation.value)
            found = _Read(cut, cut, resized, False, way, tuple(step.mean), tuple(step.std))
        else:
            reason = (
                "draws at random"
                if kind.startswith(("Random", "Auto", "Trivial", "Aug", "Color"))
                else "is unknown here"
            )
            raise SpecError(f"the transform of the data set has a step '{kind}', which {reason}: {_HELP}")
    return found


def _steps(transform: Any) -> Iterator[Any]:
    inner = transform if isinstance(transform, nn.Sequential | list) else getattr(transform, "transforms", None)
    # The pair of transforms of an image and its label, as torchvision's data sets keep them.
    if type(transform).__name__ == "StandardTransform":
        inner = [] if transform.transform is None else [transform.transform]
    if inner is None:
        yield transform
        return
    for step in inner:
        yield from _steps(step)


def _as_it_is(*given: Any) -> Any:
    """A transform that does nothing."""
    return given if len(given) > 1 else given[0]


class _Part:
    """A data set and which of its items are used."""

    def __init__(self, dataset: Any) -> None:
        self.given = dataset
        rows: Integers | None = None
        while isinstance(dataset, Subset):
            own = np.asarray(dataset.indices, np.int64)
            rows = own if rows is None else own[rows]
            dataset = dataset.dataset
        if not hasattr(dataset, "__len__") or not len(dataset):
            raise DataError(f"the data set {type(dataset).__name__} has no length, or is empty: give one with images")
        self.rows = np.arange(len(dataset)) if rows is None else rows
        self.base = dataset
        transform = getattr(dataset, "transform", None) or getattr(dataset, "transforms", None)
        self.view = None if transform is None else _read_transform(transform)
        self.raw = self._without_transforms(None)
        try:
            _item(self.raw, int(self.rows[0]))
        except TypeError:  # It calls its transform without asking whether there is one.
            self.raw = self._without_transforms(_as_it_is)
        except Exception:
            pass  # An image that cannot be read is told of where all are looked at.
        self.class_names = tuple(map(str, getattr(dataset, "classes", ()) or ()))

    def _without_transforms(self, instead: Callable[..., Any] | None) -> Any:
        """The data set with something in place of its transforms."""
        raw = copy.copy(self.base)
        for name in ("transform", "transforms", "target_transform"):
            if getattr(raw, name, None) is not None:
                setattr(raw, name, instead)
        return raw

    def __len__(self) -> int:
        return len(self.rows)

    def labels(self) -> list[Any]:
        """One for each item that is used."""
        known = next((getattr(self.base, name) for name in ("targets", "labels") if hasattr(self.base, name)), None)
        if known is not None and getattr(self.base, "target_transform", None) is None and len(known) == len(self.base):
            return [_label(known[row]) for row in self.rows.tolist()]
        return [_label(_item(self.given, place)[1]) for place in range(len(self))]

    def paths(self) -> list[Path] | None:
        """Where its images lie, as in torchvision's folders; None where they are not files."""
        samples = getattr(self.base, "samples", None)
        if not isinstance(samples, list) or not all(
            isinstance(one, tuple) and isinstance(one[0], str) for one in samples
        ):
            return None
        return [Path(samples[row][0]) for row in self.rows.tolist()]


def _item(dataset: Any, place: int) -> tuple[Any, Any]:
    item = dataset[place]
    if isinstance(item, dict):
        item = (item.get("data", item.get("image")), item.get("target", item.get("label")))
    if not isinstance(item, tuple | list) or len(item) < 2 or item[0] is None or item[1] is None:
        raise DataError(
            f"the data set {type(dataset).__name__} gives {type(item).__name__} where an image and its label are needed"
        )
    return item[0], item[1]


def _label(label: Any) -> int | str:
    try:
        plain = label.item() if hasattr(label, "item") and getattr(label, "size", None) is not None else label
    except (RuntimeError, ValueError):  # several numbers, such as a row of zeros and a one
        plain = label
    if isinstance(plain, bool | float) or not isinstance(plain, int | str):
        raise DataError(
            f"the label {brief(label)} of the data set is no whole number and no text: give one for each image"
        )
    return plain


class TorchImages(ByValue):
    """Images of data sets of PyTorch, as they are before the transform.

    Args:
        parts: each with its items.
    """

    def __init__(self, parts: Sequence[_Part]) -> None:
        self._parts = tuple(parts)

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def load(self, index: int) -> Image.Image:
        """The image, mode RGB.

        Raises:
            DataError: what the data set gives is no image in [0, 1].
        """
        for part in self._parts:
            if index < len(part):
                return _picture(_item(part.raw, int(part.rows[index]))[0])
            index -= len(part)
        raise IndexError(index)

    def name(self, index: int) -> str:
        """``item 17``."""
        return f"item {index}"

    def digest(self) -> str:
        """SHA-256 of all pixels."""
        hashed = hashlib.sha256()
        for index in range(len(self)):
            image = self.load(index)
            hashed.update(repr(image.size).encode() + image.tobytes())
        return hashed.hexdigest()


def _joined(parts: Sequence[_Part]) -> ImageSource:
    paths = [part.paths() for part in parts]
    if all(own is not None for own in paths):
        return FileImages([path for own in paths for path in own or ()])
    return TorchImages(parts)


def _picture(image: Any) -> Image.Image:
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    array = image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    if array.ndim == 2:
        array = array[None]
    if array.ndim == 3 and array.shape[0] in {1, 3} and (isinstance(image, Tensor) or array.shape[2] not in {1, 3}):
        array = array.transpose(1, 2, 0)
    if array.ndim != 3 or array.shape[2] not in {1, 3}:
        raise DataError(f"an image of the data set has the shape {array.shape}, and it must be (3, H, W)")
    if array.dtype.kind == "f":
        if not (array.min() >= -1e-4 and array.max() <= 1 + 1e-4):
            raise DataError(
                f"an image of the data set ranges from {array.min():.4g} to {array.max():.4g}, and pixels are in "
                f"[0, 1] here: {_HELP}"
            )
        array = np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(np.repeat(array, 3 // array.shape[2], 2).astype(np.uint8))


def _check_alike(part: _Part, tensors: ImageTensors, view: Preprocessing) -> None:
    """Compare a few images with what the transform makes of them.

    Raises:
        SpecError: they differ.
    """
    count = min(_TRIED, len(part))
    ours = tensors.batch(range(count))
    for place in range(count):
        theirs = torch.as_tensor(np.asarray(_item(part.given, place)[0]), dtype=torch.float32)
        if view.mean is not None and view.std is not None and theirs.ndim == 3:
            theirs = theirs * torch.tensor(view.std).view(3, 1, 1) + torch.tensor(view.mean).view(3, 1, 1)
        if theirs.shape != ours[place].shape or (theirs - ours[place]).abs().mean() > _ALIKE:
            differ = f"{tuple(theirs.shape)} in place of {tuple(ours[place].shape)}"
            if theirs.shape == ours[place].shape:
                differ = f"{float((theirs - ours[place]).abs().mean()):.3f} of [0, 1] on average"
            raise SpecError(
                f"the transform of the data set was read as '{view}', and it gives other images ({differ}): {_HELP}"
            )
