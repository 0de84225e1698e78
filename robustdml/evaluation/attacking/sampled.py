"""Stages on a sample: once all shards have met the stages before, some of what is left, and all where that breaks any.

Which queries are left, which are drawn, and whether all follow, depends on the queries of the whole run and the seed,
never on how they were split into shards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustdml.contracts import Attack, Stage
from robustdml.errors import AttackTimeout
from robustdml.evaluation.attacking.queries import Attacked, Cost, judged, metered, reason_of, run_attack
from robustdml.evaluation.attacking.staged import NOT_YET
from robustdml.evaluation.judge import Judge
from robustdml.evaluation.records import Records, StagePass
from robustdml.seeding import derive_seed, stream

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Completed:
    """A shard after a stage on a sample.

    Args:
        records: of all its queries.
        rows: ``(K,)``, which of them have another image now.
        images: ``(K, 3, H, W)``, these images.
    """

    records: Records
    rows: Integers
    images: Tensor


def stratified(ids: Integers, labels: Integers, count: int, seed: int) -> Integers:
    """The places ``(K,)`` of a sample of at most ``count`` queries, evenly from the classes, ascending.

    Args:
        ids: ``(N,)``, of the queries.
        labels: ``(N,)``.
    """
    order = np.argsort([stream(seed, "sampled stage", int(item)).random() for item in ids], kind="stable")
    met, turns = Counter[int](), np.zeros(len(ids), np.int64)
    for place in order:
        label = int(labels[place])
        turns[place] = met[label]
        met[label] += 1
    # The first of each class before the second of any.
    return np.sort(order[np.argsort(turns[order], kind="stable")][:count])


def sampled_stage(
    judge: Judge,
    attack: Attack,
    stage: Stage,
    number: int,
    parts: Sequence[Records],
    load: Callable[[Integers], Tensor],
    *,
    seed: int,
    pictured: frozenset[int],
    mapped: frozenset[int],
) -> list[Completed]:
    """Run one such stage, the last or followed by such only, and judge anew what it has changed.

    A query keeps its image unless the stage breaks it or brings its margin further.

    Args:
        attack: whose stage it is.
        number: which of its stages, from 0.
        parts: the records of all shards, in their order.
        load: the clean images ``(K, 3, H, W)`` of queries by their places in the split.
        seed: of the run.
        pictured: ids of the queries whose images are kept for the report.
        mapped: ids of the queries whose embeddings are kept for the report.

    Raises:
        AttackTimeout: the time for the attack is over.
    """
    sizes = [len(part) for part in parts]
    broken_by = np.concatenate([part.broken_by for part in parts if part.broken_by is not None])
    ids, labels, margins = (np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS)
    left = np.flatnonzero(broken_by >= number)
    chosen = stratified(ids[left], labels[left], stage.sample, seed)
    entry, found, met, cost, reason = stage.attack.entry(), list[_Found](), list[Integers](), Cost(), ""
    try:
        for places in (left[chosen], np.delete(left, chosen)):
            for group in np.array_split(places, -(-len(places) // max(sizes))) if len(places) else ():
                met.append(group)
                with metered(judge.model) as spent:
                    images, known = load(group), judge.references(group)
                    sent = run_attack(judge.model, stage.attack, images, known, seed=derive_seed(seed, entry.spec))
                cost += spent
                right, reached = judge.verdicts(group, sent.images)
                found.append(_Found(group, sent, ~right, ~right | (reached > margins[group])))
            if not any(part.broken.any() for part in found):
                break
    except AttackTimeout:
        raise
    except Exception as error:  # What was found before stays found.
        judge.restore()
        reason = reason_of(error)
    finally:
        judge.check_copies()
    done = StagePass(entry.spec, reason=reason, knowledge=entry.knowledge)
    entered = np.concatenate([*met, np.empty(0, np.int64)])
    completed = []
    for records, places in zip(parts, np.split(np.arange(len(ids)), np.cumsum(sizes)[:-1]), strict=True):
        mine = [part.within(places) for part in found]
        own = replace(done, entered=int(np.isin(entered, places).sum()), **vars(_share(cost, entered, places)))
        completed.append(_completed(judge, attack, number, records, own, places, mine, load, seed, pictured, mapped))
    return completed


_COLUMNS = ("ids", "labels", "margins")


@dataclass(frozen=True)
class _Found:
    """What was sent instead of some queries, by their places, ``(N,)``."""

    places: Integers
    sent: Attacked
    broken: npt.NDArray[np.bool_]
    better: npt.NDArray[np.bool_]

    def within(self, places: Integers) -> tuple[Integers, Attacked]:
        """Of those places, where it is better."""
        rows = np.flatnonzero(self.better & np.isin(self.places, places))
        images, norms, projected = (
            part[torch.from_numpy(rows).to(part.device)]
            for part in (self.sent.images, self.sent.norm_returned, self.sent.projected)
        )
        return self.places[rows], Attacked(images, norms, projected, Cost())


def _share(cost: Cost, entered: Integers, places: Integers) -> Cost:
    """A shard's part of the cost, by its queries; whole images, which add up over the shards."""
    if not len(entered):
        return Cost()
    before, upto = (int((entered < edge).sum()) for edge in (places[0], places[-1] + 1))
    forward, gradient = (
        total * upto // len(entered) - total * before // len(entered)
        for total in (cost.forward_images, cost.gradient_images)
    )
    return Cost(forward, gradient, cost.seconds * (upto - before) / len(entered))


def _completed(
    judge: Judge,
    attack: Attack,
    number: int,
    records: Records,
    done: StagePass,
    places: Integers,
    found: Sequence[tuple[Integers, Attacked]],
    load: Callable[[Integers], Tensor],
    seed: int,
    pictured: frozenset[int],
    mapped: frozenset[int],
) -> Completed:
    """The records of the queries at ``places`` with what a stage found."""
    assert records.broken_by is not None
    broken_by, changed, rows = records.broken_by.copy(), records, np.empty(0, np.int64)
    images = torch.empty(0)
    if any(len(part) for part, _ in found):
        at = np.concatenate([part for part, _ in found])
        images, norms, projected = (torch.cat([getattr(sent, name) for _, sent in found]) for name in _SENT)
        sent = Attacked(images, norms, projected, Cost())
        new = judged(judge, attack, load(at), at, sent, seed=seed, pictured=pictured, mapped=mapped)
        rows = at - places[0]
        changed = replace(records.with_rows(rows, new), undone=records.undone + new.undone)
        broken_by[rows[new.values["recall_at_1"] < 0.5]] = number
    stages = list(records.stages)
    stages[number] = replace(done, broken=int((broken_by == number).sum()))
    changed = replace(
        changed,
        stages=tuple(stages),
        broken_by=broken_by,
        forward_images=records.forward_images + done.forward_images,
        gradient_images=records.gradient_images + done.gradient_images,
        seconds=records.seconds + done.seconds,
    )
    return Completed(changed, rows, images)


_SENT = ("images", "norm_returned", "projected")


def waiting(parts: Sequence[Records], number: int) -> list[bool]:
    """Of each shard, whether a stage on a sample has still to be run."""
    return [part.stages[number].reason == NOT_YET for part in parts]
