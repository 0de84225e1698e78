"""A row of the table of ART's attacks, and one of its problems ready to be attacked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robustdml.config import Effort
from robustdml.contracts import References

from ...goals.embedding import Aim
from ..classifier import RetrievalClassifier
from .estimators import ClassifierEstimator

Array = NDArray[np.float32]

#: The norms of balls that most gradient attacks know.
BALLS = ("linf", "l2", "l1")

#: Gradient steps of the efforts beside the standard one.
GRADIENT_EFFORT: Mapping[Effort, Mapping[str, object]] = {"quick": {"max_iter": 10}, "thorough": {"max_iter": 100}}

#: ART's attacks hand the clean image back where their own criterion is not met: this is said in their summaries.
UNCHANGED = "; unchanged where it fails"

#: Arguments of ART's attacks that are no parameters: the adapter sets them, or nothing may.
_NOT_PARAMETERS = {
    "self",
    "estimator",
    "classifier",
    "norm",
    "eps",
    "eps_step",
    "targeted",
    "batch_size",
    "verbose",
    "summary_writer",
}


@dataclass(frozen=True)
class Job:
    """One classification problem of a batch, and the attack that is wanted on it.

    Args:
        make: builds the attack of ART from its estimator, and from arguments that go before the others.
        classifier: logits over the classes of the problem.
        model: the embedding model.
        images: ``(N, 3, H, W)`` in [0, 1].
        labels: ``(N,)``, the class to leave, or, with ``targets``, to reach.
        references: of these N queries.
        targets: gallery rows ``(N, T)``, or None for an untargeted attack.
        goal: what the attack wants.
        params: every parameter of the attack, by name.
        seed: of these queries, for the order in which they are.
    """

    make: Callable[..., Any]
    classifier: RetrievalClassifier
    model: nn.Module
    images: Tensor
    labels: Tensor
    references: References
    targets: Tensor | None
    goal: Aim
    params: Mapping[str, Any]
    seed: int

    @property
    def x(self) -> Array:
        """The images as ART takes them, a copy."""
        array: Array = self.images.cpu().numpy().astype(np.float32, copy=True)
        return array

    @property
    def y(self) -> NDArray[np.int64]:
        """The labels as ART takes them."""
        array: NDArray[np.int64] = self.labels.cpu().numpy()
        return array

    def estimator(self, *, probabilities: bool = False) -> ClassifierEstimator:
        """The classifier as an estimator of ART, of logits or of probabilities."""
        return ClassifierEstimator(self.classifier, self.images, probabilities=probabilities)

    def unsolved(self, logits: Array) -> NDArray[np.bool_]:
        """Which queries have not reached the goal by the classifier's decision on ``logits``, ``(N,)``."""
        reached: NDArray[np.bool_] = logits.argmax(1) == self.y
        return reached if self.targets is None else ~reached

    def rivals(self, logits: Array) -> NDArray[np.int64]:
        """The likeliest class beside the label, ``(N,)``."""
        others = logits.copy()
        others[np.arange(len(others)), self.y] = -np.inf
        found: NDArray[np.int64] = others.argmax(1).astype(np.int64)
        return found


@dataclass(frozen=True)
class Row:
    """What the registry and the adapter need to know of an attack of ART.

    Args:
        kind: its class.
        call: runs it on a `Job` and returns its images, ``(N, 3, H, W)``.
        summary: one line for listings.
        citation: key of its paper.
        norms: that it serves, its default first.
        budget: see `AttackFactory`; so are ``knowledge``, ``cost``, ``goals`` and ``by_name_only``.
        eps: ART's name of the budget, where there is a fixed one.
        step: the default of the parameter ``step``: the length of a step (ART's ``eps_step`` or ``step_size``) as a
            share of eps, None standing for 2.5 / max_iter; absent where the attack has no such argument.
        params: parameters whose defaults are not ART's, and such as ART does not have.
        hidden: arguments of ART that are no parameters.
        renamed: parameters that ART has under another name.
        own: parameters that are not handed to ART, but used by ``call``.
        effort: parameters that another effort than standard changes.
        largest_side: images with a longer side are skipped; None takes every size.
        rivals: what the targets of a targeted attack compete with (see `problems`): none for attacks that follow a
            loss, the own class for those that stop or return the clean image by their own test of success.
        together: whether ART's batch size may be above 1.
        needs: a package that ART does not install with itself.
    """

    kind: Any
    call: Callable[[Job], Array]
    summary: str
    citation: str
    norms: tuple[str, ...] = ("linf",)
    budget: Literal["fixed", "minimum", "unrestricted"] = "fixed"
    knowledge: Literal["gradients", "scores", "decisions"] = "gradients"
    cost: Literal["low", "medium", "high"] = "low"
    goals: tuple[str, ...] = ("untargeted", "stax", "mtax")
    eps: str = "eps"
    step: float | Literal["absent"] | None = "absent"
    step_name: str = "eps_step"
    params: Mapping[str, object] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    own: tuple[str, ...] = ()
    effort: Mapping[Effort, Mapping[str, object]] = field(default_factory=dict)
    largest_side: int | None = None
    needs: str | None = None
    rivals: Literal["own", "none"] = "own"
    together: bool = True
    by_name_only: str = ""

    @property
    def accepted(self) -> Mapping[str, inspect.Parameter]:
        """The arguments of ART's constructor."""
        return inspect.signature(self.kind.__init__).parameters

    def defaults(self) -> dict[str, object]:
        """Every parameter with its default: those of ART's constructor, with ours over them."""
        taken = {*_NOT_PARAMETERS, *self.hidden, *self.renamed.values(), self.eps, self.step_name}
        found = {name: each.default for name, each in self.accepted.items() if name not in taken}
        norm: dict[str, object] = {"norm": self.norms[0]} if len(self.norms) > 1 else {}
        step: dict[str, object] = {} if self.step == "absent" else {"step": self.step}
        return {**norm, **found, **step, **self.params}

    def arguments(self, params: Mapping[str, Any], eps: float | None, *, targeted: bool, count: int) -> dict[str, Any]:
        """The arguments of ART's constructor, for ``count`` images."""
        ours = {*self.own, "norm", *(() if self.step == "absent" else ("step",))}
        found = {self.renamed.get(name, name): value for name, value in params.items() if name not in ours}
        if self.budget == "fixed" and eps is not None:
            found[self.eps] = int(eps) if self.norms[0] == "l0" else eps
            if self.step != "absent":
                share = params["step"]
                found[self.step_name] = eps * (2.5 / params["max_iter"] if share is None else share)
        if "norm" in self.accepted and (len(self.norms) > 1 or self.budget == "fixed"):
            found["norm"] = {"linf": np.inf, "l2": 2, "l1": 1, "l0": 0}[params.get("norm", self.norms[0])]
        for name, value in (
            ("targeted", targeted),
            ("batch_size", max(count, 64) if self.together else 1),
            ("verbose", False),
        ):
            if name in self.accepted and name not in found:
                found[name] = value
        return found


def as_tensor(array: Array, like: Tensor) -> Tensor:
    """ART's images on the device of ours."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(like)
