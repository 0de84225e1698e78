"""Black-box attacks: what each query of a batch tries next depends on what the service answered to it before.

A search is a generator. It yields images, is sent one number for each, and returns the image that it settles on. All
searches of a batch are asked together, so that the model sees full batches, and each draws from streams of its own
query, so that its course does not depend on the batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from robustdml.contracts import Objective, References
from robustdml.errors import SpecError
from robustdml.models import untouched
from robustdml.results import AttackEntry
from robustdml.seeding import stream
from robustdml.threat import ThreatModel
from robustdml.values import check_fields

from ..attack_entry import native_entry
from ..goals.search import listed, nearest_item
from ..goals.untargeted import Margin

#: Yields images ``(Q, C, H, W)``, is sent their answers ``(Q,)``, and returns an image ``(C, H, W)``.
Search = Generator[Tensor, Tensor, Tensor]

#: What a service says of embeddings of the queries of the references.
Answer = Callable[[References], Objective]

#: The random stream of a query for a purpose.
Streams = Callable[[str], np.random.Generator]

# Images that pass through the model at once.
_BATCH = 256


def margins(references: References) -> Objective:
    """From a service that returns scores: the retrieval margin; above 0 the first hit is wrong."""
    return Margin().objective(references, seed=0)


def first_hit_is_wrong(references: References) -> Objective:
    """From a service that returns the id of the first hit only: 1 where it is of another class, else 0."""
    gallery, allowed = references.gallery, listed(references)

    def value(embeddings: Tensor) -> Tensor:
        first = nearest_item(embeddings, gallery.embeddings, allowed)
        return (gallery.labels[first] != references.labels).to(embeddings)

    return value


_ANSWERS: dict[str, Answer] = {"scores": margins, "decisions": first_hit_is_wrong}


@dataclass(frozen=True)
class BlackBox(ABC):
    """What the black-box attacks share: they want a wrong first hit within an L-infinity ball, and only ask.

    Args:
        eps: budget, in pixels of [0, 1].

    Raises:
        SpecError: a number of questions below 1.
    """

    eps: float
    kind: ClassVar[str]
    citation: ClassVar[str]
    knowledge: ClassVar[Literal["scores", "decisions"]] = "scores"
    #: The parameter that counts the images that the service is asked about for each query.
    counted: ClassVar[str] = "queries"

    def __post_init__(self) -> None:
        check_fields(self)
        if getattr(self, self.counted) < 1:
            raise SpecError(f"{self.counted}={getattr(self, self.counted)} must be at least 1")

    @property
    def threat(self) -> ThreatModel:
        """The L-infinity ball of radius eps."""
        return ThreatModel(self.eps)

    def entry(self) -> AttackEntry:
        """Its row in the results."""
        return native_entry(self.kind, self, Margin(), self.citation, knowledge=self.knowledge)

    def target_rows(self, references: References, *, seed: int) -> None:
        """None: untargeted."""
        return None

    def __call__(self, model: nn.Module, images: Tensor, references: References, *, seed: int) -> Tensor:
        """See `robustdml.contracts.Attack`."""
        return search(model, images.detach(), references, self.search, _ANSWERS[self.knowledge], seed=seed)

    @abstractmethod
    def search(self, clean: Tensor, streams: Streams) -> Search:
        """The search of one image, ``(C, H, W)``."""


class Tried:
    """The images that one search has tried, by their values: the best of them so far.

    Args:
        image: what is best before anything is tried.
    """

    def __init__(self, image: Tensor) -> None:
        self.best, self.value = image, -np.inf

    def ask(self, image: Tensor) -> Generator[Tensor, Tensor, None]:
        """Ask the service about an image, and keep it where its value is higher."""
        value = (yield image[None]).item()
        if value > self.value:
            self.best, self.value = image, value


def search(
    model: nn.Module,
    images: Tensor,
    references: References,
    start: Callable[[Tensor, Streams], Search],
    answer: Answer,
    *,
    seed: int,
) -> Tensor:
    """Search for every query of a batch and return the images found, ``(N, C, H, W)``.

    Args:
        start: begins the search of one image, with the random streams of its query.
        answer: what the service says.
    """
    # Each searches on the host, where its random numbers are drawn, and all wait for the device once a round.
    searches = [
        start(image, partial(stream, seed, item=item))
        for image, item in zip(images.cpu(), references.ids.tolist(), strict=True)
    ]
    found = images.cpu().clone()
    services: dict[tuple[int, ...], list[Objective]] = {}  # by who asks, in the order of the images
    with untouched(model), torch.no_grad():
        asked = {row: next(one) for row, one in enumerate(searches)}
        while asked:
            rows = tuple(row for row, tried in asked.items() for _ in tried)
            if rows not in services:
                places = torch.tensor(rows, device=images.device).split(_BATCH)
                services[rows] = [answer(references.rows(part)) for part in places]
            batches = torch.cat(list(asked.values())).to(images.device).split(_BATCH)
            said = [service(model(batch)) for service, batch in zip(services[rows], batches, strict=True)]
            following = {}
            sizes = [len(tried) for tried in asked.values()]
            for row, part in zip(asked, torch.cat(said).cpu().split(sizes), strict=True):
                try:
                    following[row] = searches[row].send(part)
                except StopIteration as done:
                    found[row] = done.value
            if len(following) < len(asked):
                services.clear()
            asked = following
    return found.to(images.device)
