"""What a training run needs to go on after it was stopped."""

from __future__ import annotations

import io
import pickle
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from robustdml.errors import CheckpointError
from robustdml.files import write_bytes
from robustdml.models.checkpoints import STATE_FILE


@dataclass
class TrainingState:
    """Where a run stands, beside the weights and the optimizer.

    Args:
        epoch: finished epochs.
        best_value: of the epoch that is kept so far.
        best_epoch: its number, from 1.
        best_weights: its weights.
        history: one row per finished epoch.
    """

    epoch: int = 0
    best_value: float = float("-inf")
    best_epoch: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


def save_state(
    folder: Path, state: TrainingState, model: nn.Module, loss: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Write everything in one step: a run that is killed here keeps the state of the epoch before."""
    buffer = io.BytesIO()
    parts = {"model": model.state_dict(), "loss": loss.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save({"state": asdict(state), **parts}, buffer)
    write_bytes(folder / STATE_FILE, buffer.getvalue())


def load_state(
    folder: Path, model: nn.Module, loss: nn.Module, optimizer: torch.optim.Optimizer
) -> TrainingState | None:
    """Bring model, loss and optimizer to where the run in ``folder`` stopped; None where it has not finished an epoch.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        return None
    try:
        # weights_only: numbers, strings and containers; nothing in the file is executed.
        saved = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(saved["model"])
        loss.load_state_dict(saved["loss"])
        optimizer.load_state_dict(saved["optimizer"])
        return TrainingState(**saved["state"])
    except (RuntimeError, KeyError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"'{path}' is damaged ({type(error).__name__}): delete '{folder}' and train again"
        ) from None
