"""Attacked queries as pictures, embedded in the page within a byte budget."""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from robustdml.results import Example, Hit
from robustdml.threat import format_budget

from . import text
from .index import Index
from .pictures import read_picture
from .sections import Section

#: What the pictures may add to the page, in bytes. Plotly takes 5 MB; far beyond twice that, phones and mail refuse it.
PICTURE_BUDGET = 6_000_000


@dataclass(frozen=True)
class Picture:
    """A gallery item in a ranked list, as a data URI."""

    uri: str
    class_name: str
    relevant: bool


@dataclass(frozen=True)
class Exhibit:
    """One attacked query: what went in, what it looked like, and what came back."""

    query: str
    attack: str
    eps: str
    class_name: str
    image: str
    perturbation: str
    amplification: str
    adversarial: str
    clean_top: tuple[Picture, ...]
    adversarial_top: tuple[Picture, ...]
    targets: tuple[Picture, ...]


@dataclass(frozen=True)
class Room:
    """The examples of one model."""

    model: str
    exhibits: tuple[Exhibit, ...]


@dataclass(frozen=True)
class Gallery:
    """The examples by model, and how many were left out to keep the page small."""

    rooms: tuple[Room, ...]
    left_out: str | None
    budget: str


def gallery_section(index: Index, folder: Path) -> Section:
    """The examples of a run whose pictures lie in ``folder``.

    Raises:
        RunFolderError: as `build_gallery`.
    """
    return Section("examples", "Examples", "gallery.html.j2", build_gallery(index, folder))


def build_gallery(index: Index, folder: Path, budget: int = PICTURE_BUDGET) -> Gallery:
    """Embed the examples of a run whose pictures lie in ``folder``, at most ``budget`` bytes of data URIs.

    Raises:
        RunFolderError: a picture is missing, is no PNG or JPEG, or lies outside of the folder.
    """
    loader = _Pictures(folder)
    kept: list[int] = []
    spent = 0
    for position in _fair_order(index.results.examples):
        cost = sum(len(loader.uri(path)) for path in _paths(index.results.examples[position]))
        if spent + cost > budget:
            break
        spent += cost
        kept.append(position)
    rooms: dict[str, list[Exhibit]] = {}
    for position in sorted(kept):
        example = index.results.examples[position]
        rooms.setdefault(example.model, []).append(_exhibit(example, index, loader))
    left_out = len(index.results.examples) - len(kept)
    return Gallery(
        rooms=tuple(Room(model, tuple(exhibits)) for model, exhibits in rooms.items()),
        left_out=text.counted(left_out, "example") if left_out else None,
        budget=f"{budget / 1e6:g} MB",
    )


def _fair_order(examples: tuple[Example, ...]) -> list[int]:
    """Positions such that a cut anywhere leaves every model, attack and eps about as many examples."""
    seen: Counter[tuple[str, str, float | None]] = Counter()
    turns = []
    for position, example in enumerate(examples):
        key = (example.model, example.attack, example.eps)
        turns.append((seen[key], position))
        seen[key] += 1
    return [position for _, position in sorted(turns)]


def _paths(example: Example) -> list[str]:
    hits = (*example.clean_top, *example.adversarial_top, *example.targets)
    return [example.image, example.perturbation_image, example.adversarial_image, *(hit.image for hit in hits)]


def _exhibit(example: Example, index: Index, loader: _Pictures) -> Exhibit:
    def pictures(hits: tuple[Hit, ...]) -> tuple[Picture, ...]:
        return tuple(Picture(loader.uri(hit.image), hit.class_name, hit.relevant) for hit in hits)

    return Exhibit(
        query=str(example.query_id),
        attack=index.attack_name(example.attack),
        eps=format_budget(example.eps, index.norms[example.attack]),
        class_name=example.class_name,
        image=loader.uri(example.image),
        perturbation=loader.uri(example.perturbation_image),
        amplification=f"{example.amplification:.3g}",
        adversarial=loader.uri(example.adversarial_image),
        clean_top=pictures(example.clean_top),
        adversarial_top=pictures(example.adversarial_top),
        targets=pictures(example.targets),
    )


class _Pictures:
    """Reads each picture of a run folder once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._uris: dict[str, str] = {}

    def uri(self, name: str) -> str:
        if name not in self._uris:
            data, media_type = read_picture(self._folder, name)
            self._uris[name] = f"data:{media_type};base64,{base64.b64encode(data).decode()}"
        return self._uris[name]
