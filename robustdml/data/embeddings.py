"""Embeddings that were computed elsewhere: NumPy's, PyTorch's and Parquet files, none of whose code is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from robustdml.data.dataset import RetrievalDataset, askers
from robustdml.data.protocol import Reidentification, SameClass, array_hash
from robustdml.errors import DataError
from robustdml.printable import shown
from robustdml.values import ByValue, brief

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

#: What a file, or a mapping, may hold, by the names under which it may stand there.
_COLUMNS = {
    "embeddings": ("embeddings", "embedding", "features", "vectors"),
    "labels": ("labels", "label"),
    "is_query": ("is_query",),
    "is_gallery": ("is_gallery",),
    "cameras": ("cameras", "camera"),
    "names": ("names", "paths", "path", "name"),
}
_SUFFIXES = (".npz", ".npy", ".pt", ".pth", ".parquet")
_WANTED = (
    "embeddings (N, D) and labels (N,), and, where queries and gallery are apart, is_query and is_gallery (N,) of true "
    "and false; or query_embeddings, query_labels, gallery_embeddings and gallery_labels"
)


@dataclass(frozen=True, eq=False, repr=False)
class Embedded(ByValue):
    """Embeddings of the test images of a data set.

    Args:
        dataset: whose images need not be there.
        rows: int64, ``(N,)``, ascending: the images that have an embedding; every query and gallery item is among them.
        vectors: ``(N, D)`` float32 of length 1.
    """

    dataset: RetrievalDataset
    rows: Integers
    vectors: Floats


class NoImages(ByValue):
    """Images of which the embeddings alone are known.

    Args:
        digest: a hash of what is known of them.
        names: what a person calls each.
    """

    def __init__(self, digest: str, names: tuple[str, ...]) -> None:
        self._digest, self._names = digest, names

    def __len__(self) -> int:
        return len(self._names)

    def load(self, index: int) -> Image.Image:
        """There is none.

        Raises:
            DataError: always.
        """
        raise DataError(f"of '{self._names[index]}' the embedding alone is known: give the model and its images")

    def name(self, index: int) -> str:
        """As it was given."""
        return self._names[index]

    def digest(self) -> str:
        """As it was given."""
        return self._digest


def read_embeddings(path: str | Path) -> dict[str, Any]:
    """What a file holds, by the names under which it stands there.

    Args:
        path: ``.npz``; ``.npy``, the embeddings alone; ``.pt`` of tensors, read as weights only; or ``.parquet`` with a
            row for each image.

    Raises:
        DataError: there is no such file, it is of another kind, or it cannot be read without running code.
    """
    path = Path(path).expanduser()
    name, suffix = shown(str(path)), path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise DataError(f"'{name}' is no file of embeddings: write one of {', '.join(_SUFFIXES)} (docs/python.md)")
    if not path.is_file():
        raise DataError(f"there is no file '{name}': check the path")
    try:
        if suffix == ".parquet":
            from pyarrow import parquet

            table = parquet.read_table(path)
            return {column: _column(table.column(column)) for column in table.column_names}
        if suffix in {".pt", ".pth"}:
            import torch

            found: Any = torch.load(path, map_location="cpu", weights_only=True)
        elif suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                found = dict(archive)
        else:
            found = np.load(path, allow_pickle=False)
        if isinstance(found, Mapping):
            return {str(key): _array(value) for key, value in found.items()}
        return {"embeddings": _array(found)}
    except DataError:
        raise
    except Exception as error:  # Each library raises errors of its own for a damaged file.
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"cannot read the embeddings '{name}' ({type(error).__name__}: {reason})") from None


def embedded(given: Mapping[str, Any], title: str, data: RetrievalDataset | None = None) -> Embedded:
    """The data set that embeddings are of.

    Args:
        given: arrays, tensors or lists by name: see ``_WANTED``; ``camera`` makes it re-identification.
        title: what pages call the data.
        data: where the labels and the roles are; then the embeddings are those of its test images (or of all its
            images) in the order of its rows.

    Raises:
        DataError: something is missing, or of another shape or kind.
    """
    parts = _split_parts(given) or {
        key: next((given[name] for name in names if name in given), None) for key, names in _COLUMNS.items()
    }
    if parts["embeddings"] is None:
        raise DataError(f"'{title}' holds {', '.join(given) or 'nothing'}, and it must hold {_WANTED}")
    vectors = _unit(_array(parts["embeddings"]), title)
    if data is not None:
        return _of_dataset(vectors, title, data)
    if parts["labels"] is None:
        raise DataError(
            f"'{title}' holds no labels: it must hold {_WANTED}; or give the data set whose test images these are"
        )
    count = len(vectors)
    named = [str(label) for label in _one_each("labels", parts["labels"], count, title).tolist()]
    classes, labels = np.unique(named, return_inverse=True)
    roles = {role: _role(role, parts[role], count, title) for role in ("is_query", "is_gallery")}
    query, gallery = np.flatnonzero(roles["is_query"]), np.flatnonzero(roles["is_gallery"])
    rules: SameClass | Reidentification = SameClass()
    if parts["cameras"] is not None:
        cameras = _one_each("cameras", parts["cameras"], count, title)
        rules = Reidentification(np.unique(cameras, return_inverse=True)[1].astype(np.int64))
    names = parts["names"]
    calls = tuple(f"image {row}" for row in range(count))
    if names is not None:
        calls = tuple(str(name) for name in _one_each("names", names, count, title).tolist())
    if not query.size or not gallery.size:
        raise DataError(f"'{title}' has {query.size} queries and {gallery.size} gallery items: each needs one")
    asking, lonely = askers(labels.astype(np.int64), query, gallery, rules)
    left = f"; {len(lonely)} that have nothing to find do not ask" if len(lonely) else ""
    dataset = RetrievalDataset(
        name="embeddings",
        images=NoImages(array_hash(vectors.view(np.int32)), calls),
        labels=labels.astype(np.int64),
        class_names=tuple(map(str, classes)),
        train=np.empty(0, np.int64),
        query=asking,
        gallery=gallery,
        protocol=f"{len(asking)} queries search {len(gallery)} embeddings that were computed elsewhere{left}.",
        image_size=1,
        augmentation="none",
        rules=rules,
        title=title,
    )
    return Embedded(dataset, np.arange(count), vectors)


def _of_dataset(vectors: Floats, title: str, data: RetrievalDataset) -> Embedded:
    tested = np.union1d(data.query, data.gallery)
    for rows in (tested, np.arange(len(data.images))):
        if len(rows) == len(vectors):
            return Embedded(data, rows, vectors)
    raise DataError(
        f"'{title}' holds {len(vectors)} embeddings, and '{data.title}' has {len(tested)} test images and "
        f"{len(data.images)} in all: give one for each of these, in the order of its rows"
    )


def _split_parts(given: Mapping[str, Any]) -> dict[str, Any] | None:
    """Queries and gallery that stand apart, as rows with roles; None where they do not."""
    names = [f"{part}_{what}" for part in ("query", "gallery") for what in ("embeddings", "labels")]
    if not set(names) <= set(given):
        return None
    arrays = {name: _array(given[name]) for name in names}
    asking = np.repeat([True, False], [len(arrays["query_embeddings"]), len(arrays["gallery_embeddings"])])
    try:
        joined = {
            what: np.concatenate([arrays[f"query_{what}"], arrays[f"gallery_{what}"]])
            for what in ("embeddings", "labels")
        }
    except ValueError as error:
        raise DataError(f"the embeddings of queries and gallery, or their labels, do not fit: {error}") from None
    return {**dict.fromkeys(_COLUMNS), **joined, "is_query": asking, "is_gallery": ~asking}


def _unit(array: npt.NDArray[Any], title: str) -> Floats:
    """Embeddings of length 1."""
    if array.dtype.kind not in "fiu" or array.ndim != 2 or 0 in array.shape:
        raise DataError(f"the embeddings of '{title}' are {array.dtype} of shape {array.shape}, and must be (N, D)")
    wide = array.astype(np.float64)
    if not np.isfinite(wide).all():
        row = int(np.flatnonzero(~np.isfinite(wide).all(1))[0])
        raise DataError(f"the embeddings of '{title}' are not all finite: row {row} is not")
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    if not lengths.all():
        row = int(np.flatnonzero(lengths[:, 0] == 0)[0])
        raise DataError(f"an embedding of '{title}' is zero, which has no direction to compare: row {row}")
    found: Floats = (wide / lengths).astype(np.float32)
    return found


def _one_each(name: str, given: Any, count: int, title: str) -> npt.NDArray[Any]:
    array = _array(given)
    if array.shape != (count,) or array.dtype.kind not in "iuUSbO":
        raise DataError(
            f"{name} of '{title}' are {array.dtype} of shape {array.shape}, and there must be one for each of the "
            f"{count} embeddings: whole numbers or text"
        )
    return array


def _role(name: str, given: Any, count: int, title: str) -> npt.NDArray[np.bool_]:
    if given is None:
        return np.ones(count, np.bool_)
    array = _one_each(name, given, count, title)
    if array.dtype.kind not in "iub" or not np.isin(array, (0, 1)).all():
        raise DataError(
            f"{name} of '{title}' must be true or false for each embedding, and it holds {brief(array[:4])}"
        )
    return array.astype(np.bool_)


def _column(column: Any) -> npt.NDArray[Any]:
    """A column of a table: a matrix where its values are lists."""
    values = column.to_pylist()
    return np.asarray(values) if not values or not isinstance(values[0], list) else _stacked(values)


def _stacked(rows: list[list[float]]) -> npt.NDArray[Any]:
    lengths = {len(row) if isinstance(row, list) else 0 for row in rows}
    if len(lengths) > 1:
        raise DataError(f"embeddings have different lengths ({', '.join(map(str, sorted(lengths)[:3]))}): give one")
    return np.asarray(rows, dtype=np.float64)


def _array(given: Any) -> npt.NDArray[Any]:
    """An array of a tensor, a list or an array."""
    if hasattr(given, "detach"):  # a tensor; bfloat16 has no array of its own
        given = given.detach().cpu()
        given = (given.float() if given.is_floating_point() else given).numpy()
    return np.asarray(given)
