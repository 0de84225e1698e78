"""Ascent with momentum (Dong et al. 2018) whose steps shrink to nothing, judged by the margin at every image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustdml.contracts import Goal, Objective, References
from robustdml.errors import SpecError
from robustdml.models import untouched
from robustdml.results import AttackEntry
from robustdml.seeding import derive_seed
from robustdml.threat import ThreatModel
from robustdml.values import check_fields

from ..goals.rivals import ChosenItem, ItemMargin, in_turn
from ..goals.untargeted import Margin
from .geometry import Radius, check_norm, project, random_perturbation, steepest_step
from .gradient import Best, gradient_entry, gradient_of, value_of
from .prediction import Prospects, promising_items

# The first step as a share of eps. From a quarter to twice of it there was no difference.
_FIRST_STEP = 0.5

# Of the way from the clean margin to 0, the share that the best change of the linear model must bring a query for its
# item to be climbed to. Climbs go on from there by a quarter, at most by 0.36 in what was measured.
_CAME = 0.5

#: How far the margin must be above 0 for a query to count as broken: float32 rounds similarities to some 1e-7.
CLEAR = 1e-6


@dataclass(frozen=True)
class Momentum:
    """Gradient ascent with momentum, on those queries alone that are not broken yet.

    Step t of T goes along ``v = momentum v + g / |g|_1``, g being the gradient of the goal (Dong et al. 2018, equations
    6 and 7; for L2 and L1 along the steepest direction of v in that norm), as far as ``eps (1 + cos(pi t / T)) / 4``:
    from half of eps down to 0. Runs start at random in the ball. Whatever the goal, every image is judged by the
    margin, the best is returned, and a query whose margin says that its first hit is wrong costs no further gradient.

    A goal that is several (`ItemMargin`, `ClassMargin`) is pursued in turns, each a run of its own. With ``predict``
    the items of `ItemMargin` are not those nearest to the query, but those that can come furthest ahead by a linear
    model of the embedding (`promising_items`): fewer turns then find more. The best changes by that model are tried
    first, and the item whose change brought the query furthest has the first turn.

    Args:
        goal: what to raise.
        eps: budget, in pixels of [0, 1].
        steps: T, gradient steps of a run, at least 1.
        restarts: runs of each turn of the goal, at least 1; all turns are over before the next restart begins.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        momentum: share of the past gradients kept in each step, at least 0.
        stop: whether a broken query is left alone. Without it the margin of each is raised as far as it goes, which
            tells of other measures than the first hit.
        predict: with `ItemMargin`, gradients spent on each query for the choice of its items; 0 takes the nearest.
        whole: with ``predict``, an embedding of no more than so many dimensions is known in all of them, by as many
            gradients.
        slack: with ``predict``, by which share the margin may grow faster than the linear model says; an item that
            would not come ahead even so is left out, and so is one whose best change by the linear model brings the
            query less than half of the way. None leaves none out.
        samples: forward passes that value and gradient are the mean of (see `robustdml.attacks.PGD`), at least 1.

    Raises:
        SpecError: a value out of its range.
    """

    goal: Goal
    eps: float
    steps: int = 20
    restarts: int = 1
    norm: str = "linf"
    momentum: float = 0.75
    stop: bool = True
    predict: int = 0
    whole: int = 0
    slack: float | None = None
    samples: int = 1

    def __post_init__(self) -> None:
        check_fields(self)
        if self.steps < 1 or self.restarts < 1 or self.samples < 1:
            raise SpecError(
                f"steps={self.steps}, restarts={self.restarts} and samples={self.samples} must all be at least 1"
            )
        if self.momentum < 0 or self.predict < 0 or self.whole < 0:
            raise SpecError(
                f"momentum={self.momentum}, predict={self.predict} and whole={self.whole} must all be at least 0"
            )
        if self.predict and not (isinstance(self.goal, ItemMargin) and not self.goal.items):
            raise SpecError(f"predict={self.predict} chooses items: it goes with goal=item_margin, and without items")
        if self.slack is not None and not (self.predict and self.slack >= 0):
            raise SpecError(f"slack={self.slack} must be at least 0, and goes with predict above 0")
        check_norm(self.norm)

    @property
    def threat(self) -> ThreatModel:
        """The ball of radius eps."""
        return ThreatModel(self.eps, self.norm)

    def entry(self) -> AttackEntry:
        """Its row in the results."""
        return gradient_entry("mi", self, "dong2018boosting")

    def target_rows(self, references: References, *, seed: int) -> Tensor | None:
        """Those of the goal; None where they are predicted, for which it takes the model."""
        return None if self.predict else self.goal.target_rows(references, seed=seed)

    def __call__(self, model: nn.Module, images: Tensor, references: References, *, seed: int) -> Tensor:
        """See `robustdml.contracts.Attack`."""
        images, ids = images.detach(), references.ids
        found = Best(images, Margin().objective(references, seed=seed)(references.embeddings))
        with untouched(model):
            torch.manual_seed(derive_seed(seed, "model", ids.tolist()))
            turns = self._turns(model, images, references, found, seed=seed)
            for number, (goal, wanted) in enumerate(turns * self.restarts):
                rows = self._rows_left(found.values)
                rows = rows[torch.isin(rows, wanted)]
                if not len(rows):
                    continue
                clean = images[rows]
                noise = random_perturbation(clean, ids[rows], self.eps, self.norm, seed=seed, purpose=f"start{number}")
                start = project(clean + noise, clean, self.eps, self.norm)
                best = self.ascend(model, goal, clean, start, references.rows(rows), self.eps, seed=seed)
                found.keep(best.images, best.values, rows)
        return found.images

    def _turns(
        self, model: nn.Module, images: Tensor, references: References, found: Best, *, seed: int
    ) -> list[tuple[Goal, Tensor]]:
        """The goals to pursue, each with the queries to pursue it for, of those that are left."""
        rows = self._rows_left(found.values)
        if not self.predict or not isinstance(self.goal, ItemMargin) or not len(rows):
            return [(goal, rows) for goal in in_turn(self.goal)]
        skip, rivals, dimensions = self.goal.skip, self.goal.rivals, references.embeddings.shape[1]
        prospects = promising_items(
            *(model, images[rows], references.rows(rows), self.eps, self.norm),
            count=skip + rivals,
            gradients=dimensions if dimensions <= self.whole else self.predict,
            slack=self.slack,
        )
        items = rows.new_zeros(len(rows), rivals)
        worth = torch.zeros_like(items, dtype=torch.bool)
        for place, (row, each) in enumerate(zip(rows, prospects, strict=True)):
            tried, margins = self._foretold(model, images[row], references.rows(row[None]), each, seed=seed)
            best = margins.argmax()
            found.keep(tried[best][None], margins[best][None], row[None])
            order = margins[skip:].argsort(descending=True, stable=True)
            items[place], worth[place] = each.items[skip:][order], each.worth[skip:][order]
            if self.slack is not None:
                clean = Margin().objective(references.rows(row[None]), seed=seed)(references.embeddings[row[None]])
                worth[place] &= margins[skip:][order] >= (1 - _CAME) * clean
        ids = references.ids[rows]
        return [(ChosenItem(items[:, turn], ids), rows[worth[:, turn]]) for turn in range(rivals)]

    def _foretold(
        self, model: nn.Module, clean: Tensor, references: References, prospects: Prospects, *, seed: int
    ) -> tuple[Tensor, Tensor]:
        """For each item, the image that is best by the linear model, and its margin; -inf where not worth a try."""
        margins, worth = torch.full_like(prospects.bounds, -torch.inf), torch.nonzero(prospects.worth).flatten()
        images = clean.expand(len(margins), *clean.shape)
        images = project(images + prospects.changes.view_as(images), images, self.eps, self.norm)
        if len(worth):
            judged = Margin().objective(references.rows(torch.zeros_like(worth)), seed=seed)
            margins[worth] = value_of(model, judged, images[worth], self.samples)
        return images, margins

    def ascend(
        self,
        model: nn.Module,
        goal: Goal,
        clean: Tensor,
        start: Tensor,
        references: References,
        radius: Radius,
        *,
        seed: int,
    ) -> Best:
        """One run: the best image of each query by the margin, and its margin.

        Args:
            goal: what to raise, in one turn.
            clean: ``(N, C, H, W)``, the centres of the balls.
            start: where to begin, within the balls.
            radius: of the balls, in place of eps.
        """
        best = Best(start)
        rows = torch.arange(len(start), device=start.device)
        current, velocity = start, torch.zeros_like(start)
        raised, judged = goal.objective(references, seed=seed), Margin().objective(references, seed=seed)
        for step in range(self.steps):
            if not len(rows):
                return best
            margins, gradient = self._judged_gradient(model, raised, judged, current)
            best.keep(current, margins, rows)
            left = self._rows_left(margins)
            if len(left) < len(rows):
                rows, clean, current, velocity, gradient = (
                    part[left] for part in (rows, clean, current, velocity, gradient)
                )
                references = references.rows(left)
                radius = radius[left] if isinstance(radius, Tensor) else radius
                raised, judged = goal.objective(references, seed=seed), Margin().objective(references, seed=seed)
            length = gradient.abs().sum((1, 2, 3), keepdim=True).clamp_min(1e-20)
            velocity = self.momentum * velocity + gradient / length
            size = _FIRST_STEP * radius * (1 + math.cos(math.pi * step / self.steps)) / 2
            following = current + steepest_step(velocity, current, size, self.norm)
            current = project(following, clean, radius, self.norm)
        if len(rows):
            best.keep(current, value_of(model, judged, current, self.samples), rows)
        return best

    def _judged_gradient(
        self, model: nn.Module, raised: Objective, judged: Objective, images: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The margin of each image ``(N,)`` and the gradient of the goal, from the same passes."""
        margins = images.new_zeros(len(images))
        with torch.enable_grad():
            images = images.detach().requires_grad_()
            value = torch.zeros_like(margins)
            for _ in range(self.samples):
                embeddings = model(images)
                value = value + raised(embeddings) / self.samples
                margins += judged(embeddings.detach()) / self.samples
            gradient = gradient_of(value, images)
        return margins, gradient

    def _rows_left(self, margins: Tensor) -> Tensor:
        """The rows that are still to be climbed for; a GPU is waited for to know how many they are.

        That saves more than it costs: most queries of a model that is not robust are done after a few steps.
        """
        return torch.nonzero(margins <= (CLEAR if self.stop else math.inf)).flatten()
