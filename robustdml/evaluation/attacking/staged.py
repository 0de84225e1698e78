"""Attacks in stages: each stage meets those queries alone that true retrieval still answers rightly after the last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustdml.contracts import Stage, StagedAttack
from robustdml.errors import AttackError, AttackTimeout
from robustdml.evaluation.attacking.queries import Attacked, Cost, judged, metered, reason_of, run_attack
from robustdml.evaluation.judge import Judge
from robustdml.evaluation.records import Records, StagePass
from robustdml.seeding import derive_seed

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

#: Of a stage on a sample, until all shards have met the stages before it.
NOT_YET = "the evaluation was stopped before it"


def staged_shard(
    judge: Judge,
    attack: StagedAttack,
    stages: Sequence[Stage],
    images: Tensor,
    part: Integers,
    *,
    seed: int,
    pictured: frozenset[int],
    mapped: frozenset[int],
    draws: int = 1,
) -> Records:
    """Run each stage on what the stages before it left right, and judge of each query the image that hurt it most.

    A query that is wrong when clean is not attacked. A stage that fails is passed over and says so in the records. So
    does one on a sample, which waits for all shards (see `robustdml.evaluation.attacking.sampled`).

    Args:
        stages: of the attack, ready to run.
        images: ``(N, 3, H, W)`` in [0, 1], the clean queries, on the judge's device.
        part: ``(N,)``, which of the split's queries they are.
        seed: of the run: each stage draws as if it were run alone.
        pictured: ids of the queries whose images are kept for the report.
        mapped: ids of the queries whose embeddings are kept for the report.
        draws: of a model that draws at random: which image hurts most is told by the means over so many passes, a
            query is left while one of them answers it rightly, and the records are of one more pass.

    Raises:
        AttackError: every stage failed.
        AttackTimeout: the time for the attack is over.
    """
    worst, passes, total = images.clone(), list[StagePass](), Cost()
    returned, projected = torch.zeros(len(part)), torch.zeros(len(part), dtype=torch.bool)
    right, clean = _verdicts(judge, part, images, draws)
    margins = clean.copy()
    made_by, given_up = np.full(len(part), -1), np.full(len(part), len(stages))
    for number, stage in enumerate(stages):
        hopeless = (right > 0) & (margins < (1 - stage.closed) * clean)
        given_up[hopeless] = given_up[hopeless].clip(max=number)
        left = np.flatnonzero((right > 0) & ~hopeless)
        entry = stage.attack.entry()
        if stage.sample:
            passes.append(StagePass(entry.spec, reason=NOT_YET, knowledge=entry.knowledge))
            continue
        done = StagePass(entry.spec, entered=len(left), given_up=int(hopeless.sum()), knowledge=entry.knowledge)
        if len(left):
            try:
                own = derive_seed(seed, done.attack)
                with metered(judge.model) as cost:  # of a stage that fails, too
                    known = judge.references(part[left])
                    attacked = run_attack(judge.model, stage.attack, images[left], known, seed=own)
                still, reached = _verdicts(judge, part[left], attacked.images, draws)
            except AttackTimeout:
                raise
            except Exception as error:  # Whatever it is: the stages after it may well run.
                judge.restore()
                passes.append(replace(done, reason=reason_of(error), **vars(cost)))
                total += cost
                continue
            finally:
                judge.check_copies()
            better = (still < right[left]) | ((still == right[left]) & (reached > margins[left]))
            rows = left[better]
            worst[rows], margins[rows] = attacked.images[better], reached[better]
            returned[rows], projected[rows] = attacked.norm_returned[better].cpu(), attacked.projected[better].cpu()
            right[rows], made_by[rows] = still[better], number
            done = replace(done, **vars(cost))
            total += cost
        passes.append(done)
    run = [done for done, stage in zip(passes, stages, strict=True) if not stage.sample]
    failed = [done for done in run if done.reason]
    if failed and len(failed) == len(run):
        raise AttackError(f"every stage failed, the first since {failed[0].reason}")
    attacked = Attacked(worst, returned, projected, total)
    records = judged(judge, attack, images, part, attacked, seed=seed, pictured=pictured, mapped=mapped)
    # The last word is that of the records, should rounding in a batch of another size tip a tie.
    broken_by = np.where(records.values["recall_at_1"] > 0.5, len(passes), made_by)
    counted = [replace(done, broken=int((broken_by == number).sum())) for number, done in enumerate(passes)]
    return replace(records, stages=tuple(counted), broken_by=broken_by, given_up=given_up)


def _verdicts(judge: Judge, part: Integers, images: Tensor, draws: int) -> tuple[Floats, Floats]:
    """How often the first hit is relevant, ``(N,)`` in [0, 1], and the margin, ``(N,)``: means over some draws."""
    found = [judge.verdicts(part, images) for _ in range(draws)]
    return np.mean([right for right, _ in found], axis=0), np.mean([margins for _, margins in found], axis=0)
