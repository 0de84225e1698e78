"""NES (Ilyas et al. 2018) on the retrieval margin: the gradient estimated from scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robustdml.errors import SpecError
from robustdml.values import check_fields

from .black_box import BlackBox, Search, Streams, Tried
from .geometry import project


@dataclass(frozen=True)
class NES(BlackBox):
    """Signed steps along a gradient estimated from pairs of opposite Gaussian probes; the best image seen is returned.

    A query stops when its first hit is wrong.

    Args:
        eps: L-infinity budget, in pixels of [0, 1].
        queries: images that the service is asked about for each query, at least ``population + 1``.
        population: probes of each step, an even number of at least 2.
        sigma: standard deviation of the probes, in pixels of [0, 1], above 0. They are kept in [0, 1], not in the ball.
        step: length of a step as a share of eps; None stands for 2.5 over the number of steps.

    Raises:
        SpecError: a value out of its range.
    """

    queries: int = 1000
    population: int = 20
    sigma: float = 0.01
    step: float | None = None
    kind = "nes"
    citation = "ilyas2018black"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.population < 2 or self.population % 2 or self.queries <= self.population:
            raise SpecError(
                f"population={self.population} must be an even number of at least 2 and queries={self.queries} more"
            )
        if self.sigma <= 0 or (self.step is not None and self.step <= 0):
            raise SpecError(f"sigma={self.sigma} and step={self.step} must be above 0")

    def search(self, clean: Tensor, streams: Streams) -> Search:
        """Step by step."""
        random = streams(self.kind)
        # Each step asks about its probes and about the image that it leads to.
        steps = self.queries // (self.population + 1)
        step = self.eps * (2.5 / steps if self.step is None else self.step)
        half = (self.population // 2, *clean.shape)
        current, tried = clean, Tried(clean)
        for _ in range(steps):
            noise = torch.from_numpy(random.standard_normal(half, dtype=np.float32)).to(clean)
            answers = yield torch.cat([current + self.sigma * noise, current - self.sigma * noise]).clamp(0, 1)
            rise, fall = answers.to(clean).chunk(2)
            slope = torch.tensordot(rise - fall, noise, dims=1)
            current = project((current + step * slope.sign())[None], clean[None], self.eps, "linf")[0]
            yield from tried.ask(current)
            if tried.value > 0:
                break
        return tried.best
