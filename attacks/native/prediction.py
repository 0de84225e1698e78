"""Which items of the gallery an attacker could bring in front, foretold by a linear model of the embedding.

Near the clean image x the embedding is about ``e(x) + J delta``, and the lead of a foreign item n over an own item p
``(g_n - g_p) . (e(x) + J delta)``. Over the allowed changes it grows to a maximum in closed form, and the least of
these maxima over some own items bounds the margin that n can reach. How near an item is says little beside it: what
counts is how fast the image can approach it, too.

Shapes: N queries, M gallery items, K of them in question, D dimensions, G gradients, P values of an image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustdml.contracts import References

from ..goals.rivals import nearest_places
from ..goals.search import foreign, nearest_rows, own
from .gradient import gradient_of

# Foreign items that are looked at, those nearest to the clean query, and own items that they are compared with.
_FOREIGN, _OWN = 256, 8

# Values of gradients that are held at a time: half a gigabyte.
_VALUES = 2**27


def promising_items(
    model: nn.Module,
    images: Tensor,
    references: References,
    eps: float,
    norm: str,
    *,
    count: int,
    gradients: int,
    slack: float | None = None,
) -> tuple[Tensor, Tensor]:
    """The foreign items with the highest bounds, the highest first, and which of them are worth a try.

    Args:
        images: ``(N, C, H, W)``, the clean queries.
        eps: budget.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        count: how many; where the gallery has fewer, they come round again.
        gradients: G, at least 1: J is known along the G directions in which the items in question differ most from the
            nearest own one, and taken as 0 across them. With G = D nothing is left out.
        slack: an item is worth a try if it comes ahead where leads grow faster than by the linear model, by this share;
            None holds for any.

    Returns:
        Gallery rows ``(N, count)`` int64, and ``(N, count)`` bool.

    Raises:
        SpecError: the gallery has no foreign item.
    """
    look = _Candidates.near(references)
    bounds = torch.full_like(look.similarity, torch.inf)
    hopes = bounds.clone()
    for row, clean, gain in look.leads(model, images, eps, norm, gradients):
        bounds[row] = bounds[row].minimum(clean + gain)
        hopes[row] = hopes[row].minimum(clean + gain * (1 + (slack or 0)))
    places = nearest_places(bounds.where(look.similarity.isfinite(), -torch.inf), 0, count)
    worth = hopes.gather(1, places) >= (-torch.inf if slack is None else 0)
    return look.foreign.gather(1, places), worth


def reachable_items(
    model: nn.Module,
    images: Tensor,
    references: References,
    radius: Tensor,
    norm: str,
    *,
    count: int,
    gradients: int,
    slack: float,
) -> tuple[Tensor, Tensor]:
    """The foreign items that come ahead within the smallest radii, the smallest first, and these radii.

    Args:
        radius: ``(N,)``: how fast leads grow with the radius is measured from 0 to there, and taken as even.
        slack: by which share leads may grow faster than by the linear model: the radii are smaller for it.
        model, images, references, norm, count, gradients: see `promising_items`.

    Returns:
        Gallery rows ``(N, count)`` int64, and radii ``(N, count)``.

    Raises:
        SpecError: the gallery has no foreign item.
    """
    look = _Candidates.near(references)
    needed = torch.zeros_like(look.similarity)
    for row, clean, gain in look.leads(model, images, radius, norm, gradients):
        share = (-clean / (gain * (1 + slack)).clamp_min(1e-20)).clamp(0, 1e9)
        needed[row] = needed[row].maximum(share * radius[row])
    places = nearest_places((-needed).where(look.similarity.isfinite(), -torch.inf), 0, count)
    return look.foreign.gather(1, places), needed.gather(1, places)


@dataclass(frozen=True)
class _Candidates:
    """Who is in question.

    Args:
        references: the queries.
        foreign: ``(N, K)`` gallery rows, the items nearest to each query that are not relevant.
        similarity: ``(N, K)``, how near; -inf for what is relevant after all.
        own: ``(N, O)`` gallery rows, the nearest relevant ones.
        own_similarity: ``(N, O)``, likewise.
    """

    references: References
    foreign: Tensor
    similarity: Tensor
    own: Tensor
    own_similarity: Tensor

    @classmethod
    def near(cls, references: References) -> _Candidates:
        """Those near the clean queries."""
        points, gallery = references.embeddings, references.gallery.embeddings
        similarity, rows = nearest_rows(points, gallery, foreign(references), _FOREIGN)
        own_similarity, own_rows = nearest_rows(points, gallery, own(references), _OWN)
        return cls(references, rows, similarity, own_rows, own_similarity)

    def leads(
        self, model: nn.Module, images: Tensor, eps: float | Tensor, norm: str, gradients: int
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Row by row and own item by own item, the clean lead of each foreign item ``(K,)`` and how far it can grow."""
        gallery = self.references.gallery.embeddings
        sizes = eps.tolist() if isinstance(eps, Tensor) else [eps] * len(images)
        apart = gallery[self.foreign] - gallery[self.own[:, :1]]  # (N, K, D)
        directions = torch.linalg.svd(apart, full_matrices=False).Vh[:, :gradients]  # (N, G, D)
        at_once = max(1, _VALUES // (directions.shape[1] * images[0].numel()))
        for rows in torch.arange(len(images), device=images.device).split(at_once):
            embeddings, slopes = _slopes(model, images[rows], directions[rows])
            for row, embedding, slope in zip(rows.tolist(), embeddings, slopes, strict=True):
                for friend in self.own[row][self.own_similarity[row].isfinite()]:
                    lead = gallery[self.foreign[row]] - gallery[friend]
                    along = (lead @ directions[row].T) @ slope
                    yield row, lead @ embedding, _support(along, images[row].flatten(), sizes[row], norm)


def _slopes(model: nn.Module, images: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings ``(N, D)``, and the gradients of their parts along the directions, ``(N, G, P)``."""
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        embeddings = model(images)
        found = []
        for direction in directions.unbind(1):
            found.append(gradient_of(embeddings * direction, images, again=True).flatten(1))
    return embeddings.detach(), torch.stack(found, 1)


def _support(slopes: Tensor, image: Tensor, eps: float, norm: str) -> Tensor:
    """How far allowed changes of an image ``(P,)`` raise linear functions of it, ``(K, P)``: ``(K,)``.

    L2 is without the box [0, 1], and for L1 one value may take the whole budget.
    """
    if norm == "l2":
        raised: Tensor = eps * slopes.norm(dim=1)
        return raised
    reach = eps if norm == "linf" else 1.0
    up, down = (1 - image).clamp_max(reach), image.clamp_max(reach)
    if norm == "l1":
        return eps * slopes.abs().where(torch.where(slopes > 0, up, down) > 0, 0).amax(1)
    # max(up s, -down s), written as two products of matrices.
    raised = slopes @ ((up - down) / 2) + slopes.abs() @ ((up + down) / 2)
    return raised
