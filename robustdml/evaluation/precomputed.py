"""Embeddings that were computed elsewhere: clean retrieval and what their space is like. Without a model, no attack."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robustdml._version import __version__
from robustdml.data import RetrievalDataset
from robustdml.data.embeddings import Embedded, embedded, read_embeddings
from robustdml.data.protocol import array_hash
from robustdml.data.tensors import ImageTensors
from robustdml.evaluation.assemble import assemble, hits
from robustdml.evaluation.checks.copies import Copies, embedding_twins
from robustdml.evaluation.checks.looked_at import LookedAt
from robustdml.evaluation.entries import describe, environment, query_entry
from robustdml.evaluation.identity import package_versions
from robustdml.evaluation.judge import Judge
from robustdml.evaluation.plan import Plan
from robustdml.evaluation.records import Records
from robustdml.evaluation.store import Store
from robustdml.files import fingerprint
from robustdml.flag_kinds import FLAG_KINDS
from robustdml.results import EvalSpec, ModelEntry, Results
from robustdml.retrieval.clustering import clustered_rows, nmi, pi_ratio
from robustdml.retrieval.collapse import health
from robustdml.retrieval.metrics import score
from robustdml.run_folders import claimed
from robustdml.values import whole


def evaluate_embeddings(
    embeddings: str | Path | Mapping[str, Any],
    data: RetrievalDataset | None = None,
    *,
    out: str | Path,
    name: str = "",
    max_queries: int | None = None,
    seed: int = 0,
    command: str = "",
) -> Results:
    """Clean retrieval with embeddings that were computed elsewhere, and flags of their space, written into ``out``.

    They are compared by cosine similarity. What an attack needs is not there: it changes an image and asks the model.

    Args:
        embeddings: a file (see `robustdml.data.embeddings.read_embeddings`), or arrays, tensors or lists by name:
            ``embeddings`` ``(N, D)``, ``labels`` ``(N,)`` and, where queries and gallery are apart, ``is_query`` and
            ``is_gallery`` ``(N,)`` bool; or ``query_embeddings``, ``query_labels``, ``gallery_embeddings`` and
            ``gallery_labels``. With ``camera`` ``(N,)`` it is re-identification.
        data: where the labels are: then the embeddings are those of its test images, in the order of its rows.
        out: the run folder.
        name: of the model that made them, for tables; by default that of the file.
        max_queries: score a class-stratified sample of this size, at least 1; None takes all queries.
        seed: of the sample and the bootstrap, at least 0.
        command: that asked for it, which the report repeats.

    Raises:
        DataError: the file cannot be read, or holds something else.
        SpecError: a number that cannot be.
        RunFolderError: ``out`` holds another run.
    """
    started = time.monotonic()
    seed, max_queries = whole("seed", seed), None if max_queries is None else whole("max_queries", max_queries, least=1)
    in_memory = isinstance(embeddings, Mapping)
    source = "arrays in memory" if in_memory else str(embeddings)
    title = name or ("embeddings" if in_memory else Path(str(embeddings)).stem)
    given = embeddings if isinstance(embeddings, Mapping) else read_embeddings(embeddings)
    found = embedded(given, title, data)
    dataset = found.dataset.subset_queries(max_queries, seed)
    identity = array_hash(found.vectors.view(np.int32))
    spec = EvalSpec(
        dataset=dataset.name,
        dataset_fingerprint=found.dataset.fingerprint(),
        image_size=0,
        models=((title, identity),),
        attacks=(),
        max_queries=max_queries,
        seed=seed,
        shard_size=max(1, len(dataset.query)),
        version=__version__,
        packages=package_versions(),
    )
    about = {"kind": "evaluate", **spec.model_dump(mode="json")}
    every = np.arange(len(found.rows))
    looked = LookedAt(
        found.dataset,
        ImageTensors(dataset.images, dataset.image_size),
        Copies(found.dataset, found.rows, every, every),
        (),
    )
    plan = Plan(
        fingerprint=fingerprint(about),
        spec=spec,
        dataset=describe(dataset, spec, len(found.dataset.query), looked),
        queries=query_entry(dataset),
        attacks=(),
        budgets=(),
        environment=environment(torch.device("cpu")),
        command=command,
    )
    folder = Path(out).expanduser()
    with claimed(folder, about):
        plan.save(folder)
        store = Store(folder, plan.fingerprint)
        entry, clean = _measured(found, dataset, title, source, identity, seed)
        store.write_model(entry, clean)
        store.write_flags(
            title,
            [
                FLAG_KINDS["embeddings-alone"].flag(
                    f"Of {title} the embeddings alone are known, {entry.embedding_dim} numbers for each image.",
                    model=title,
                )
            ],
        )
        results = assemble(folder, seconds=time.monotonic() - started)
        results.save(folder)
    return results


def _measured(
    found: Embedded, dataset: RetrievalDataset, title: str, source: str, identity: str, seed: int
) -> tuple[ModelEntry, Records]:
    """What is said of a model of which the embeddings alone are known."""
    queries, gallery = (
        np.ascontiguousarray(found.vectors[np.searchsorted(found.rows, part)])
        for part in (dataset.query, dataset.gallery)
    )
    clean = Judge.of_embeddings(dataset.test, queries, gallery).clean()
    headline, classes = dataset.rules.headline, dataset.labels[dataset.gallery]
    drawn = clustered_rows(classes)
    entry = ModelEntry(
        name=title,
        source=source,
        fingerprint=identity,
        architecture="not known",
        method=None,
        embedding_dim=gallery.shape[1],
        parameters=0,
        clean=score(clean.values, clean.labels, headline=headline, seed=seed),
        clean_hits=hits(clean.values[headline]),
        health=health(gallery),
        nmi=nmi(gallery, classes) if drawn is None else nmi(gallery[drawn], classes[drawn]),
        nmi_classes=None if drawn is None else len(np.unique(classes[drawn])),
        pi_ratio=pi_ratio(gallery, classes),
        twins=embedding_twins(gallery, classes),
    )
    return entry, clean
