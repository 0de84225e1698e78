"""Stanford Online Products (Song, Xiang, Jegelka, Savarese, CVPR 2016), in its own layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robustdml.data.dataset import RetrievalDataset
from robustdml.data.images import FileImages
from robustdml.data.official import Publication, folder_with, leave_self_out
from robustdml.data.protocol import SameClass

SOP = Publication(
    title="Stanford Online Products",
    origin="https://cvgl.stanford.edu/projects/lifted_struct/ (Stanford_Online_Products.zip)",
    layout="Ebay_train.txt, Ebay_test.txt and the folders bicycle_final/ to toaster_final/",
)
#: As in the paper; MAP@R and R-precision as in Musgrave et al. 2020.
METRICS = (*(f"recall_at_{rank}" for rank in (1, 10, 100, 1000)), "map_at_r", "r_precision")
COUNTS = {"training": 59_551, "test": 60_502}


def load_sop(root: Path, verify: bool = True) -> RetrievalDataset:
    """Photos of 22,634 products: trained on those of Ebay_train.txt, tested on Ebay_test.txt, leave-self-out.

    Args:
        root: the unpacked folder ``Stanford_Online_Products``, or the folder that holds it; or a mirror with
            ``images/`` and ``Info_Files/``.
        verify: whether the counts must be those of the published data set.

    Raises:
        DataError: a list or an image is missing, a list cannot be read, or there are more or fewer images.
    """
    lists = folder_with(root, "Ebay_train.txt", "Stanford_Online_Products", "Info_Files")
    folder = lists.parent / "images" if lists.name == "Info_Files" else lists
    train, test = (_products(lists / name) for name in ("Ebay_train.txt", "Ebay_test.txt"))
    if verify:
        SOP.check_counts({"training": len(train), "test": len(test)}, COUNTS)
    listed = [*train, *test]
    paths = [folder / path for _, path in listed]
    SOP.check_files(paths)
    # The folder, such as bicycle_final, is the kind of product.
    kind = {product: path.split("/")[0].removesuffix("_final") for product, path in listed}
    present, labels = np.unique([product for product, _ in listed], return_inverse=True)
    seen = len({product for product, _ in train})
    return leave_self_out(
        name="sop",
        images=FileImages(paths),
        labels=labels,
        class_names=[f"product {product} ({kind[product]})" for product in present.tolist()],
        is_train=np.arange(len(listed)) < len(train),
        protocol=(
            f"Trained on the {seen:,} products in Ebay_train.txt of Stanford Online Products and tested on the "
            f"{len(present) - seen:,} unseen ones in Ebay_test.txt"
        ),
        image_size=224,
        rules=SameClass(metrics=METRICS),
    )


def _products(path: Path) -> list[tuple[int, str]]:
    form = "an image id, a class id, a super-class id and a path, with spaces between"
    rows = SOP.rows(path, r"\d+\s+(\d+)\s+\d+\s+(\S.*)", form, header=1)
    return [(int(product), image) for product, image in rows]
