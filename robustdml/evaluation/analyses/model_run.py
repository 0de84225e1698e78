"""A finished model run, from which the analyses of `robustdml.evaluation.analyses.shown` are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from robustdml.data import RetrievalDataset
from robustdml.data.tensors import ImageTensors
from robustdml.evaluation.assemble import ModelRecords
from robustdml.evaluation.judge import Judge
from robustdml.evaluation.records import Records
from robustdml.results import AttackEntry, Queries
from robustdml.threat import ThreatModel


@dataclass(frozen=True)
class ModelRun:
    """A model after all attacks.

    Args:
        model: its name.
        folder: the run folder, for pictures.
        dataset: with the queries that were attacked.
        tensors: its images as the model gets them.
        judge: of the clean gallery.
        queries: who the queries are.
        clean: the records of the clean queries.
        shown: the attacks that pictures and maps show, with their budgets.
        attacked: their records, with pictures and embeddings.
        seed: of the run.
    """

    model: str
    folder: Path
    dataset: RetrievalDataset
    tensors: ImageTensors
    judge: Judge
    queries: Queries
    clean: Records
    shown: Sequence[tuple[AttackEntry, ThreatModel]]
    attacked: ModelRecords
    seed: int
