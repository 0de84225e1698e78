"""Running an attack on one shard of queries: the budget is measured and enforced here, whatever the attack returned."""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from torch import Tensor

from robustdml.contracts import Attack
from robustdml.errors import AttackError
from robustdml.evaluation.judge import Judge
from robustdml.evaluation.pictures import amplification, perturbation_picture, picture
from robustdml.evaluation.records import Records
from robustdml.models import untouched


def attack_shard(
    judge: Judge,
    attack: Attack,
    images: Tensor,
    part: slice,
    *,
    seed: int,
    pictured: frozenset[int],
    mapped: frozenset[int],
) -> Records:
    """Attack the queries of ``part`` and judge what came back.

    Args:
        images: ``(N, 3, H, W)`` in [0, 1], the clean queries, on the judge's device.
        part: which of the split's queries they are.
        seed: of the attack; its randomness is per query.
        pictured: ids of the queries whose images are kept for the report.
        mapped: ids of the queries whose embeddings are kept for the report.

    Raises:
        AttackError: wrong shape, values that are not finite, or a changed model.
    """
    references = judge.references(part)
    model, threat = judge.model, attack.threat
    before, started = (model.forward_images, model.gradient_images), time.monotonic()
    with untouched(model):
        returned = attack(model, images.clone(), references, seed=seed)
    seconds = time.monotonic() - started
    forwards, gradients = model.forward_images - before[0], model.gradient_images - before[1]
    if returned.shape != images.shape:
        raise AttackError(f"it returned shape {tuple(returned.shape)} for images of shape {tuple(images.shape)}")
    returned = returned.detach().to(images)
    if not torch.isfinite(returned).all():
        raise AttackError("it returned pixels that are not finite")
    sent = threat.project(returned, images)
    if not bool(threat.allows(sent, images).all()):
        largest = float(threat.distance(sent, images).max())
        raise AttackError(f"the budget {threat.eps} could not be enforced: the largest norm is {largest:g}")
    records = judge.records(
        part,
        sent,
        sent - images,
        threat.distance(returned, images),
        ~threat.allows(returned, images),
        attack.target_rows(references, seed=seed),
        mapped,
    )
    pictures = {}
    for row, item in enumerate(records.ids.tolist()):
        if item in pictured:
            factor = amplification(threat.eps, threat.norm, float(records.norms["linf"][row]))
            pictures[item] = (picture(sent[row]), perturbation_picture(sent[row] - images[row], factor))
    return replace(records, pictures=pictures, forward_images=forwards, gradient_images=gradients, seconds=seconds)
