"""RayS (Chen & Gu 2020) on retrieval: a search that sees no more than the id of the first hit."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .black_box import BlackBox, Search, Streams

# Bisection ends at this share of eps.
_PRECISION = 0.03


@dataclass(frozen=True)
class RayS(BlackBox):
    """Looks for the direction of signs in which the nearest image with a wrong first hit lies.

    Signs are flipped in blocks of the image, from the whole down to single values; a flip is kept where the image at
    the smallest radius so far still has a wrong first hit. It needs no gradient and no score. A query stops when that
    radius is within eps; where it never is, the image at eps in the best direction is returned.

    Args:
        eps: L-infinity budget, in pixels of [0, 1].
        queries: images that the service is asked about for each query, at least 1.

    Raises:
        SpecError: ``queries`` is below 1.
    """

    queries: int = 1000
    kind = "rays"
    citation = "chen2020rays"
    knowledge = "decisions"

    def search(self, clean: Tensor, streams: Streams) -> Search:
        """Ray by ray."""
        ray = _Ray(clean, self.queries)
        if (yield from ray.wrong_at(0.0, ray.signs)) or self.eps == 0:
            return clean
        radius = yield from self._shorten(ray, ray.signs, 1.0)
        for flipped in _blocks(clean.numel(), streams(self.kind)):
            if radius <= self.eps or not ray.left:
                break
            signs = ray.signs.clone()
            signs[flipped] *= -1
            shorter = yield from self._shorten(ray, signs, min(radius, 1.0))
            if shorter < np.inf:
                ray.signs, radius = signs, shorter
        return ray.at(min(radius, self.eps), ray.signs)

    def _shorten(self, ray: _Ray, signs: Tensor, radius: float) -> Generator[Tensor, Tensor, float]:
        """The smallest radius up to ``radius`` found to be wrong along ``signs``; infinite where ``radius`` is not."""
        if not (yield from ray.wrong_at(radius, signs)):
            return np.inf
        low = 0.0
        while ray.left and radius - low > _PRECISION * self.eps and radius > self.eps:
            middle = (low + radius) / 2
            if (yield from ray.wrong_at(middle, signs)):
                radius = middle
            else:
                low = middle
        return radius


class _Ray:
    """An image, a direction of signs, and the questions that are left."""

    def __init__(self, clean: Tensor, queries: int) -> None:
        self.clean, self.left = clean, queries
        self.signs = torch.ones_like(clean).flatten()

    def at(self, radius: float, signs: Tensor) -> Tensor:
        return (self.clean + radius * signs.view_as(self.clean)).clamp(0, 1)

    def wrong_at(self, radius: float, signs: Tensor) -> Generator[Tensor, Tensor, bool]:
        if not self.left:
            return False
        self.left -= 1
        return bool((yield self.at(radius, signs)[None]).item())


def _blocks(size: int, random: np.random.Generator) -> Generator[slice, None, None]:
    """Parts of the flattened image: 1, then 2 halves, 4 quarters and so on, each time in a drawn order, without end."""
    count = 1
    while True:
        edges = np.linspace(0, size, count + 1).astype(int)
        for block in random.permutation(count).tolist():
            yield slice(edges[block], edges[block + 1])
        count = min(2 * count, size)
