"""Square (Andriushchenko et al. 2020) on the retrieval margin: random search from scores alone."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from robustdml.errors import SpecError
from robustdml.threat import ThreatModel, norm_of
from robustdml.values import check_fields

from ..attack_entry import added_later
from .black_box import BlackBox, Search, Streams, Tried
from .geometry import check_norm, project

# After so many of 10,000 queries the share of pixels that a square covers is halved (section 3.3 of the paper).
_HALVED_AT = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)

# Pixels along a side below which there is no square in L2 and L1: a pair of bumps needs them.
_SMALLEST = 3


@dataclass(frozen=True)
class Square(BlackBox):
    """Random squares in each colour, kept where the margin grows; a query stops when its first hit is wrong.

    In L-infinity a square is +-eps in all of its pixels. In L2 (algorithm 3 of the paper) and, likewise, in L1 it is a
    pair of bumps of opposite signs, added to what was in the square before; it is as large as the budget allows once a
    second square is taken back (Croce & Hein 2021 do so in L1).

    Args:
        eps: budget, in pixels of [0, 1].
        queries: images that the service is asked about for each query, at least 1.
        share: of the pixels that the first squares cover, in (0, 1].
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.

    Raises:
        SpecError: a value out of its range.
    """

    queries: int = 1000
    share: float = 0.8
    norm: str = added_later("linf")
    kind = "square"
    citation = "andriushchenko2020square"

    def __post_init__(self) -> None:
        check_fields(self)
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise SpecError(f"share={self.share} must be in (0, 1]")
        check_norm(self.norm)

    @property
    def threat(self) -> ThreatModel:
        """The ball of radius eps."""
        return ThreatModel(self.eps, self.norm)

    def search(self, clean: Tensor, streams: Streams) -> Search:
        """Square by square."""
        random, tried = streams(self.kind), Tried(clean)
        yield from (self._corners if self.norm == "linf" else self._bumps)(clean, random, tried)
        return tried.best

    def _corners(self, clean: Tensor, random: np.random.Generator, tried: Tried) -> Generator[Tensor, Tensor, None]:
        channels, height, width = clean.shape
        low, high = (clean - self.eps).clamp_min(0), (clean + self.eps).clamp_max(1)
        yield from tried.ask(torch.where(_signs(random, (channels, 1, width), clean), high, low))
        for query in range(1, self.queries):
            if tried.value > 0:
                break
            window = _window(random, max(1, self._side(query, height, width)), height, width)
            image = tried.best.clone()
            image[window] = torch.where(_signs(random, (channels, 1, 1), clean), high[window], low[window])
            yield from tried.ask(image)

    def _bumps(self, clean: Tensor, random: np.random.Generator, tried: Tried) -> Generator[Tensor, Tensor, None]:
        _, height, width = clean.shape
        tile = min(max(_SMALLEST, min(height, width) // 5), height, width)
        change = torch.zeros_like(clean)
        for top in range(0, height - tile + 1, tile):
            for left in range(0, width - tile + 1, tile):
                change[:, top : top + tile, left : left + tile] = _pair(random, clean, tile, tile)
        yield from tried.ask((clean + change * (self.eps / self._size(change))).clamp(0, 1))
        power = 2 if self.norm == "l2" else 1
        for query in range(1, self.queries):
            if tried.value > 0:
                break
            change = tried.best - clean
            side = max(_SMALLEST, self._side(query, height, width))
            filled, emptied = (_window(random, side, height, width) for _ in range(2))
            before = change[filled].clone()
            change[emptied], change[filled] = 0.0, 0.0
            # What the two squares held and what clipping to [0, 1] has left unused.
            room = max(0.0, self.eps**power - self._size(change) ** power) ** (1 / power)
            after = _pair(random, clean, *before.shape[1:]) + before / max(self._size(before), 1e-12)
            change[filled] = after * (room / max(self._size(after), 1e-12))
            yield from tried.ask(project((clean + change)[None], clean[None], self.eps, self.norm)[0])

    def _size(self, change: Tensor) -> float:
        return float(norm_of(change[None], self.norm))

    def _side(self, query: int, height: int, width: int) -> int:
        scaled = query * 10_000 / self.queries
        share = self.share / 2.0 ** sum(scaled > at for at in _HALVED_AT)
        side: float = (share * height * width) ** 0.5
        return round(side)


def _window(random: np.random.Generator, side: int, height: int, width: int) -> tuple[slice, slice, slice]:
    tall, wide = min(side, height), min(side, width)
    top, left = random.integers(height - tall + 1), random.integers(width - wide + 1)
    return np.s_[:, top : top + tall, left : left + wide]


def _signs(random: np.random.Generator, shape: tuple[int, ...], like: Tensor) -> Tensor:
    return torch.from_numpy(random.random(shape) < 0.5).to(like.device)


def _pair(random: np.random.Generator, like: Tensor, height: int, width: int) -> Tensor:
    """Two bumps of opposite signs, above each other or side by side, of length 1 in each channel, ``(C, H, W)``."""
    upright = bool(random.random() < 0.5)
    first, second = (height, width) if upright else (width, height)
    pair = torch.cat([_bump(first // 2, second), -_bump(first - first // 2, second)])
    pair = (pair if upright else pair.T).to(like)
    signed: Tensor = pair / pair.norm() * torch.where(_signs(random, (len(like), 1, 1), like), 1.0, -1.0)
    return signed


@lru_cache
def _bump(height: int, width: int) -> Tensor:
    """A pyramid, ``(H, W)``: rectangles around the middle that grow and add ever less (equation 2 of the paper)."""
    bump = torch.zeros(height, width)
    middle, centre = height // 2, width // 2
    for ring in range(max(middle, centre) + 1):
        rows, columns = max(0, middle - ring), max(0, centre - ring)
        bump[rows : middle + ring + 1, columns : centre + ring + 1] += 1 / (ring + 1) ** 2
    return bump
