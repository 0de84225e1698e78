"""Attacks of torchattacks (Kim 2020), aimed at retrieval through a `RetrievalClassifier`.

The library draws random numbers for a whole batch, some of its attacks stop a batch when its sum of losses stops
falling, and Square moves the same square in every image. The images of these attacks are therefore repeatable for the
same shards, not for others; those that go image by image (`LibraryRow.most_rows`) draw per query.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torchattacks
from torch import Tensor

from robustdml.errors import SpecError, UnknownNameError

from ..library import LibraryAttack, Task
from . import drivers
from .row import TorchattacksRow
from .rows import ROWS

#: The norms in the library's words.
_NORM_NAMES = {"linf": "Linf", "l2": "L2"}

#: SPSA holds this many copies of a batch at once, in numbers: 128 MB in float32.
_MOST_NUMBERS = 2**25


@dataclass(frozen=True)
class Torchattack(LibraryAttack):
    """An attack of torchattacks: see `LibraryAttack`.

    Beside the library's parameters, ``hardest`` is how many of the nearest other classes of a query are seen, and
    ``target_classes`` towards how many of them the targeted parts go.

    Raises:
        SpecError: a value out of its range, or a parameter that the goal cannot have.
        UnknownNameError: a word that the parameter does not take.
    """

    library = "torchattacks"
    citation = "kim2020torchattacks"
    rows = ROWS
    may_be_zero = frozenset(
        {"decay", "kappa", "std", "noise_sd", "diversity_prob", "beta", "overshoot", "amplification"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        name, row = f"torchattacks.{self.kind}", self.row
        for key, value in self.params:
            if key in row.choices and value not in row.choices[key]:
                raise UnknownNameError(f"{key} of {name}", str(value), row.choices[key])
            if key in row.least and value < row.least[key]:
                raise SpecError(f"{name}: {key}={value} must be at least {row.least[key]}")
        if self.kind == "OnePixel" and self.eps is not None and 0 < self.eps < 1:
            raise SpecError(f"{name}: eps={self.eps} must be a number of pixels, at least 1")
        if self.given.get("loss") == "dlr" and self.goal.name != "untargeted":
            # The library's targeted DLR needs the true label beside the target, and is handed one label.
            raise SpecError(f"{name}: loss=dlr works for goal=untargeted only: leave it out")

    @property
    def row(self) -> TorchattacksRow:
        """Its row of the table."""
        return ROWS[self.kind]

    @property
    def make(self) -> Callable[..., Any]:
        """The class, or the function that builds its object."""
        made: Callable[..., Any] = (
            getattr(torchattacks, self.kind) if self.row.make is None else getattr(drivers, self.row.make)
        )
        return made

    def _solve(self, task: Task) -> Tensor:
        attack = self.make(task.classifier, **self.arguments(task))
        attack.set_device(task.images.device)
        if task.targets is not None:
            attack.set_mode_targeted_by_label(quiet=True)
        run: drivers.Run = getattr(drivers, self.row.run)
        return run(attack, task.images, task.labels).detach()

    def arguments(self, task: Task) -> dict[str, Any]:
        """What the class is called with."""
        row, given, known = self.row, self.given, inspect.signature(self.make).parameters
        classes = task.classifier.n_classes
        ours = {
            "norm": _NORM_NAMES.get(self.norm),
            "n_classes": min(classes, given.get("target_classes", classes) + 1),
            "seed": task.own_seed,
            "max_batch_size": max(1, min(given.get("nb_sample", 1), _MOST_NUMBERS // task.images.numel())),
        }
        if self.eps is not None:
            ours[row.eps_name] = int(self.eps) if row.eps_name == "pixels" else self.eps
            if row.step_name:
                ours[row.step_name] = row.step_of(given, self.eps)
        return {key: value for key, value in {**given, **row.fixed, **ours}.items() if key in known}
