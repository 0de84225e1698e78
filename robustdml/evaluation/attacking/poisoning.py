"""Attacks beyond the query: items of the gallery are changed, and clean or attacked queries search it.

The budget of every changed item is measured and enforced as for queries. Who wins is said by true retrieval of all
queries.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from robustdml.contracts import Attack, FittedAttack, GalleryAttack, Stage, StagedAttack, TwoSidedAttack
from robustdml.errors import AttackError, AttackSkipped, AttackTimeout, CheckpointError
from robustdml.evaluation.attacking.queries import Cost, metered, run_attack
from robustdml.evaluation.judge import Judge
from robustdml.evaluation.measures import POISONED_FIRST
from robustdml.evaluation.records import Records, totals
from robustdml.seeding import derive_seed
from robustdml.threat import NORMS, norm_of

Floats = npt.NDArray[np.float64]

#: Gallery items that are attacked in one call.
_BATCH = 64


@dataclass(frozen=True)
class Poisoned:
    """A gallery with K changed items.

    Args:
        clean: the judge of the clean gallery.
        judge: that of the changed one.
        ids: ``(K,)`` int64, the changed items.
        norm_returned: ``(K,)`` as the attack returned them.
        norms: ``(K,)`` under each of `robustdml.threat.NORMS`, after the budget was enforced.
        projected: ``(K,)`` bool, whether enforcing it changed the image.
        measures: sums and numbers of what was measured on the items.
        cost: of the attack.
    """

    clean: Judge
    judge: Judge
    ids: npt.NDArray[np.int64]
    norm_returned: Floats
    norms: dict[str, Floats]
    projected: npt.NDArray[np.bool_]
    measures: dict[str, tuple[float, int]]
    cost: Cost

    def records(self) -> Records:
        """What happened to the clean queries in the changed gallery.

        The norms of each query are the largest of the changed items, for it meets them all; ``poisoned_first`` is the
        share of queries whose first hit is a changed item of another class (``…_clean``: was that item, unchanged).
        """
        found, before = self.judge.clean(), self.clean.clean()
        count = len(found)
        stranger = {
            f"{POISONED_FIRST}{when}": (
                np.isin(records.top[:, 0], self.ids) & ~self.judge.split.rules.relevant(records.ids, records.top[:, 0])
            ).astype(np.float64)
            for when, records in (("", found), ("_clean", before))
        }
        return replace(
            found,
            norm_returned=np.full(count, self.norm_returned.max()),
            norms={name: np.full(count, values.max()) for name, values in self.norms.items()},
            projected=np.full(count, self.projected.any()),
            measures={**self.measures, **totals(stranger)},
            **vars(self.cost),
        )


def poison_gallery(judge: Judge, attack: GalleryAttack, *, seed: int) -> Poisoned:
    """Let the attack change its items of the judge's gallery.

    Raises:
        AttackSkipped: there are no gallery images at hand.
        AttackError: see `run_attack`; or no item, or one twice, is to be changed.
    """
    load = judge.gallery.images
    if load is None:
        raise AttackSkipped("the gallery has no images at hand to be changed")
    rows = attack.poisoned_rows(judge.gallery, seed=seed)
    if not len(rows) or len(rows.unique()) < len(rows):
        raise AttackError(f"it must change at least one gallery item, each once, and named {rows.tolist()}")
    clean, changed, returned, projected, points, targets = [], [], [], [], [], []
    with metered(judge.model) as cost:
        for part in rows.split(_BATCH):
            images, references = load(part), judge.item_references(part)
            try:
                attacked = run_attack(judge.model, attack, images, references, seed=seed)
            finally:
                judge.check_copies()
            try:
                points.append(judge.embed(attacked.images))
            except CheckpointError:
                raise AttackError("a changed gallery item has an embedding that is not finite") from None
            clean.append(images)
            changed.append(attacked.images)
            returned.append(attacked.norm_returned)
            projected.append(attacked.projected)
            targets.append(attack.target_rows(references, seed=seed))
    images, after = torch.cat(changed), np.concatenate(points)
    aimed = [part for part in targets if part is not None]
    values = judge.measured_items(attack.entry().measures, rows, after, torch.cat(aimed) if aimed else None)
    delta = images - torch.cat(clean)
    return Poisoned(
        clean=judge,
        judge=judge.poisoned(rows, after, images),
        ids=judge.gallery.ids[rows].cpu().numpy(),
        norm_returned=torch.cat(returned).cpu().double().numpy(),
        norms={name: norm_of(delta, name).cpu().double().numpy() for name in NORMS},
        projected=torch.cat(projected).cpu().numpy(),
        measures=totals(values),
        cost=cost,
    )


@dataclass(frozen=True)
class Prepared:
    """An attack on queries, ready for every shard.

    Args:
        judge: the judge of the gallery that the queries meet.
        attack: with its one change computed, where it has one.
        poisoned: the changed gallery, where there is one.
        cost: of what was done once, for all shards.
        stages: of an attack in stages.
    """

    judge: Judge
    attack: Attack
    poisoned: Poisoned | None
    cost: Cost
    stages: tuple[Stage, ...] = ()

    def complete(self, records: Records, *, first: bool) -> Records:
        """The records of a shard with what was done before it: larger norms in the gallery, and once the cost."""
        if self.poisoned is not None:
            poisoned = self.poisoned
            records = replace(
                records,
                norm_returned=np.maximum(records.norm_returned, poisoned.norm_returned.max()),
                norms={name: np.maximum(records.norms[name], poisoned.norms[name].max()) for name in NORMS},
                projected=records.projected | poisoned.projected.any(),
            )
        if not first:
            return records
        return replace(
            records,
            forward_images=records.forward_images + self.cost.forward_images,
            gradient_images=records.gradient_images + self.cost.gradient_images,
            seconds=records.seconds + self.cost.seconds,
        )


def prepare(judge: Judge, attack: Attack, *, seed: int) -> Prepared:
    """Do once what an attack on queries needs before its first shard; ``seed`` is that of the run for one in stages."""
    if isinstance(attack, TwoSidedAttack):
        poisoned = poison_gallery(judge, attack.poison, seed=seed)
        return Prepared(poisoned.judge, attack, poisoned, poisoned.cost)
    if isinstance(attack, StagedAttack):
        with metered(judge.model) as cost:
            stages = tuple(_fitted_stage(judge, stage, seed=seed) for stage in attack.stages)
        return Prepared(judge, attack, None, cost, stages)
    if isinstance(attack, FittedAttack):
        with metered(judge.model) as cost:
            fitted = _fitted(judge, attack, seed=seed)
        return Prepared(judge, fitted, None, cost)
    return Prepared(judge, attack, None, Cost())


def _fitted(judge: Judge, attack: FittedAttack, *, seed: int) -> Attack:
    try:
        return attack.fitted(judge.model, judge.gallery, judge.query_ids, seed=seed)
    finally:
        judge.check_copies()


def _fitted_stage(judge: Judge, stage: Stage, *, seed: int) -> Stage:
    if not isinstance(stage.attack, FittedAttack):
        return stage
    try:
        own = derive_seed(seed, stage.attack.entry().spec)
        return replace(stage, attack=_fitted(judge, stage.attack, seed=own))
    except AttackTimeout:
        raise
    except Exception:  # The stage will fail, and say why.
        judge.restore()
        return stage
