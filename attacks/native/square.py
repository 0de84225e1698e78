"""Square (Andriushchenko et al. 2020) on the retrieval margin: random search from scores alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robustdml.errors import SpecError
from robustdml.values import check_fields

from .black_box import BlackBox, Search, Streams, Tried

# After so many of 10,000 queries the share of pixels that a square covers is halved (section 3.3 of the paper).
_HALVED_AT = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@dataclass(frozen=True)
class Square(BlackBox):
    """Random squares of +-eps in each colour, kept where the margin grows; a query stops when its first hit is wrong.

    Args:
        eps: L-infinity budget, in pixels of [0, 1].
        queries: images that the service is asked about for each query, at least 1.
        share: of the pixels that the first squares cover, in (0, 1].

    Raises:
        SpecError: a value out of its range.
    """

    queries: int = 1000
    share: float = 0.8
    kind = "square"
    citation = "andriushchenko2020square"

    def __post_init__(self) -> None:
        check_fields(self)
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise SpecError(f"share={self.share} must be in (0, 1]")

    def search(self, clean: Tensor, streams: Streams) -> Search:
        """Square by square."""
        random = streams(self.kind)
        channels, height, width = clean.shape
        low, high = (clean - self.eps).clamp_min(0), (clean + self.eps).clamp_max(1)
        tried = Tried(clean)
        yield from tried.ask(torch.where(_signs(random, (channels, 1, width), clean), high, low))
        for query in range(1, self.queries):
            if tried.value > 0:
                break
            side = max(1, round((self._share(query) * height * width) ** 0.5))
            tall, wide = min(side, height), min(side, width)
            top, left = random.integers(height - tall + 1), random.integers(width - wide + 1)
            window = np.s_[:, top : top + tall, left : left + wide]
            image = tried.best.clone()
            image[window] = torch.where(_signs(random, (channels, 1, 1), clean), high[window], low[window])
            yield from tried.ask(image)
        return tried.best

    def _share(self, query: int) -> float:
        scaled = query * 10_000 / self.queries
        return self.share / 2.0 ** sum(scaled > at for at in _HALVED_AT)


def _signs(random: np.random.Generator, shape: tuple[int, ...], like: Tensor) -> Tensor:
    return torch.from_numpy(random.random(shape) < 0.5).to(like.device)
