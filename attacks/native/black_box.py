"""Black-box search: what each query of a batch tries next depends on what the service answered to it before.

A search is a generator. It yields images, is sent one number for each, and returns the image that it settles on. All
searches of a batch are asked together, so that the model sees full batches, and each draws from the stream of its own
query, so that its course does not depend on the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from robustdml.contracts import References
from robustdml.models import untouched
from robustdml.seeding import stream

from ..goals.untargeted import Margin

#: Yields images ``(Q, C, H, W)``, is sent their answers ``(Q,)``, and returns an image ``(C, H, W)``.
Search = Generator[Tensor, Tensor, Tensor]

#: What a service says of embeddings ``(N, D)`` of the queries of the references: ``(N,)``.
Answer = Callable[[Tensor, References], Tensor]

# Images that pass through the model at once.
_BATCH = 256


def margins(embeddings: Tensor, references: References) -> Tensor:
    """From a service that returns scores: the retrieval margin; above 0 the first hit is wrong."""
    return Margin().objective(references, seed=0)(embeddings)


def first_hit_is_wrong(embeddings: Tensor, references: References) -> Tensor:
    """From a service that returns the id of the first hit only: 1 where it is of another class, else 0."""
    gallery = references.gallery
    similarity = (embeddings @ gallery.embeddings.T).masked_fill(references.own, -torch.inf)
    return (gallery.labels[similarity.argmax(1)] != references.labels).to(embeddings)


def search(
    model: nn.Module,
    images: Tensor,
    references: References,
    start: Callable[[Tensor, np.random.Generator], Search],
    answer: Answer,
    *,
    seed: int,
    purpose: str,
) -> Tensor:
    """Search for every query of a batch and return the images found, ``(N, C, H, W)``.

    Args:
        start: begins the search of one image, with the random stream of its query.
        answer: what the service says.
        purpose: names the random stream.
    """
    searches = [
        start(image, stream(seed, purpose, item)) for image, item in zip(images, references.ids.tolist(), strict=True)
    ]
    found = images.clone()
    with untouched(model), torch.no_grad():
        asked = {row: next(one) for row, one in enumerate(searches)}
        while asked:
            rows = [row for row, tried in asked.items() for _ in tried]
            answers = _ask(model, list(asked.values()), references.rows(torch.tensor(rows)), answer)
            following = {}
            for row, part in zip(asked, answers.split([len(tried) for tried in asked.values()]), strict=True):
                try:
                    following[row] = searches[row].send(part)
                except StopIteration as done:
                    found[row] = done.value
            asked = following
    return found


def _ask(model: nn.Module, tried: Sequence[Tensor], references: References, answer: Answer) -> Tensor:
    parts, at = [], 0
    for batch in torch.cat(list(tried)).split(_BATCH):
        rows = references.rows(torch.arange(at, at + len(batch)))
        parts.append(answer(model(batch), rows))
        at += len(batch)
    return torch.cat(parts).cpu()
