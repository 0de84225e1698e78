"""In-Shop Clothes Retrieval of DeepFashion (Liu, Luo, Qiu, Wang, Tang, CVPR 2016), in its own layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robustdml.data.dataset import RetrievalDataset
from robustdml.data.images import FileImages
from robustdml.data.official import Publication, folder_with, folders_in
from robustdml.data.protocol import SameClass

INSHOP = Publication(
    title="In-Shop Clothes Retrieval",
    origin=(
        "https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html (img.zip and Eval/"
        "list_eval_partition.txt)"
    ),
    layout="the unpacked img/ (or Img/img/) and list_eval_partition.txt (or Eval/list_eval_partition.txt)",
)
LIST = "list_eval_partition.txt"
#: As in the paper; MAP@R and R-precision as in Musgrave et al. 2020.
METRICS = (*(f"recall_at_{rank}" for rank in (1, 10, 20, 30)), "map_at_r", "r_precision")
COUNTS = {"train": 25_882, "query": 14_218, "gallery": 12_612}


def _list_in(root: Path) -> Path | None:
    """The folder with the list."""
    places = (root, root / "Eval", root / "Anno", root / "Anno" / "segmentation")
    return next((place for place in places if (place / LIST).is_file()), None)


def load_inshop(root: Path, verify: bool = True) -> RetrievalDataset:
    """Photos of 7,982 garments: trained on one half, tested on the other with its query and gallery images.

    Training garments with a single photo teach a metric nothing: they are left out, and the summary says how many.

    Args:
        root: the folder that holds ``img/`` or ``Img/img/``, and the list, which may lie in ``Eval/``, ``Anno/`` or
            ``Anno/segmentation/``; or the folder that holds that one.
        verify: whether the counts must be those of the published data set.

    Raises:
        DataError: the list or an image is missing, the list cannot be read, or there are more or fewer images.
    """
    form = "a path, an item id and one of train, query and gallery, with spaces between"
    root = next((place for place in (root, *folders_in(root)) if _list_in(place)), root)
    path = (_list_in(root) or root) / LIST
    # Two lines at the top: how many rows, and their columns.
    listed = INSHOP.rows(path, r"(\S+)\s+(\S+)\s+(train|query|gallery)", form, header=2)
    part = np.array([row[2] for row in listed])
    if verify:
        INSHOP.check_counts({name: int((part == name).sum()) for name in COUNTS}, COUNTS)
    base = folder_with(root, "img", "Img")
    paths = [base / row[0] for row in listed]
    INSHOP.check_files(paths)
    items, labels = np.unique([row[1] for row in listed], return_inverse=True)
    is_train = part == "train"
    single = np.bincount(labels[is_train], minlength=len(items)) == 1
    train = np.flatnonzero(is_train & ~single[labels])
    trained, tested = len(np.unique(labels[train])), len(np.unique(labels[~is_train]))
    left_out = f" ({single.sum():,} more have a single photo and are left out)" if single.any() else ""
    return RetrievalDataset(
        name="inshop",
        images=FileImages(paths),
        labels=labels,
        class_names=tuple(items.tolist()),
        train=train,
        query=np.flatnonzero(part == "query"),
        gallery=np.flatnonzero(part == "gallery"),
        protocol=(
            f"Trained on the {trained:,} training items of In-Shop Clothes Retrieval{left_out} and tested on the "
            f"{tested:,} unseen items, where the query images search the gallery images."
        ),
        image_size=224,
        augmentation="crop-flip",
        rules=SameClass(metrics=METRICS),
    )
