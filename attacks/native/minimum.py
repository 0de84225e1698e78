"""The smallest perturbation that breaks a query: a search for its budget, with APGD at every budget tried."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustdml.contracts import References
from robustdml.errors import SpecError
from robustdml.models import untouched
from robustdml.results import AttackEntry
from robustdml.seeding import derive_seed
from robustdml.threat import ThreatModel
from robustdml.values import check_fields

from ..goals.untargeted import Margin
from .apgd import ascend
from .geometry import check_norm, project, random_perturbation
from .gradient import Best, gradient_entry, value_of

# The first budget tried, as a share of the largest perturbation that pixels in [0, 1] allow: 4/255 for L-infinity.
_FIRST = 4 / 255

# How far the margin must be above 0, so that rounding does not decide whether a query is broken.
_CLEAR = 1e-5


@dataclass(frozen=True)
class MinimumNorm:
    """The smallest eps at which APGD on the margin gives each query a wrong first hit.

    The budget of a query doubles until it breaks, and is then bisected; each budget begins with the best image of the
    one before. A query that is wrong already stays as it is; of one that never breaks the best image is returned.

    Args:
        goal: the margin; above 0 it says that the query is broken.
        steps: gradient steps at each budget, at least 1.
        rounds: budgets tried, at least 1.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.

    Raises:
        SpecError: a value out of its range.
    """

    goal: Margin
    steps: int = 20
    rounds: int = 10
    norm: str = "linf"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.steps < 1 or self.rounds < 1:
            raise SpecError(f"steps={self.steps} and rounds={self.rounds} must both be at least 1")
        check_norm(self.norm)

    @property
    def threat(self) -> ThreatModel:
        """Every image; the norm is measured."""
        return ThreatModel(None, self.norm)

    def entry(self) -> AttackEntry:
        """Its row in the results."""
        return gradient_entry("minimum", self, "croce2021mind" if self.norm == "l1" else "croce2020reliable")

    def target_rows(self, references: References, *, seed: int) -> None:
        """None: untargeted."""

    def __call__(self, model: nn.Module, images: Tensor, references: References, *, seed: int) -> Tensor:
        """See `robustdml.contracts.Attack`."""
        images, ids = images.detach(), references.ids
        size = images[0].numel()
        largest = {"linf": 1.0, "l2": size**0.5, "l1": float(size)}[self.norm]
        objective = self.goal.objective(references, seed=seed)
        with untouched(model):
            torch.manual_seed(derive_seed(seed, "model", ids.tolist()))
            broken = value_of(model, objective, images) > _CLEAR
            found = images.clone()
            start = Best(images)
            low = torch.zeros_like(images[:, :1, :1, :1])
            high = torch.full_like(low, torch.inf).masked_fill(_rows(broken), 0)
            for turn in range(self.rounds):
                # Doubling from the first budget until it breaks, the geometric mean from there.
                wider = (2 * low).clamp(_FIRST * largest, largest)
                between = torch.where(low > 0, (low * high).sqrt(), high / 2)
                eps = torch.where(high.isinf(), wider, between)
                noise = random_perturbation(images, ids, eps / 10, self.norm, seed=seed, purpose=f"start{turn}")
                begin = project(start.images + noise, images, eps, self.norm)
                best = ascend(model, objective, images, begin, eps, self.norm, steps=self.steps)
                wrong = (best.values > _CLEAR) & (high > 0).flatten()
                found = torch.where(_rows(wrong), best.images, found)
                broken |= wrong
                high = torch.where(_rows(wrong), eps, high)
                low = torch.where(_rows(wrong), low, eps)
                start = best
        return torch.where(_rows(broken), found, start.images)


def _rows(chosen: Tensor) -> Tensor:
    return chosen[:, None, None, None]
