"""The exact robust R@1 of linear embeddings, by linear programs: what attacks are measured against.

Let a query x have the embedding z = W x + b, and let g_1 … g_M be the gallery. By cosine similarity an item n comes at
least as near as an item p exactly if ``(g_n - g_p) . z >= 0`` with g of length 1 (the length of z is the same on both
sides), by Euclidean distance exactly if ``2 (g_n - g_p) . z - |g_n|^2 + |g_p|^2 >= 0``. Both are affine in x: each item
has a score ``s_n(x) = a_n . x + c_n``, and the first hit is the item with the highest. As ties count against the model,
an attacker with a budget B (a ball in a norm and the box [0, 1]) breaks the query exactly if

    max over rivals n (foreign items)  max over x in B  min over relatives p (own items)  s_n(x) - s_p(x)  >=  0.

For one n the inner part is a concave function, piecewise linear, and its maximum a linear program in (x, t): maximise t
subject to ``t <= s_n(x) - s_p(x)`` for each p and to x in B, which is a polytope for L-infinity and L1. For L2, without
the box, B is a ball, and whether the maximum is above 0 is a least distance problem (Lawson & Hanson 1974, chapter 23).

No verdict rests on a solver. An image that breaks the query is evaluated, and that none exists follows from weights
``w_p >= 0`` of sum 1, for which ``max over x in B of sum_p w_p (s_n(x) - s_p(x))``, a sum in closed form, is below 0.

Shapes: N queries, M gallery items, D dimensions, P values of an image (channels x height x width).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import linprog, nnls

from robustdml.errors import BudgetError, DataError
from robustdml.threat import ThreatModel

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

# Rounds of multiplicative weights before a program is solved: they settle all but the narrow cases.
_ROUNDS = 60

# Rivals that are looked at first.
_FEW = 16

# How fast the weights follow what came off badly; the theory's rate is slow.
_EAGER = 4.0

# Relatives in a program's first version, and how many are added where its solution breaks the terms of others.
_FIRST, _MORE = 4, 4

# Halvings of the interval of the margin in the search for the best image in an L2 ball.
_HALVINGS = 40


@dataclass(frozen=True)
class Truth:
    """What an attacker with unlimited means reaches.

    Args:
        broken: ``(N,)`` bool, whether some allowed image has a wrong first hit (ties count as wrong).
        margin: ``(N,)``, the largest ``min over p of s_n - s_p`` that ``images`` reaches; at least 0 where broken, but
            for rounding.
        bound: ``(N,)``, no allowed image has a margin above it; inf where broken.
        images: ``(N, P)``, where broken, an image that breaks the query; else the clean one.
        programs: how many programs were solved; bounds and closed forms settled the rest.
    """

    broken: Booleans
    margin: Floats
    bound: Floats
    images: Floats
    programs: int

    @property
    def recall(self) -> float:
        """The exact robust R@1, in [0, 1]."""
        return float((~self.broken).mean())


@dataclass(frozen=True)
class LinearRetrieval:
    """Retrieval with the embedding ``z = W x + b``.

    Args:
        weight: W, ``(D, P)``. Values of the image with equal columns are treated as one variable, which loses nothing:
            for the mean over the cells of a grid the programs have one variable per cell.
        bias: b, ``(D,)``.
        gallery: ``(M, P)`` in [0, 1].
        similarity: ``"cosine"``, as everywhere in robustdml, or ``"euclidean"``.

    Raises:
        DataError: the shapes do not fit.
    """

    weight: Floats
    bias: Floats
    gallery: Floats
    similarity: Literal["cosine", "euclidean"] = "cosine"

    def __post_init__(self) -> None:
        if self.bias.shape != self.weight.shape[:1] or self.gallery.shape[1:] != self.weight.shape[1:]:
            raise DataError(
                f"weight {self.weight.shape}, bias {self.bias.shape} and gallery {self.gallery.shape} must have the "
                "shapes (D, P), (D,) and (M, P)"
            )

    def truth(self, images: Floats, rivals: Booleans, relatives: Booleans, threat: ThreatModel) -> Truth:
        """The exact verdict on each query.

        Args:
            images: ``(N, P)`` in [0, 1], the clean queries.
            rivals: ``(N, M)``, the items that are a wrong first hit.
            relatives: ``(N, M)``, those that are a right one. Items that are neither, such as the query itself, count
                for nothing.
            threat: with a fixed budget; L-infinity and L1 with the box [0, 1], L2 without it (where k values share a
                column, no best image moves one of them further than eps / sqrt(k): that far from 0 and 1, the box makes
                no difference).

        Raises:
            BudgetError: the threat has no fixed budget, or its norm is L0.
            DataError: a query has no relatives.
        """
        if threat.eps is None or threat.norm == "l0":
            raise BudgetError("an exact truth needs a fixed budget in L-infinity, L2 or L1")
        if not relatives.any(1).all():
            raise DataError(
                f"query {int(relatives.any(1).argmin())} has no relatives: it has no right first hit to lose"
            )
        cells, slopes, offsets = self._scores()
        broken, margin, bound = np.zeros(len(images), bool), np.zeros(len(images)), np.full(len(images), np.inf)
        found, programs = images.astype(np.float64), 0
        for row, image in enumerate(found.copy()):
            ball = _Ball(image, cells, threat.norm, threat.eps)
            game = _Game(slopes * ball.scale, slopes @ ball.start + offsets, rivals[row], relatives[row], ball)
            change = game.winning_change()
            programs += game.programs
            broken[row] = change is not None
            if change is not None:
                margin[row], found[row] = game.margin(change), ball.image(change)
            else:
                margin[row], bound[row] = game.margin(game.nothing), game.bound
        return Truth(broken, margin, bound, found, programs)

    def smallest(
        self, images: Floats, rivals: Booleans, relatives: Booleans, norm: str, *, largest: float, halvings: int = 16
    ) -> tuple[Floats, Floats]:
        """The smallest eps that breaks each query, between two bounds: the verdict is bisected.

        Args:
            images, rivals, relatives: see `truth`.
            norm: L-infinity and L1 with the box [0, 1], L2 without it.
            largest: eps to begin with.
            halvings: verdicts on each query; the bounds lie ``largest / 2 ** halvings`` apart.

        Returns:
            ``(N,)`` an eps within which no image breaks it, and ``(N,)`` one within which one does: 0 and 0 where it is
            wrong already, ``largest`` and inf where it holds there.
        """
        low, high = np.zeros(len(images)), np.full(len(images), np.inf)
        for row in range(len(images)):
            part = images[row : row + 1], rivals[row : row + 1], relatives[row : row + 1]

            def breaks(eps: float, part: tuple[Floats, Booleans, Booleans] = part) -> bool:
                return bool(self.truth(*part, ThreatModel(eps, norm)).broken[0])

            if breaks(0.0):
                high[row] = 0.0
            elif not breaks(largest):
                low[row] = largest
            else:
                high[row] = largest
                for _ in range(halvings):
                    middle = (low[row] + high[row]) / 2
                    low[row], high[row] = (low[row], middle) if breaks(middle) else (middle, high[row])
        return low, high

    def _scores(self) -> tuple[Integers, Floats, Floats]:
        """The cell of each value of an image ``(P,)``, and slopes ``(M, cells)`` and offsets ``(M,)`` of the scores."""
        columns, cells = np.unique(self.weight.astype(np.float64), axis=1, return_inverse=True)
        gallery = self.gallery @ self.weight.T.astype(np.float64) + self.bias
        if self.similarity == "cosine":
            gallery = gallery / np.linalg.norm(gallery, axis=1, keepdims=True).clip(1e-12)
            return cells.ravel(), gallery @ columns, gallery @ self.bias
        offsets = 2 * gallery @ self.bias - np.square(gallery).sum(1)
        return cells.ravel(), 2 * gallery @ columns, offsets


class _Ball:
    """The allowed changes of one image, told as changes of the sums over its cells (L2: divided by ``scale``)."""

    def __init__(self, image: Floats, cells: Integers, norm: str, eps: float) -> None:
        self._pixels, self._cells, self._norm, self._eps = image, cells, norm, eps
        reach = eps if norm == "linf" else np.inf
        self._low, self._high = -np.minimum(image, reach), np.minimum(1 - image, reach)
        self.start, self.low, self.high = (np.bincount(cells, part) for part in (image, self._low, self._high))
        # A change of k equal values by d / sqrt(k) has the length d, and moves their sum by sqrt(k) d.
        self.scale = np.sqrt(np.bincount(cells)) if norm == "l2" else np.ones(len(self.start))

    def farthest(self, slopes: Floats) -> Floats:
        """The allowed change ``(…, cells)`` that raises ``slopes . change`` most."""
        if self._norm == "linf":
            corner: Floats = np.where(slopes > 0, self.high, self.low)
            return corner
        if self._norm == "l2":
            length = np.linalg.norm(slopes, axis=-1, keepdims=True)
            along: Floats = self._eps * slopes / np.maximum(length, 1e-300)
            return along
        # The steepest cells first, each as far as the box lets it go, until the budget is used up.
        room = np.where(slopes > 0, self.high, -self.low)
        order = np.argsort(-np.abs(slopes), axis=-1, kind="stable")
        ordered = np.take_along_axis(room, order, -1)
        taken = np.clip(self._eps - (np.cumsum(ordered, -1) - ordered), 0, ordered)
        sizes = np.zeros_like(slopes)
        np.put_along_axis(sizes, order, taken, -1)
        return sizes * np.sign(slopes)

    def support(self, slopes: Floats) -> Floats:
        """How far ``slopes . change`` can be raised, ``(…)``."""
        raised: Floats = (slopes * self.farthest(slopes)).sum(-1)
        return raised

    def highest(self, slopes: Floats, offsets: Floats) -> tuple[Floats, Floats]:
        """The change that maximises ``min over p of slopes_p . change + offsets_p``, and the weights that prove it."""
        return self._cone(slopes, offsets) if self._norm == "l2" else self._program(slopes, offsets)

    def _program(self, slopes: Floats, offsets: Floats) -> tuple[Floats, Floats]:
        count, size = slopes.shape
        if self._norm == "linf":
            parts, bounds, extra, limits = [-slopes], [*zip(self.low, self.high, strict=True)], [], []
        else:  # The change is its positive part less its negative part.
            parts = [-slopes, slopes]
            bounds = [*((0, each) for each in self.high), *((0, -each) for each in self.low)]
            extra, limits = [np.append(np.ones(2 * size), 0.0)], [self._eps]
        terms = np.hstack([*parts, np.ones((count, 1))])
        found = linprog(
            np.append(np.zeros(terms.shape[1] - 1), -1.0),
            A_ub=np.vstack([terms, *extra]),
            b_ub=np.append(offsets, limits),
            bounds=[*bounds, (None, None)],
            method="highs",
        )
        if found.status != 0:
            raise ArithmeticError(f"HiGHS did not solve a program that has a solution: {found.message}")
        change = found.x[:size] if self._norm == "linf" else found.x[:size] - found.x[size : 2 * size]
        weights = np.maximum(-found.ineqlin.marginals[:count], 0)
        return change, weights / weights.sum()

    def _cone(self, slopes: Floats, offsets: Floats) -> tuple[Floats, Floats]:
        """The highest margin t for which the nearest change with margin t is within the ball, by bisection."""
        low, high = offsets.min(), (offsets + self.support(slopes)).min()
        best, weights = np.zeros(slopes.shape[1]), np.full(len(slopes), 1 / len(slopes))
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            change, tried = _least(slopes, middle - offsets)
            if change is not None and np.linalg.norm(change) <= self._eps:
                low, best = middle, change
            else:
                high, weights = middle, tried
        return best, weights

    def image(self, change: Floats) -> Floats:
        """The image ``(P,)`` with that change of its cells, spread over their values as far as each has room."""
        change = change * self.scale
        if self._norm == "l2":
            return self._pixels + (change / np.bincount(self._cells))[self._cells]
        up = change > 0
        share = np.abs(change) / np.maximum(np.where(up, self.high, -self.low), 1e-300)
        each = np.where(up[self._cells], self._high, self._low)
        moved: Floats = self._pixels + share.clip(max=1)[self._cells] * each
        return moved.clip(0.0, 1.0)


def _least(terms: Floats, least: Floats) -> tuple[Floats | None, Floats]:
    """The shortest x with ``terms x >= least`` (None where there is none), and weights of sum 1 that prove it.

    Lawson & Hanson 1974, algorithm LDP: by non-negative least squares, of which x is a residual.
    """
    matrix = np.vstack([terms.T, least])
    target = np.append(np.zeros(terms.shape[1]), 1.0)
    dual, _ = nnls(matrix, target)
    rest = matrix @ dual - target
    weights = dual / dual.sum() if dual.any() else np.full(len(dual), 1 / len(dual))
    return (-rest[:-1] / rest[-1] if rest[-1] < -1e-12 else None), weights


class _Game:
    """One query: rivals, relatives, and an attacker who chooses the change against the weights of the relatives.

    Args:
        slopes: ``(M, cells)``, of the scores in changes of the cells.
        scores: ``(M,)``, of the clean query.
        rivals: ``(M,)`` bool.
        relatives: ``(M,)`` bool, at least one.
        ball: the allowed changes.
    """

    def __init__(self, slopes: Floats, scores: Floats, rivals: Booleans, relatives: Booleans, ball: _Ball) -> None:
        self._ball, self.nothing = ball, np.zeros(slopes.shape[1])
        near = np.flatnonzero(relatives)[np.argsort(-scores[relatives], kind="stable")]
        self._own, self._own_scores = slopes[near], scores[near]
        self._foreign, self._foreign_scores = slopes[rivals], scores[rivals]
        self.programs, self.bound = 0, -np.inf

    def margin(self, change: Floats) -> float:
        """How far the best placed rival is before the best placed relative after a change."""
        foreign, own = self._foreign_scores + self._foreign @ change, self._own_scores + self._own @ change
        return float(foreign.max(initial=-np.inf) - own.max())

    def winning_change(self) -> Floats | None:
        """A change that breaks the query; None proves, by ``bound`` < 0, that there is none."""
        if self.margin(self.nothing) >= 0:
            return self.nothing
        rivals = self._in_question()
        narrow: list[tuple[int, Floats]] = []
        # Most queries that break do so by one of the best placed few.
        for part in np.split(rivals, [_FEW, _FEW * 8]):
            left, weights, change = self._rounds(part)
            if change is not None:
                return change
            narrow += zip(left, weights, strict=True)
        for rival, row in narrow:
            change = self._solve(rival, row)
            if change is not None:
                return change
        return None

    def _in_question(self) -> Integers:
        """The rivals that come as near as each relative alone, by some change or other; the best placed first."""
        rivals, bounds = np.arange(len(self._foreign)), np.full(len(self._foreign), np.inf)
        for slopes, score in zip(self._own, self._own_scores, strict=True):
            reached = self._foreign_scores[rivals] - score + self._ball.support(self._foreign[rivals] - slopes)
            bounds = np.minimum(bounds, reached)
            self._rule_out(bounds[bounds < 0])
            rivals, bounds = rivals[bounds >= 0], bounds[bounds >= 0]
        return rivals[np.argsort(-bounds, kind="stable")]

    def _rule_out(self, bounds: Floats) -> None:
        self.bound = max(self.bound, float(bounds.max(initial=-np.inf)))

    def _rounds(self, rivals: Integers) -> tuple[Integers, Floats, Floats | None]:
        """Multiplicative weights (Freund & Schapire 1999) on the relatives, for all rivals at once.

        Each round the attacker answers the weights as well as can be, which bounds the margin from above, and relatives
        that come off badly gain weight; the mean of the answers tends to the best change.

        Returns:
            The rivals that are not ruled out, their weights, and a change that breaks the query if one was met.
        """
        weights = np.full((len(rivals), len(self._own)), 1 / len(self._own))
        leads, changes = np.zeros_like(weights), np.zeros((len(rivals), len(self.nothing)))
        spread = np.full(len(rivals), 1e-300)
        for turn in range(1, _ROUNDS + 1):
            if not len(rivals):
                break
            foreign, scores = self._foreign[rivals], self._foreign_scores[rivals]
            slopes = foreign - weights @ self._own
            change = self._ball.farthest(slopes)
            bounds = scores - weights @ self._own_scores + (slopes * change).sum(1)
            changes += change
            for tried in (changes / turn, change):
                lead = (scores + (foreign * tried).sum(1))[:, None] - (self._own_scores + tried @ self._own.T)
                best = lead.min(1).argmax()
                if lead[best].min() >= 0:
                    return rivals, weights, tried[best]
            leads += lead
            spread = np.maximum(spread, np.ptp(lead, axis=1))
            keep = bounds >= 0
            self._rule_out(bounds[~keep])
            rivals, leads, changes, spread = rivals[keep], leads[keep], changes[keep], spread[keep]
            rate = _EAGER * np.sqrt(np.log(len(self._own) + 1) / turn) / spread
            weights = np.exp(-rate[:, None] * (leads - leads.min(1, keepdims=True)))
            weights /= weights.sum(1, keepdims=True)
        return rivals, weights, None

    def _solve(self, rival: int, weights: Floats) -> Floats | None:
        """A change by which the rival breaks the query; None proves that there is none.

        The program begins with the weightiest relatives and takes on those whose terms its solution breaks.
        """
        slopes, offsets = self._foreign[rival] - self._own, self._foreign_scores[rival] - self._own_scores
        chosen = np.argsort(-weights, kind="stable")[:_FIRST]
        while True:
            change, proof = self._ball.highest(slopes[chosen], offsets[chosen])
            self.programs += 1
            bound = float(proof @ offsets[chosen] + self._ball.support(proof @ slopes[chosen]))
            if bound < 0:
                self._rule_out(np.array([bound]))
                return None
            lead = offsets + slopes @ change
            broken = np.setdiff1d(np.flatnonzero(lead < lead[chosen].min()), chosen)
            # Where no further term is broken this is the solution of the whole program, 0 but for rounding: a tie.
            if lead.min() >= 0 or not len(broken):
                return change
            chosen = np.append(chosen, broken[np.argsort(lead[broken], kind="stable")[:_MORE]])
