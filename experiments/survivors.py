"""What else breaks the queries that the standard evaluation leaves: the table of docs/standard.md.

    python experiments/survivors.py runs/mdprop runs/advprop --surrogates runs/st [--eps 8/255] [--queries 64]

Every attempt meets all queries that ``standard`` leaves of a model; exact search says which of them fall. --attempts
are specs of attacks, or names of what is written below. --surrogates are models whose images are tried, too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from robustdml.attacks import ItemMargin, Margin, build_attack
from robustdml.contracts import Attack, Goal, Objective, References
from robustdml.data import load_dataset
from robustdml.data.tensors import ImageTensors
from robustdml.errors import AttackError, AttackSkipped
from robustdml.evaluation import load_subjects
from robustdml.evaluation.attacking.queries import run_attack
from robustdml.evaluation.checks.calibration import reached_by
from robustdml.evaluation.judge import Judge
from robustdml.models import untouched
from robustdml.retrieval.embed import Embedder
from robustdml.threat import ThreatModel, parse_eps


@dataclass(frozen=True)
class Own:
    """An attack of this file, in L-infinity.

    Args:
        climb: gives an image ``(N, C, H, W)`` at a time, to be judged, from the model, what to raise, and the corners.
        eps: budget.
        items: how many of the nearest single items to climb to; 0 climbs the margin.
    """

    climb: Callable[[nn.Module, Objective, Tensor, Tensor, Tensor], list[Tensor]]
    eps: float
    items: int = 0

    @property
    def threat(self) -> ThreatModel:
        """The ball."""
        return ThreatModel(self.eps)

    def __call__(self, model: nn.Module, images: Tensor, references: References, *, seed: int) -> Tensor:
        """The best image of all climbs."""
        judged = Margin().objective(references, seed=seed)
        best, reached = images.clone(), torch.full((len(images),), -torch.inf)
        goals: tuple[Goal, ...] = ItemMargin(self.items).turns if self.items else (Margin(),)
        low, high = (images - self.eps).clamp_min(0), (images + self.eps).clamp_max(1)
        with untouched(model):
            for number, goal in enumerate(goals):
                torch.manual_seed(seed + number)
                for found in self.climb(model, goal.objective(references, seed=seed), images, low, high):
                    with torch.no_grad():
                        values = judged(model(found))
                    better = values > reached
                    best[better], reached[better] = found[better], values[better]
        return best


def slope(model: nn.Module, raised: Objective, images: Tensor) -> tuple[Tensor, Tensor]:
    """Values ``(N,)`` and their gradients."""
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        values = raised(model(images))
        (gradient,) = torch.autograd.grad(values.sum(), images)
    return values.detach(), gradient


def adam(model: nn.Module, raised: Objective, clean: Tensor, low: Tensor, high: Tensor) -> list[Tensor]:
    """Adam for 200 steps on a variable that a sigmoid brings into the ball (Carlini & Wagner 2017)."""
    inside = (low + (high - low) * torch.rand_like(clean)).clamp(low + 1e-4, high - 1e-4)
    variable = ((inside - low) / (high - low).clamp_min(1e-6)).clamp(1e-3, 1 - 1e-3).logit()
    first, second, found = torch.zeros_like(clean), torch.zeros_like(clean), []
    for step in range(1, 201):
        share = variable.sigmoid()
        _, gradient = slope(model, raised, low + (high - low) * share)
        steep = gradient * (high - low) * share * (1 - share)
        steep = steep / steep.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-20)
        first, second = 0.9 * first + 0.1 * steep, 0.999 * second + 0.001 * steep.square()
        variable = variable + 0.3 * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        if step % 5 == 0:
            found.append(low + (high - low) * variable.sigmoid())
    return found


def lbfgs(model: nn.Module, raised: Objective, clean: Tensor, low: Tensor, high: Tensor) -> list[Tensor]:
    """L-BFGS-B within the ball and [0, 1], 60 evaluations, of all queries at once: their values add up."""
    start = low + (high - low) * torch.rand_like(clean)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = slope(model, raised, torch.from_numpy(flat).to(clean).view_as(clean))
        return -float(value.sum()), -gradient.flatten().double().numpy()

    bounds = np.stack([low.flatten().double().numpy(), high.flatten().double().numpy()], 1)
    result = minimize(
        loss, start.flatten().double().numpy(), jac=True, method="L-BFGS-B", bounds=bounds, options={"maxfun": 60}
    )
    return [torch.from_numpy(result.x).to(clean).view_as(clean).clamp(low, high)]


def frank_wolfe(model: nn.Module, raised: Objective, clean: Tensor, low: Tensor, high: Tensor) -> list[Tensor]:
    """Frank-Wolfe with momentum (Chen et al. 2020): steps of 2 / (t + 2) towards the best corner, 100 of them."""
    current, velocity, found = low + (high - low) * torch.rand_like(clean), torch.zeros_like(clean), []
    for step in range(100):
        _, gradient = slope(model, raised, current)
        velocity = 0.75 * velocity + gradient / gradient.abs().sum((1, 2, 3), keepdim=True).clamp_min(1e-20)
        corner = torch.where(velocity > 0, high, low)
        current = current + 2 / (step + 2) * (corner - current)
        if step % 5 == 4:
            found.append(current)
    return found


OWN: dict[str, Callable[[float], Own]] = {
    "adam": lambda eps: Own(adam, eps),
    "adam, 3 items": lambda eps: Own(adam, eps, 3),
    "lbfgs": lambda eps: Own(lbfgs, eps),
    "lbfgs, 5 items": lambda eps: Own(lbfgs, eps, 5),
    "frank-wolfe, 3 items": lambda eps: Own(frank_wolfe, eps, 3),
}

ATTEMPTS = (
    "mi(steps=200, restarts=5)",
    "mi(steps=20, restarts=30)",
    "mi(steps=100, momentum=0.95, restarts=3)",
    "mi(goal=item_margin, rivals=30)",
    "mi(goal=item_margin, rivals=30, predict=64)",
    "mi(goal=class_margin, rivals=4, steps=50, restarts=3)",
    "apgd(steps=100, restarts=5)",
    "apgd(goal=nearest_negative, steps=100)",
    "minimum(steps=20, rounds=10)",
    "bisection",
    "shift",
    "stax(choose=nearest, steps=100)",
    "mtax(targets=5, choose=nearest, steps=100)",
    "noise(trials=300)",
    "square(queries=1000)",
    "nes(queries=1000)",
    "rays(queries=1000)",
    *OWN,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--attempts", nargs="*", default=ATTEMPTS)
    parser.add_argument("--surrogates", nargs="*", type=Path, default=[])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--eps", default="8/255")
    parser.add_argument("--queries", type=int, default=96)
    options = parser.parse_args()
    eps = parse_eps(options.eps)
    dataset = load_dataset(options.data, options.root)
    split = dataset.subset_queries(options.queries, 0).test
    subjects = load_subjects([str(path) for path in options.models])
    print("| model | attempt | survivors | fell | gradients (and other images) a query |\n|---|---|---|---|---|")
    for subject in subjects:
        tensors = ImageTensors(split.images, dataset.image_size)
        model = Embedder(subject.module).eval()
        judge = Judge(model, split, tensors, torch.device("cpu"), name=subject.name)
        images = tensors.batch(split.query)
        standard = reached_by([build_attack("cascade", eps)], judge, images)
        left = np.flatnonzero(standard.broken < 0)
        print(
            f"| {subject.name} | standard | {len(left)} of {len(images)} | | {standard.gradients.mean():.0f} |",
            flush=True,
        )
        fallen = np.zeros(len(left), bool)
        attempts = [*options.attempts]
        attempts += [f"transfer(surrogate='{path}', attack='mi(steps=50, stop=false)')" for path in options.surrogates]
        for name in attempts:
            attack = cast(Attack, OWN[name](eps)) if name in OWN else build_attack(name, eps)
            told, fell = _tried(judge, attack, images, left, eps)
            if fell is not None:
                fallen |= fell
            print(f"| {subject.name} | `{name}` | {len(left)} | {told} |", flush=True)
        print(f"| {subject.name} | all of them | {len(left)} | {fallen.sum()} | |", flush=True)


def _tried(judge: Judge, attack: Attack, images: Tensor, left: np.ndarray, eps: float) -> tuple[str, np.ndarray | None]:
    """What is said of an attempt on the queries at ``left``, and which fell."""
    model, broken, started = judge.model, np.zeros(len(left), bool), time.monotonic()
    forwards, gradients = model.forward_images, model.gradient_images
    try:
        for part in np.split(np.arange(len(left)), range(64, len(left), 64)):
            rows = left[part]
            sent = run_attack(model, attack, images[rows], judge.references(rows), seed=1).images
            inside = ThreatModel(eps).project(sent, images[rows])
            right, _ = judge.verdicts(rows, inside)
            broken[part] = ~right
    except (AttackError, AttackSkipped) as error:
        return f"{error} |", None
    spent = (model.gradient_images - gradients) / len(left)
    asked = (model.forward_images - forwards) / len(left) - spent
    seconds = time.monotonic() - started
    return f"{broken.sum()} | {spent:.0f} ({max(0, asked):.0f}) | <!-- {seconds:.0f} s -->", broken


if __name__ == "__main__":
    main()
