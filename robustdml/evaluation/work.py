"""What of an evaluation can be done anywhere: one shard of queries under one attack, on one model.

The process that has the run folder says what is to be done and keeps what comes back. What a task gives depends on
nothing that was done before it, so that it is the same bit for bit wherever it is done, and in whatever order.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from robustdml.contracts import AdaptableAttack, Attack, Doubts, GalleryAttack, StagedAttack
from robustdml.data.tensors import ImageTensors
from robustdml.errors import AttackError, DataError, RunFolderError, SpecError
from robustdml.evaluation.attacking.apart import ApartAttack
from robustdml.evaluation.attacking.poisoning import Prepared, poison_gallery, prepare
from robustdml.evaluation.attacking.queries import attack_shard
from robustdml.evaluation.attacking.sampled import sampled_stage, waiting
from robustdml.evaluation.attacking.staged import staged_shard
from robustdml.evaluation.attacking.watch import Watch, is_trusted
from robustdml.evaluation.identity import answers
from robustdml.evaluation.judge import Judge
from robustdml.evaluation.records import Records
from robustdml.evaluation.store import alike
from robustdml.models import copied, kept_randomness, seed_globally
from robustdml.seeding import derive_seed

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Task:
    """One shard under one attack, or the stages on a sample of all shards.

    Args:
        attack: its place in the list of attacks.
        shard: its number; None for the stages on a sample.
        counts: whether the cost of what is done once for all shards is counted with this one.
        seconds: that it may take; None for no limit.
        parts: for the stages on a sample, the records of all shards so far, in their order.
    """

    attack: int
    shard: int | None
    counts: bool = False
    seconds: float | None = None
    parts: tuple[Records, ...] = ()


@dataclass(frozen=True)
class Done:
    """The records of a shard, and which of its queries, ``(K,)``, have another image now, ``(K, 3, H, W)``.

    The images are there where they are to be kept.
    """

    shard: int
    records: Records
    rows: Integers | None = None
    images: Tensor | None = None


@dataclass
class Work:
    """What tasks on one model need; it can be sent to another process, which then has the model to itself.

    Args:
        judge: of the model.
        attacks: all of the run.
        doubts: of the model's gradients.
        tensors: the pixels.
        query: ids of the queries.
        shards: places in ``query``.
        seed: of the run.
        kept: ids of the queries of which images (``pictured``) and embeddings (``mapped``) are kept for the report.
        images: whether all attacked images come back too.
        answers: of the model to a few images (see `robustdml.evaluation.identity.answers`).
        objects: what else of this process attacks may not touch.
        folder: where a file without a name may lie.
    """

    judge: Judge
    attacks: Sequence[Attack]
    doubts: Doubts | None
    tensors: ImageTensors
    query: Integers
    shards: Sequence[Integers]
    seed: int
    kept: dict[str, frozenset[int]]
    images: bool
    answers: Mapping[str, list[float]]
    objects: Sequence[object]
    folder: Path

    def __post_init__(self) -> None:
        judge = self.judge
        self._open: tuple[int, Judge, Attack, list[Prepared]] | None = None
        self._watch = Watch(judge.models, judge.arrays, [*self.objects, *judge.objects], judge.asked, self.folder)

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"objects": ()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, folder=Path(tempfile.gettempdir()))
        self.__post_init__()

    def close(self) -> None:
        """Give up what it keeps on the disk."""
        self._watch.close()

    def check(self) -> None:
        """See that the model answers in this process what it answered where it came from.

        Raises:
            DataError: images cannot be read here.
            SpecError: it answers differently.
        """
        model = copied(self.judge.models[0])  # Some models count what they are asked.
        now = answers(model, self.tensors, self.query, self.judge.device)
        different = [name for name, said in self.answers.items() if now and not alike(said, now.get(name, []))]
        if different:
            raise SpecError(f"the model gives other {different[0]} there for the same images")

    @contextmanager
    def opened(self, number: int) -> Iterator[None]:
        """Within the block tasks of one attack are done, with copies of what the judge has.

        Of code that is not ours it is seen what else it touches.

        Args:
            number: place of the attack.

        Raises:
            AttackUnsound: it changed what is not its own; in the place of whatever else is raised in the block.
            ProcessSpoiled: and that cannot be put back.
        """
        if self._open is None or self._open[0] != number:
            attack = self.attacks[number]
            if self.doubts and isinstance(attack, AdaptableAttack):
                attack = attack.adapted(self.doubts)
            self._open = number, self.judge.fresh(), attack, []
        _, judge, attack, _ = self._open
        own = is_trusted(self.attacks[number]) or isinstance(attack, ApartAttack)
        with kept_randomness(judge.model), nullcontext() if own else self._watch.over(judge.model, judge.objects):
            yield

    def do(self, task: Task) -> list[Done]:
        """Do a task of the attack that is open.

        Raises:
            AttackError: the attack failed (and whatever else it raises).
            DataError: images are gone.
        """
        assert self._open is not None
        assert self._open[0] == task.attack
        _, judge, attack, prepared = self._open
        with kept_randomness(judge.model):
            # Whatever of a foreign attack draws without a seed of its own.
            seed_globally(derive_seed(self.seed, "model"))
            judge.model.limit_seconds(task.seconds)
            try:
                if task.shard is None:
                    assert isinstance(attack, StagedAttack)
                    return self._sampled(judge, attack, task.parts)
                return [self._shard(judge, attack, prepared, task.shard, task.counts)]
            finally:
                judge.model.limit_seconds(None)

    def _shard(self, judge: Judge, attack: Attack, prepared: list[Prepared], shard: int, counts: bool) -> Done:
        # The stages of an attack have seeds of their own.
        seed = self.seed
        if not isinstance(attack, StagedAttack):
            seed = derive_seed(seed, attack.entry().spec)
        whole = isinstance(attack, GalleryAttack)  # Clean queries in a changed gallery are judged all at once.
        rows = self.shards[shard]
        # Where these are gone, that is no failure of the attack.
        images = self.tensors.batch(self.query[rows[: 0 if whole else None]])
        try:
            if isinstance(attack, GalleryAttack):
                return Done(shard, poison_gallery(judge, attack, seed=seed).records())
            if not prepared:
                prepared.append(prepare(judge, attack, seed=seed))
            records = prepared[0].complete(
                self._attacked(prepared[0], images.to(judge.device), rows, seed), first=counts
            )
        except (RunFolderError, DataError) as error:  # An attack has nothing to do with the folder of the run.
            self.tensors.batch(judge.split.gallery[-1:])  # Where the images are gone, this says so instead.
            raise AttackError(f"{type(error).__name__}: {error}") from error
        sent = prepared[0].judge.judged if self.images else None
        return Done(shard, records, None, None if sent is None else sent.cpu())

    def _attacked(self, prepared: Prepared, images: Tensor, rows: Integers, seed: int) -> Records:
        judge, attack = prepared.judge, prepared.attack
        draws = self.doubts.draws if self.doubts else 1
        if draws > 1:  # What such a model draws for the judge depends on the queries alone.
            seed_globally(derive_seed(seed, "judge", rows.tolist()))
        if isinstance(attack, StagedAttack):
            return staged_shard(judge, attack, prepared.stages, images, rows, seed=seed, draws=draws, **self.kept)
        return attack_shard(judge, attack, images, rows, seed=seed, **self.kept)

    def _sampled(self, judge: Judge, attack: StagedAttack, parts: Sequence[Records]) -> list[Done]:
        """The stages on a sample; one that was stopped in between is done again."""

        def load(rows: Integers) -> Tensor:
            return self.tensors.batch(self.query[rows]).to(judge.device)

        found, parts = list[Done](), list(parts)
        for number, stage in enumerate(attack.stages):
            missing = waiting(parts, number) if stage.sample else []
            if not any(missing):
                continue
            after = sampled_stage(judge, attack, stage, number, parts, load, seed=self.seed, **self.kept)
            for shard, (changed, wanted) in enumerate(zip(after, missing, strict=True)):
                if wanted:
                    parts[shard] = changed.records
                    images = changed.images.cpu() if self.images else None
                    found.append(Done(shard, changed.records, changed.rows, images))
        return found
