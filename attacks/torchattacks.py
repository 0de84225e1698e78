"""Attacks of torchattacks (Kim 2020), aimed at retrieval. The only file that imports that library."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass

import torch
import torchattacks
from torch import Tensor, nn

from robustdml.contracts import References
from robustdml.errors import SpecError
from robustdml.models import untouched
from robustdml.results import AttackEntry
from robustdml.seeding import derive_seed
from robustdml.threat import ThreatModel

from .classifier import problems
from .factory import AttackFactory, dataclass_defaults
from .goals import Aim
from .proxy import classifier_entry, seeded


@dataclass(frozen=True)
class TorchattacksPGD:
    """``torchattacks.PGD`` through a `RetrievalClassifier`: cross entropy, random start, the last iterate.

    Args:
        goal: `Untargeted`, `STAX` or `MTAX`.
        eps: budget, in pixels of [0, 1].
        steps: gradient steps, at least 1.
        step: length of a step as a share of eps; None stands for 2.5 / steps.

    Raises:
        SpecError: a value out of its range.
    """

    goal: Aim
    eps: float
    steps: int = 20
    step: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or (self.step is not None and self.step <= 0):
            raise SpecError(f"steps={self.steps} must be at least 1 and step={self.step} above 0 (a share of eps)")

    @property
    def threat(self) -> ThreatModel:
        """The L-infinity ball of radius eps."""
        return ThreatModel(self.eps)

    def entry(self) -> AttackEntry:
        """Its row in the results."""
        return classifier_entry("torchattacks.PGD", "torchattacks", self, self.goal.name, "kim2020torchattacks")

    def target_rows(self, references: References, *, seed: int) -> Tensor | None:
        """Those of the goal."""
        return self.goal.target_rows(references, seed=seed)

    def __call__(self, model: nn.Module, images: Tensor, references: References, *, seed: int) -> Tensor:
        """See `robustdml.contracts.Attack`."""
        images = images.detach()
        targets = self.target_rows(references, seed=seed)
        result = images.clone()
        alpha = self.eps * (2.5 / self.steps if self.step is None else self.step)
        with untouched(model), torch.enable_grad(), contextlib.redirect_stdout(io.StringIO()):
            for problem in problems(model, references, targets):
                seeded(derive_seed(seed, references.ids[problem.rows].tolist()))
                attack = torchattacks.PGD(problem.classifier, eps=self.eps, alpha=alpha, steps=self.steps)
                attack.set_device(images.device)
                if targets is not None:
                    attack.set_mode_targeted_by_label(quiet=True)
                result[problem.rows] = attack(images[problem.rows], problem.labels).detach()
        return result


FACTORIES = {
    "torchattacks.PGD": AttackFactory(
        "torchattacks' PGD on a RetrievalClassifier",
        TorchattacksPGD,
        dataclass_defaults(TorchattacksPGD),
        ("untargeted", "stax", "mtax"),
        {"quick": {"steps": 10}, "thorough": {"steps": 100}},
        library="torchattacks",
    )
}
NOT_OFFERED: dict[str, str] = {}
