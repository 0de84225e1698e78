"""Which attacked queries the report shows, and their pictures in the run folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from robustdml.data import RetrievalDataset
from robustdml.evaluation.analyses.model_run import ModelRun
from robustdml.evaluation.assemble import best_attack
from robustdml.evaluation.pictures import amplification, picture, thumbnail
from robustdml.evaluation.records import Records
from robustdml.files import content_hash, write_bytes
from robustdml.results import AttackEntry, Cell, Example, Hit
from robustdml.threat import NORMS, ThreatModel, headline_eps

EXAMPLES_FOLDER = "examples"
_HITS, _TARGETS = 5, 5
#: The most queries that are kept, up to which image side; pictures grow with the square of the side.
_POOL = ((24, 64), (12, 128), (8, None))


def pictured_queries(dataset: RetrievalDataset, image_size: int, seed: int) -> frozenset[int]:
    """The queries whose attacked images are kept: few, of different classes, drawn before any result is known.

    A report picks from them those that broke and those that held; it cannot pick from all queries.
    """
    size = next(size for size, side in _POOL if side is None or image_size <= side)
    return frozenset(dataset.subset_queries(size, seed).query.tolist())


def shown_attacks(cells: Sequence[Cell], attacks: Sequence[AttackEntry]) -> list[tuple[AttackEntry, ThreatModel]]:
    """What the pictures of a model show, at the headline budget: its strongest attack, the strongest MTAX.

    The budget is in L-infinity, or in the first norm (of `robustdml.threat.NORMS`) that an attack was run in.

    Args:
        cells: of one model.
    """
    entries = {entry.spec: entry for entry in attacks}
    bounded = [cell for cell in cells if cell.score and cell.threat.eps is not None]
    norm = next((norm for norm in NORMS if any(cell.threat.norm == norm for cell in bounded)), None)
    judged = [cell for cell in bounded if cell.threat.norm == norm]
    eps = headline_eps(cell.threat.eps for cell in judged if cell.threat.eps is not None)
    if eps is None or norm is None:
        return []
    threat = next(cell.threat for cell in judged if cell.threat.eps == eps)
    own = [cell for cell in judged if cell.threat == threat]
    strongest = best_attack(own)
    targeted = best_attack(cell for cell in own if entries[cell.attack].goal == "mtax")
    return [(entries[spec], threat) for spec in dict.fromkeys(cell.attack for cell in (strongest, targeted) if cell)]


def examples(run: ModelRun) -> list[Example]:
    """The pictured queries of one model under the attacks of `shown_attacks`; their pictures go into the run folder."""
    writer = _Writer(run)
    return [
        writer.example(attack, threat, records, row)
        for attack, threat in run.shown
        for records in [run.attacked[attack.spec, threat]]
        for row, item in enumerate(records.ids.tolist())
        if item in records.pictures
    ]


class _Writer:
    """Writes pictures into a run folder and describes them."""

    def __init__(self, run: ModelRun) -> None:
        self._run, self._dataset, self._tensors = run, run.dataset, run.tensors
        self._places = {item: place for place, item in enumerate(run.judge.split.gallery.tolist())}

    def example(self, attack: AttackEntry, threat: ThreatModel, records: Records, row: int) -> Example:
        """One query under one attack."""
        item = int(records.ids[row])
        adversarial, perturbation = records.pictures[item]
        before, after = self._run.judge.query_embeddings[row], records.embeddings.get(item)
        return Example(
            model=self._run.model,
            attack=attack.spec,
            threat=threat,
            query_id=item,
            class_name=self._class(item),
            image=self._clean(item),
            adversarial_image=self._write(adversarial),
            perturbation_image=self._write(perturbation),
            amplification=amplification(threat, float(records.norms["linf"][row])),
            clean_top=self._hits(self._run.clean.top[row][:_HITS], item, before),
            adversarial_top=self._hits(records.top[row][:_HITS], item, after),
            targets=self._hits(records.targets[row][:_TARGETS], item, after),
        )

    def _hits(
        self, ids: npt.NDArray[np.int64], query: int, embedding: npt.NDArray[np.float32] | None
    ) -> tuple[Hit, ...]:
        relevant = self._dataset.rules.relevant(np.full(len(ids), query), ids)
        return tuple(
            Hit(
                id=item,
                class_name=self._class(item),
                relevant=right,
                image=self._item(item),
                name=self._dataset.images.name(item),
                similarity=self._similarity(item, embedding),
            )
            for item, right in zip(ids.tolist(), relevant.tolist(), strict=True)
            if item >= 0
        )

    def _similarity(self, item: int, embedding: npt.NDArray[np.float32] | None) -> float | None:
        if embedding is None or item not in self._places:
            return None
        return round(float(self._run.judge.gallery_embeddings[self._places[item]] @ embedding), 4)

    def _class(self, item: int) -> str:
        return self._dataset.class_names[int(self._dataset.labels[item])]

    def _item(self, item: int) -> str:
        return self._kept("item", item, thumbnail)

    def _clean(self, item: int) -> str:
        return self._kept("image", item, picture)

    def _kept(self, kind: str, item: int, draw: Callable[[Tensor], bytes]) -> str:
        """The picture of an image as this model gets it: models with one view share one file."""
        view = content_hash(self._tensors.preprocessing.view.encode())
        name = f"{EXAMPLES_FOLDER}/{kind}-{item}-{view}.png"
        if not (self._run.folder / name).is_file():
            write_bytes(self._run.folder / name, draw(self._tensors.batch([item])[0]))
        return name

    def _write(self, data: bytes) -> str:
        name = f"{EXAMPLES_FOLDER}/attacked-{content_hash(data)}.png"
        write_bytes(self._run.folder / name, data)
        return name
