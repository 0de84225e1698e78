"""Unadversarial images: pushed towards their own class, as training examples (Salman et al. 2021; MDProp's last kind).

No attack: such an image is easier to retrieve than the clean one. It is built by name and left out of every suite.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robustdml.contracts import References
from robustdml.errors import SpecError
from robustdml.seeding import stream

from .embedding import Objective


@dataclass(frozen=True)
class Unadversarial:
    """Towards items of the own class: lowers the mean distance to them.

    Args:
        targets: T, how many of them, drawn by seed and query, at least 1; a class with fewer others gives them more
            than once, and a query that is alone in its class stays as it is.

    Raises:
        SpecError: ``targets`` is below 1.
    """

    targets: int = 1
    name = "unadversarial"
    flat_at_clean = False

    def __post_init__(self) -> None:
        if self.targets < 1:
            raise SpecError(f"targets={self.targets}: an unadversarial image needs at least one target")

    def target_rows(self, references: References, *, seed: int) -> Tensor:
        """``(N, T)``, gallery rows of the own class other than the query itself (its own row where there is none)."""
        friendly = (references.same_class & ~references.own).cpu().numpy()
        alone = references.own.cpu().numpy()
        rows = []
        for mask, own, item in zip(friendly, alone, references.ids.tolist(), strict=True):
            candidates = np.flatnonzero(mask)
            if not len(candidates):
                candidates = np.flatnonzero(own)
            if not len(candidates):
                raise SpecError("an unadversarial image needs an item of its own class in the gallery")
            replace = len(candidates) < self.targets
            rows.append(stream(seed, "targets", item).choice(candidates, self.targets, replace=replace))
        return torch.from_numpy(np.stack(rows)).to(references.ids.device)

    def objective(self, references: References, *, seed: int) -> Objective:
        """Minus the mean distance to the targets."""
        wanted = references.gallery.embeddings[self.target_rows(references, seed=seed)]  # (N, T, D)

        def value(embeddings: Tensor) -> Tensor:
            # The small constant keeps the gradient of the root finite where a target is reached.
            return -((embeddings[:, None] - wanted).square().sum(2) + 1e-12).sqrt().mean(1)

        return value
