"""A universal adversarial patch for retrieval: one square that is stuck onto every query (after Brown et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from robustdml.contracts import Attack, Gallery, Goal, References
from robustdml.errors import SpecError
from robustdml.models import untouched
from robustdml.results import AttackEntry
from robustdml.seeding import stream, uniform_like
from robustdml.threat import ThreatModel
from robustdml.values import check_fields

from ..attack_entry import native_entry
from .universal_fit import learn, sample

#: Where the patch is stuck: anywhere, drawn for each query; or in the middle of the image.
PLACES = ("random", "centre")


@dataclass(frozen=True)
class Patch:
    """One patch for all queries, learnt on gallery images and never on the queries; no norm bounds its pixels.

    Args:
        goal: `Margin` or `Shift`.
        share: side of the patch as a share of the image's, in (0, 1].
        place: one of `PLACES`. While it is learnt the patch is stuck in the same manner.
        steps: gradient steps, at least 1.
        step: length of a step in pixels of [0, 1], above 0.
        sample: gallery images that it is learnt on (or as many as there are), at least 1.
        batch: images of a step, at least 1.
        patch: ``(1, 3, S, S)`` where it has been computed (see `fitted`).

    Raises:
        SpecError: a value out of its range.
    """

    goal: Goal
    share: float = 0.25
    place: str = "random"
    steps: int = 200
    step: float = 0.05
    sample: int = 256
    batch: int = 64
    patch: Tensor | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_fields(self)
        if min(self.steps, self.sample, self.batch) < 1 or not self.step > 0:
            raise SpecError(
                f"steps={self.steps}, sample={self.sample} and batch={self.batch} must be at least 1, "
                f"step={self.step} above 0"
            )
        if not 0 < self.share <= 1:
            raise SpecError(f"share={self.share} must be in (0, 1]: it is the side of the patch beside the image's")
        if self.place not in PLACES:
            raise SpecError(f"place={self.place} is not known: {' or '.join(PLACES)}")

    @property
    def threat(self) -> ThreatModel:
        """Any image; how many pixels differ is measured."""
        return ThreatModel(None, "l0")

    def entry(self) -> AttackEntry:
        """Its row in the results."""
        return native_entry(
            "patch", self, self.goal, "brown2017patch", name=f"patch-{self.goal.title}", budget="unrestricted"
        )

    def target_rows(self, references: References, *, seed: int) -> None:
        """None: untargeted."""

    def fitted(self, model: nn.Module, gallery: Gallery, avoid: Tensor, *, seed: int) -> Attack:
        """See `robustdml.contracts.FittedAttack`."""
        images, references = sample(gallery, avoid, self.sample, seed=seed)
        side = max(1, round(self.share * min(images.shape[2:])))
        first = torch.zeros(1, dtype=torch.int64)
        start = uniform_like(images[:1, :, :side, :side], first, seed=seed, purpose="patch") / 2 + 0.5

        def climb(patch: Tensor, gradient: Tensor) -> Tensor:
            return (patch + self.step * gradient.sign()).clamp(0.0, 1.0)

        def stick(patch: Tensor, batch: Tensor, step: int) -> Tensor:
            return self._stuck(patch, batch, torch.arange(len(batch)), seed=seed, purpose=f"place{step}")

        with untouched(model):
            patch = learn(
                model,
                self.goal,
                stick,
                start,
                climb,
                images,
                references,
                steps=self.steps,
                batch=self.batch,
                seed=seed,
            )
        return replace(self, patch=patch)

    def __call__(self, model: nn.Module, images: Tensor, references: References, *, seed: int) -> Tensor:
        """See `robustdml.contracts.Attack`."""
        images = images.detach()
        if self.patch is None:
            return self.fitted(model, references.gallery, references.ids, seed=seed)(
                model, images, references, seed=seed
            )
        return self._stuck(self.patch.to(images), images, references.ids, seed=seed, purpose="place")

    def _stuck(self, patch: Tensor, images: Tensor, ids: Tensor, *, seed: int, purpose: str) -> Tensor:
        """The images with the patch on them, each in its place."""
        side, (height, width) = patch.shape[2], images.shape[2:]
        room = np.array([height - side, width - side])
        result = []
        for image, item in zip(images, ids.tolist(), strict=True):
            drawn = stream(seed, purpose, item).integers(room + 1) if self.place == "random" else room // 2
            top, left = int(drawn[0]), int(drawn[1])
            around = (left, width - side - left, top, height - side - top)
            mask = nn.functional.pad(torch.ones_like(patch[0]), around)
            result.append(image * (1 - mask) + nn.functional.pad(patch[0], around))
        return torch.stack(result)
