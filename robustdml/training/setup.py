"""What a training works with: checked and made once, before its first step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from robustdml._version import __version__
from robustdml.branches import Branch, Method
from robustdml.config import RunOptions, TrainConfig
from robustdml.contracts import GoalClasses
from robustdml.data import RetrievalDataset, RetrievalSplit
from robustdml.data.augment import crop_scale
from robustdml.data.finding import LeftOut
from robustdml.data.survey import broken_images, leave_out_broken
from robustdml.data.tensors import ImageTensors, TrainTensors
from robustdml.devices import choose_device
from robustdml.errors import DataError, SpecError
from robustdml.launcher import launched
from robustdml.models import EmbeddingModel, ModelConfig, check_backbone, convert_to_multibn, find_backbone, lay_out
from robustdml.models.features import check_feature_map
from robustdml.preprocessing import Sides, height_and_width
from robustdml.progress import progress
from robustdml.seeding import stream
from robustdml.training.adversarial import check_parts, example_maker
from robustdml.training.losses import build_loss
from robustdml.training.methods import METHODS
from robustdml.training.optimizer import Optimizer
from robustdml.training.processes import Processes
from robustdml.training.schedule import fitting_m_per_class
from robustdml.training.step import ExampleMaker
from robustdml.training.tensorboard import check_tensorboard
from robustdml.training.trial import try_out

Integers = npt.NDArray[np.int64]

#: Training images whose embeddings show each epoch whether the space is alive.
_WATCHED = 256
#: Classes of a loss before it is known how many there are.
_A_FEW = 8


@dataclass(frozen=True)
class Images:
    """What is trained on and what shows how training goes."""

    rows: Integers  #: of the data set that are trained on, N of them
    places: Integers  #: their classes, counted from 0 without a gap
    validation: RetrievalSplit | None  #: of the classes that are held out, where some are
    watched: Integers  #: rows that show whether the space is alive
    views: ImageTensors  #: as they are measured
    augmented: TrainTensors  #: as they are trained on


@dataclass(frozen=True)
class Setup:
    """The parts of one call of `robustdml.training.train`."""

    config: TrainConfig  #: with all that it left open chosen
    method: Method
    spec: dict[str, Any]  #: what makes it this run and no other
    left_out: tuple[LeftOut, ...]  #: what is no part of the data
    images: Images
    model: EmbeddingModel
    loss: nn.Module
    makers: Mapping[Branch, ExampleMaker]  #: of the training images of each branch but the clean one
    optimizer: Optimizer
    processes: Processes
    device: torch.device  #: where this process works
    layout: torch.memory_format  #: of the images there
    options: RunOptions

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return max(len(self.images.rows), self.config.batch_size) // self.config.batch_size

    @property
    def writes(self) -> bool:
        """Whether this process measures, writes files and shows progress."""
        return self.processes.rank == 0

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Whatever has a state, by the name under which it is saved."""
        average = self.optimizer.average
        return {"model": self.model, "loss": self.loss, **({"average": average} if average else {})}


def check_early(config: TrainConfig, options: RunOptions) -> None:
    """Refuse what needs no data to be refused: names, losses and miners, a device that is not there.

    Raises:
        RobustDMLError: as `robustdml.training.train` would, later.
    """
    _ = config.recipe or METHODS[config.method]
    find_backbone(config.backbone)
    build_loss(config.loss, config.miner, classes=_A_FEW, embedding_dim=config.embedding_dim)
    if not launched():  # then each process has a device of its own
        choose_device(options.device)
    if options.tensorboard:
        check_tensorboard()


def set_up(
    dataset: RetrievalDataset,
    config: TrainConfig,
    goals: GoalClasses,
    options: RunOptions,
    processes: Processes,
    *,
    skip_broken: bool = False,
) -> Setup:
    """Check everything, then make it; see `robustdml.training.train` for the errors."""
    if options.tensorboard:
        check_tensorboard()
    dataset.check_trainable()
    shown = options.progress and processes.rank == 0
    if skip_broken:
        # Before anything is parted: which classes are held out is drawn from the images that there are.
        rows = dataset.train.tolist()
        broken = processes.by_first(lambda: _read(dataset.images.load, rows, shown=shown))
        dataset = leave_out_broken(dataset, broken)
        dataset.check_trainable()
    method = config.recipe or METHODS[config.method]
    model_config = _model_config(config, dataset.image_size)
    if not check_backbone(model_config) and len(method.batchnorms) > 1:
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
    rows, validation = dataset.split_validation(held_out, config.seed)
    there, places = np.unique(dataset.labels[rows], return_inverse=True)
    m_per_class = fitting_m_per_class(config.batch_size, len(there), config.m_per_class, held_out)
    weights = find_backbone(config.backbone).named_weights(config.weights or config.pretrained)
    config = replace(
        config,
        image_size=model_config.image_size,
        m_per_class=m_per_class,
        validation_classes=held_out,
        weights=weights,
        crop_scale=crop_scale(dataset.augmentation, config.crop_scale),
    )
    device = processes.choose_device(options.device)
    check_parts(config, method.branches)
    about = {"dataset": dataset.name, "dataset_fingerprint": dataset.fingerprint()}
    spec = {"kind": "train", "version": __version__, **about, **config.to_dict()}
    processes.check(config.batch_size, method.branches, spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = EmbeddingModel(model_config, pretrained=config.weights or config.pretrained)
        sizes = {"embedding_dim": config.embedding_dim, "features": model.head.in_features}
        loss = build_loss(config.loss, config.miner, classes=len(there), **sizes).to(device)
    if getattr(loss, "pooling", "average") != "average":
        check_feature_map(model)
    if len(method.batchnorms) > 1:
        convert_to_multibn(model, method.batchnorms)
    makers = {
        branch: example_maker(branch, config, model, goals, processes)
        for branch in method.branches
        if branch.kind != "clean"
    }
    layout = lay_out(model.to(device))
    try_out(model, layout, attacked=bool(makers))
    views = ImageTensors(dataset.images, model.preprocessing)
    # Every training image is decoded once, so that a corrupt one is found now and not hours later; each its share.
    share = rows[processes.rank :: processes.count].tolist()
    if unread := _read(views.original, share, shown=shown):
        raise broken_images(dataset, unread, len(rows))
    processes.any(False)  # None goes on before all have read theirs.
    watched = np.sort(stream(config.seed, "watched", 0).permutation(rows)[:_WATCHED])
    images = Images(
        rows, places, validation, watched, views, TrainTensors(views, dataset.augmentation, config.crop_scale)
    )
    optimizer = Optimizer(model, loss, config, processes)
    left_out = dataset.left_out
    return Setup(
        config, method, spec, left_out, images, model, loss, makers, optimizer, processes, device, layout, options
    )


def _model_config(config: TrainConfig, image_size: Sides) -> ModelConfig:
    size = config.image_size or image_size
    height, width = height_and_width(size)
    found = ModelConfig(config.backbone, config.embedding_dim, size, resize=config.resize, squash=config.squash or None)
    if config.pretrained:
        return found
    # Weights from scratch are made for what they are trained on, and that is what they keep.
    squash = config.squash or (height != width and config.resize is None)
    return replace(found, resize=config.resize or width, squash=squash, interpolation="bilinear")


def _read(read: Callable[[int], object], rows: Sequence[int], *, shown: bool) -> dict[int, str]:
    """Decode images, and say of those that cannot be read why."""
    broken: dict[int, str] = {}
    with progress("read images", len(rows), enabled=shown) as advance:
        for row in rows:
            try:
                read(row)
            except DataError as error:
                broken[row] = error.reason or str(error)
            advance(1)
    return broken
