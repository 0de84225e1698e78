"""Running an attack: the budget is measured and enforced here, whatever the attack returned."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustdml.contracts import Attack, References
from robustdml.errors import AttackError, SpecError
from robustdml.evaluation.judge import Judge
from robustdml.evaluation.pictures import amplification, perturbation_picture, picture
from robustdml.evaluation.records import Records
from robustdml.models import untouched
from robustdml.printable import plain
from robustdml.retrieval.embed import Embedder

Integers = npt.NDArray[np.int64]


_NO_GRADIENT = (
    "the model gives no gradient: take @torch.no_grad(), torch.inference_mode() and .detach() out of its forward pass"
)
#: Characters of a reason.
_LONGEST = 600
#: What torch says then; quantised layers, too, have no backward pass.
_WITHOUT_GRADIENT = ("does not require grad", "appears to not have been used in the graph")


@dataclass
class Cost:
    """What something took; filled in when the block of `metered` ends."""

    forward_images: int = 0
    gradient_images: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.forward_images + other.forward_images,
            self.gradient_images + other.gradient_images,
            self.seconds + other.seconds,
        )


@contextmanager
def metered(model: Embedder) -> Iterator[Cost]:
    """Measure what the block takes of the model and of time."""
    cost, started = Cost(), time.monotonic()
    forwards, gradients = model.forward_images, model.gradient_images
    try:
        yield cost
    finally:
        cost.forward_images = model.forward_images - forwards
        cost.gradient_images = model.gradient_images - gradients
        cost.seconds = time.monotonic() - started


@dataclass(frozen=True)
class Attacked:
    """The images of an attack, within the budget.

    Args:
        images: ``(N, 3, H, W)`` in [0, 1].
        norm_returned: ``(N,)``, the norm of each perturbation as the attack returned it.
        projected: ``(N,)`` bool, whether that was beyond the budget.
        cost: of the attack.
    """

    images: Tensor
    norm_returned: Tensor
    projected: Tensor
    cost: Cost


def run_attack(model: Embedder, attack: Attack, images: Tensor, references: References, *, seed: int) -> Attacked:
    """Attack ``images``, ``(N, 3, H, W)`` in [0, 1], and bring what came back into the budget.

    Raises:
        AttackError: wrong shape, values that are not finite, or a changed model.
    """
    threat = attack.threat
    with metered(model) as cost, untouched(model):
        returned = attack(model, images.clone(), references, seed=seed)
    if returned.shape != images.shape:
        raise AttackError(f"it returned shape {tuple(returned.shape)} for images of shape {tuple(images.shape)}")
    returned = returned.detach().to(images)
    if not torch.isfinite(returned).all():
        raise AttackError("it returned pixels that are not finite")
    attacked = threat.project(returned, images)
    if not bool(threat.allows(attacked, images).all()):
        largest = float(threat.distance(attacked, images).max())
        raise AttackError(f"the budget {threat.text} could not be enforced: the largest norm is {largest:g}")
    return Attacked(attacked, threat.distance(returned, images), ~threat.allows(returned, images), cost)


def reason_of(error: BaseException) -> str:
    """Why an attack failed, in one sentence."""
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return f"it tried to end the program ({type(error).__name__})"
    text = plain(str(error))[:_LONGEST] or "no message"
    if isinstance(error, RuntimeError) and any(sign in text for sign in _WITHOUT_GRADIENT):
        return f"{_NO_GRADIENT} ({text})"
    return text if isinstance(error, AttackError | SpecError) else f"{type(error).__name__}: {text}"


def attack_shard(
    judge: Judge,
    attack: Attack,
    images: Tensor,
    part: Integers,
    *,
    seed: int,
    pictured: frozenset[int],
    mapped: frozenset[int],
) -> Records:
    """Attack the queries of ``part`` and judge what came back.

    Args:
        images: ``(N, 3, H, W)`` in [0, 1], the clean queries, on the judge's device.
        part: ``(N,)``, which of the split's queries they are.
        seed: of the attack; its randomness is per query.
        pictured: ids of the queries whose images are kept for the report.
        mapped: ids of the queries whose embeddings are kept for the report.

    Raises:
        AttackError: wrong shape, values that are not finite, or a changed model.
    """
    try:
        attacked = run_attack(judge.model, attack, images, judge.references(part), seed=seed)
    finally:
        judge.check_copies()
    return judged(judge, attack, images, part, attacked, seed=seed, pictured=pictured, mapped=mapped)


def judged(
    judge: Judge,
    attack: Attack,
    images: Tensor,
    part: Integers,
    attacked: Attacked,
    *,
    seed: int,
    pictured: frozenset[int],
    mapped: frozenset[int],
) -> Records:
    """The records of what an attack sent instead of the queries of ``part`` (see `attack_shard`)."""
    references, threat = judge.references(part), attack.threat
    records = judge.records(
        part,
        attacked.images,
        attacked.images - images,
        attacked.norm_returned,
        attacked.projected,
        attack.target_rows(references, seed=seed),
        attack.entry().measures,
        mapped,
    )
    pictures = {}
    for row, item in enumerate(records.ids.tolist()):
        if item in pictured:
            factor = amplification(threat, float(records.norms["linf"][row]))
            pictures[item] = (
                picture(attacked.images[row]),
                perturbation_picture(attacked.images[row] - images[row], factor),
            )
    undone = _undone(judge, attacked.images, part, records)
    return replace(records, pictures=pictures, undone=undone, **vars(attacked.cost))


def _undone(judge: Judge, images: Tensor, part: Integers, records: Records) -> int:
    """How many queries are answered wrongly, and rightly again once their images are rounded to 8 bits."""
    broken = np.flatnonzero(records.values["recall_at_1"] < 0.5)
    if not len(broken):
        return 0
    rounded = (images[torch.from_numpy(broken).to(images.device)] * 255).round() / 255
    return int(judge.verdicts(part[broken], rounded)[0].sum())
