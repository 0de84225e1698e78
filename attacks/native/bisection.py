"""The smallest perturbation that breaks each query: its radius is bisected, with the means of the cascade at each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustdml.contracts import References
from robustdml.errors import SpecError
from robustdml.models import untouched
from robustdml.results import AttackEntry
from robustdml.seeding import derive_seed
from robustdml.threat import ThreatModel, norm_of
from robustdml.values import check_fields

from ..attack_entry import native_entry
from ..goals.rivals import ChosenItem
from ..goals.untargeted import Margin
from .geometry import check_norm, project, random_perturbation
from .gradient import Best
from .momentum import CLEAR, Momentum
from .prediction import reachable_items

# The first radius tried, as a share of the largest perturbation that pixels in [0, 1] allow: 4/255 for L-infinity.
_FIRST = 4 / 255

# Radii that are nearer to each other than this are not told apart.
_CLOSE = 1.01

# As in the cascade: gradients for the choice of items, and the share by which leads may beat the linear model.
_PREDICT, _SLACK = 48, 0.25


@dataclass(frozen=True)
class Bisection:
    """The smallest radius at which momentum ascent gives each query a wrong first hit.

    The radius doubles until the query breaks, and is then bisected (geometric means). At each radius the margin is
    climbed, from the nearest perturbation known to break the query, shrunk to the radius (before one is known, from the
    best of the last radius); where that fails, single foreign items are climbed to, those that a linear model of the
    embedding brings ahead at that radius. A query that breaks costs no further gradient at its radius.

    What is returned breaks the query, so that its size is an upper bound of the smallest; whether a smaller one exists
    is not known. A query that is wrong already stays as it is; of one that never breaks the best image is returned.

    Args:
        steps: gradient steps of a climb, at least 1.
        rounds: radii tried for each query, at least 1.
        items: single items climbed to at a radius, at least 0.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.

    Raises:
        SpecError: a value out of its range.
    """

    steps: int = 20
    rounds: int = 10
    items: int = 10
    norm: str = "linf"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.steps < 1 or self.rounds < 1 or self.items < 0:
            raise SpecError(
                f"steps={self.steps} and rounds={self.rounds} must both be at least 1, and items={self.items} at "
                "least 0"
            )
        check_norm(self.norm)

    @property
    def threat(self) -> ThreatModel:
        """Every image; the norm is measured."""
        return ThreatModel(None, self.norm)

    def entry(self) -> AttackEntry:
        """Its row in the results."""
        name = "bisection" if self.norm == "linf" else f"bisection-{self.norm}"
        return native_entry("bisection", self, Margin(), "dong2018boosting", name=name, budget="minimum")

    def target_rows(self, references: References, *, seed: int) -> None:
        """None: any item of another class will do."""

    def __call__(self, model: nn.Module, images: Tensor, references: References, *, seed: int) -> Tensor:
        """See `robustdml.contracts.Attack`."""
        with untouched(model):
            torch.manual_seed(derive_seed(seed, "model", references.ids.tolist()))
            return _Search(self, model, images.detach(), references, seed).images()


class _Search:
    """The state of a batch: between which radii each query breaks, and the images that say so."""

    def __init__(self, attack: Bisection, model: nn.Module, clean: Tensor, references: References, seed: int) -> None:
        self._attack, self._model, self._clean, self._references, self._seed = attack, model, clean, references, seed
        size = clean[0].numel()
        self._largest = {"linf": 1.0, "l2": size**0.5, "l1": float(size)}[attack.norm]
        self._mi = Momentum(Margin(), self._largest, steps=attack.steps, norm=attack.norm)
        margins = Margin().objective(references, seed=seed)(references.embeddings)
        #: Each query breaks at ``high``, by ``found``, and did not at ``low``, where ``nearest`` came nearest to it.
        self._low = torch.zeros_like(margins)
        self._high = torch.full_like(margins, torch.inf).masked_fill(margins > 0, 0)
        self._found, self._nearest = clean.clone(), clean.clone()
        #: The items to climb to and the radii at which they may come ahead; none yet where ``asked`` is not set.
        self._items = references.ids.new_zeros(len(clean), attack.items)
        self._needed = margins.new_zeros(len(clean), attack.items)
        self._asked = torch.zeros_like(margins, dtype=torch.bool)

    def images(self) -> Tensor:
        """What was found after all rounds."""
        for turn in range(self._attack.rounds):
            rows = torch.nonzero((self._high > _CLOSE * self._low) & (self._low < self._largest)).flatten()
            if not len(rows):
                break
            self._round(turn, rows, self._radius(rows))
        return torch.where(_each(self._high.isinf()), self._nearest, self._found)

    def _radius(self, rows: Tensor) -> Tensor:
        low, high = self._low[rows], self._high[rows]
        wider = (2 * low).clamp(_FIRST * self._largest, self._largest)
        return torch.where(high.isinf(), wider, torch.where(low > 0, (low * high).sqrt(), high / 2))

    def _round(self, turn: int, rows: Tensor, radius: Tensor) -> None:
        """Try to break the queries at ``rows`` within ``radius``, ``(K,)``."""
        best = self._mi.ascend(
            *(self._model, Margin(), self._clean[rows], self._start(turn, rows, radius)),
            *(self._references.rows(rows), _each(radius)),
            seed=self._seed,
        )
        left = self._keep(rows, best)
        self._nearest[rows[left]] = best.images[left]
        rows, radius = rows[left], radius[left]
        if self._attack.items and len(rows):
            self._choose_items(rows, radius)
        for place in range(self._attack.items):
            worth = self._needed[rows, place] <= radius
            tried = rows[worth]
            if not len(tried):
                continue
            around = _each(radius[worth])
            best = self._mi.ascend(
                *(self._model, ChosenItem(self._items[tried, place], self._references.ids[tried])),
                *(self._clean[tried], self._random(f"item{turn}.{place}", tried, around)),
                *(self._references.rows(tried), around),
                seed=self._seed,
            )
            broken = torch.zeros_like(worth)
            broken[worth] = ~self._keep(tried, best)
            rows, radius = rows[~broken], radius[~broken]
        self._low[rows] = radius

    def _start(self, turn: int, rows: Tensor, radius: Tensor) -> Tensor:
        """The perturbation known so far, brought to the radius, and a little noise."""
        if turn == 0:
            return self._random("start0", rows, _each(radius))
        clean = self._clean[rows]
        known = torch.where(_each(self._high[rows].isinf()), self._nearest[rows], self._found[rows]) - clean
        share = (radius / norm_of(known, self._attack.norm).clamp_min(1e-12)).clamp_max(1.0)
        begin = self._random(f"start{turn}", rows, _each(radius / 10)) + known * _each(share)
        return project(begin, clean, _each(radius), self._attack.norm)

    def _random(self, purpose: str, rows: Tensor, radius: Tensor) -> Tensor:
        clean, norm = self._clean[rows], self._attack.norm
        ids = self._references.ids[rows]
        noise = random_perturbation(clean, ids, radius, norm, seed=self._seed, purpose=purpose)
        return project(clean + noise, clean, radius, norm)

    def _choose_items(self, rows: Tensor, radius: Tensor) -> None:
        """For those for whom it was not done yet."""
        new = ~self._asked[rows]
        rows, radius = rows[new], radius[new]
        if len(rows):
            self._items[rows], self._needed[rows] = reachable_items(
                *(self._model, self._clean[rows], self._references.rows(rows), radius, self._attack.norm),
                count=self._attack.items,
                gradients=_PREDICT,
                slack=_SLACK,
            )
            self._asked[rows] = True

    def _keep(self, rows: Tensor, best: Best) -> Tensor:
        """Note what breaks its query by less than was known; returns who is not broken, ``(K,)`` bool."""
        broken = best.values > CLEAR
        size = norm_of(best.images - self._clean[rows], self._attack.norm)
        better = broken & (size < self._high[rows])
        taken = rows[better]
        self._found[taken], self._high[taken] = best.images[better], size[better]
        return ~broken


def _each(values: Tensor) -> Tensor:
    return values[:, None, None, None]
