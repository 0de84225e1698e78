"""A table of images, in the format of open-metric-learning: a file, or a frame in memory."""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robustdml.data.dataset import RetrievalDataset, askers
from robustdml.data.finding import LONELY, LONELY_ASKERS, LeftOut, said
from robustdml.data.folder import title_of
from robustdml.data.images import Box, FileImages
from robustdml.data.protocol import Reidentification, SameClass
from robustdml.data.tables import Row, Table, columns_of, is_missing, is_table, read_table, table_of_frame
from robustdml.errors import DataError
from robustdml.files import is_there
from robustdml.printable import shown

#: What says who a row is for; a table has all three, or none: then all of it is tested.
ROLE_COLUMNS = ("split", "is_query", "is_gallery")
COLUMNS = ("path", "label", *ROLE_COLUMNS)
BOX_COLUMNS = ("x_1", "y_1", "x_2", "y_2")
SIZE_COLUMNS = ("width", "height")
BOX_COLUMN, CAMERA_COLUMN = "bbox", "camera"
TRAIN_SPLIT, TEST_SPLIT = "train", "test"
_SPLITS = {
    **dict.fromkeys(("train", "training"), TRAIN_SPLIT),
    **dict.fromkeys(("validation", "val", "valid", "test", "testing"), TEST_SPLIT),
}
_FLAGS = {
    **dict.fromkeys(("true", "t", "yes", "y", "1", "1.0"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0", "0.0"), False),
}
MISSING = "rows whose image is not there"

#: Of the upright image, or None for all of it; and the size of the image that its numbers are counted in.
_Cut = tuple[Box | None, tuple[int, int] | None]


def load_manifest(root: Any, images: Path | None = None, *, skip_missing: bool = False) -> RetrievalDataset:
    """Images that a table lists, with their classes and their roles.

    Columns: ``path``; ``label``, a number or a word; ``split``, ``train`` or ``validation`` (or ``test``); ``is_query``
    and ``is_gallery``, each yes or no (True and False, 1 and 0) in the test split, and empty for training rows. An
    image that is both finds all others but itself. Where none of these three columns exists, all rows are tested, each
    against all others. Where ``x_1``, ``y_1``, ``x_2`` and ``y_2`` (or ``bbox`` with these four) are not empty, that
    box (left, top, right, bottom, in pixels of the upright image, or of the ``width`` and ``height`` beside it) is cut
    out. Where ``camera`` exists and is not empty (a number or a word, in every row), labels are identities, and what a
    query's own camera took of its identity is left out: re-identification. Other columns are ignored.

    Args:
        root: the table, or a folder with one table in it (see `robustdml.data.tables`); or a frame of pandas, polars
            or pyarrow.
        images: the folder that relative paths start from; None is the folder of the table, of a frame the working
            folder.
        skip_missing: leave out rows whose image is not there, and count them.

    Raises:
        DataError: the table is missing or cannot be read, or a value is wrong; the message names row and column.
    """
    if isinstance(root, str | Path):
        file = _find(Path(root))
        table, base, title = read_table(file), file.parent, shown(file.name)
        title, name = title if Path(root).is_file() else title_of(Path(root)), shown(file.name)
    else:
        table, base, title, name = table_of_frame(root), Path(), "manifest", "the frame"
    _check_columns(table)
    if not table.rows:
        raise DataError(f"{table.name} has columns and no row: list an image in each")
    paths, lost = _paths(table.rows, base if images is None else images, skip_missing)
    rows = [row for row, path in zip(table.rows, paths, strict=True) if path is not None]
    found = [path for path in paths if path is not None]
    cuts = [_cut(row) for row in rows]
    _check_repeats(rows, found, cuts)
    names = [row.read("label", _label, "a class number or name") for row in rows]
    label_of = {label: number for number, label in enumerate(dict.fromkeys(names))}
    everything = not set(ROLE_COLUMNS) & set(table.columns)
    splits = np.array(
        [TEST_SPLIT if everything else row.read("split", _split, "train, validation or test") for row in rows]
    )
    roles = [
        (True, True) if everything else (_role(row, split, "is_query"), _role(row, split, "is_gallery"))
        for row, split in zip(rows, splits, strict=True)
    ]
    for row, split, role in zip(rows, splits, roles, strict=True):
        if split != TRAIN_SPLIT and not any(role):
            raise row.error("is_gallery", "and column 'is_query' are both no: a test image must be a query or searched")
    images_found = FileImages(found, [box for box, _ in cuts], [size for _, size in cuts])
    labels = np.array([label_of[label] for label in names], np.int64)
    is_train = splits == TRAIN_SPLIT
    query, gallery = (np.flatnonzero(role) for role in np.array(roles, bool).T)
    if not query.size or not gallery.size:
        raise DataError(f"{table.name} has no {'gallery' if query.size else 'query'} row: a test needs both")
    protocol = _protocol(rows)
    asking, lonely = askers(labels, query, gallery, protocol)
    left_out = [LeftOut(MISSING, tuple(lost))] if lost else []
    for reason, part, unused in (
        (LONELY_ASKERS, lonely[np.isin(lonely, gallery)], False),
        (LONELY, lonely[~np.isin(lonely, gallery)], True),
    ):
        if part.size:
            left_out.append(LeftOut(reason, tuple(images_found.name(row) for row in part), files=unused))
    trained, tested = len(np.unique(labels[is_train])), len(np.unique(labels[~is_train]))
    start = (
        f"Trained on the {trained:,} training classes of '{name}' and tested on its {tested:,} unseen ones"
        if trained
        else f"Tested on the {tested:,} classes of '{name}'"
    )
    ignored = "" if isinstance(protocol, SameClass) else ", each but those of its own camera that show its identity"
    return RetrievalDataset(
        name="manifest",
        images=images_found,
        labels=labels,
        class_names=tuple(label_of),
        train=np.flatnonzero(is_train),
        query=asking,
        gallery=gallery,
        protocol=(
            f"{start}, where {len(asking):,} query images search {len(gallery):,} gallery images{ignored}"
            f"{said(left_out)}."
        ),
        image_size=64,
        augmentation="crop-flip",
        rules=protocol,
        title=title,
        left_out=tuple(left_out),
    )


def tables_in(folder: Path) -> list[Path]:
    """The tables in a folder, by their names; hidden ones are none."""
    return sorted(
        path for path in folder.iterdir() if is_table(path) and path.is_file() and not path.name.startswith(".")
    )


def lists_images(path: Path) -> bool:
    """Whether a table has the columns that list images."""
    return {"path", "label"} <= set(columns_of(path))


def _protocol(rows: Sequence[Row]) -> SameClass | Reidentification:
    if all(_is_empty(row.get(CAMERA_COLUMN)) for row in rows):
        return SameClass()
    names = [row.read(CAMERA_COLUMN, _label, "a camera, as in the other rows") for row in rows]
    return Reidentification(np.unique(names, return_inverse=True)[1])


def _find(root: Path) -> Path:
    if root.is_file():
        return root
    if not root.is_dir():
        raise DataError(f"there is no table and no folder '{shown(str(root))}': check the path")
    tables = tables_in(root)
    if len(tables) > 1:  # one beside notes of another kind is meant
        tables = [path for path in tables if lists_images(path)] or tables
    if len(tables) != 1:
        found = "none" if not tables else ", ".join(shown(path.name) for path in tables)
        raise DataError(
            f"'{shown(str(root))}' must hold one table (.csv, .tsv or .parquet), and it holds {found}: name the file"
        )
    return tables[0]


def _check_columns(table: Table) -> None:
    needed = COLUMNS if set(ROLE_COLUMNS) & set(table.columns) else COLUMNS[:2]
    missing = [column for column in needed if column not in table.columns]
    if missing:
        there = ", ".join(f"'{shown(column)}'" for column in table.columns[:8]) or "none"
        raise DataError(
            f"{table.name} has no column '{missing[0]}': it needs {', '.join(COLUMNS)} (or path and label alone, to "
            f"test with all of it), and it has {there}"
        )
    corners = [column for column in BOX_COLUMNS if column in table.columns]
    if corners and len(corners) < len(BOX_COLUMNS):
        raise DataError(f"{table.name} has '{corners[0]}', and boxes need all of {', '.join(BOX_COLUMNS)}")
    if corners and BOX_COLUMN in table.columns:
        raise DataError(f"{table.name} has boxes in '{BOX_COLUMN}' and in {', '.join(BOX_COLUMNS)}: leave one out")


def _is_empty(value: Any) -> bool:
    # pandas writes a missing value as nothing, as NaN or as None, by file format and by what else is in the column;
    # but a class may be called None, so this is not asked of labels.
    return is_missing(value) or str(value).strip().lower() in ("none", "nan", "null", "na", "<na>")


def _is_several(value: Any) -> bool:
    """Whether it is a list or a structure of Parquet, and no single value."""
    return hasattr(value, "__len__") and not isinstance(value, str)


def _text(value: Any) -> str:
    if is_missing(value):
        raise ValueError
    return str(value).strip()


def _word(value: Any) -> str:
    if _is_empty(value):
        raise ValueError
    return _text(value).lower()


def _paths(rows: Sequence[Row], base: Path, skip_missing: bool) -> tuple[list[Path | None], list[str]]:
    """The file of each row, and what the rows name whose file is not there."""
    folders: dict[Path, dict[str, list[str]]] = {}
    paths = [_located(base, row.read("path", _written, "the path of an image"), folders) for row in rows]
    lost = [row for row, path in zip(rows, paths, strict=True) if path is None]
    if lost and not skip_missing:
        others = f" (and {len(lost) - 1:,} more rows do: {_some(lost[1:])})" if len(lost) > 1 else ""
        raise lost[0].error(
            "path",
            f"names '{shown(str(base / _text(lost[0].get('path'))))}', which does not exist{others}: restore the "
            "image, or delete the row",
        )
    return paths, [shown(_text(row.get("path"))) for row in lost]


def _some(rows: Sequence[Row]) -> str:
    places = [re.sub(r" of .*", "", row.place) for row in rows[:20]]
    return ", ".join(places) + (", ..." if len(rows) > len(places) else "")


def _written(value: Any) -> str:
    if is_missing(value) or _is_several(value):
        raise ValueError
    return os.fspath(value) if isinstance(value, Path) else str(value)


def _located(base: Path, text: str, folders: dict[Path, dict[str, list[str]]]) -> Path | None:
    """The file that is meant: as it is written, else with other separators, spaces, capitals or spelling of accents."""
    for spelling in (text, text.strip(), text.strip().replace("\\", "/")):
        path = base / _at_home(spelling)
        if _is_file(path):
            return path
    near = base
    for part in Path(text.strip().replace("\\", "/")).parts:
        if is_there(near / part):
            near = near / part
            continue
        if near not in folders:
            folders[near] = {}
            for found in near.iterdir() if near.is_dir() else ():
                folders[near].setdefault(_folded(found.name), []).append(found.name)
        alike = folders[near].get(_folded(part), [])
        if len(alike) != 1:
            return None
        near = near / alike[0]
    return near if _is_file(near) else None


def _is_file(path: Path) -> bool:
    return is_there(path) and path.is_file()


def _at_home(spelling: str) -> Path:
    try:
        return Path(spelling).expanduser()
    except RuntimeError:  # ``~`` of nobody is a name.
        return Path(spelling)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _split(value: Any) -> str:
    return _SPLITS[_word(value)]


def _label(value: Any) -> str:
    if _is_several(value):
        raise ValueError
    # A column of integers with a gap comes as floats: 3.0 is class 3.
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return str(int(value))
    return shown(unicodedata.normalize("NFC", _text(value)))


def _role(row: Row, split: str, column: str) -> bool:
    if split != TRAIN_SPLIT:
        return row.read(column, _flag, "True or False (or 1 or 0), as this row is tested")
    if not _is_empty(row.get(column)) and row.read(column, _flag, "empty, as this row is trained on"):
        raise row.error(
            column, "says yes: a row is either trained on or tested, so leave it empty or change its column 'split'"
        )
    return False


def _flag(value: Any) -> bool:
    return _FLAGS[_word(value)]


def _cut(row: Row) -> _Cut:
    values = [row.get(column) for column in BOX_COLUMNS]
    places = list(BOX_COLUMNS)
    if not _holds_no_box(row.get(BOX_COLUMN)):
        places = [BOX_COLUMN] * 4
        values = row.read(BOX_COLUMN, _four, "left, top, right and bottom, as in [0, 0, 10, 20]")
    if all(_is_empty(value) for value in values):
        return None, None
    left, top, right, bottom = (
        Row(row.place, {column: value}).read(column, _pixels, "a number of pixels")
        for column, value in zip(places, values, strict=True)
    )
    if left < 0 or left >= right:
        raise row.error(places[0], f"is {left} and x_2 is {right}: they must be 0 <= x_1 < x_2")
    if top < 0 or top >= bottom:
        raise row.error(places[1], f"is {top} and y_2 is {bottom}: they must be 0 <= y_1 < y_2")
    if any(_is_empty(row.get(column)) for column in SIZE_COLUMNS):
        return (left, top, right, bottom), None
    width, height = (row.read(column, _pixels, "a number of pixels, or empty") for column in SIZE_COLUMNS)
    if right > width or bottom > height:
        raise row.error(
            "width", f"and 'height' are {width} by {height}, which is less than the box to {right}, {bottom}"
        )
    return (left, top, right, bottom), (width, height)


def _holds_no_box(value: Any) -> bool:
    return not len(value) if hasattr(value, "__len__") and not isinstance(value, str) else _is_empty(value)


def _four(value: Any) -> list[Any]:
    """The four values of a list, or of a text such as ``[1, 2, 3, 4]``."""
    found = re.findall(r"[^\s,;\[\]()]+", value) if isinstance(value, str) else list(value)
    if len(found) != 4:
        raise ValueError
    return found


def _pixels(value: Any) -> int:
    # Where a decimal point is a comma, spreadsheets write 1,5.
    return round(float(_word(value).replace(",", ".")))


def _check_repeats(rows: Sequence[Row], paths: Sequence[Path], cuts: Sequence[_Cut]) -> None:
    """By what the file is and not by how it is written: ``..``, links and, where these do not count, capitals."""
    first: dict[tuple[int, int, _Cut], Row] = {}
    for row, path, cut in zip(rows, paths, cuts, strict=True):
        there = path.stat()
        before = first.setdefault((there.st_dev, there.st_ino, cut), row)
        if before is not row:
            raise row.error(
                "path",
                f"names '{shown(str(path))}', as {before.place} does: a copy would find itself, so delete one",
            )
