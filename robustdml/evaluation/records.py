"""Per-query records: one Parquet file per model, attack, budget and shard, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from robustdml.errors import RunFolderError
from robustdml.files import write_bytes
from robustdml.retrieval.metrics import METRIC_NAMES
from robustdml.threat import NORMS

RECORDS_FOLDER = "records"
TOP = 8
_COST = b"robustdml.cost"
_COST_FIELDS = ("forward_images", "gradient_images", "seconds")
_MEASURES = b"robustdml.measures"


@dataclass(frozen=True)
class Records:
    """What happened to N queries under one attack (or none).

    Args:
        ids: ``(N,)`` int64, the queries.
        labels: ``(N,)`` int64.
        values: ``(N,)`` float64 under each of `METRIC_NAMES`.
        top: ``(N, 8)`` int64, the ids of the first hits.
        norm_returned: ``(N,)`` float64, the perturbation's norm (the attack's own) as the attack returned it.
        norms: ``(N,)`` float64 under each of `robustdml.threat.NORMS`, after the budget was enforced.
        projected: ``(N,)`` bool, whether enforcing it changed the image.
        targets: ``(N, T)`` int64, ids of the targets; T is 0 for an untargeted attack.
        pictures: PNG bytes (adversarial image, amplified perturbation) of the queries that the report shows, by id.
        embeddings: ``(D,)`` float32 of the attacked queries that the embedding map shows, by id.
        forward_images: images that passed through the model while the attack ran.
        gradient_images: how many of these a gradient went back through.
        seconds: that the attack took.
        measures: what the attack's paper reports, by name: the sum over the attacked images, and their number.
    """

    ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    values: dict[str, npt.NDArray[np.float64]]
    top: npt.NDArray[np.int64]
    norm_returned: npt.NDArray[np.float64]
    norms: dict[str, npt.NDArray[np.float64]]
    projected: npt.NDArray[np.bool_]
    targets: npt.NDArray[np.int64]
    pictures: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    embeddings: dict[int, npt.NDArray[np.float32]] = field(default_factory=dict)
    forward_images: int = 0
    gradient_images: int = 0
    seconds: float = 0.0
    measures: dict[str, tuple[float, int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)


def totals(values: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, tuple[float, int]]:
    """Measures per image as their sums and numbers, which add up over shards."""
    return {name: (float(value.sum()), len(value)) for name, value in values.items()}


def shard_path(run: Path, model: str, attack: str, eps: float | None, shard: int) -> Path:
    """Where a shard lies: readable names, made unique and safe for file systems by a short hash."""
    budget = "any" if eps is None else f"{eps:.6f}"
    return run / RECORDS_FOLDER / _slug(model) / _slug(attack) / budget / f"{shard:05d}.parquet"


def _slug(text: str) -> str:
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:48].strip("-.")
    return f"{readable}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def write_shard(path: Path, records: Records) -> None:
    """Write one shard in one step."""
    pictures = [records.pictures.get(int(item)) for item in records.ids]
    columns = {
        "query_id": pa.array(records.ids),
        "label": pa.array(records.labels),
        **{name: pa.array(records.values[name]) for name in METRIC_NAMES},
        "top_ids": pa.array(list(records.top), pa.list_(pa.int64())),
        "norm_returned": pa.array(records.norm_returned),
        **{name: pa.array(records.norms[name]) for name in NORMS},
        "projected": pa.array(records.projected),
        "target_ids": pa.array(list(records.targets), pa.list_(pa.int64())),
        "embedding": pa.array([records.embeddings.get(int(item)) for item in records.ids], pa.list_(pa.float32())),
        "adversarial_png": pa.array([pair and pair[0] for pair in pictures], pa.binary()),
        "perturbation_png": pa.array([pair and pair[1] for pair in pictures], pa.binary()),
    }
    cost = json.dumps({name: getattr(records, name) for name in _COST_FIELDS}).encode()
    sink = pa.BufferOutputStream()
    measures = json.dumps(records.measures).encode()
    pq.write_table(pa.table(columns).replace_schema_metadata({_COST: cost, _MEASURES: measures}), sink)
    write_bytes(path, sink.getvalue().to_pybytes())


def read_shards(paths: Sequence[Path]) -> Records:
    """Read shards into one.

    Raises:
        RunFolderError: a file is damaged.
    """
    tables = []
    for path in paths:
        try:
            tables.append(pq.read_table(path))
        except (pa.ArrowException, OSError) as error:
            raise RunFolderError(f"'{path}' is damaged ({error}): delete that file and evaluate again") from None
    costs = [json.loads(table.schema.metadata[_COST]) for table in tables]
    measures = [json.loads(table.schema.metadata[_MEASURES]) for table in tables]
    table = pa.concat_tables(tables)

    def column(name: str) -> npt.NDArray[np.generic]:
        return np.asarray(table[name].to_numpy())

    pairs = zip(
        table["query_id"].to_pylist(),
        table["adversarial_png"].to_pylist(),
        table["perturbation_png"].to_pylist(),
        strict=True,
    )
    return Records(
        ids=column("query_id").astype(np.int64),
        labels=column("label").astype(np.int64),
        values={name: column(name).astype(np.float64) for name in METRIC_NAMES},
        top=np.array(table["top_ids"].to_pylist(), dtype=np.int64),
        norm_returned=column("norm_returned").astype(np.float64),
        norms={name: column(name).astype(np.float64) for name in NORMS},
        projected=column("projected").astype(np.bool_),
        targets=np.array(table["target_ids"].to_pylist(), dtype=np.int64),
        pictures={item: (image, delta) for item, image, delta in pairs if image is not None},
        embeddings={
            item: np.array(values, dtype=np.float32)
            for item, values in zip(table["query_id"].to_pylist(), table["embedding"].to_pylist(), strict=True)
            if values is not None
        },
        **{name: sum(cost[name] for cost in costs) for name in _COST_FIELDS},
        measures={
            name: (sum(part[name][0] for part in measures), sum(part[name][1] for part in measures))
            for name in measures[0]
        },
    )
