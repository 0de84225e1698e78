"""The record files of a run: the only place that writes them, and that says what of a run is there.

One Parquet file per model, attack, budget and shard, one small file where a cell failed or was skipped. Each holds
whose it is (the run, the cell, the shard) and a checksum over all that it says: a file of another cell, or one whose
content has changed, is refused and never counted. Files are whole or absent; any process can read them.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from robustdml.errors import RunFolderError
from robustdml.evaluation.records import Records, StagePass, faults, merged
from robustdml.files import checksum, strict_json, write_bytes, write_text
from robustdml.results import Flag, ModelEntry
from robustdml.threat import ThreatModel

RECORDS_FOLDER = "records"
#: Says why a cell has no records.
FAILURE_FILE = "failure.json"
#: Relative differences of answers that other processors and thread counts may make.
_ANSWER_SLACK = 0.02
#: Describe a model, and what of its finished run is shown beside its recalls.
MODEL_FILE, SHOWN_FILE = "model.json", "shown.json"
#: What a model answered to a few images.
ANSWERS_FILE = "answers.json"
#: What was found wrong with a model before it was attacked.
FLAGS_FILE = "flags.json"

_ABOUT, _CHECKSUM = b"robustdml.about", b"robustdml.checksum"
_COST = ("forward_images", "gradient_images", "seconds")
#: Of attacks in stages: the place of a stage for each query.
_PLACES = ("broken_by", "given_up")
_METRIC, _NORM = "metric.", "norm."


@dataclass(frozen=True)
class CellKey:
    """One model under one attack at one budget.

    Args:
        model: its name in the run.
        attack: the attack's spec.
        threat: the budget.
    """

    model: str
    attack: str
    threat: ThreatModel


@dataclass(frozen=True)
class Failure:
    """Why a cell has no records.

    Args:
        status: failed: it raised, ran out of time or returned no image; skipped: it was not tried.
        reason: one sentence.
        unsound: whether it failed for what it did to the model, the data or the process.
    """

    status: Literal["failed", "skipped"]
    reason: str
    unsound: bool = False


class Store:
    """The record files of one run.

    Args:
        run: the run folder.
        fingerprint: the identity of the run, which every file must have.
    """

    def __init__(self, run: Path, fingerprint: str) -> None:
        self._root, self._fingerprint = run / RECORDS_FOLDER, fingerprint

    def shards(self, cell: CellKey) -> list[int]:
        """The numbers of the shards that are there, ascending."""
        return sorted(int(path.stem) for path in self._folder(cell).glob("[0-9]*.parquet"))

    def write(self, cell: CellKey, shard: int, records: Records) -> None:
        """Keep the records of a shard; what was said of an earlier failure of the cell goes."""
        about = {
            **self.identity(cell),
            "shard": shard,
            **{name: getattr(records, name) for name in _COST},
            "undone": records.undone,
            "measures": records.measures,
            "stages": [asdict(stage) for stage in records.stages],
        }
        text = json.dumps(about, sort_keys=True).encode()
        table = _table(records).replace_schema_metadata({_ABOUT: text, _CHECKSUM: _checksum(records, text).encode()})
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, write_page_checksum=True)
        write_bytes(self.path(cell, shard), sink.getvalue().to_pybytes())
        (self._folder(cell) / FAILURE_FILE).unlink(missing_ok=True)

    def read(self, cell: CellKey, shard: int) -> Records:
        """The records of a shard.

        Raises:
            RunFolderError: the file is damaged, was changed, or belongs to another run, cell or shard.
        """
        path = self.path(cell, shard)
        records, about = read_shard(path)
        wanted = {**self.identity(cell), "shard": shard}
        wrong = [name for name, value in wanted.items() if about.get(name) != value]
        if wrong:
            raise RunFolderError(
                f"'{path}' holds the records of another {wrong[0]}: delete that file and evaluate again"
            )
        with understood(path):
            for fault in faults(records, cell.threat):
                raise RunFolderError(f"'{path}' says what cannot be ({fault}): delete that file and evaluate again")
        return records

    def read_all(self, cell: CellKey) -> Records | None:
        """The records of all shards that are there, by shard; None where there are none.

        Raises:
            RunFolderError: see `read`; or a query is in two shards.
        """
        parts = [self.read(cell, shard) for shard in self.shards(cell)]
        if not parts:
            return None
        try:
            return merged(parts)
        except (ValueError, KeyError) as error:
            raise RunFolderError(f"the shards in '{self._folder(cell)}' do not fit each other ({error})") from None

    def drop(self, cell: CellKey) -> None:
        """Take away the records of a cell that cannot be believed."""
        for shard in self.shards(cell):
            self.path(cell, shard).unlink()

    def write_failure(self, cell: CellKey, failure: Failure) -> None:
        """Keep why a cell has no records; the next run tries it again."""
        _write(self._folder(cell) / FAILURE_FILE, self.identity(cell), asdict(failure))

    def read_failure(self, cell: CellKey) -> Failure | None:
        """Why the cell has no records; None where nothing is said.

        Raises:
            RunFolderError: the file is damaged, was changed, or belongs to another run or cell.
        """
        path = self._folder(cell) / FAILURE_FILE
        found = _read(path, self.identity(cell))
        with understood(path):
            return None if found is None else Failure(found["status"], found["reason"], found.get("unsound", False))

    def write_model(self, entry: ModelEntry, clean: Records) -> None:
        """Keep a model's description and the records of its clean queries."""
        self.write(clean_key(entry.name), 0, clean)
        _write(self._root / _slug(entry.name) / MODEL_FILE, {"run": self._fingerprint}, entry.model_dump(mode="json"))

    def read_model(self, model: str) -> tuple[ModelEntry, Records] | None:
        """A model's description and the records of its clean queries; None where one of them is not there.

        Raises:
            RunFolderError: a file is damaged, was changed, or belongs to another run.
        """
        path = self._root / _slug(model) / MODEL_FILE
        found = _read(path, {"run": self._fingerprint})
        if found is None or not self.shards(clean_key(model)):
            return None
        with understood(path):
            return ModelEntry.model_validate(found), self.read(clean_key(model), 0)

    def check_answers(self, model: str, answers: Mapping[str, list[float]]) -> None:
        """Keep what a model answered to a few images, or compare it with what it answered before.

        Args:
            answers: see `robustdml.evaluation.identity.answers`; empty where they are not repeatable.

        Raises:
            RunFolderError: it answers differently: the records here are those of another model.
        """
        path, identity = self._root / _slug(model) / ANSWERS_FILE, {"run": self._fingerprint, "model": model}
        before = _read(path, identity)
        if before is None:
            _write(path, identity, answers)
            return
        with understood(path):
            different = [name for name in before if answers and not alike(before[name], answers.get(name, []))]
        if different:
            raise RunFolderError(
                f"'{self._root.parent}' holds records of another model: '{model}' has the same weights and other "
                f"{different[0]} on the same images, so that its code or its preprocessing has changed: choose another "
                "--out"
            )

    def write_flags(self, model: str, flags: Sequence[Flag]) -> None:
        """Keep what was found wrong with a model before it was attacked."""
        content = {"flags": [flag.model_dump(mode="json") for flag in flags]}
        _write(self._root / _slug(model) / FLAGS_FILE, {"run": self._fingerprint, "model": model}, content)

    def read_flags(self, model: str) -> list[Flag]:
        """What was found wrong with a model before it was attacked; nothing where it was not looked at.

        Raises:
            RunFolderError: the file is damaged, was changed, or belongs to another run.
        """
        path = self._root / _slug(model) / FLAGS_FILE
        found = _read(path, {"run": self._fingerprint, "model": model}) or {"flags": []}
        with understood(path):
            return [Flag.model_validate(flag) for flag in found["flags"]]

    def write_shown(self, model: str, shown: Mapping[str, Sequence[BaseModel]]) -> None:
        """Keep what of a finished model run is shown beside its recalls, by the field of the results that it fills."""
        content = {field: [part.model_dump(mode="json") for part in parts] for field, parts in shown.items()}
        _write(self._root / _slug(model) / SHOWN_FILE, {"run": self._fingerprint, "model": model}, content)

    def read_shown(self, model: str) -> dict[str, list[Any]]:
        """What of a model run is shown beside its recalls, as JSON; nothing where it has not finished.

        Raises:
            RunFolderError: the file is damaged, was changed, or belongs to another run.
        """
        path = self._root / _slug(model) / SHOWN_FILE
        return _read(path, {"run": self._fingerprint, "model": model}) or {}

    def write_panel(self, model: str, spec: str, shard: int, content: Mapping[str, Any]) -> None:
        """Keep what a panel (see `robustdml.evaluation.analyses.panel`) found of a shard of queries, as JSON values."""
        _write(self._panel_path(model, spec, shard), self._panel_identity(model, spec, shard), content)

    def read_panel(self, model: str, spec: str, shard: int) -> dict[str, Any] | None:
        """What a panel found of a shard of queries; None where that is not there.

        Raises:
            RunFolderError: the file is damaged, was changed, or belongs to another run, model, panel or shard.
        """
        return _read(self._panel_path(model, spec, shard), self._panel_identity(model, spec, shard))

    def panel_files(self) -> Iterator[tuple[Path, str]]:
        """Each file of a panel, and what is wrong with it; empty where nothing is."""
        for path in sorted(self._root.glob("*/*/*.json")):
            try:
                whose = strict_json(path.read_bytes())["identity"]
                asked = whose["model"], whose["panel"], whose["shard"]
                self.read_panel(*asked)
                moved = self._panel_path(*asked) != path
                yield path, f"'{path}' belongs to another panel: delete it and evaluate again" if moved else ""
            except RunFolderError as error:
                yield path, str(error)
            except (OSError, ValueError, KeyError, TypeError):
                yield path, f"'{path}' is damaged: delete that file and evaluate again"

    def _panel_path(self, model: str, spec: str, shard: int) -> Path:
        return self._root / _slug(model) / _slug(spec) / f"{shard:05d}.json"

    def _panel_identity(self, model: str, spec: str, shard: int) -> dict[str, Any]:
        return {"run": self._fingerprint, "model": model, "panel": spec, "shard": shard}

    def identity(self, cell: CellKey) -> dict[str, Any]:
        """Whose the files of a cell are, as JSON values."""
        return {
            "run": self._fingerprint,
            "model": cell.model,
            "attack": cell.attack,
            "norm": cell.threat.norm,
            "eps": cell.threat.eps,
            **({"channels": list(cell.threat.channels)} if cell.threat.channels else {}),
        }

    def _folder(self, cell: CellKey) -> Path:
        # Readable names, made unique and safe for file systems by a short hash.
        eps = cell.threat.eps
        budget = "any" if eps is None else "-".join(f"{size:.6f}" for size in cell.threat.channels or (eps,))
        return self._root / _slug(cell.model) / _slug(cell.attack) / budget

    def path(self, cell: CellKey, shard: int) -> Path:
        """Of the file of a shard."""
        return self._folder(cell) / f"{shard:05d}.parquet"

    def strangers(self, cells: Sequence[CellKey]) -> list[Path]:
        """Files of records or failures that belong to none of the cells, nor to the clean queries of their models."""
        known = {self._folder(cell) for cell in cells} | {self._folder(clean_key(cell.model)) for cell in cells}
        found = [*self._root.rglob("*.parquet"), *self._root.rglob(FAILURE_FILE)]
        return sorted(path for path in found if path.parent not in known)


def clean_key(model: str) -> CellKey:
    """Under which the records of a model's clean queries are kept."""
    return CellKey(model, "clean", ThreatModel(0.0))


@contextmanager
def understood(place: Path) -> Iterator[None]:
    """Within the block, what cannot be made of what files say is the fault of the files.

    Raises:
        RunFolderError: it cannot.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise RunFolderError(
            f"'{place}' says what cannot be ({reason}): delete it, and repeat the command of that run"
        ) from error


def _write(path: Path, identity: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    about = {"identity": dict(identity), "content": dict(content)}
    write_text(path, json.dumps({**about, "checksum": checksum(about)}, indent=1))


def _read(path: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        found = strict_json(path.read_bytes())
        about = {"identity": dict(found["identity"]), "content": dict(found["content"])}
        genuine = found["checksum"] == checksum(about) and about["identity"] == dict(identity)
    except (OSError, ValueError, KeyError, TypeError):
        genuine = False
    if not genuine:
        raise RunFolderError(f"'{path}' is damaged or belongs to another run: delete that file and evaluate again")
    return about["content"]


def read_shard(path: Path) -> tuple[Records, dict[str, Any]]:
    """The records of one file, and whose they are: run, model, attack, norm, eps, shard.

    Raises:
        RunFolderError: the file is damaged or was changed.
    """
    try:
        # By a handle: pyarrow has its own ideas of "~" and ":" in a path.
        table = pq.read_table(io.BytesIO(path.read_bytes()), page_checksum_verification=True)
        text = table.schema.metadata[_ABOUT]
        about = strict_json(text)
        records = _records(table, about)
        genuine = table.schema.metadata[_CHECKSUM].decode() == _checksum(records, text)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise RunFolderError(f"'{path}' is damaged ({reason}): delete that file and evaluate again") from None
    if not genuine:
        raise RunFolderError(
            f"'{path}' is damaged (its content does not fit its checksum): delete that file and evaluate again"
        )
    return records, about


def _slug(text: str) -> str:
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:48].strip("-.")
    return f"{readable}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _table(records: Records) -> pa.Table:
    ids = records.ids.tolist()
    pictures = [records.pictures.get(item) for item in ids]
    return pa.table(
        {
            "query_id": pa.array(records.ids),
            "label": pa.array(records.labels),
            **{_METRIC + name: pa.array(values) for name, values in records.values.items()},
            "top_ids": pa.array(list(records.top), pa.list_(pa.int64())),
            "norm_returned": pa.array(records.norm_returned),
            **{_NORM + name: pa.array(values) for name, values in records.norms.items()},
            "projected": pa.array(records.projected),
            "margin": pa.array(records.margins),
            **{name: pa.array(places) for name in _PLACES if (places := getattr(records, name)) is not None},
            "target_ids": pa.array(list(records.targets), pa.list_(pa.int64())),
            "embedding": pa.array([records.embeddings.get(item) for item in ids], pa.list_(pa.float32())),
            "adversarial_png": pa.array([pair and pair[0] for pair in pictures], pa.binary()),
            "perturbation_png": pa.array([pair and pair[1] for pair in pictures], pa.binary()),
        }
    )


def _records(table: pa.Table, about: dict[str, Any]) -> Records:
    def column(name: str, kind: type) -> npt.NDArray[Any]:
        return np.asarray(table[name].to_numpy()).astype(kind)

    def columns(prefix: str) -> dict[str, npt.NDArray[np.float64]]:
        names = [name for name in table.column_names if name.startswith(prefix)]
        return {name.removeprefix(prefix): column(name, np.float64) for name in names}

    ids = table["query_id"].to_pylist()
    pairs = zip(ids, table["adversarial_png"].to_pylist(), table["perturbation_png"].to_pylist(), strict=True)
    points = zip(ids, table["embedding"].to_pylist(), strict=True)
    return Records(
        ids=column("query_id", np.int64),
        labels=column("label", np.int64),
        values=columns(_METRIC),
        top=np.array(table["top_ids"].to_pylist(), dtype=np.int64),
        norm_returned=column("norm_returned", np.float64),
        norms=columns(_NORM),
        projected=column("projected", np.bool_),
        margins=column("margin", np.float64),
        broken_by=column("broken_by", np.int64) if "broken_by" in table.column_names else None,
        given_up=column("given_up", np.int64) if "given_up" in table.column_names else None,
        targets=np.array(table["target_ids"].to_pylist(), dtype=np.int64).reshape(len(ids), -1),
        pictures={item: (image, delta) for item, image, delta in pairs if image is not None},
        embeddings={item: np.array(values, dtype=np.float32) for item, values in points if values is not None},
        **{name: about[name] for name in _COST},
        undone=about.get("undone", 0),  # not counted before
        measures={name: (total, count) for name, (total, count) in about["measures"].items()},
        stages=tuple(StagePass(**stage) for stage in about["stages"]),
    )


def _checksum(records: Records, about: bytes) -> str:
    """Over what the records say, and not over how the file says it: other pyarrow versions write other bytes."""
    digest = hashlib.sha256(about)

    def add(name: str, values: npt.NDArray[Any]) -> None:
        digest.update(f"\0{name}{values.shape}{values.dtype}\0".encode())
        digest.update(np.ascontiguousarray(values).tobytes())

    add("ids", records.ids)
    add("labels", records.labels)
    for name in sorted(records.values):
        add(_METRIC + name, records.values[name])
    add("top", records.top)
    add("returned", records.norm_returned)
    for name in sorted(records.norms):
        add(_NORM + name, records.norms[name])
    add("projected", records.projected)
    add("margins", records.margins)
    for name in _PLACES:
        if (places := getattr(records, name)) is not None:
            add(name, places)
    add("targets", records.targets)
    for item in sorted(records.pictures):
        for picture in records.pictures[item]:
            add(f"picture {item}", np.frombuffer(picture, np.uint8))
    for item in sorted(records.embeddings):
        add(f"embedding {item}", records.embeddings[item])
    return digest.hexdigest()


def alike(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two answers are the same but for rounding."""
    first, second = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if first.shape != second.shape:
        return False
    length = max(float(np.linalg.norm(first)), float(np.linalg.norm(second)))
    return float(np.linalg.norm(first - second)) <= _ANSWER_SLACK * length
