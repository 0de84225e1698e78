"""Random noise: the floor that every attack has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustdml.contracts import References
from robustdml.errors import SpecError
from robustdml.models import untouched
from robustdml.results import AttackEntry
from robustdml.seeding import uniform_like
from robustdml.threat import ThreatModel

from ..entries import native_entry
from ..goals.untargeted import Margin


@dataclass(frozen=True)
class Noise:
    """Uniform and corner noise in the budget, the worst of several trials by the retrieval margin.

    A model that noise breaks more than a gradient attack hides its gradients (Carlini et al. 2019).

    Args:
        eps: budget, in pixels of [0, 1].
        trials: draws per query, at least 1; every second one lies in the corners of the ball (each pixel at +-eps).

    Raises:
        SpecError: ``trials`` is below 1.
    """

    eps: float
    trials: int = 10

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise SpecError(f"trials={self.trials} must be at least 1")

    @property
    def threat(self) -> ThreatModel:
        """The L-infinity ball of radius eps."""
        return ThreatModel(self.eps)

    def entry(self) -> AttackEntry:
        """Its row in the results."""
        return native_entry("noise", self, Margin(), "carlini2019evaluating", knowledge="scores")

    def target_rows(self, references: References, *, seed: int) -> None:
        """None: untargeted."""

    def __call__(self, model: nn.Module, images: Tensor, references: References, *, seed: int) -> Tensor:
        """See `robustdml.contracts.Attack`."""
        images = images.detach()
        objective = Margin().objective(references, seed=seed)
        best = images.clone()
        best_value = torch.full((len(images),), -torch.inf, device=images.device)
        with untouched(model), torch.no_grad():
            for trial in range(self.trials):
                noise = uniform_like(images, references.ids, seed=seed, purpose=f"noise{trial}")
                noise = noise.sign() if trial % 2 else noise
                candidate = self.threat.project(images + noise * self.eps, images)
                value = objective(model(candidate))
                better = value > best_value
                best[better], best_value[better] = candidate[better], value[better]
        return best
