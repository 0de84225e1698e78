"""What a training run needs to go on after it was stopped, and what it gives in the end."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustdml.data.finding import LeftOut
from robustdml.errors import CheckpointError
from robustdml.files import write_bytes
from robustdml.models import EmbeddingModel
from robustdml.models.checkpoints import STATE_FILE
from robustdml.values import ByValue

#: Bytes of the checksum at the end of the file.
_DIGEST = 64


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


@dataclass(frozen=True, eq=False, repr=False)
class TrainResult(ByValue):
    """What a run left behind.

    Args:
        folder: the run folder; `robustdml.models.load_checkpoint` reads it.
        model: the kept model with all its BatchNorm branches, in evaluation mode.
        history: one dictionary per epoch, as in ``metrics.jsonl``.
        kept_epoch: the epoch (from 1) whose weights were kept.
        left_out: what of the data set was not used, and why; ``left-out.csv`` of the folder lists all of it.
    """

    folder: Path
    model: EmbeddingModel
    history: list[dict[str, float]]
    kept_epoch: int
    left_out: tuple[LeftOut, ...] = ()


def save_state(
    folder: Path, state: TrainingState, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer
) -> None:
    """Write everything in one step: a run that is killed here keeps the state of the epoch before."""
    buffer = io.BytesIO()
    parts = {name: module.state_dict() for name, module in modules.items()}
    torch.save({"state": asdict(state), **parts, "optimizer": optimizer.state_dict()}, buffer)
    data = buffer.getvalue()
    write_bytes(folder / STATE_FILE, data + _digest(data))  # torch reads past what follows its own


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


def read_state(folder: Path) -> bytes | None:
    """What the run in ``folder`` saved; None where it has saved nothing yet."""
    path = folder / STATE_FILE
    return path.read_bytes() if path.is_file() else None


def load_state(
    data: bytes, folder: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer
) -> TrainingState:
    """Bring modules and optimizer to where the run in ``folder`` stopped, of which ``data`` was read.

    Raises:
        CheckpointError: the file is damaged, was changed, or does not fit; modules and optimizer are as they were.
    """
    path = folder / STATE_FILE
    try:
        if data[-_DIGEST:] != _digest(data[:-_DIGEST]):
            raise ValueError("its content does not fit its checksum")
        # weights_only: numbers, strings and containers; nothing in the file is executed.
        saved = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        state = TrainingState(**saved["state"])
        _check(state, saved, modules)
        # Of its own kinds of faults the optimizer tells before it takes anything.
        optimizer.load_state_dict(saved["optimizer"])
        for name, module in modules.items():
            module.load_state_dict(saved[name])
    except (RuntimeError, KeyError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(
            f"'{path}' is damaged ({type(error).__name__}: {reason}): delete '{folder}' and train again"
        ) from None
    return state


def _check(state: TrainingState, saved: Mapping[str, Any], modules: Mapping[str, nn.Module]) -> None:
    """Refuse what no run of these modules can have saved."""
    for name, module in modules.items():
        _check_weights(name, saved[name], module)
    if state.best_weights:
        _check_weights("best_weights", state.best_weights, modules["model"])
    for number, values in saved["optimizer"]["state"].items():
        if not all(torch.isfinite(value).all() for value in values.values() if isinstance(value, Tensor)):
            raise ValueError(f"the optimizer's state of weight {number} is not finite")
    if not 0 <= state.best_epoch <= state.epoch == len(state.history) or state.step < 0:
        raise ValueError(f"epoch {state.epoch}, the best one {state.best_epoch}, and {len(state.history)} rows")
    if state.best_epoch:
        row = state.history[state.best_epoch - 1]
        value = row.get("validation_recall_at_1", float(state.best_epoch))
        if not state.best_weights or value != state.best_value:
            raise ValueError(f"epoch {state.best_epoch} is not the best one by its own row")


def _check_weights(name: str, found: Mapping[str, Tensor], module: nn.Module) -> None:
    wanted = module.state_dict()
    if found.keys() != wanted.keys():
        raise ValueError(f"'{name}' has other weights than this model")
    for key, tensor in wanted.items():
        value = found[key]
        if value.shape != tensor.shape or value.dtype != tensor.dtype:
            raise ValueError(f"'{name}.{key}' has another shape or type than in this model")
        # What a model has of infinities (masks, for example) it has from the beginning.
        if not torch.isfinite(value).all() and torch.isfinite(tensor).all():
            raise ValueError(f"'{name}.{key}' is not finite")
