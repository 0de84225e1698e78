"""A table of images, in the format of open-metric-learning: CSV or Parquet."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from robustdml.data.dataset import RetrievalDataset
from robustdml.data.images import Box, FileImages
from robustdml.data.protocol import Reidentification, SameClass
from robustdml.errors import DataError

COLUMNS = ("path", "label", "split", "is_query", "is_gallery")
BOX_COLUMNS = ("x_1", "y_1", "x_2", "y_2")
CAMERA_COLUMN = "camera"
TRAIN_SPLIT = "train"
TEST_SPLITS = ("validation", "test")
SUFFIXES = (".csv", ".parquet")

T = TypeVar("T")


@dataclass(frozen=True)
class _Row:
    """One row: its values, and how a person finds it."""

    place: str
    values: dict[str, Any]

    def read(self, column: str, parse: Callable[[Any], T], wanted: str) -> T:
        value = self.values[column]
        try:
            return parse(value)
        except (KeyError, ValueError, TypeError, OverflowError):
            raise self.error(
                column, f"is {'empty' if _is_empty(value) else repr(value)}: it must be {wanted}"
            ) from None

    def error(self, column: str, problem: str) -> DataError:
        return DataError(f"{self.place}, column '{column}' {problem}")


def load_manifest(root: Path, images: Path | None = None) -> RetrievalDataset:
    """Images that a table lists, with their classes and their roles.

    Columns: ``path``; ``label``, a number or a word; ``split``, ``train`` or ``validation`` (or ``test``); ``is_query``
    and ``is_gallery``, each yes or no (True and False, 1 and 0) in the test split, and empty for training rows. An
    image that is both finds all others but itself. Where ``x_1``, ``y_1``, ``x_2`` and ``y_2`` exist and are not empty,
    that box (left, top, right, bottom, in pixels of the upright image) is cut out. Where ``camera`` exists and is not
    empty (a number or a word, in every row), labels are identities, and what a query's own camera took of its identity
    is left out: re-identification. Other columns are ignored.

    Args:
        root: the table, or a folder with one table in it (``.csv`` or ``.parquet``).
        images: the folder that relative paths start from; None is the folder of the table.

    Raises:
        DataError: the table is missing or cannot be read, or a value is wrong; the message names row and column.
    """
    table = _find(root)
    base = table.parent if images is None else images
    rows = _read(table)
    paths = [_path(row, base) for row in rows]
    boxes = [_box(row) for row in rows]
    _check_repeats(rows, paths, boxes)
    names = [row.read("label", _label, "a class number or name") for row in rows]
    label_of = {name: label for label, name in enumerate(dict.fromkeys(names))}
    splits = np.array([row.read("split", _split, "train, validation or test") for row in rows])
    asks, answers = (np.array([_role(row, column) for row in rows], bool) for column in ("is_query", "is_gallery"))
    for row, split, used in zip(rows, splits, asks | answers, strict=True):
        if split != TRAIN_SPLIT and not used:
            raise row.error("is_gallery", "and column 'is_query' are both no: a test image must be a query or searched")
    labels = np.array([label_of[name] for name in names], np.int64)
    is_train = splits == TRAIN_SPLIT
    protocol = _protocol(rows)
    ignored = "" if isinstance(protocol, SameClass) else ", each but those of its own camera that show its identity"
    return RetrievalDataset(
        name="manifest",
        images=FileImages(paths, boxes),
        labels=labels,
        class_names=tuple(label_of),
        train=np.flatnonzero(is_train),
        query=np.flatnonzero(asks),
        gallery=np.flatnonzero(answers),
        protocol=(
            f"Trained on the {len(np.unique(labels[is_train])):,} training classes of '{table.name}' and tested on its "
            f"{len(np.unique(labels[~is_train])):,} unseen ones, where {asks.sum():,} query images search "
            f"{answers.sum():,} gallery images{ignored}."
        ),
        image_size=64,
        augmentation="crop-flip",
        rules=protocol,
    )


def _protocol(rows: list[_Row]) -> SameClass | Reidentification:
    if all(_is_empty(row.values.get(CAMERA_COLUMN)) for row in rows):
        return SameClass()
    names = [row.read(CAMERA_COLUMN, _label, "a camera, as in the other rows") for row in rows]
    return Reidentification(np.unique(names, return_inverse=True)[1])


def _find(root: Path) -> Path:
    if root.is_file():
        return root
    tables = sorted(path for path in root.glob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if len(tables) != 1:
        found = "none" if not tables else ", ".join(path.name for path in tables)
        raise DataError(f"'{root}' must hold one table ({' or '.join(SUFFIXES)}), and it holds {found}: name the file")
    return tables[0]


def _read(path: Path) -> list[_Row]:
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"the table '{path}' must be {' or '.join(SUFFIXES)}, by its extension")
    try:
        header, rows = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    except (OSError, ValueError, csv.Error) as cause:
        raise DataError(f"the table '{path}' cannot be read ({cause}): write it again as CSV or Parquet") from None
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise DataError(f"the table '{path}' has no column '{missing[0]}': it needs {', '.join(COLUMNS)}")
    boxed = [column for column in BOX_COLUMNS if column in header]
    if boxed and len(boxed) < len(BOX_COLUMNS):
        raise DataError(f"the table '{path}' has '{boxed[0]}', and boxes need all of {', '.join(BOX_COLUMNS)}")
    return rows


def _read_csv(path: Path) -> tuple[list[str], list[_Row]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, restval="")
        rows = [_Row(f"line {reader.line_num} of '{path}'", values) for values in reader]
        return list(reader.fieldnames or ()), rows


def _read_parquet(path: Path) -> tuple[list[str], list[_Row]]:
    # Slow to import, and no other data set needs it. Its errors are subclasses of ValueError and OSError.
    from pyarrow import parquet

    table = parquet.read_table(path)
    rows = [_Row(f"row {number} of '{path}'", values) for number, values in enumerate(table.to_pylist(), start=1)]
    return list(table.column_names), rows


def _is_empty(value: Any) -> bool:
    # pandas writes a missing value as nothing, as NaN or as None, by file format and by what else is in the column.
    return value is None or str(value).strip().lower() in ("", "none", "nan", "null")


def _text(value: Any) -> str:
    if _is_empty(value):
        raise ValueError
    return str(value).strip()


def _path(row: _Row, base: Path) -> Path:
    path = base / row.read("path", _text, "the path of an image")
    if not path.is_file():
        raise row.error("path", f"names '{path}', which does not exist: restore the image, or delete the row")
    return path


def _split(value: Any) -> str:
    if _text(value) not in (TRAIN_SPLIT, *TEST_SPLITS):
        raise ValueError
    return _text(value)


def _label(value: Any) -> str:
    # A column of integers with a gap comes as floats: 3.0 is class 3.
    return (
        str(int(value)) if isinstance(value, float) and math.isfinite(value) and value == int(value) else _text(value)
    )


def _role(row: _Row, column: str) -> bool:
    if row.values["split"] != TRAIN_SPLIT:
        return row.read(column, _flag, "True or False (or 1 or 0), as this row is tested")
    if not _is_empty(row.values[column]) and row.read(column, _flag, "empty, as this row is trained on"):
        raise row.error(column, "says yes: a row is either trained on or tested, so leave it empty or change its split")
    return False


def _flag(value: Any) -> bool:
    return {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}[_text(value).lower()]


def _box(row: _Row) -> Box | None:
    if all(_is_empty(row.values.get(column)) for column in BOX_COLUMNS):
        return None
    left, top, right, bottom = (
        row.read(column, lambda value: round(float(_text(value))), "a number of pixels") for column in BOX_COLUMNS
    )
    if left < 0 or left >= right:
        raise row.error("x_1", f"is {left} and x_2 is {right}: they must be 0 <= x_1 < x_2")
    if top < 0 or top >= bottom:
        raise row.error("y_1", f"is {top} and y_2 is {bottom}: they must be 0 <= y_1 < y_2")
    return left, top, right, bottom


def _check_repeats(rows: list[_Row], paths: list[Path], boxes: list[Box | None]) -> None:
    first: dict[tuple[Path, Box | None], _Row] = {}
    for row, path, box in zip(rows, paths, boxes, strict=True):
        before = first.setdefault((path, box), row)
        if before is not row:
            raise row.error("path", f"names '{path}', as {before.place} does: a copy would find itself, so delete one")
