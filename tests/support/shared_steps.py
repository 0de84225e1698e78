"""Steps that several processes take together, each case once; importable by the processes that a test starts."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import multiprocessing

from robustdml.attacks import GOALS
from robustdml.branches import Branch, Method
from robustdml.config import RunOptions, TrainConfig
from robustdml.data import load_dataset
from robustdml.models import EmbeddingModel, ModelConfig, convert_to_multibn, freeze_batchnorm
from robustdml.training import METHODS, build_loss, step_loss, train
from robustdml.training import step as training_step
from robustdml.training.adversarial import example_maker
from robustdml.training.optimizer import Optimizer
from robustdml.training.processes import Processes, join
from robustdml.training.step import Autocast

Found = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Case:
    """One step: the method, what it learns from, and how many images."""

    method: Method
    images: int = 16
    loss: str = "multisimilarity"
    arithmetic: str = "pixels"
    clip: float = 0.0
    precision: str = "fp32"
    backbone: str = "resnet-tiny"


#: With two processes, the second has no row of the last branch.
ONE_ROW = Method("a branch of one row", (Branch("clean"), Branch("unadversarial", "own", part=(0.0, 1 / 16))))

MARGIN = Method("over the margin, in two steps", (Branch("clean"), Branch("margin", "margin", (0.0, 0.75), steps=2)))

CASES = {
    "mdprop": Case(METHODS["mdprop"]),
    "odd": Case(METHODS["mdprop"], images=17),
    "four branches": Case(METHODS["mp3"], images=27),
    "frozen": Case(METHODS["at-frozen"]),
    "arcface": Case(METHODS["mdprop"], loss="arcface(scale=8)"),
    "s2sd": Case(METHODS["mdprop"], loss="s2sd(dims='8-12', start=0)"),
    "clipped": Case(METHODS["st"], clip=0.01),
    "published": Case(METHODS["mdprop"], arithmetic="published"),
    "unadversarial": Case(METHODS["unadversarial"]),
    "margin": Case(MARGIN),
    "empty": Case(ONE_ROW),
    "random triplets": Case(METHODS["st"], loss="TripletMarginLoss(triplets_per_anchor=2)"),
    "half precision": Case(METHODS["mdprop"], precision="bf16"),
}


def take_step(case: Case, processes: Processes) -> Found:
    """The loss, all gradients and all buffers after one step."""
    torch.manual_seed(0)
    config = TrainConfig(
        backbone=case.backbone, embedding_dim=8, image_size=32, eps=16 / 255, targets=2, batch_size=case.images,
        arithmetic=case.arithmetic, clip_gradient=case.clip, loss=case.loss, loss_learning_rate=1e-3,
    )  # fmt: skip
    model = EmbeddingModel(ModelConfig(config.backbone, 8, 32))
    loss = build_loss(case.loss, None, classes=4, embedding_dim=8, features=model.head.in_features)
    if len(case.method.batchnorms) > 1:
        convert_to_multibn(model, case.method.batchnorms)
    makers = {
        branch: example_maker(branch, config, model, GOALS, processes)
        for branch in case.method.branches
        if branch.kind != "clean"
    }
    images, labels = torch.rand(case.images, 3, 32, 32), torch.arange(case.images) % 4
    if case.precision == "fp32":
        # In float32 a value now and then lies so near the kink of a ReLU that rounding decides on which side.
        model, images = model.double(), images.double()
    network = Autocast(model, torch.device("cpu"), case.precision == "bf16").train()
    if case.method.frozen_batchnorm:
        freeze_batchnorm(network)
    optimizer = Optimizer(model, loss, config, processes)
    torch.manual_seed(processes.rank)  # What processes did before must not part them.
    own = images[processes.rank :: processes.count]
    value = step_loss(network, own, labels, case.method.branches, makers, loss, seed=3, processes=processes)
    optimizer.step(value)
    found = {"loss": value.detach()}
    for prefix, module in (("model", model), ("loss", loss)):
        gradients = {name: part.grad for name, part in module.named_parameters() if part.grad is not None}
        found |= {f"{prefix} gradient {name}": gradient for name, gradient in gradients.items()}
        found |= {f"{prefix} buffer {name}": buffer.clone() for name, buffer in module.named_buffers()}
    return found


def take_all_steps(rank: int, count: int, port: int, folder: Path) -> None:
    """Every case, in one process of several; the results are left in ``folder``."""
    join_as(rank, count, port)
    torch.save({name: take_step(case, join("cpu")) for name, case in CASES.items()}, folder / f"{rank}.pt")


def fail_in_a_step(rank: int, count: int, port: int, folder: Path) -> None:
    """A training whose attack fails in the second process alone; the error is left in ``folder``."""
    join_as(rank, count, port)
    calls, make = [], training_step.make_together

    def fails(*arguments: object, **options: object) -> list[torch.Tensor]:
        calls.append(arguments)
        return make(*arguments, **options) if rank == 0 or len(calls) < 2 else 1 / 0

    training_step.make_together = fails
    config = TrainConfig(backbone="resnet-tiny", embedding_dim=8, batch_size=60, image_size=16)
    try:
        train(load_dataset("digits"), config, folder / "run", goals=GOALS, options=RunOptions("cpu", False))
    except Exception as error:
        error.__cause__ = error.__context__ = None
        (folder / str(rank)).write_bytes(pickle.dumps(error))


def join_as(rank: int, count: int, port: int) -> None:
    """Say what a launcher would say."""
    torch.set_num_threads(1)
    os.environ |= launcher_variables(rank, count, port)


def launcher_variables(rank: int, count: int, port: int) -> dict[str, str]:
    """What a launcher tells a process."""
    who = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    return {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in who.items()}}


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def start(work: Callable[..., None], count: int, *arguments: object) -> None:
    """Run ``work(rank, count, port, *arguments)`` in as many new processes; its errors are raised here."""
    multiprocessing.spawn(work, (count, free_port(), *arguments), nprocs=count)
