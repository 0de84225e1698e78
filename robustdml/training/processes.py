"""What a training that may be shared among several processes asks of them; in one process nothing of it does anything.

Row i of a batch belongs to process i modulo their number, in whatever branches it takes part. Labels are known to all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, distributed, nn

from robustdml.branches import Branch
from robustdml.devices import choose_device
from robustdml.errors import SpecError
from robustdml.launcher import launched

T = TypeVar("T")


class Processes(Protocol):
    """The processes that train one model on one global batch."""

    @property
    def rank(self) -> int:
        """Which of them this is, from 0; process 0 measures, writes files and shows progress."""
        ...

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    def choose_device(self, name: str) -> torch.device:
        """The device that this process works on.

        Raises:
            SpecError: no such device, or not one for each process.
        """
        ...

    def check(self, batch_size: int, branches: Sequence[Branch], spec: dict[str, Any]) -> None:
        """Refuse a batch that leaves a process idle, and processes that were told to make different runs.

        Raises:
            SpecError: one of these.
        """
        ...

    def own(self, rows: slice) -> slice:
        """Where the rows of this process that lie in ``rows`` of the batch stand among all of its rows."""
        ...

    def places(self, rows: slice) -> slice:
        """Where the rows of this process stand among ``rows`` of the batch."""
        ...

    def gather(self, values: Tensor, parts: Sequence[slice]) -> Tensor:
        """Put the values ``(n, …)`` of own rows, part after part, together with those of all: ``(N, …)``.

        A loss that every process computes of the result gives ``values`` the gradient that one process would give.
        """
        ...

    def extremes(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The smallest and the largest of all values; each process must have some."""
        ...

    def any(self, flag: bool) -> bool:
        """Whether it holds in any process."""
        ...

    def by_first(self, work: Callable[[], T]) -> T:
        """What ``work`` gives in process 0, which alone does it; the others wait.

        Raises:
            TrainingError: ``work`` raised it; in all processes.
        """
        ...

    def settle_gradients(self, model: nn.Module, loss: nn.Module) -> None:
        """After the backward pass, give every process the gradients that one process would have.

        Those of the model come from own rows and are summed. Those of the loss come from all rows already; process 0's
        are taken, so that not even rounding parts the processes.
        """
        ...

    def batchnorm(self) -> AbstractContextManager[object]:
        """Within the block, BatchNorm on batch statistics takes those of the rows of all processes."""
        ...

    def randomness(self, seed: int, *, shared: bool) -> AbstractContextManager[object]:
        """Within the block, global random numbers (dropout, miners) follow from the seed, and else are as before.

        Args:
            seed: of the step.
            shared: the same numbers in every process; else its own in each.
        """
        ...

    def one_voice(self) -> AbstractContextManager[object]:
        """Let an error in the block end all processes, and only one of them say why.

        Raises:
            EndedElsewhere: in all others.
        """
        ...


class Alone:
    """The only process: everything is its own, and there is nobody to talk to."""

    rank, count = 0, 1

    def choose_device(self, name: str) -> torch.device:
        """The device of that name."""
        return choose_device(name)

    def check(self, batch_size: int, branches: Sequence[Branch], spec: dict[str, Any]) -> None:
        """Nothing to refuse."""

    def own(self, rows: slice) -> slice:
        """All of them."""
        return rows

    def places(self, rows: slice) -> slice:
        """Everywhere."""
        return slice(None)

    def gather(self, values: Tensor, parts: Sequence[slice]) -> Tensor:
        """The values."""
        return values

    def extremes(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The smallest and the largest value."""
        return values.min(), values.max()

    def any(self, flag: bool) -> bool:
        """The flag."""
        return flag

    def by_first(self, work: Callable[[], T]) -> T:
        """What it gives."""
        return work()

    def settle_gradients(self, model: nn.Module, loss: nn.Module) -> None:
        """They are those of one process."""

    def batchnorm(self) -> AbstractContextManager[object]:
        """Torch's own BatchNorm."""
        return nullcontext()

    def randomness(self, seed: int, *, shared: bool) -> AbstractContextManager[object]:
        """The global state as it is."""
        return nullcontext()

    def one_voice(self) -> AbstractContextManager[object]:
        """Errors as they are."""
        return nullcontext()


ALONE: Processes = Alone()


def join(device: str) -> Processes:
    """The processes that a launcher started, of which this is one; the same object at every call.

    Args:
        device: the name of a device, which says whether they meet for CPUs or for GPUs.

    Raises:
        SpecError: the launcher's environment variables cannot be, or the processes cannot meet.
    """
    if launched():
        from robustdml.training.distributed import Distributed

        return Distributed.meet(device)
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        raise SpecError(
            "torch.distributed is set up, and the environment variables of a launcher are not: start with torchrun or "
            "accelerate launch"
        )
    return ALONE
