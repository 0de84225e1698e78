"""A data set by its path alone: what lies there says how it is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from robustdml.data.cars import load_cars
from robustdml.data.cub import load_cub
from robustdml.data.dataset import RetrievalDataset
from robustdml.data.folder import load_folder
from robustdml.data.grocery import load_grocery
from robustdml.data.inshop import LIST, load_inshop
from robustdml.data.manifest import lists_images, load_manifest, tables_in
from robustdml.data.official import folder_with
from robustdml.data.sop import load_sop
from robustdml.data.tables import is_table
from robustdml.errors import DataError
from robustdml.files import is_there
from robustdml.printable import shown

#: What tells a published data set from a folder of one's own: a file of it, where that may lie, and its reader.
_PUBLISHED: tuple[tuple[str, tuple[str, ...], Callable[[Path], RetrievalDataset]], ...] = (
    ("image_class_labels.txt", ("CUB_200_2011",), load_cub),
    ("cars_annos.mat", (), load_cars),
    ("cars_test_annos_withlabels.mat", ("devkit",), load_cars),
    ("Ebay_train.txt", ("Stanford_Online_Products", "Info_Files"), load_sop),
    (LIST, ("Eval", "Anno", "Anno/segmentation"), load_inshop),
    ("classes.csv", ("dataset",), load_grocery),
)


def looks_like_a_place(text: str) -> bool:
    """Whether a text is a path and no name: it exists, or it is written as only a path is."""
    return bool(text) and ("/" in text or "\\" in text or text.startswith(("~", ".")) or is_there(Path(text)))


def load_place(path: Path, images: Path | None = None, *, skip_missing: bool = False) -> RetrievalDataset:
    """Read what lies at a path: a table, a published data set, a folder with a table in it, or a folder of classes.

    Args:
        path: the folder or the file.
        images: of a table, the folder that its relative paths start from; None is its own.
        skip_missing: of a table, leave out rows whose image is not there, and count them.

    Raises:
        DataError: nothing is there, or nothing that could be read; see the readers.
    """
    name = shown(str(path))
    if is_there(path) and path.is_file():
        if not is_table(path):
            raise DataError(f"'{name}' is a file and no table: give a folder of images, or a table (.csv, .parquet)")
        return load_manifest(path, images, skip_missing=skip_missing)
    if not is_there(path) or not path.is_dir():
        raise DataError(
            f"there is no folder or file '{name}', and no data set of that name: check the path, or see "
            "'robustdml list datasets'"
        )
    tables = [table for table in tables_in(path) if lists_images(table)]
    if images is not None and not tables:
        raise DataError(f"'{name}' holds no table that lists images: leave out '{shown(str(images))}' (root)")
    for mark, inner, load in _PUBLISHED:
        if not tables and (folder_with(path, mark, *inner) / mark).is_file():
            return load(path)
    if len(tables) > 1:
        raise DataError(
            f"'{name}' holds several tables of images ({', '.join(table.name for table in tables)}): name one of them"
        )
    return load_manifest(tables[0], images, skip_missing=skip_missing) if tables else load_folder(path)
