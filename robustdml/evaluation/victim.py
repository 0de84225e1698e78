"""In which precision attacks run a model: as it was asked for, or whatever is faster here and as strong."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from robustdml.config import LowPrecision, Precision
from robustdml.contracts import References
from robustdml.errors import SpecError
from robustdml.evaluation.judge import Judge
from robustdml.models import evaluation_mode, kept_randomness, lowered
from robustdml.retrieval.embed import Embedder

Integers = npt.NDArray[np.int64]

#: Queries and steps that are tried, and the budget that they are tried in.
QUERIES, _STEPS, _EPS = 32, 8, 8 / 255
#: Of the time of a step in fp32 and of what its steps gain, how much another precision may take, and must reach.
_FASTER, _AS_STRONG = 0.9, 0.98


def victim(judge: Judge, precision: LowPrecision, images: Tensor) -> Embedder:
    """The judge's model as attacks are to run it.

    Args:
        images: ``(N, 3, H, W)`` in [0, 1], clean queries: of these it must give nearly the same embeddings.

    Raises:
        SpecError: it cannot be run so.
    """
    if judge.shared:
        raise SpecError(f"it cannot be run in {precision} (there is no copy of it)")
    found = Embedder(lowered(judge.model.module, precision, images))
    found.eval()
    return found


def fastest(judge: Judge, images: Tensor, part: Integers) -> Precision:
    """The precision in which a few steps are fastest, of those in which they gain as much by the judge's own word.

    Args:
        images: ``(N, 3, H, W)`` in [0, 1], clean queries.
        part: ``(N,)``, their places.
    """
    tried: tuple[LowPrecision, ...] = ("bf16",) if images.device.type == "cpu" else ("bf16", "fp16")
    seconds, gained = _tried(judge, judge.model, images, part)
    best: Precision = "fp32"
    limit, least = seconds * _FASTER, gained - (1 - _AS_STRONG) * abs(gained)
    for precision in tried:
        try:
            needed, reached = _tried(judge, victim(judge, precision, images), images, part)
        except SpecError:  # It stays as it is, then.
            continue
        if needed < limit and reached >= least:
            best, limit = precision, needed
    return best


def _tried(judge: Judge, model: Embedder, images: Tensor, part: Integers) -> tuple[float, float]:
    """The seconds of the fastest step, and by how much the steps raise the judge's margins on average."""
    references = judge.references(part)
    current, step, seconds = images, 2.5 * _EPS / _STEPS, []
    with kept_randomness(model), evaluation_mode(model), torch.enable_grad():
        for _ in range(_STEPS):
            started = time.perf_counter()
            slope = _slope(model, current, references)
            moved = (current + step * slope.sign()).clamp(images - _EPS, images + _EPS)
            current = moved.clamp(0, 1)
            float(current[0, 0, 0, 0])  # waits for the device
            seconds.append(time.perf_counter() - started)
    clean, attacked = (judge.verdicts(part, sent)[1] for sent in (images, current))
    return min(seconds), float((attacked - clean).mean())


def _slope(model: nn.Module, images: Tensor, references: References) -> Tensor:
    """The gradient of the margins, 0 where it is no finite number."""
    asked = images.detach().requires_grad_()
    similarity = model(asked) @ references.gallery.embeddings.T
    relevant, own = references.relevant, references.relevant & ~references.ignored
    margins = similarity.masked_fill(relevant, -1).amax(1) - similarity.masked_fill(~own, -1).amax(1)
    (gradient,) = torch.autograd.grad(margins.sum(), asked)
    return gradient.nan_to_num(0.0, 0.0, 0.0)
