"""The training loop: epochs, validation, files, resume.

Every random choice of an epoch (batches, augmentation, targets, start noise) follows from the seed, the epoch and the
step alone. A run that was stopped goes on from its last finished epoch and ends with the same weights.
"""

from __future__ import annotations

import copy
import json
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from robustdml._version import __version__
from robustdml.config import DEFAULT_OPTIONS, RunOptions, TrainConfig
from robustdml.contracts import AttackBuilder
from robustdml.data import RetrievalDataset
from robustdml.data.tensors import ImageTensors, TrainTensors
from robustdml.devices import choose_device
from robustdml.errors import SpecError, TrainingError
from robustdml.evaluation.recall import clean_recall
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
from robustdml.seeding import derive_seed
from robustdml.training.losses import build_loss
from robustdml.training.methods import METHODS, Branch
from robustdml.training.published import PublishedExamples
from robustdml.training.schedule import batch_layout, batches, fitting_m_per_class, rate
from robustdml.training.state import TrainingState, load_state, save_state
from robustdml.training.step import Autocast, ExampleMaker, step_loss

METRICS_FILE = "metrics.jsonl"


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


def train(
    dataset: RetrievalDataset,
    config: TrainConfig,
    out: str | Path,
    *,
    build_attack: AttackBuilder,
    options: RunOptions = DEFAULT_OPTIONS,
) -> TrainResult:
    """Train an embedding model, or go on with a run that was stopped.

    Args:
        dataset: its training rows are used; its test rows are never looked at.
        config: everything that changes the weights.
        out: the run folder; the same call again resumes it, or returns at once where it had finished.
        build_attack: `robustdml.attacks.build_attack`, or another builder with that signature.

    Raises:
        UnknownNameError: no such method, backbone or loss.
        SpecError: values that do not fit each other or the data.
        RunFolderError: ``out`` holds another run.
        TrainingError: the loss is not finite.
    """
    run = _Run(dataset, config, Path(out), build_attack, options)
    return run.go()


def _training_attack(branch: Branch, config: TrainConfig) -> tuple[str, float]:
    """The spec and budget of the attack that makes a branch's images: as published, a start close by, the last step."""
    targets = branch.targets or (config.targets if branch.kind == "mtax" else 1)
    own = f"targets={targets}, " if branch.kind in {"mtax", "unadversarial"} else ""
    steps = branch.steps or config.attack_steps
    spec = f"{branch.kind}({own}steps={steps}, step={1 / steps}, start=0.05, best=false)"
    return spec, config.eps if branch.eps is None else branch.eps


class _Run:
    """One call of `train`: its parts, and the epochs over them."""

    def __init__(
        self,
        dataset: RetrievalDataset,
        config: TrainConfig,
        out: Path,
        build_attack: AttackBuilder,
        options: RunOptions,
    ) -> None:
        self.method = config.recipe or METHODS[config.method]
        size = config.image_size or dataset.image_size
        model_config = ModelConfig(config.backbone, config.embedding_dim, size)
        if not check_backbone(model_config) and len(self.method.batchnorms) > 1:
            raise SpecError(f"method '{config.method}' needs BatchNorm, '{config.backbone}' has none: choose a ResNet")
        held_out = config.validation_classes
        if held_out is None:
            held_out = len(np.unique(dataset.labels[dataset.train])) // 10
        self.rows, self.validation = dataset.split_validation(held_out, config.seed)
        self.labels = dataset.labels[self.rows]
        # Losses that learn a centre per class count classes from 0.
        self.classes, places = np.unique(self.labels, return_inverse=True)
        self.place_of = dict(zip(self.rows.tolist(), places.tolist(), strict=True))
        classes = len(self.classes)
        m_per_class = fitting_m_per_class(config.batch_size, classes, config.m_per_class)
        self.config = replace(config, image_size=size, m_per_class=m_per_class, validation_classes=held_out)
        self.dataset, self.out, self.options = dataset, out, options
        self.device = choose_device(options.device)
        self._check_targets(m_per_class)
        self.spec = {
            "kind": "train",
            "version": __version__,
            "dataset": dataset.name,
            "dataset_fingerprint": dataset.fingerprint(),
            **self.config.to_dict(),
        }
        self.build_attack = build_attack
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = EmbeddingModel(model_config, pretrained=config.pretrained)
            self.loss = build_loss(config.loss, config.miner, classes=classes, embedding_dim=config.embedding_dim)
        if len(self.method.batchnorms) > 1:
            convert_to_multibn(self.model, self.method.batchnorms)
        makers = [branch for branch in self.method.branches if branch.kind != "clean"]
        self.attacks = {branch: self._maker(branch) for branch in makers}
        self.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.loss.to(self.device)
        groups = [{"params": list(self.model.parameters()), "peak": config.learning_rate}]
        if learned := list(self.loss.parameters()):
            groups.append({"params": learned, "peak": config.loss_learning_rate})
        self.optimizer = torch.optim.Adam(groups, lr=config.learning_rate, weight_decay=config.weight_decay)
        self.views = ImageTensors(dataset.images, size)
        self.images = TrainTensors(self.views, dataset.augmentation)
        self._read_images()
        claim_run_folder(out, self.spec)

    def _maker(self, branch: Branch) -> ExampleMaker:
        """What makes the images of a branch."""
        config = self.config
        if config.arithmetic == "pixels":
            return self.build_attack(*_training_attack(branch, config))
        if branch.kind not in {"stax", "mtax"}:
            raise SpecError(f"arithmetic 'published' knows STAX and MTAX, and no branch '{branch.kind}'")
        mean, std = (tuple(values.flatten().tolist()) for values in (self.model.mean, self.model.std))
        eps = config.eps if branch.eps is None else branch.eps
        targets = 1 if branch.kind == "stax" else branch.targets or config.targets
        return PublishedExamples(targets, eps, branch.steps or config.attack_steps, mean, std)

    def _read_images(self) -> None:
        """Decode every training image once, so that a corrupt one is found now and not hours later."""
        with progress("read images", len(self.rows), enabled=self.options.progress) as advance:
            for row in self.rows:
                self.views.original(int(row))
                advance(1)

    def _check_targets(self, m_per_class: int) -> None:
        """Refuse more targets than a part of the batch has images of other classes, before the first step does."""
        batch = self.config.batch_size
        layout = batch_layout(batch, m_per_class)
        for branch in self.method.branches:
            part = layout[branch.rows(batch)]
            foreign = len(part) - max(Counter(part).values())
            targets = branch.targets or self.config.targets
            if branch.kind == "mtax" and targets > foreign:
                raise SpecError(
                    f"targets={targets}: the MTAX part of a batch of {batch} has {foreign} images of other "
                    "classes to aim at: lower --targets or raise --batch-size"
                )

    def go(self) -> TrainResult:
        config = self.config
        state = load_state(self.out, self.model, self.loss, self.optimizer) or TrainingState()
        steps = max(len(self.rows), config.batch_size) // config.batch_size
        done = state.epoch * steps
        with progress("train", config.epochs * steps, enabled=self.options.progress, done=done) as advance:
            for epoch in range(state.epoch, config.epochs):
                started = time.monotonic()
                mean_loss = self._epoch(epoch, steps, advance)
                row: dict[str, float] = {"epoch": epoch + 1, "loss": mean_loss}
                if self.validation:
                    row["validation_recall_at_1"] = clean_recall(self.model, self.validation, self.views, self.device)
                row["seconds"] = round(time.monotonic() - started, 3)
                self._close_epoch(state, row)
        best = copy.deepcopy(self.model).cpu()
        best.load_state_dict(state.best_weights)
        about = {**self.spec, "kept_epoch": state.best_epoch}
        save_checkpoint(best, self.out, about)
        return TrainResult(self.out, best.eval(), state.history, state.best_epoch)

    def _epoch(self, epoch: int, steps: int, advance: Advance) -> float:
        config = self.config
        network = Autocast(self.model, self.device, config.precision == "bf16")
        network.train()
        if self.method.frozen_batchnorm:
            freeze_batchnorm(network)
        seed = derive_seed(config.seed, "epoch", epoch)
        total = 0.0
        assert config.m_per_class is not None
        for step, rows in enumerate(batches(self.rows, self.labels, config.batch_size, config.m_per_class, seed)):
            images = self.images.batch(rows, [derive_seed(seed, step, i) for i in range(len(rows))])
            images = images.to(self.device, memory_format=torch.channels_last)
            labels = torch.tensor([self.place_of[row] for row in rows.tolist()], device=self.device)
            for group in self.optimizer.param_groups:
                group["lr"] = group["peak"] * rate(config.schedule, epoch * steps + step, config.epochs * steps)
            value = step_loss(
                network,
                images,
                labels,
                self.method.branches,
                self.attacks,
                self.loss,
                seed=derive_seed(seed, "step", step),
            )
            if not torch.isfinite(value):
                raise TrainingError(
                    f"the loss is {float(value)} in epoch {epoch + 1}, step {step + 1}: lower --lr, or use "
                    f"--precision fp32; the epochs before are kept in '{self.out}'"
                )
            self.optimizer.zero_grad(set_to_none=True)
            value.backward()
            self.optimizer.step()
            total += float(value.detach())
            advance(1, f"epoch {epoch + 1}/{config.epochs}, loss {total / (step + 1):.3f}")
        return total / steps

    def _close_epoch(self, state: TrainingState, row: dict[str, float]) -> None:
        state.epoch += 1
        state.history.append(row)
        # Without validation the last epoch is kept: choosing by the test set would flatter the result.
        value = row.get("validation_recall_at_1", float(state.epoch))
        if value > state.best_value:
            state.best_value, state.best_epoch = value, state.epoch
            state.best_weights = {
                name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()
            }
        save_state(self.out, state, self.model, self.loss, self.optimizer)
        write_text(self.out / METRICS_FILE, "".join(json.dumps(line) + "\n" for line in state.history))
