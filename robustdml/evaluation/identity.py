"""What makes two runs the same run beside their options: foreign code, library versions, what a model answers."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from robustdml.contracts import Attack, IdentifiedAttack, foreign_code
from robustdml.data.tensors import ImageTensors
from robustdml.errors import CheckpointError
from robustdml.evaluation.store import alike
from robustdml.models import kept_randomness, seed_globally
from robustdml.seeding import stream, uniform_like

#: The packages whose version changes images or rankings.
_PACKAGES = ("torch", "torchattacks", "adversarial-robustness-toolbox", "faiss-cpu")
#: Images that a model is asked about, and directions along which its gradients are kept.
_PROBES, _DIRECTIONS = 4, 16


def package_versions() -> tuple[tuple[str, str], ...]:
    """The installed versions of what numbers depend on."""
    return tuple((name, metadata.version(name)) for name in _PACKAGES)


def identities(attacks: Sequence[Attack]) -> tuple[tuple[str, str], ...]:
    """By spec, a hash of what an attack's spec only names: a surrogate, or the code of an attack that is not ours."""
    found = {}
    for attack in attacks:
        identity = attack.identity() if isinstance(attack, IdentifiedAttack) else foreign_code(attack)
        if identity:
            found[attack.entry().spec] = identity
    return tuple(found.items())


def answers(
    model: nn.Module, tensors: ImageTensors, rows: npt.NDArray[np.int64], device: torch.device
) -> dict[str, list[float]]:
    """What a model answers to a few noisy images: embeddings, and their gradients along a few directions.

    Clean 8-bit images alone would not tell a model that rounds its input from one that does not, nor embeddings alone
    one that hides its gradients.

    Args:
        model: maps ``(N, 3, H, W)`` to ``(N, D)``, in evaluation mode. One that draws random numbers is asked with the
            global random states of torch, NumPy and Python at a fixed seed.
        rows: ``(N,)``, of the images to choose from.

    Returns:
        Flat numbers by name; empty for a model that answers the same question in two ways nevertheless.
    """
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, _PROBES).astype(np.int64))]
    images = tensors.batch(chosen).to(device)
    ids = torch.from_numpy(chosen)
    noisy = (images + uniform_like(images, ids, seed=0, purpose="probe") * 8 / 255).clamp(0, 1)
    with kept_randomness(model):
        first, second = (_ask(model, noisy) for _ in range(2))
    same = first.keys() == second.keys() and all(alike(first[name], second[name]) for name in first)
    return first if same else {}


def _ask(model: nn.Module, images: torch.Tensor) -> dict[str, list[float]]:
    seed_globally(0)
    with torch.no_grad():
        embeddings = model(images)
    drawn = stream(0, "probe", 0)
    weights = torch.from_numpy(drawn.standard_normal(embeddings.shape[1])).to(embeddings)
    directions = torch.from_numpy(drawn.choice([-1.0, 1.0], (_DIRECTIONS, images[0].numel())))
    found = {"embeddings": embeddings.cpu().double().flatten().tolist()}
    try:
        with torch.enable_grad():
            asked = images.detach().clone().requires_grad_()
            (gradient,) = torch.autograd.grad((model(asked) @ weights).sum(), asked)
    except (RuntimeError, CheckpointError):  # A model without gradients is one too: its embeddings say who it is.
        return found
    found["gradients"] = (gradient.nan_to_num().flatten(1).cpu().double() @ directions.T).flatten().tolist()
    return found
