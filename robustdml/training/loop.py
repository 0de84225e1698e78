"""The training loop: epochs of steps, and what is measured after each.

Every random choice of an epoch (batches, augmentation, targets, start noise) follows from the seed, the epoch and the
step alone. A run that was stopped goes on from its last saved step and ends with the same weights. Several
processes walk through it together, each with its rows of every batch; process 0 measures and writes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from robustdml.config import DEFAULT_OPTIONS, RunOptions, TrainConfig
from robustdml.contracts import GoalClasses
from robustdml.data import RetrievalDataset
from robustdml.errors import TrainingError
from robustdml.importing import load_object
from robustdml.models import freeze_batchnorm, single_precision
from robustdml.progress import progress
from robustdml.retrieval import clean_health, clean_recall
from robustdml.seeding import derive_seed
from robustdml.stopping import Asked, stopping, terminated
from robustdml.training.keep import RunFolder
from robustdml.training.processes import join
from robustdml.training.schedule import batches, rate
from robustdml.training.setup import Setup, set_up
from robustdml.training.state import TrainingState, TrainResult
from robustdml.training.step import Autocast, step_loss
from robustdml.training.tensorboard import open_tensorboard

#: Runs of fewer epochs are trials: they are not stopped for a collapse.
_FEWEST_EPOCHS = 4


def train(
    dataset: RetrievalDataset,
    config: TrainConfig,
    out: str | Path,
    *,
    goals: GoalClasses | None = None,
    build_attack: Callable[..., object] | None = None,
    options: RunOptions = DEFAULT_OPTIONS,
    skip_broken: bool = False,
) -> TrainResult:
    """Train an embedding model, or go on with a run that was stopped.

    Started by torchrun or accelerate launch, it is one of several processes that train one model, and all return it.

    Args:
        dataset: its training rows are used; its test rows are never looked at.
        config: everything that changes the weights.
        out: the run folder; the same call again resumes it, or returns at once where it had finished.
        goals: what training images aim at; None takes `robustdml.attacks.GOALS`.
        skip_broken: go on without training images that cannot be read; they are listed in ``left-out.csv`` of the run
            folder, and in ``left_out`` of what is returned.
        build_attack: of programs written before goals were asked for; it is not used.

    Raises:
        UnknownNameError: no such method, backbone or loss.
        SpecError: values that do not fit each other or the data.
        RunFolderError: ``out`` holds another run.
        DataError: training images cannot be read (all of them are named), and ``skip_broken`` is not set.
        MissingPackageError: ``options.tensorboard`` without TensorBoard.
        TrainingError: the loss is not finite, or the embeddings have collapsed; the best epoch before is kept.
        Terminated: the process was asked to end (SIGTERM, SIGINT, SIGHUP); everything up to that step is saved.
        EndedElsewhere: another of several processes met one of these.
    """
    processes = join(options.device)
    with processes.one_voice(), torch.inference_mode(False), torch.enable_grad(), single_precision():
        # By name: training knows goals by their contract alone, and stands below the attacks.
        known = load_object("robustdml.attacks:GOALS") if goals is None else goals
        run = set_up(dataset, config, known, options, processes, skip_broken=skip_broken)
        with RunFolder.claimed(Path(out), run) as folder:
            state = folder.resume()
            _walk(run, folder, state)
            return TrainResult(folder.path, folder.write_best(state), state.history, state.best_epoch, run.left_out)


def _walk(run: Setup, folder: RunFolder, state: TrainingState) -> None:
    """Every epoch from where ``state`` stands."""
    config, steps, options = run.config, run.steps, run.options
    done = state.epoch * steps + state.step
    with (
        folder.salvage(state),
        open_tensorboard(folder.path, state.history, done, enabled=options.tensorboard and run.writes) as curves,
        progress("train", config.epochs * steps, enabled=options.progress and run.writes, done=done) as advance,
        stopping(at_once=False) as asked,
    ):
        patience = config.patience if config.patience and run.images.validation else config.epochs
        while state.epoch < config.epochs and state.epoch - state.best_epoch < patience:
            begun = saved = time.monotonic()
            for loss in _steps(run, state):
                curves.step(state.epoch * steps + state.step, loss)
                advance(1, f"epoch {state.epoch + 1}/{config.epochs}, loss {state.total / state.step:.3f}")
                number = _request(run, asked)
                now = time.monotonic()
                if number or run.processes.any(run.writes and now - saved >= 60 * options.save_minutes):
                    curves.flush()
                    state.seconds += now - begun
                    begun = saved = now
                    folder.save(state)
                if number:
                    raise terminated(number, f"in epoch {state.epoch + 1}, step {state.step + 1}")
            row = run.processes.by_first(partial(_row, run, state, begun))
            curves.epoch(row)
            folder.close_epoch(state, row)
            if number := _request(run, asked):
                raise terminated(number, f"after epoch {state.epoch}")


def _request(run: Setup, asked: Asked) -> int:
    """The signal by which any of the processes was asked to end; 0 where none was."""
    return int(run.processes.extremes(torch.tensor([asked.number]))[1])


def _steps(run: Setup, state: TrainingState) -> Iterator[float]:
    """Make the rest of the epoch that ``state`` stands in, and give the loss of each step after it."""
    config, epoch, processes = run.config, state.epoch, run.processes
    network = Autocast(run.model, run.device, config.precision == "bf16")
    network.train()
    if run.method.frozen_batchnorm:
        freeze_batchnorm(network)
    seed = derive_seed(config.seed, "epoch", epoch)
    own = slice(processes.rank, None, processes.count)
    assert config.m_per_class is not None
    for step, batch in enumerate(batches(run.images.places, config.batch_size, config.m_per_class, seed)):
        if step < state.step:
            continue
        seeds = [derive_seed(seed, step, i) for i in range(len(batch))[own]]
        images = run.images.augmented.batch(run.images.rows[batch[own]], seeds)
        run.optimizer.set_rate(rate(config.schedule, epoch * run.steps + step, config.epochs * run.steps))
        value = step_loss(
            network,
            images.to(run.device, memory_format=run.layout),
            torch.from_numpy(run.images.places[batch]).to(run.device),
            run.method.branches,
            run.makers,
            run.loss,
            seed=derive_seed(seed, "step", step),
            processes=processes,
        )
        if processes.any(not torch.isfinite(value)):
            lower = "lower --lr, or use --precision fp32," if config.precision == "bf16" else "lower --lr,"
            raise TrainingError(
                f"the loss is {float(value.detach())} in epoch {epoch + 1}, step {step + 1}: {lower} and train "
                "into another --out"
            )
        run.optimizer.step(value)
        loss = float(value.detach())
        state.total, state.step = state.total + loss, state.step + 1
        yield loss


def _row(run: Setup, state: TrainingState, started: float) -> dict[str, float]:
    """What ``metrics.jsonl`` says of the epoch that ``state`` has walked through.

    Raises:
        TrainingError: half of the epochs are over and the embeddings are still all the same.
    """
    row: dict[str, float] = {"epoch": state.epoch + 1, "loss": state.total / run.steps}
    row["learning_rate"] = run.optimizer.adam.param_groups[0]["lr"]
    kept, shown = run.optimizer.kept, run.images
    if shown.validation:
        row["validation_recall_at_1"] = clean_recall(kept, shown.validation, shown.views, run.device)
    found = clean_health(kept, shown.watched, shown.views, run.device)
    row |= {"effective_rank": round(found.effective_rank, 3), "mean_cosine": round(found.mean_cosine, 5)}
    # Early on all embeddings lie close together in every run; one that never parts them is lost.
    if found.collapsed and 2 * (state.epoch + 1) >= run.config.epochs >= _FEWEST_EPOCHS:
        raise TrainingError(
            f"the embeddings have collapsed (mean cosine {found.mean_cosine:.4f}, effective rank "
            f"{found.effective_rank:.2f} after epoch {state.epoch + 1} of {run.config.epochs}): lower --lr or --eps, "
            "or raise --epochs, and train into another --out"
        )
    row["seconds"] = round(state.seconds + time.monotonic() - started, 3)
    return row
