"""The cells of one model: what is still to be done of them, and what is kept of what comes back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from robustdml.contracts import AdaptableAttack, Attack, Doubts, GalleryAttack, StagedAttack
from robustdml.errors import AttackSkipped, AttackTimeout, AttackUnsound, DataError, ProcessSpoiled, RunFolderError
from robustdml.evaluation.attacking.queries import reason_of
from robustdml.evaluation.attacking.sampled import waiting
from robustdml.evaluation.kept_images import KeptImages
from robustdml.evaluation.store import CellKey, Failure, Store
from robustdml.evaluation.work import Done, Task
from robustdml.progress import Advance
from robustdml.stopping import Asked

Integers = npt.NDArray[np.int64]


@dataclass
class _Cell:
    """Where an attack on the model stands.

    Args:
        key: of its records; asked for once, as the attack of a stranger may not say it twice.
        missing: numbers of the shards that nobody has begun.
        sampled: whether the stages on a sample are to be seen to.
        counted: whether what is done once for all shards was, and was counted.
        spent: seconds.
        done: queries.
        begun: tasks that are out.
        failed: whether nothing more is to be done.
    """

    key: CellKey
    missing: deque[int]
    sampled: bool
    counted: bool
    spent: float
    done: int
    begun: int = 0
    failed: bool = False


@dataclass
class Cells:
    """See `robustdml.evaluation.engines.Agenda`.

    Args:
        model: its name.
        attacks: all of the run.
        doubts: of the model's gradients.
        shards: the queries of each, as places.
        store: of the run.
        images: of the run, where attacked images are kept.
        limit: seconds that one attack may take.
        asked: whether the run is to end.
        advance: of the progress bar.
        restore: what is to be called when an attack has failed.
    """

    model: str
    attacks: Sequence[Attack]
    doubts: Doubts | None
    shards: Sequence[Integers]
    store: Store
    images: KeptImages | None
    limit: float | None
    asked: Asked
    advance: Advance
    restore: Callable[[], None]
    _cells: list[_Cell] = field(default_factory=list)

    def next(self) -> Task | None:
        """Shard by shard, attack by attack; the stages on a sample when all shards of the attack are back.

        Raises:
            RunFolderError: the run folder holds damaged records.
        """
        for number in range(len(self.attacks)):
            if number == len(self._cells):
                self._cells.append(self._begin(number))
            cell = self._cells[number]
            if cell.failed:
                continue
            seconds = None if self.limit is None else self.limit - cell.spent
            if cell.missing:
                cell.begun += 1
                counts, cell.counted = not cell.counted, True
                return Task(number, cell.missing.popleft(), counts, seconds)
            if cell.sampled and not cell.begun:
                cell.sampled = False
                parts = tuple(self.store.read(cell.key, shard) for shard in self.store.shards(cell.key))
                if any(any(waiting(parts, place)) for place in self._samples(number)):
                    cell.begun += 1
                    return Task(number, None, seconds=seconds, parts=parts)
        return None

    def done(self, task: Task, found: list[Done]) -> None:
        """Keep the records, and the images where they are wanted."""
        cell = self._cells[task.attack]
        key = cell.key
        cell.begun -= 1
        if cell.failed:  # by another shard, meanwhile
            return
        for part in found:
            if self.images is not None and part.images is not None:
                self._keep_images(self.images, key, part)
            self.store.write(key, part.shard, part.records)
            self.asked.check()
            if task.shard is not None:
                cell.spent += part.records.seconds
                cell.done += len(part.records)
                self.advance(len(part.records))

    def failed(self, task: Task, error: BaseException) -> None:
        """Note why the attack has no records; the others go on."""
        if isinstance(error, RunFolderError | DataError):  # Of damaged records and missing images, not of the attack.
            raise error
        cell = self._cells[task.attack]
        key = cell.key
        if isinstance(error, ProcessSpoiled):
            self.store.drop(key)
            raise ProcessSpoiled(
                f"the attack {key.attack} changed this process, and it cannot be put back ({error}): leave the "
                "attack out and repeat the command; what was finished before it is kept"
            ) from error
        self.asked.check()
        self.restore()
        cell.begun -= 1
        unsound = isinstance(error, AttackUnsound | SystemExit | KeyboardInterrupt)
        if cell.failed and not unsound:  # by another shard, meanwhile
            return
        cell.failed = True
        if isinstance(error, AttackTimeout) and self.limit is not None:  # Without one it is that of a single call.
            count = sum(len(rows) for rows in self.shards)
            error = AttackTimeout(
                f"stopped after the limit of {self.limit:g} s, with {cell.done} of {count} queries done: "
                "raise --attack-time-limit"
            )
        status: Literal["failed", "skipped"] = "skipped" if isinstance(error, AttackSkipped) else "failed"
        if unsound:
            self.store.drop(key)
        self.store.write_failure(key, Failure(status, reason_of(error), unsound))

    def _begin(self, number: int) -> _Cell:
        attack = self.attacks[number]
        entry = attack.entry()
        key = CellKey(self.model, entry.spec, attack.threat)
        self.advance(0, f"{self.model}: {entry.name}")
        there = set(self.store.shards(key))
        if self.images is not None and not isinstance(attack, GalleryAttack):
            # Attacks are deterministic: what has no images yet is done again for them.
            there = {shard for shard in there if self.images.path(key, shard).is_file()}
        spent = sum(self.store.read(key, shard).seconds for shard in there) if self.limit else 0.0
        # Clean queries in a changed gallery are judged all at once.
        shards = [np.concatenate(self.shards)] if isinstance(attack, GalleryAttack) else self.shards
        done = sum(len(rows) for shard, rows in enumerate(shards) if shard in there)
        self.advance(done)
        missing = deque(shard for shard in range(len(shards)) if shard not in there)
        # What is done once for all shards is counted once, also where a stopped run had done and counted it before.
        return _Cell(key, missing, bool(self._samples(number)), bool(there), spent, done)

    def _samples(self, number: int) -> list[int]:
        """Which stages of the attack are on a sample."""
        attack = self.attacks[number]
        if self.doubts and isinstance(attack, AdaptableAttack):
            attack = attack.adapted(self.doubts)
        stages = attack.stages if isinstance(attack, StagedAttack) else ()
        return [place for place, stage in enumerate(stages) if stage.sample]

    @staticmethod
    def _keep_images(images: KeptImages, key: CellKey, part: Done) -> None:
        assert part.images is not None
        if part.rows is None:
            images.write(key, part.shard, part.records.ids, part.images)
        elif len(part.rows):
            ids, kept = images.read(key, part.shard)
            kept[torch.from_numpy(part.rows)] = part.images.to(kept)
            images.write(key, part.shard, ids, kept)
