"""Randomness that belongs to a (seed, stream, id), not to a position in a batch or a global state.

A query gets the same noise and the same targets whatever batch it is in, so that runs can be split, resumed and
repeated. The generator is NumPy's counter-based Philox, whose streams are independent for different keys.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from any values with a stable text: equal parts give equal seeds on every machine."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def stream(seed: int, purpose: str, item: int) -> np.random.Generator:
    """The generator of one item for one purpose."""
    return np.random.Generator(np.random.Philox(key=derive_seed(seed, purpose, item)))


def uniform_like(images: Tensor, ids: Tensor, *, seed: int, purpose: str) -> Tensor:
    """Noise in [-1, 1) of the shape of ``images``, row ``i`` drawn from the stream of ``ids[i]``."""
    shape: Sequence[int] = images.shape[1:]
    rows = [stream(seed, purpose, item).random(tuple(shape), dtype=np.float32) for item in ids.tolist()]
    return images.new_tensor(np.stack(rows)) * 2 - 1
