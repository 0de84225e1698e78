"""A row of the table of torchattacks' attacks: what a class can do, and how it is driven."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torchattacks
from torch import Tensor

from robustdml.config import Effort
from robustdml.results import Norm

#: The norms in the library's words.
NORM_NAMES = {"linf": "Linf", "l2": "L2"}

#: Arguments of the library's classes that are no parameters: the adapter sets them.
_OURS = {"model", "norm", "n_classes", "seed", "verbose"}

Run = Callable[[Any, Tensor, Tensor], Tensor]


def _call(attack: Any, images: Tensor, labels: Tensor) -> Tensor:
    found: Tensor = attack(images, labels)
    return found


@dataclass(frozen=True)
class Row:
    """One attack of the library.

    Args:
        make: the class, or a function that builds its object; called with the classifier and keywords.
        summary: one line for listings.
        citation: the key of its paper.
        goals: see `AttackFactory`; so are norms, budget, knowledge, cost and effort.
        changed: parameters whose default is not the library's, and parameters of our own.
        hidden: arguments of the class that have no effect in 3.5.1, or a harmful one.
        fixed: arguments that are always handed over.
        eps: the argument for the budget; None where the class takes none.
        step: the argument for the length of a step, which the parameter ``step`` gives as a share of eps.
        steps: the parameter that counts the steps; where ``step`` is None, it stands for 2.5 over this number.
        least: the least value of a whole number that must be above 1.
        choices: the words that a parameter takes.
        scale: of the logits.
        rivals: see `problems`: "own" for attacks that test themselves whether the target is reached.
        most_rows: queries per problem; 1 for attacks that go image by image anyway.
        most_classes: classes per problem, where the memory or the time needed grows with their number.
        largest_side: of images, in pixels; larger ones are skipped.
        run: calls the attack.
    """

    make: Callable[..., Any]
    summary: str
    citation: str
    goals: tuple[str, ...] = ("untargeted", "stax", "mtax")
    norms: tuple[Norm, ...] = ("linf",)
    budget: Literal["fixed", "minimum", "unrestricted"] = "fixed"
    knowledge: Literal["gradients", "scores", "decisions", "transfer", "none"] = "gradients"
    cost: Literal["low", "medium", "high"] = "low"
    effort: Mapping[Effort, Mapping[str, object]] = field(default_factory=dict)
    changed: Mapping[str, object] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()
    fixed: Mapping[str, object] = field(default_factory=dict)
    eps: str | None = "eps"
    step: str | None = None
    steps: str = "steps"
    least: Mapping[str, int] = field(default_factory=dict)
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    scale: float = 50.0
    rivals: Literal["own", "none"] = "none"
    most_rows: int | None = None
    most_classes: int | None = None
    largest_side: int | None = None
    run: Run = _call

    @property
    def arguments(self) -> Mapping[str, object]:
        """The arguments of the class, with their defaults."""
        found = inspect.signature(self.make).parameters.values()
        return {part.name: part.default for part in found if part.default is not inspect.Parameter.empty}

    @property
    def defaults(self) -> dict[str, object]:
        """Every parameter that a spec may set, in the library's terms, with its value at standard effort."""
        left_out = {*_OURS, *self.hidden, *self.fixed, self.eps, self.step}
        own = {"norm": self.norms[0]} if len(self.norms) > 1 else {}
        step = {"step": None} if self.step else {}
        theirs = {name: value for name, value in self.arguments.items() if name not in left_out}
        return {**own, **theirs, **step, **self.changed}


def best_loss(attack: Any, images: Tensor, labels: Tensor) -> Tensor:
    """APGD's iterate of the highest loss, where it would otherwise return the clean image of what it did not break."""
    _, found = attack.perturb(images, labels, best_loss=True)
    return torch.as_tensor(found)


def best_score(attack: Any, images: Tensor, labels: Tensor) -> Tensor:
    """Square's best image so far, where it would otherwise return the clean image of what it did not break."""
    attack.init_hyperparam(images)
    _, found = attack.attack_single_run(images, labels)
    return torch.as_tensor(found)


def towards_nearest(attack: Any, images: Tensor, labels: Tensor) -> Tensor:
    """Call an attack that only knows targets; to leave a class, the target is the class of the next highest logit."""
    if not attack.targeted:
        with torch.no_grad():
            logits = attack.get_logits(images)
        labels = logits.scatter(1, labels[:, None], -torch.inf).argmax(1)
        attack.set_mode_targeted_by_label(quiet=True)
    return _call(attack, images, labels)


def auto_attack(
    model: torch.nn.Module,
    norm: str = "Linf",
    eps: float = 8 / 255,
    version: str = "standard",
    steps: int = 10,
    n_queries: int = 5000,
    n_classes: int = 10,
    seed: int = 0,
) -> Any:
    """``torchattacks.AutoAttack`` with the effort of its parts, which it leaves no way to set."""
    attack = torchattacks.AutoAttack(model, norm=norm, eps=eps, version=version, n_classes=n_classes, seed=seed)
    for part in attack._autoattack.attacks:
        if isinstance(part, torchattacks.Square):
            part.n_queries = n_queries
        else:
            part.steps = steps
    return attack


def sparse_fool(
    model: torch.nn.Module, steps: int = 10, lam: float = 3, overshoot: float = 0.02, deepfool_steps: int = 50
) -> Any:
    """``torchattacks.SparseFool`` with the steps of the DeepFool inside each of its own."""
    attack = torchattacks.SparseFool(model, steps=steps, lam=lam, overshoot=overshoot)
    attack.deepfool.steps = deepfool_steps
    return attack
