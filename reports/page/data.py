"""What the data were: images used and left out, images that were changed, and copies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from robustdml.results import CountedFiles, Results

from .. import text
from ..index import Index
from .sections import Section


@dataclass(frozen=True)
class DataRow:
    """What was counted, how many, and the first of them."""

    what: str
    count: str
    detail: str


def data_section(index: Index, folder: Path) -> Section | None:
    """The data of the run; none in results from before they were looked at."""
    if index.results.dataset.images is None:
        return None
    return Section("data", "Data", "data.html.j2", tuple(_rows(index.results)))


def _rows(results: Results) -> Iterator[DataRow]:
    dataset = results.dataset
    yield DataRow(
        "images that are used", text.count(dataset.images or 0), "in the training, as queries, in the gallery"
    )
    for part in dataset.left_out:
        yield DataRow(f"left out: {part.what}", text.count(part.count), _names(part))
    for part in dataset.remarks:
        yield DataRow(f"read otherwise: {part.what}", text.count(part.count), _names(part))
    if not dataset.copies:
        yield DataRow("images with a copy", "0", "")
    for copies in dataset.copies:
        detail = f"{text.count(copies.equal)} equal pixel for pixel, {text.count(copies.near)} nearly"
        yield DataRow(copies.place, text.count(copies.equal + copies.near), detail)
    for model in results.models:
        if model.twins is not None and model.twins.images:
            yield DataRow(
                f"gallery images that {model.name} does not tell from another one",
                text.count(model.twins.images),
                f"cosine {model.twins.cosine:g} or more; {text.count(model.twins.other_label)} of them from one of "
                "another label",
            )


def _names(part: CountedFiles) -> str:
    return ", ".join(part.names) + (", …" if part.count > len(part.names) else "")
