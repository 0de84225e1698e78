"""What an attacker wants of an item of the gallery: CA+ and CA- (Zhou et al. 2020), and to come first for strangers.

The images are gallery items here, and the references describe them; who searches is `References.searchers`.

Shapes: N attacked items, Q searchers, W of them per item, M gallery items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robustdml.contracts import Gallery, References
from robustdml.errors import SpecError
from robustdml.seeding import stream

from .embedding import Aim, Objective
from .ranking import Candidates, distances, drawn_rows, nearest_rows, raised

_NEAR_SHARE = 0.01


def _others(references: References) -> Tensor:
    """``(N, Q)`` bool: the searchers that are not the item itself."""
    return references.ids[:, None] != references.searchers.ids[None]


def _candidate_loss(references: References, rows: Tensor, sign: float) -> Objective:
    """Minus how far the item is from the first place (sign 1), or from the last (-1), for the searchers ``rows``."""
    gallery, searchers = references.gallery, references.searchers
    points, ids = searchers.embeddings[rows], searchers.ids[rows]  # (N, W, D), (N, W)
    fixed = sign * torch.stack([distances(part, gallery.embeddings) for part in points])  # (N, W, M)
    # The attacked image takes the place of the clean one; a searcher does not find itself.
    counted = ~references.own[:, None] & (ids[:, :, None] != gallery.ids)

    def value(embeddings: Tensor) -> Tensor:
        similarity = (points * embeddings[:, None]).sum(2)
        apart = sign * (2 - 2 * similarity).clamp_min(1e-12).sqrt()
        # One candidate per searcher: its place in that searcher's list.
        ranked = raised(apart.flatten()[:, None], fixed.flatten(0, 1), counted.flatten(0, 1))
        return -ranked.view_as(apart).mean(1)

    return value


@dataclass(frozen=True)
class CAPlus(Candidates):
    """CA+: bring the item to the front for queries drawn from all."""

    name = "ca_plus"
    flat_at_clean = False
    citation = "zhou2020adversarial"

    @property
    def title(self) -> str:
        """As in the papers."""
        return self.titled("CA+", "W")

    def target_rows(self, references: References, *, seed: int) -> Tensor:
        """``(N, candidates)`` rows of the searchers."""
        return drawn_rows(_others(references), references.ids, self.candidates, seed=seed, purpose=self.name)

    def objective(self, references: References, *, seed: int) -> Objective:
        """Minus the mean of ``[d(c, q) - d(x, q)]+`` over the drawn q and all x."""
        return _candidate_loss(references, self.target_rows(references, seed=seed), 1.0)


@dataclass(frozen=True)
class CAMinus(Candidates):
    """CA-: push the item to the back for queries near it, drawn from the nearest hundredth."""

    name = "ca_minus"
    flat_at_clean = False
    citation = "zhou2020adversarial"

    @property
    def title(self) -> str:
        """As in the papers."""
        return self.titled("CA-", "W")

    def target_rows(self, references: References, *, seed: int) -> Tensor:
        """``(N, candidates)`` rows of the searchers."""
        searchers = references.searchers
        pool = max(int(_NEAR_SHARE * len(searchers)), self.candidates)
        near = nearest_rows(references.embeddings, searchers.embeddings, _others(references), pool)
        everyone = torch.ones_like(near, dtype=torch.bool)
        return near.gather(1, drawn_rows(everyone, references.ids, self.candidates, seed=seed, purpose=self.name))

    def objective(self, references: References, *, seed: int) -> Objective:
        """Minus the mean of ``[d(x, q) - d(c, q)]+`` over the drawn q and all x."""
        return _candidate_loss(references, self.target_rows(references, seed=seed), -1.0)


@dataclass(frozen=True)
class Hub:
    """Come first for as many searchers of other classes as can be, whoever they are.

    The queries to come are unknown to this attacker: items of the gallery stand in for them. The value is the share of
    stand-ins that find the item first, made smooth.

    Args:
        standins: how many gallery items stand in for queries, at least 1.
        softness: of the step from "not first" to "first", above 0, as a share of how much nearer the nearest item of
            a stand-in is to it than items are on average.
    """

    standins: int = 512
    softness: float = 0.1
    name = "hub"
    title = "hub"
    flat_at_clean = False
    citation = "zhang2024hubs"

    def __post_init__(self) -> None:
        if self.standins < 1 or not self.softness > 0:
            raise SpecError(f"standins={self.standins} must be at least 1 and softness={self.softness} above 0")

    def target_rows(self, references: References, *, seed: int) -> None:
        """None: no query is meant in particular."""

    def objective(self, references: References, *, seed: int) -> Objective:
        """The smooth share of foreign stand-ins that it comes first for, ``(N,)`` in (0, 1)."""
        gallery = references.gallery
        drawn = self._drawn(gallery, seed)
        points = gallery.embeddings[drawn]
        similarity = points @ gallery.embeddings.T
        usual = similarity.mean(1)
        similarity[torch.arange(len(drawn)), drawn] = -torch.inf
        # The rival of each stand-in is its nearest item; where that is the attacked item itself, the next one.
        rivals = similarity.topk(2, dim=1)
        # Some embeddings fill the sphere and some a small part of it: cosines mean nothing by themselves.
        scale = self.softness * (rivals.values[:, 0] - usual).clamp_min(1e-6)
        taken = gallery.ids[rivals.indices[:, 0]][None] == references.ids[:, None]
        rival = torch.where(taken, rivals.values[:, 1], rivals.values[:, 0])  # (N, S)
        foreign = gallery.labels[drawn][None] != references.labels[:, None]
        count = foreign.sum(1).clamp_min(1)

        def value(embeddings: Tensor) -> Tensor:
            first = torch.sigmoid((embeddings @ points.T - rival) / scale)
            return (first * foreign).sum(1) / count

        return value

    def _drawn(self, gallery: Gallery, seed: int) -> Tensor:
        count = min(self.standins, len(gallery))
        rows = np.sort(stream(seed, self.name, 0).choice(len(gallery), count, replace=False))
        return torch.from_numpy(rows).to(gallery.ids.device)


GALLERY_GOALS: dict[str, type[Aim]] = {"ca_plus": CAPlus, "ca_minus": CAMinus, "hub": Hub}
