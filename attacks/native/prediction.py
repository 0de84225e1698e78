"""Which items of the gallery an attacker could bring in front, foretold by a linear model of the embedding.

Near the clean image x the embedding, before it is brought to length 1, is about ``z(x) + J delta``, and whether a
foreign item n comes ahead of an own item p is the sign of ``(g_n - g_p) . (z(x) + J delta)``, whatever the length. Over
the allowed changes this lead grows to a maximum in closed form, the *support* of ``(g_n - g_p) J``. How near an item
is says little beside it: what counts is how fast the image can approach it, too.

All foreign items are ranked by an estimate that takes no product with J. Those with the highest are looked at closely:
the least of the maxima over some own items bounds the margin that an item can reach. Tighter bounds are those of
mixtures of own items. The best mixture and the best change are the solution of a game between the two, to which
multiplicative weights come near (Freund & Schapire 1999). All this costs J and nothing else: where the embedding is
linear, the choice is right and the change breaks the query, but for what the rounds leave open.

Shapes: N queries, M gallery items, K of them in question, O own items, D dimensions, G gradients, P values of an image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from robustdml.contracts import References

from ..goals.rivals import nearest_places
from ..goals.search import foreign, nearest_rows, own, parts
from .geometry import project, steepest_step
from .gradient import gradient_of

# Foreign items that the directions of the gradients are chosen for, the nearest to the clean query; and how many are
# looked at closely, those with the highest estimates, beside the nearest own items.
_NEAREST, _FOREIGN, _OWN = 256, 128, 8

# Who plays the game, the foreign items with the highest bounds and the nearest own ones, and for how many rounds.
_RIVALS, _RELATIVES, _ROUNDS = 32, 256, 60

# How fast the weights follow what came off badly; the theory's rate is slow.
_EAGER = 4.0

# Rounds, or steps, after which it is looked who is done.
_PAUSE = 10

# Of an ascent in the linear model.
_STEPS, _MOMENTUM = 200, 0.9

# Values of gradients that are held at a time: half a gigabyte.
_VALUES = 2**27


@dataclass(frozen=True)
class Prospects:
    """Of one query, the foreign items that could come ahead, those with the highest bounds first.

    Args:
        items: ``(K,)`` gallery rows; where the gallery has fewer, they come round again.
        bounds: ``(K,)``: by the linear model no change brings the item further ahead of all own items.
        worth: ``(K,)`` bool, which are worth a try.
        changes: ``(K, P)``, the best change found for each. It may leave the box [0, 1] (for L2 and L1).
    """

    items: Tensor
    bounds: Tensor
    worth: Tensor
    changes: Tensor


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
) -> Iterator[Prospects]:
    """The foreign items with the highest bounds, query by query.

    Args:
        images: ``(N, C, H, W)``, the clean queries.
        eps: budget.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        count: K.
        gradients: G, at least 1: J is known along the G directions in which near foreign items differ most from the
            nearest own one, and taken as 0 across them. With G = D nothing is left out.
        slack: an item is worth a try if it comes ahead where leads grow faster than by the linear model, by this share;
            None holds for any.

    Raises:
        SpecError: the gallery has no foreign item.
    """
    for around in _linear_models(model, images, references, gradients):
        ball = _Ball(around, eps, norm)
        rows = ball.candidates()
        clean, gain = (torch.stack(part) for part in zip(*ball.leads(rows), strict=True))  # (O, K) each
        bounds, hopes = ((clean + share * gain).amin(0) for share in (1.0, 1 + (slack or 0.0)))
        if slack is None:
            hopes = torch.full_like(hopes, torch.inf)
        places = nearest_places(bounds[None], 0, min(max(_RIVALS, count), len(rows)))[0]
        rows, bounds, hopes = rows[places], bounds[places], hopes[places]
        reached, changes = ball.game(rows, bounds, hopes, slack)
        narrow = torch.nonzero((bounds >= 0) & (reached < 0)).flatten()
        changes[narrow] = ball.climbed(rows[narrow], changes[narrow])
        places = nearest_places(bounds[None], 0, count)[0]
        yield Prospects(rows[places], bounds[places], hopes[places] >= 0, changes[places])


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
    items, radii = [], []
    for size, around in zip(radius.tolist(), _linear_models(model, images, references, gradients), strict=True):
        ball = _Ball(around, size, norm)
        rows = ball.candidates()
        needed = torch.zeros(len(rows)).to(images)
        for clean, gain in ball.leads(rows):
            share = (-clean / (gain * (1 + slack)).clamp_min(1e-20)).clamp(0, 1e9)
            needed = needed.maximum(share * size)
        places = nearest_places(-needed[None], 0, count)[0]
        items.append(rows[places])
        radii.append(needed[places])
    return torch.stack(items), torch.stack(radii)


@dataclass(frozen=True)
class _LinearModel:
    """The embedding near one query.

    Args:
        references: of the query, N = 1.
        image: ``(P,)``, clean.
        embedding: ``(D,)``, clean, of length 1.
        directions: ``(G, D)``, orthogonal and of length 1.
        slopes: ``(G, P)``, J along the directions.
    """

    references: References
    image: Tensor
    embedding: Tensor
    directions: Tensor
    slopes: Tensor


def _linear_models(model: nn.Module, images: Tensor, references: References, gradients: int) -> Iterator[_LinearModel]:
    """That of each query."""
    gallery = references.gallery.embeddings
    similarity, near = nearest_rows(references.embeddings, gallery, foreign(references), _NEAREST)
    _, friend = nearest_rows(references.embeddings, gallery, own(references), 1)
    apart = (gallery[near] - gallery[friend]) * similarity.isfinite()[:, :, None]  # (N, K, D)
    directions = torch.linalg.eigh(apart.mT @ apart).eigenvectors.mT.flip(1)[:, :gradients]  # (N, G, D)
    at_once = max(1, _VALUES // (directions.shape[1] * images[0].numel()))
    for rows in torch.arange(len(images), device=images.device).split(at_once):
        embeddings, slopes = _slopes(model, images[rows], directions[rows])
        for row, embedding, slope in zip(rows, embeddings, slopes, strict=True):
            yield _LinearModel(references.rows(row[None]), images[row].flatten(), embedding, directions[row], slope)


def _slopes(model: nn.Module, images: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings ``(N, D)`` of length 1, and the gradients of their parts along the directions, ``(N, G, P)``.

    Lengths are held fixed: those of an `robustdml.retrieval.embed.Embedder` are that of the clean image.
    """
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        embeddings = getattr(model, "unscaled", model)(images)
        length = embeddings.detach().norm(dim=1, keepdim=True).clamp_min(1e-20)
        embeddings = embeddings / length
        found = []
        for direction in directions.unbind(1):
            found.append(gradient_of(embeddings * direction, images, again=True).flatten(1))
    return embeddings.detach(), torch.stack(found, 1)


@dataclass(frozen=True)
class _Ball:
    """What an attacker can do by the linear model of a query within a ball of radius ``eps``."""

    around: _LinearModel
    eps: float
    norm: str

    @cached_property
    def _gallery(self) -> Tensor:
        return self.around.references.gallery.embeddings

    @cached_property
    def _own(self) -> Tensor:
        """``(O, D)``, the nearest first."""
        near = self.around.embedding[None], self._gallery, own(self.around.references), _RELATIVES
        similarity, rows = nearest_rows(*near)
        return self._gallery[rows[0, similarity[0].isfinite()]]

    @cached_property
    def _room(self) -> tuple[Tensor, Tensor]:
        """How far each value can rise and fall, ``(P,)``: L2 is without the box [0, 1]; see `_usable` for L1."""
        image, reach = self.around.image, self.eps
        if self.norm == "l2":
            return torch.full_like(image, reach), torch.full_like(image, reach)
        return (1 - image).clamp_max(reach), image.clamp_max(reach)

    def _usable(self, slopes: Tensor) -> Tensor:
        """Slopes ``(K, P)``, with 0 where the box leaves no room: for L1 any other value may take the whole budget."""
        up, down = self._room
        return slopes.where(torch.where(slopes > 0, up, down) > 0, 0)

    def _support(self, slopes: Tensor) -> Tensor:
        """How far allowed changes raise linear functions of the image, ``(K, P)``: ``(K,)``."""
        if self.norm == "l2":
            raised: Tensor = self.eps * slopes.norm(dim=1)
            return raised
        if self.norm == "l1":
            return self.eps * self._usable(slopes).abs().amax(1)
        # max(up s, -down s), written as two products of matrices.
        up, down = self._room
        raised = slopes @ ((up - down) / 2) + slopes.abs() @ ((up + down) / 2)
        return raised

    def _farthest(self, slopes: Tensor) -> Tensor:
        """The changes that do so, ``(K, P)``."""
        if self.norm == "l2":
            farthest: Tensor = self.eps * slopes / slopes.norm(dim=1, keepdim=True).clamp_min(1e-20)
            return farthest
        if self.norm == "l1":
            free = self._usable(slopes)
            place = free.abs().argmax(1, keepdim=True)
            return torch.zeros_like(slopes).scatter(1, place, self.eps * free.gather(1, place).sign())
        up, down = self._room
        return torch.where(slopes > 0, up, -down)

    def candidates(self) -> Tensor:
        """Gallery rows ``(K,)`` of the foreign items that may come furthest, by an estimate.

        The support of a lead in L-infinity is about that of normal slopes of its length, and likewise for L1: J counts
        by ``J J^T`` alone, weighted by the room that values have.
        """
        around, gallery, friends = self.around, self._gallery, self._own[:_OWN]
        up, down = self._room
        count = len(around.image)
        share = {"linf": math.sqrt(2 * count / math.pi), "l2": 1.0, "l1": math.sqrt(2 * math.log(count) / count)}
        half = torch.full_like(up, self.eps) if self.norm == "l1" else (up + down) / 2
        products = (around.slopes * half) @ (around.slopes * half).T  # (G, G)
        middle = around.embedding
        if self.norm == "linf":
            middle = middle + (around.slopes @ ((up - down) / 2)) @ around.directions
        along_own = friends @ around.directions.T
        squares_own = ((along_own @ products) * along_own).sum(1)
        wanted = foreign(around.references)
        values, rows = middle.new_zeros(0), torch.zeros(0, dtype=torch.int64, device=middle.device)
        for part in parts(len(gallery)):
            along = gallery[part] @ around.directions.T
            weighted = along @ products
            squares = (weighted * along).sum(1, keepdim=True) - 2 * weighted @ along_own.T + squares_own  # (C, O)
            leads = (gallery[part] @ middle)[:, None] - friends @ middle
            reached = (leads + share[self.norm] * squares.clamp_min(0).sqrt()).amin(1)
            best, places = reached.masked_fill(~wanted(part)[0], -torch.inf).topk(min(_FOREIGN, len(reached)))
            values, rows = torch.cat([values, best]), torch.cat([rows, places + part.start])
            values, kept = values.topk(min(_FOREIGN, len(values)))
            rows = rows[kept]
        allowed = values.isfinite()
        return rows[nearest_places(values[None], 0, int(allowed.sum()) or 1)[0]]

    def leads(self, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Own item by own item, the clean lead of each of some gallery rows ``(K,)`` and how far it can grow."""
        around, items = self.around, self._gallery[rows]
        grown = (items @ around.directions.T) @ around.slopes
        for friend in self._own[:_OWN]:
            slopes = grown - (around.directions @ friend) @ around.slopes
            yield (items - friend) @ around.embedding, self._support(slopes)

    def game(self, rows: Tensor, bounds: Tensor, hopes: Tensor, slack: float | None) -> tuple[Tensor, Tensor]:
        """How far each of some gallery rows ``(K,)`` can come ahead of all own items at once.

        Each round the attacker answers a mixture of own items as well as can be, which bounds the margin from above,
        and own items that come off badly gain weight. The mean of the answers tends to the best change.

        Args:
            bounds: ``(K,)``, bounds of the margin, which are made tighter.
            hopes: ``(K,)``, the same where leads grow faster by the slack: an item is out of the game once its hope is
                below 0.
            slack: see `promising_items`.

        Returns:
            The highest margins seen ``(K,)``, -inf for what was out from the first, and the changes ``(K, P)`` that
            have them.
        """
        around, friends = self.around, self._own @ self.around.directions.T
        reached = torch.full_like(bounds, -torch.inf)
        found = around.image.new_zeros(len(rows), len(around.image))
        playing = torch.nonzero(hopes >= 0).flatten()
        items, clean = self._of(rows[playing])
        total, changes = torch.zeros_like(clean), found[playing]
        width = torch.full_like(clean[:, :1], 1e-30)
        for turn in range(1, _ROUNDS + 1):
            if not len(playing):
                break
            rate = _EAGER * math.sqrt(math.log(len(friends) + 1) / turn) / width
            weights = (-rate * total).softmax(1)
            slopes = (items - weights @ friends) @ around.slopes
            change = self._farthest(slopes)
            lead, gain = (weights * clean).sum(1), (slopes * change).sum(1)
            bounds[playing] = bounds[playing].minimum(lead + gain)
            if slack is not None:
                hopes[playing] = hopes[playing].minimum(lead + (1 + slack) * gain)
            moved = change @ around.slopes.T
            leads = clean + (moved * items).sum(1, keepdim=True) - moved @ friends.T
            total, changes = total + leads, changes + change
            width = width.maximum(leads.amax(1, keepdim=True) - leads.amin(1, keepdim=True))
            if turn % _PAUSE:
                continue
            margins = total.amin(1) / turn
            better = margins > reached[playing]
            reached[playing[better]], found[playing[better]] = margins[better], changes[better] / turn
            left = torch.nonzero(hopes[playing] >= 0).flatten()
            if len(left) < len(playing):
                playing, items, clean, total, changes, width = (
                    part[left] for part in (playing, items, clean, total, changes, width)
                )
        return reached, found

    def climbed(self, rows: Tensor, changes: Tensor) -> Tensor:
        """The best changes ``(K, P)`` of a momentum ascent on the margin of gallery rows ``(K,)``, from given ones.

        For narrow cases, in which what the game ends with is not good enough and nothing better is ruled out.
        """
        around, friends = self.around, self._own @ self.around.directions.T
        items, clean = self._of(rows)
        image = around.image.expand_as(changes)[:, None, None]
        reached, found = torch.full_like(clean[:, 0], -torch.inf), changes
        velocity, current = torch.zeros_like(image), project(image + changes[:, None, None], image, self.eps, self.norm)
        for step in range(_STEPS + 1):
            change = (current - image)[:, 0, 0]
            moved = change @ around.slopes.T
            lead, friend = (clean + (moved * items).sum(1, keepdim=True) - moved @ friends.T).min(1)
            found = torch.where((lead > reached)[:, None], change, found)
            reached = reached.maximum(lead)
            if step % _PAUSE == 0 and bool((reached > 0).all()):
                break
            slopes = (items - friends[friend]) @ around.slopes
            slopes = slopes / slopes.abs().sum(1, keepdim=True).clamp_min(1e-20)
            velocity = _MOMENTUM * velocity + slopes[:, None, None]
            size = self.eps * (1 + math.cos(math.pi * step / _STEPS)) / 4
            current = project(current + steepest_step(velocity, current, size, self.norm), image, self.eps, self.norm)
        return found

    def _of(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Gallery rows along the directions ``(K, G)``, and their clean leads over each own item ``(K, O)``."""
        items, clean = self._gallery[rows], self.around.embedding
        return items @ self.around.directions.T, (items @ clean)[:, None] - self._own @ clean
