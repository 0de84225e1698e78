"""Attacks of torchattacks (Kim 2020), aimed at retrieval through a `RetrievalClassifier`.

The library draws random numbers for a whole batch, some of its attacks stop a batch when its sum of losses stops
falling, and Square moves the same square in every image. The images of these attacks are therefore repeatable for the
same shards, not for others; those that go image by image (`Row.most_rows`) draw per query.
"""

from __future__ import annotations

import contextlib
import functools
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustdml.contracts import References
from robustdml.errors import AttackSkipped, SpecError, UnknownNameError
from robustdml.models import untouched
from robustdml.registry import Spec
from robustdml.results import AttackEntry, Norm
from robustdml.seeding import derive_seed
from robustdml.threat import NORMS, ThreatModel

from ...entries import goal_params, with_goal_citation
from ...factory import AttackFactory
from ...goals.embedding import Aim
from ..classifier import Problem, problems
from ..library import seeded
from .row import NORM_NAMES, Row
from .table import NOT_OFFERED as NOT_OFFERED
from .table import ROWS

#: SPSA holds this many copies of a batch at once, in numbers: 128 MB in float32.
_MOST_NUMBERS = 2**25


@dataclass(frozen=True)
class Torchattack:
    """An attack of torchattacks: a row of the table, a goal, a budget and parameters.

    Args:
        kind: the class, one of `ROWS`.
        goal: what it wants.
        eps: its budget in its norm; None exactly where it takes none.
        params: every other parameter with its value, in the library's terms. ``step`` is the length of a step as a
            share of eps; None stands for 2.5 over the number of steps. ``hardest`` is how many of the nearest other
            classes of a query are seen, ``target_classes`` towards how many of them the targeted parts go.

    Raises:
        SpecError: a value out of its range, or a parameter that the goal cannot have.
        UnknownNameError: a word that the parameter does not take.
    """

    kind: str
    goal: Aim
    eps: float | None
    params: tuple[tuple[str, Any], ...]

    def __post_init__(self) -> None:
        name = f"torchattacks.{self.kind}"
        for key, value in self.params:
            if key in self.row.choices and value not in self.row.choices[key]:
                raise UnknownNameError(f"{key} of {name}", str(value), self.row.choices[key])
            _check_number(name, key, value, self.row.least.get(key, 1))
        if self.kind == "OnePixel" and self.eps is not None and 0 < self.eps < 1:
            raise SpecError(f"{name}: eps={self.eps} must be a number of pixels, at least 1")
        if self._given.get("loss") == "dlr" and self.goal.name != "untargeted":
            # The library's targeted DLR needs the true label beside the target, and is handed one label.
            raise SpecError(f"{name}: loss=dlr works for goal=untargeted only: leave it out")

    @property
    def row(self) -> Row:
        """Its row of the table."""
        return ROWS[self.kind]

    @property
    def norm(self) -> Norm:
        """The norm of its budget, or the one that it makes small."""
        found: Norm = self._given.get("norm", self.row.norms[0])
        return found

    @property
    def threat(self) -> ThreatModel:
        """The ball of radius eps; every image where it has no budget."""
        return ThreatModel(self.eps, self.norm)

    @property
    def _given(self) -> dict[str, Any]:
        return dict(self.params)

    def entry(self) -> AttackEntry:
        """Its row in the results."""
        goal = self.goal
        name = f"torchattacks.{self.kind}"
        return AttackEntry(
            spec=str(Spec(name, {**goal_params(goal), **self._given})),
            name="-".join([name, *([NORMS[self.norm]] if self.norm != self.row.norms[0] else []), goal.name]),
            library="torchattacks",
            goal=goal.name,
            knowledge=self.row.knowledge,
            norm=self.norm,
            budget=self.row.budget,
            citations=with_goal_citation(goal.name, "kim2020torchattacks", self.row.citation),
        )

    def target_rows(self, references: References, *, seed: int) -> Tensor | None:
        """Those of the goal."""
        return self.goal.target_rows(references, seed=seed)

    def __call__(self, model: nn.Module, images: Tensor, references: References, *, seed: int) -> Tensor:
        """See `robustdml.contracts.Attack`.

        Raises:
            AttackSkipped: the images are too large for this attack.
        """
        images = images.detach()
        side = max(images.shape[2:])
        if self.row.largest_side is not None and side > self.row.largest_side:
            raise AttackSkipped(
                f"images of {side} pixels are too large for torchattacks.{self.kind}, whose memory grows with the "
                f"fourth power of the side: choose --image-size {self.row.largest_side} or less, or leave it out"
            )
        result = images.clone()
        if self.eps == 0:
            return result  # Some of the classes divide by eps.
        targets = self.target_rows(references, seed=seed)
        with untouched(model), torch.enable_grad(), _quiet():
            for problem in problems(
                model,
                references,
                targets,
                hardest=self._given.get("hardest", 10),
                scale=self.row.scale,
                rivals=self.row.rivals,
                most_rows=self.row.most_rows,
                most_classes=self.row.most_classes,
            ):
                own_seed = derive_seed(seed, references.ids[problem.rows].tolist())
                seeded(own_seed)
                part = images[problem.rows]
                attack = self.row.make(problem.classifier, **self._arguments(problem, part, own_seed))
                attack.set_device(images.device)
                if targets is not None:
                    attack.set_mode_targeted_by_label(quiet=True)
                result[problem.rows] = self.row.run(attack, part, problem.labels).detach()
        return result

    def _arguments(self, problem: Problem, images: Tensor, seed: int) -> dict[str, Any]:
        """What the class is called with."""
        row, given, known = self.row, self._given, self.row.arguments
        classes = min(problem.classifier.n_classes, given.get("target_classes", problem.classifier.n_classes) + 1)
        ours = {
            "norm": NORM_NAMES.get(self.norm),
            "n_classes": classes,
            "seed": seed,
            "max_batch_size": max(1, min(given.get("nb_sample", 1), _MOST_NUMBERS // images.numel())),
        }
        found = {key: value for key, value in {**given, **row.fixed}.items() if key in known}
        found |= {key: value for key, value in ours.items() if key in known}
        if row.eps and self.eps is not None:
            found[row.eps] = int(self.eps) if row.eps == "pixels" else self.eps
        if row.step and self.eps is not None:
            share = given["step"]
            found[row.step] = self.eps * (2.5 / given[row.steps] if share is None else share)
        return found


#: Numbers that may be below 0: JSMA darkens with a negative one.
_MAY_BE_NEGATIVE = {"theta"}
#: Numbers that may be 0.
_MAY_BE_ZERO = {"decay", "kappa", "std", "noise_sd", "diversity_prob", "beta", "overshoot", "amplification"}


def _check_number(name: str, key: str, value: object, least: int) -> None:
    """Refuse a number that the library would fail on late and in its own words."""
    for part in value if isinstance(value, tuple) else (value,):
        if isinstance(part, bool) or not isinstance(part, int | float):
            continue
        if isinstance(part, int) and part < least and key not in _MAY_BE_ZERO | _MAY_BE_NEGATIVE:
            raise SpecError(f"{name}: {key}={value} must be at least {least}")
        if (part < 0 and key not in _MAY_BE_NEGATIVE) or (part == 0 and key not in _MAY_BE_ZERO):
            raise SpecError(f"{name}: {key}={value} must be above 0")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Neither what the library prints nor what it does that NumPy and torch advise against is the user's business."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _make(kind: str, *, goal: Aim, eps: float | None = None, **params: object) -> Torchattack:
    return Torchattack(kind, goal, eps, tuple(params.items()))


FACTORIES = {
    f"torchattacks.{kind}": AttackFactory(
        row.summary,
        functools.partial(_make, kind),
        row.defaults,
        row.goals,
        row.effort,
        library="torchattacks",
        knowledge=row.knowledge,
        norms=row.norms,
        budget=row.budget,
        cost=row.cost,
    )
    for kind, row in ROWS.items()
}
