"""Where a model's embeddings lie, and where an attack takes the queries: a plane through the gallery."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from robustdml.data import RetrievalDataset
from robustdml.evaluation.analyses.model_run import ModelRun
from robustdml.evaluation.entries import described_classes
from robustdml.evaluation.records import Records
from robustdml.results import EmbeddingMap, MapPath
from robustdml.seeding import stream

if TYPE_CHECKING:
    from sklearn.decomposition import PCA

_PATHS, _GALLERY = 60, 400


def mapped_queries(dataset: RetrievalDataset, seed: int) -> frozenset[int]:
    """The queries whose attacked embeddings are kept: a class-stratified few, drawn before any result is known."""
    return frozenset(dataset.subset_queries(_PATHS, seed).query.tolist())


def embedding_maps(run: ModelRun) -> list[EmbeddingMap]:
    """One map per attack that is shown. The axes are the gallery's first two principal components, all of it."""
    gallery = run.judge.gallery_embeddings
    if min(gallery.shape) < 2:
        return []
    from sklearn.decomposition import PCA  # slow to import, and wanted at the end of a run alone

    with np.errstate(invalid="ignore"):  # a collapsed gallery has no variance to explain
        plane = PCA(n_components=2, svd_solver="full").fit(gallery)
    chosen = np.arange(len(gallery))
    if len(chosen) > _GALLERY:
        chosen = np.sort(stream(run.seed, "map", 0).choice(chosen, _GALLERY, replace=False))
    split = run.judge.split
    classes = np.searchsorted(described_classes(split), split.labels[split.gallery[chosen]])
    points = tuple(
        (*_point(place), int(index)) for place, index in zip(plane.transform(gallery[chosen]), classes, strict=True)
    )
    explained = plane.explained_variance_ratio_
    return [
        EmbeddingMap(
            model=run.model,
            attack=attack.spec,
            threat=threat,
            explained=_point(np.nan_to_num(explained)),
            gallery=points,
            paths=_paths(plane, run, run.attacked[attack.spec, threat]),
        )
        for attack, threat in run.shown
    ]


def _paths(plane: PCA, run: ModelRun, records: Records) -> tuple[MapPath, ...]:
    rows = [row for row, item in enumerate(records.ids.tolist()) if item in records.embeddings]
    if not rows:
        return ()
    before = plane.transform(run.judge.query_embeddings[rows])
    after = plane.transform(np.stack([records.embeddings[int(records.ids[row])] for row in rows]))
    return tuple(
        MapPath(
            query_id=int(records.ids[row]),
            class_index=run.queries.classes[row],
            clean=_point(before[place]),
            adversarial=_point(after[place]),
            clean_hit=bool(run.clean.values["recall_at_1"][row] > 0.5),
            adversarial_hit=bool(records.values["recall_at_1"][row] > 0.5),
        )
        for place, row in enumerate(rows)
    )


def _point(values: npt.NDArray[np.floating]) -> tuple[float, float]:
    # Four decimals: embeddings have length 1, a screen has a few thousand pixels.
    return round(float(values[0]), 4), round(float(values[1]), 4)
