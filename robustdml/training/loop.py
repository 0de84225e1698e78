"""The training loop: epochs, validation, files, resume.

Every random choice of an epoch (batches, augmentation, targets, start noise) follows from the seed, the epoch and the
step alone. A run that was stopped goes on from its last finished epoch and ends with the same weights. Several
processes walk through it together, each with its rows of every batch; process 0 measures and writes.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event

import numpy as np
import torch
from torch import nn

from robustdml._version import __version__
from robustdml.config import DEFAULT_OPTIONS, RunOptions, TrainConfig
from robustdml.contracts import AttackBuilder
from robustdml.data import RetrievalDataset
from robustdml.data.tensors import ImageTensors, TrainTensors
from robustdml.errors import SpecError, Terminated, TrainingError
from robustdml.files import claim_run_folder, write_text
from robustdml.models import (
    EmbeddingModel,
    ModelConfig,
    check_backbone,
    convert_to_multibn,
    freeze_batchnorm,
    save_checkpoint,
)
from robustdml.progress import Advance, progress
from robustdml.retrieval import clean_health, clean_recall
from robustdml.seeding import derive_seed, stream
from robustdml.training.examples import check_parts, example_maker
from robustdml.training.losses import build_loss
from robustdml.training.methods import METHODS
from robustdml.training.optimizer import Update
from robustdml.training.processes import Processes, join
from robustdml.training.schedule import batches, fitting_m_per_class, rate
from robustdml.training.state import TrainingState, TrainResult, load_state, read_state, save_state
from robustdml.training.step import Autocast, step_loss
from robustdml.training.tensorboard import Board, check_tensorboard, open_board
from robustdml.training.termination import termination

METRICS_FILE = "metrics.jsonl"
#: Training images whose embeddings show each epoch whether the space is alive.
_WATCHED = 256
#: Runs of fewer epochs are trials: they are not stopped for a collapse.
_FEWEST_EPOCHS = 4


def train(
    dataset: RetrievalDataset,
    config: TrainConfig,
    out: str | Path,
    *,
    build_attack: AttackBuilder,
    options: RunOptions = DEFAULT_OPTIONS,
) -> TrainResult:
    """Train an embedding model, or go on with a run that was stopped.

    Started by torchrun or accelerate launch, it is one of several processes that train one model, and all return it.

    Args:
        dataset: its training rows are used; its test rows are never looked at.
        config: everything that changes the weights.
        out: the run folder; the same call again resumes it, or returns at once where it had finished.
        build_attack: `robustdml.attacks.build_attack`, or another builder with that signature.

    Raises:
        UnknownNameError: no such method, backbone or loss.
        SpecError: values that do not fit each other or the data.
        RunFolderError: ``out`` holds another run.
        DataError: an image cannot be read.
        MissingPackageError: ``options.tensorboard`` without TensorBoard.
        TrainingError: the loss is not finite, or the embeddings have collapsed; the best epoch before is kept.
        Terminated: the process was asked to end (SIGTERM); everything up to that step is saved.
        EndedElsewhere: another of several processes met one of these.
    """
    processes = join(options.device)
    with processes.one_voice():
        return _Run(dataset, config, Path(out), build_attack, options, processes).go()


class _Run:
    """One call of `train`: its parts, and the epochs over them."""

    def __init__(
        self,
        dataset: RetrievalDataset,
        config: TrainConfig,
        out: Path,
        build_attack: AttackBuilder,
        options: RunOptions,
        processes: Processes,
    ) -> None:
        if options.tensorboard:
            check_tensorboard()
        self.processes, self.first = processes, processes.rank == 0
        self.method = config.recipe or METHODS[config.method]
        size = config.image_size or dataset.image_size
        model_config = ModelConfig(config.backbone, config.embedding_dim, size, resize=config.resize)
        if not config.pretrained:
            # Weights from scratch are made for what they are trained on, and that is what they keep.
            model_config = replace(model_config, resize=config.resize or size, squash=False, interpolation="bilinear")
        if not check_backbone(model_config) and len(self.method.batchnorms) > 1:
            raise SpecError(
                f"method '{config.method}' needs BatchNorm, '{config.backbone}' has none: choose a ResNet, or a method "
                "with one BatchNorm (st, at)"
            )
        held_out = config.validation_classes
        if held_out is None:
            held_out = len(np.unique(dataset.labels[dataset.train])) // 10
        if config.patience is not None and not held_out:
            raise SpecError(
                f"patience={config.patience} waits for a better validation R@1, and no class is held out for it: raise "
                "--validation-classes, or leave --patience out"
            )
        self.rows, self.validation = dataset.split_validation(held_out, config.seed)
        self.labels = dataset.labels[self.rows]
        # Losses that learn a centre per class count classes from 0.
        self.classes, places = np.unique(self.labels, return_inverse=True)
        self.place_of = dict(zip(self.rows.tolist(), places.tolist(), strict=True))
        classes = len(self.classes)
        m_per_class = fitting_m_per_class(config.batch_size, classes, config.m_per_class, held_out)
        self.config = replace(config, image_size=size, m_per_class=m_per_class, validation_classes=held_out)
        self.dataset, self.out, self.options = dataset, out, options
        self.device = processes.choose_device(options.device)
        check_parts(self.config, self.method.branches)
        self.spec = {
            "kind": "train",
            "version": __version__,
            "dataset": dataset.name,
            "dataset_fingerprint": dataset.fingerprint(),
            **self.config.to_dict(),
        }
        processes.check(config.batch_size, self.method.branches, self.spec)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = EmbeddingModel(model_config, pretrained=config.pretrained)
            sizes = {"embedding_dim": config.embedding_dim, "features": self.model.head.in_features}
            self.loss = build_loss(config.loss, config.miner, classes=classes, **sizes)
        if len(self.method.batchnorms) > 1:
            convert_to_multibn(self.model, self.method.batchnorms)
        self.makers = {
            branch: example_maker(branch, self.config, self.model, build_attack, processes)
            for branch in self.method.branches
            if branch.kind != "clean"
        }
        self.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.loss.to(self.device)
        self.update = Update(self.model, self.loss, config, processes)
        #: Whatever has a state, by the name under which it is saved.
        self.modules: dict[str, nn.Module] = {"model": self.model, "loss": self.loss}
        if self.update.average:
            self.modules["average"] = self.update.average
        self.watched = np.sort(stream(config.seed, "watched", 0).permutation(self.rows)[:_WATCHED])
        self.views = ImageTensors(dataset.images, self.model.preprocessing)
        self.images = TrainTensors(self.views, dataset.augmentation)
        self.shown = options.progress and self.first
        self._read_images()
        self.processes.by_first(lambda: claim_run_folder(out, self.spec))

    def _read_images(self) -> None:
        """Decode every training image once, so that a corrupt one is found now and not hours later; each its share."""
        rows = self.rows[self.processes.rank :: self.processes.count]
        with progress("read images", len(rows), enabled=self.shown) as advance:
            for row in rows:
                self.views.original(int(row))
                advance(1)
        self.processes.any(False)  # The folder is claimed when all have read theirs.

    def go(self) -> TrainResult:
        config = self.config
        state = self._resume()
        steps = max(len(self.rows), config.batch_size) // config.batch_size
        done = state.epoch * steps + state.step
        with (
            self._salvage(state),
            open_board(self.out, state.history, done, enabled=self.options.tensorboard and self.first) as board,
            progress("train", config.epochs * steps, enabled=self.shown, done=done) as advance,
            termination() as asked,
        ):
            while state.epoch < config.epochs and not self._patience_is_over(state):
                started = time.monotonic()
                self._epoch(state, steps, advance, board, asked)
                row = self.processes.by_first(partial(self._row, state, steps, started))
                board.epoch(row)
                self._close_epoch(state, row)
        return TrainResult(self.out, self._keep(state), state.history, state.best_epoch)

    def _keep(self, state: TrainingState) -> EmbeddingModel:
        """Write the model of the best epoch, and return it; no process goes on before it is written."""
        best = copy.deepcopy(self.model).cpu()
        best.load_state_dict(state.best_weights)
        about = {**self.spec, "kept_epoch": state.best_epoch}
        self.processes.by_first(lambda: save_checkpoint(best, self.out, about))
        return best.eval()

    @contextmanager
    def _salvage(self, state: TrainingState) -> Iterator[None]:
        """Where training cannot go on in the block, leave the model that was the best until then, and say so."""
        try:
            yield
        except TrainingError as error:
            if not state.best_epoch:
                raise
            self._keep(state)
            raise TrainingError(f"{error}; the model of epoch {state.best_epoch} is kept in '{self.out}'") from None

    def _resume(self) -> TrainingState:
        """Where an earlier run stopped, or the beginning; only process 0 need see the run folder."""
        saved = self.processes.by_first(lambda: read_state(self.out))
        return TrainingState() if saved is None else load_state(saved, self.out, self.modules, self.update.optimizer)

    def _save(self, state: TrainingState) -> None:
        self.processes.by_first(lambda: save_state(self.out, state, self.modules, self.update.optimizer))

    def _patience_is_over(self, state: TrainingState) -> bool:
        patience = self.config.patience
        return patience is not None and bool(self.validation) and state.epoch - state.best_epoch >= patience

    def _epoch(self, state: TrainingState, steps: int, advance: Advance, board: Board, asked: Event) -> None:
        """The rest of the epoch that ``state`` stands in, from its step on."""
        config, epoch, started = self.config, state.epoch, time.monotonic()
        network = Autocast(self.model, self.device, config.precision == "bf16")
        network.train()
        if self.method.frozen_batchnorm:
            freeze_batchnorm(network)
        seed = derive_seed(config.seed, "epoch", epoch)
        own = slice(self.processes.rank, None, self.processes.count)
        assert config.m_per_class is not None
        for step, rows in enumerate(batches(self.rows, self.labels, config.batch_size, config.m_per_class, seed)):
            if step < state.step:
                continue
            images = self.images.batch(rows[own], [derive_seed(seed, step, i) for i in range(len(rows))[own]])
            if self.processes.any(asked.is_set()):
                state.seconds += time.monotonic() - started
                self._save(state)
                raise Terminated(
                    f"stopped on request in epoch {epoch + 1}, step {step + 1}: repeat the command to go on from there"
                )
            images = images.to(self.device, memory_format=torch.channels_last)
            labels = torch.tensor([self.place_of[row] for row in rows.tolist()], device=self.device)
            self.update.set_rate(rate(config.schedule, epoch * steps + step, config.epochs * steps))
            value = step_loss(
                network,
                images,
                labels,
                self.method.branches,
                self.makers,
                self.loss,
                seed=derive_seed(seed, "step", step),
                processes=self.processes,
            )
            if self.processes.any(not torch.isfinite(value)):
                lower = "lower --lr, or use --precision fp32," if config.precision == "bf16" else "lower --lr,"
                raise TrainingError(
                    f"the loss is {float(value.detach())} in epoch {epoch + 1}, step {step + 1}: {lower} and train "
                    "into another --out"
                )
            self.update.step(value)
            lost = float(value.detach())
            state.total, state.step = state.total + lost, state.step + 1
            board.step(epoch * steps + state.step, lost)
            advance(1, f"epoch {epoch + 1}/{config.epochs}, loss {state.total / state.step:.3f}")

    def _row(self, state: TrainingState, steps: int, started: float) -> dict[str, float]:
        """What ``metrics.jsonl`` says of the epoch that ``state`` has walked through."""
        row: dict[str, float] = {"epoch": state.epoch + 1, "loss": state.total / steps}
        row |= {"learning_rate": self.update.optimizer.param_groups[0]["lr"], **self._measure(state.epoch)}
        row["seconds"] = round(state.seconds + time.monotonic() - started, 3)
        return row

    def _measure(self, epoch: int) -> dict[str, float]:
        """How the model stands after an epoch.

        Raises:
            TrainingError: half of the epochs are over and its embeddings are still all the same.
        """
        row: dict[str, float] = {}
        if self.validation:
            row["validation_recall_at_1"] = clean_recall(self.update.kept, self.validation, self.views, self.device)
        found = clean_health(self.update.kept, self.watched, self.views, self.device)
        row |= {"effective_rank": round(found.effective_rank, 3), "mean_cosine": round(found.mean_cosine, 5)}
        # Early on all embeddings lie close together in every run; one that never parts them is lost.
        if found.collapsed and 2 * (epoch + 1) >= self.config.epochs >= _FEWEST_EPOCHS:
            raise TrainingError(
                f"the embeddings have collapsed (mean cosine {found.mean_cosine:.4f}, effective rank "
                f"{found.effective_rank:.2f} after epoch {epoch + 1} of {self.config.epochs}): lower --lr or --eps, or "
                "raise --epochs, and train into another --out"
            )
        return row

    def _close_epoch(self, state: TrainingState, row: dict[str, float]) -> None:
        state.epoch, state.step, state.total, state.seconds = state.epoch + 1, 0, 0.0, 0.0
        state.history.append(row)
        # Without validation the last epoch is kept: choosing by the test set would flatter the result.
        value = row.get("validation_recall_at_1", float(state.epoch))
        if value > state.best_value:
            state.best_value, state.best_epoch = value, state.epoch
            state.best_weights = {
                name: tensor.detach().cpu().clone() for name, tensor in self.update.kept.state_dict().items()
            }
        self._save(state)
        if self.first:
            write_text(self.out / METRICS_FILE, "".join(json.dumps(line) + "\n" for line in state.history))
