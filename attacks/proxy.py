"""What the adapters of all attack libraries share."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import torch

from robustdml.results import AttackEntry

from .spec import entry_spec

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def seeded(seed: int) -> None:
    """Seed the global states that attack libraries draw from; `untouched` restores them afterwards."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def classifier_entry(name: str, library: str, attack: DataclassInstance, goal: str, citation: str) -> AttackEntry:
    """The row in the results of an attack that sees the model as a classifier."""
    return AttackEntry(
        spec=entry_spec(name, attack),
        name=f"{name}-{goal}",
        library=library,
        goal=goal,
        knowledge="gradients",
        norm="linf",
        citations=(citation, "madry2018towards", *(("singh2023mdprop",) if goal != "untargeted" else ())),
    )
