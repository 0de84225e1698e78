"""Attacks of the Adversarial Robustness Toolbox (Nicolae et al. 2018), aimed at retrieval; imported only here."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass

import numpy as np
import torch
from art.attacks.evasion import ProjectedGradientDescent
from art.estimators.classification import PyTorchClassifier
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
class ARTProjectedGradientDescent:
    """ART's ``ProjectedGradientDescent`` through a `RetrievalClassifier`.

    ART stops no query early, and keeps of several random starts the one that its classifier calls a success.

    Args:
        goal: `Untargeted`, `STAX` or `MTAX`.
        eps: budget, in pixels of [0, 1].
        steps: gradient steps (ART's ``max_iter``), at least 1.
        step: length of a step (ART's ``eps_step``) as a share of eps; None stands for 2.5 / steps.
        restarts: random starts (ART's ``num_random_init``); 0 starts at the clean image.

    Raises:
        SpecError: a value out of its range.
    """

    goal: Aim
    eps: float
    steps: int = 20
    step: float | None = None
    restarts: int = 1

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 0 or (self.step is not None and self.step <= 0):
            raise SpecError(
                f"steps={self.steps} must be at least 1, restarts={self.restarts} at least 0, step={self.step} above 0"
            )

    @property
    def threat(self) -> ThreatModel:
        """The L-infinity ball of radius eps."""
        return ThreatModel(self.eps)

    def entry(self) -> AttackEntry:
        """Its row in the results."""
        return classifier_entry("art.ProjectedGradientDescent", "art", self, self.goal.name, "nicolae2018art")

    def target_rows(self, references: References, *, seed: int) -> Tensor | None:
        """Those of the goal."""
        return self.goal.target_rows(references, seed=seed)

    def __call__(self, model: nn.Module, images: Tensor, references: References, *, seed: int) -> Tensor:
        """See `robustdml.contracts.Attack`."""
        images = images.detach()
        if self.eps == 0:
            # ART refuses a budget of 0; the only image that it allows is the clean one.
            return images.clone()
        targets = self.target_rows(references, seed=seed)
        result = images.clone()
        with untouched(model), torch.enable_grad(), contextlib.redirect_stdout(io.StringIO()):
            for problem in problems(model, references, targets):
                seeded(derive_seed(seed, references.ids[problem.rows].tolist()))
                part = images[problem.rows]
                estimator = PyTorchClassifier(
                    model=problem.classifier,
                    loss=nn.CrossEntropyLoss(),
                    input_shape=tuple(part.shape[1:]),
                    nb_classes=problem.classifier.n_classes,
                    clip_values=(0.0, 1.0),
                    device_type="gpu" if images.is_cuda else "cpu",
                )
                attack = ProjectedGradientDescent(
                    estimator,
                    norm=np.inf,
                    eps=self.eps,
                    eps_step=self.eps * (2.5 / self.steps if self.step is None else self.step),
                    max_iter=self.steps,
                    targeted=targets is not None,
                    num_random_init=self.restarts,
                    batch_size=len(part),
                    verbose=False,
                )
                adversarial = attack.generate(part.cpu().numpy(), y=problem.labels.cpu().numpy())
                result[problem.rows] = torch.from_numpy(adversarial).to(images)
        return result


FACTORIES = {
    "art.ProjectedGradientDescent": AttackFactory(
        "ART's PGD on a RetrievalClassifier",
        ARTProjectedGradientDescent,
        dataclass_defaults(ARTProjectedGradientDescent),
        ("untargeted", "stax", "mtax"),
        {"quick": {"steps": 10}, "thorough": {"steps": 100}},
        library="art",
    )
}
NOT_OFFERED: dict[str, str] = {}
