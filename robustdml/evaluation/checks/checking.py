"""What an evaluation does before its first attack, alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from tempfile import TemporaryDirectory

from torch import nn

from robustdml.config import DEFAULT_OPTIONS, RunOptions
from robustdml.data import RetrievalDataset
from robustdml.evaluation.run import evaluate
from robustdml.evaluation.subjects import Subject
from robustdml.preprocessing import Sides
from robustdml.results import Flag


def check(
    models: Mapping[str, nn.Module] | Sequence[Subject],
    dataset: RetrievalDataset,
    *,
    image_size: Sides | None = None,
    skip_broken: bool = False,
    options: RunOptions = DEFAULT_OPTIONS,
) -> tuple[Flag, ...]:
    """The flags of models and data that are raised before any attack, the gravest first (see `evaluate`).

    Args:
        skip_broken: go on without images of the test that cannot be read.

    Raises:
        DataError: images cannot be read, and ``skip_broken`` is not set.
        SpecError: no model, or equal names.
        CheckpointError: a model gives no finite embeddings.
    """
    with TemporaryDirectory() as folder:
        return evaluate(
            models, dataset, [], out=folder, image_size=image_size, skip_broken=skip_broken, options=options
        ).flags
