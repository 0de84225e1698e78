"""What the adapters of all attack libraries share."""

from __future__ import annotations

import random

import numpy as np
import torch


def seeded(seed: int) -> None:
    """Seed the global states that attack libraries draw from; `untouched` restores them afterwards."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
