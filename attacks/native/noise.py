"""Random noise: the floor that every attack has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from .black_box import BlackBox, Search, Streams, Tried
from .geometry import project


@dataclass(frozen=True)
class Noise(BlackBox):
    """Uniform and corner noise in the budget, the worst of several trials by the retrieval margin.

    A model that noise breaks more than a gradient attack hides its gradients (Carlini et al. 2019).

    Args:
        eps: budget, in pixels of [0, 1].
        trials: draws per query, at least 1; every second one lies in the corners of the ball (each pixel at +-eps).

    Raises:
        SpecError: ``trials`` is below 1.
    """

    trials: int = 10
    kind = "noise"
    citation = "carlini2019evaluating"
    counted = "trials"

    def search(self, clean: Tensor, streams: Streams) -> Search:
        """Draw by draw."""
        tried = Tried(clean)
        for trial in range(self.trials):
            drawn = streams(f"noise{trial}").random(tuple(clean.shape), dtype=np.float32)
            noise = clean.new_tensor(drawn) * 2 - 1
            noise = noise.sign() if trial % 2 else noise
            yield from tried.ask(project(clean + noise * self.eps, clean, self.eps, "linf"))
        return tried.best
