"""The section of examples: attacked queries as pictures, embedded in the page within a byte budget.

The queries were drawn before any result was known. From them the page shows those that broke, the easiest prey first,
those that held, the hardest first, and those that were wrong already.
"""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from robustdml.results import Example, Hit
from robustdml.threat import ThreatModel

from .. import text
from ..index import Index
from .pictures import page_picture
from .sections import Section

#: What the pictures may add to the page, in bytes: so much for one model, and for each further one, so that a page of
#: one model stays below 2 MB and one of three below 4. The charts' script takes 0.7 MB.
PICTURE_BUDGET, _FURTHER_MODEL = 800_000, 600_000
#: What the tables and charts of one cell add to the page: large runs have less room for pictures, but always some.
_CELL_BYTES, _MOST_BUDGET, _LEAST_BUDGET = 4_500, 3_000_000, 500_000
#: Examples of one outcome that are shown of one attack on one model.
SHOWN = 4

#: What can become of a query, in the order in which examples are shown.
OUTCOMES = ("broken", "held", "wrong already")


@dataclass(frozen=True)
class Picture:
    """A gallery item in a ranked list, as a data URI.

    Args:
        target: whether the attack tried to bring the query here.
        name: of the photo; empty where that is not known.
        similarity: to the query; empty where that is not known.
    """

    uri: str
    class_name: str
    relevant: bool
    target: bool
    name: str
    similarity: str


@dataclass(frozen=True)
class Exhibit:
    """One attacked query: what went in, what it looked like, and what came back.

    Args:
        outcome: one of `OUTCOMES`.
        toll: how many of the attacks at this budget broke the query; empty where that is not known.
    """

    query: str
    attack: str
    eps: str
    class_name: str
    outcome: str
    toll: str
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
class Exhibits:
    """The examples by model.

    Args:
        pool: how many queries were drawn, as text; empty where there are no examples.
        left_out: how many examples are not shown; None where all are.
        shown: how many of one outcome are shown at most.
        budget: the byte budget.
    """

    rooms: tuple[Room, ...]
    pool: str
    left_out: str | None
    shown: int
    budget: str


class _Told(NamedTuple):
    """An example with what became of its query.

    Args:
        position: in the results.
        attacks: attacks at the same budget that were judged on the same model; 0 where the query is not listed.
        fallen: how many of them leave it without a right first hit.
    """

    position: int
    example: Example
    outcome: str
    attacks: int
    fallen: int


def examples_section(index: Index, folder: Path) -> Section:
    """The examples of a run whose pictures lie in ``folder``.

    Raises:
        RunFolderError: as `build_examples`.
    """
    models, cells = len(index.results.models), len(index.results.cells)
    room = min(PICTURE_BUDGET + _FURTHER_MODEL * (models - 1), _MOST_BUDGET)
    budget = max(_LEAST_BUDGET, room - _CELL_BYTES * cells)
    return Section("examples", "Examples", "examples.html.j2", build_examples(index, folder, budget))


def build_examples(index: Index, folder: Path, budget: int = PICTURE_BUDGET) -> Exhibits:
    """Embed the examples of a run whose pictures lie in ``folder``, at most ``budget`` bytes of data URIs.

    Raises:
        RunFolderError: a picture is missing, is no PNG or JPEG, or lies outside of the folder.
    """
    loader = _Pictures(folder)
    examples = index.results.examples
    kept: list[_Told] = []
    spent = 0
    for told in _fair_order(index):
        spent += sum(len(loader.uri(path)) for path in _paths(told.example))
        if spent > budget:
            break
        kept.append(told)
    attacks = [attack.spec for attack in index.results.attacks]
    kept.sort(key=lambda told: (attacks.index(told.example.attack), *_interest(told)))
    rooms: dict[str, list[Exhibit]] = {
        model.name: [] for model in index.results.models if any(told.example.model == model.name for told in kept)
    }
    for told in kept:
        rooms[told.example.model].append(_exhibit(told, index, loader))
    pool = len({example.query_id for example in examples})
    left_out = len(examples) - len(kept)
    return Exhibits(
        rooms=tuple(Room(model, tuple(exhibits)) for model, exhibits in rooms.items()),
        pool=text.counted(pool, "query", "queries") if pool else "",
        left_out=text.counted(left_out, "example") if left_out else None,
        shown=SHOWN,
        budget=f"{budget / 1e6:.1f} MB",
    )


def _fair_order(index: Index) -> list[_Told]:
    """The examples to show, such that a cut anywhere leaves every model, attack and outcome about as many."""
    places = {item: place for place, item in enumerate(index.results.queries.ids)}
    told = [_tell(index, places, position, example) for position, example in enumerate(index.results.examples)]
    seen: Counter[tuple[str, str, ThreatModel, str]] = Counter()
    turns = []
    for item in sorted(told, key=_interest):
        key = (item.example.model, item.example.attack, item.example.threat, item.outcome)
        if seen[key] < SHOWN:
            turns.append((seen[key], item.position, item))
        seen[key] += 1
    return [item for _, _, item in sorted(turns)]


def _interest(told: _Told) -> tuple[int, int, int]:
    """By which examples are sorted: broken ones that most attacks break first, then held ones that fewest break."""
    order = OUTCOMES.index(told.outcome)
    return (order, -told.fallen if told.outcome == "broken" else told.fallen, told.position)


def _tell(index: Index, places: dict[int, int], position: int, example: Example) -> _Told:
    right, still = (bool(hits) and hits[0].relevant for hits in (example.clean_top, example.adversarial_top))
    outcome = "wrong already" if not right else "held" if still else "broken"
    place = places.get(example.query_id)
    judged = [
        cell.hits
        for cell in index.results.cells
        if cell.hits is not None and cell.model == example.model and index.budget(cell) == index.budget(example)
    ]
    if place is None:
        return _Told(position, example, outcome, 0, 0)
    fallen = sum(not int(hits[place // 4], 16) >> (3 - place % 4) & 1 for hits in judged)
    return _Told(position, example, outcome, len(judged), fallen)


def _paths(example: Example) -> list[str]:
    hits = (*example.clean_top, *example.adversarial_top, *example.targets)
    return [example.image, example.perturbation_image, example.adversarial_image, *(hit.image for hit in hits)]


def _exhibit(told: _Told, index: Index, loader: _Pictures) -> Exhibit:
    example = told.example
    aims = {hit.id for hit in example.targets}

    def pictures(hits: tuple[Hit, ...]) -> tuple[Picture, ...]:
        return tuple(
            Picture(
                uri=loader.uri(hit.image),
                class_name=hit.class_name,
                relevant=hit.relevant,
                target=hit.id in aims,
                name=hit.name,
                similarity="" if hit.similarity is None else f"{hit.similarity:.3f}",
            )
            for hit in hits
        )

    judged = told.attacks and told.outcome != "wrong already"
    return Exhibit(
        query=str(example.query_id),
        attack=index.attack_name(example.attack),
        eps=example.threat.text,
        class_name=example.class_name,
        outcome=told.outcome,
        toll=f"{told.fallen} of {text.counted(told.attacks, 'attack')} at this budget" if judged else "",
        image=loader.uri(example.image),
        perturbation=loader.uri(example.perturbation_image),
        amplification=f"{example.amplification:.3g}",
        adversarial=loader.uri(example.adversarial_image),
        clean_top=pictures(example.clean_top),
        adversarial_top=pictures(example.adversarial_top),
        targets=pictures(example.targets),
    )


class _Pictures:
    """Reads and packs each picture of a run folder once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._uris: dict[str, str] = {}

    def uri(self, name: str) -> str:
        if name not in self._uris:
            data, media_type = page_picture(self._folder, name)
            self._uris[name] = f"data:{media_type};base64,{base64.b64encode(data).decode()}"
        return self._uris[name]
