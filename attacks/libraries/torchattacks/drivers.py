"""How the attacks of torchattacks are made and called, where its classes alone do not do what they promise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torchattacks
from torch import Tensor

#: Calls an attack with images and labels and returns its images.
Run = Callable[[Any, Tensor, Tensor], Tensor]


def call(attack: Any, images: Tensor, labels: Tensor) -> Tensor:
    """The library's own call."""
    found: Tensor = attack(images, labels)
    return found


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
    return call(attack, images, labels)


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
