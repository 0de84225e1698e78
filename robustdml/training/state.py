"""What a training run needs to go on after it was stopped, and what it gives in the end."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from robustdml.errors import CheckpointError
from robustdml.files import write_bytes
from robustdml.models import EmbeddingModel
from robustdml.models.checkpoints import STATE_FILE


@dataclass
class TrainingState:
    """Where a run stands, beside the weights and the optimizer.

    Args:
        epoch: finished epochs.
        step: finished steps of the epoch under way.
        total: sum of their losses.
        seconds: that they took in runs before.
        best_value: of the epoch that is kept so far.
        best_epoch: its number, from 1.
        best_weights: its weights.
        history: one row per finished epoch.
    """

    epoch: int = 0
    step: int = 0
    total: float = 0.0
    seconds: float = 0.0
    best_value: float = float("-inf")
    best_epoch: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class TrainResult:
    """What a run left behind.

    Args:
        folder: the run folder; `robustdml.models.load_checkpoint` reads it.
        model: the kept model with all its BatchNorm branches, in evaluation mode.
        history: one dictionary per epoch, as in ``metrics.jsonl``.
        kept_epoch: the epoch (from 1) whose weights were kept.
    """

    folder: Path
    model: EmbeddingModel
    history: list[dict[str, float]]
    kept_epoch: int


def save_state(
    folder: Path, state: TrainingState, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer
) -> None:
    """Write everything in one step: a run that is killed here keeps the state of the epoch before."""
    buffer = io.BytesIO()
    parts = {name: module.state_dict() for name, module in modules.items()}
    torch.save({"state": asdict(state), **parts, "optimizer": optimizer.state_dict()}, buffer)
    write_bytes(folder / STATE_FILE, buffer.getvalue())


def read_state(folder: Path) -> bytes | None:
    """What the run in ``folder`` saved; None where it has saved nothing yet."""
    path = folder / STATE_FILE
    return path.read_bytes() if path.is_file() else None


def load_state(
    data: bytes, folder: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer
) -> TrainingState:
    """Bring modules and optimizer to where the run in ``folder`` stopped, of which ``data`` was read.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = folder / STATE_FILE
    try:
        # weights_only: numbers, strings and containers; nothing in the file is executed.
        saved = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        for name, module in modules.items():
            module.load_state_dict(saved[name])
        optimizer.load_state_dict(saved["optimizer"])
        return TrainingState(**saved["state"])
    except (RuntimeError, KeyError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"'{path}' is damaged ({type(error).__name__}): delete '{folder}' and train again"
        ) from None
