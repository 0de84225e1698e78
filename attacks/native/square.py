"""Square (Andriushchenko et al. 2020) on the retrieval margin: random search from scores alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from robustdml.contracts import References
from robustdml.errors import SpecError
from robustdml.results import AttackEntry
from robustdml.threat import ThreatModel

from ..entries import native_entry
from ..goals.untargeted import Margin
from .black_box import Search, margins, search

# After so many of 10,000 queries the share of pixels that a square covers is halved (section 3.3 of the paper).
_HALVED_AT = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@dataclass(frozen=True)
class Square:
    """Random squares of +-eps in each colour, kept where the margin grows; a query stops when its first hit is wrong.

    Args:
        eps: L-infinity budget, in pixels of [0, 1].
        queries: images that the service is asked about for each query, at least 1.
        share: of the pixels that the first squares cover, in (0, 1].

    Raises:
        SpecError: a value out of its range.
    """

    eps: float
    queries: int = 1000
    share: float = 0.8

    def __post_init__(self) -> None:
        if self.queries < 1 or not 0 < self.share <= 1:
            raise SpecError(f"queries={self.queries} must be at least 1 and share={self.share} in (0, 1]")

    @property
    def threat(self) -> ThreatModel:
        """The L-infinity ball of radius eps."""
        return ThreatModel(self.eps)

    def entry(self) -> AttackEntry:
        """Its row in the results."""
        return native_entry("square", self, Margin(), "andriushchenko2020square", knowledge="scores")

    def target_rows(self, references: References, *, seed: int) -> None:
        """None: untargeted."""

    def __call__(self, model: nn.Module, images: Tensor, references: References, *, seed: int) -> Tensor:
        """See `robustdml.contracts.Attack`."""
        return search(model, images.detach(), references, self._search, margins, seed=seed, purpose="square")

    def _search(self, clean: Tensor, random: np.random.Generator) -> Search:
        channels, height, width = clean.shape
        low, high = (clean - self.eps).clamp_min(0), (clean + self.eps).clamp_max(1)
        best = torch.where(_signs(random, (channels, 1, width), clean), high, low)
        value = (yield best[None]).item()
        for query in range(1, self.queries):
            if value > 0:
                break
            side = max(1, round((self._share(query) * height * width) ** 0.5))
            tall, wide = min(side, height), min(side, width)
            top, left = random.integers(height - tall + 1), random.integers(width - wide + 1)
            window = np.s_[:, top : top + tall, left : left + wide]
            tried = best.clone()
            tried[window] = torch.where(_signs(random, (channels, 1, 1), clean), high[window], low[window])
            reached = (yield tried[None]).item()
            if reached > value:
                best, value = tried, reached
        return best

    def _share(self, query: int) -> float:
        scaled = query * 10_000 / self.queries
        return self.share / 2.0 ** sum(scaled > at for at in _HALVED_AT)


def _signs(random: np.random.Generator, shape: tuple[int, ...], like: Tensor) -> Tensor:
    return torch.from_numpy(random.random(shape) < 0.5).to(like.device)
