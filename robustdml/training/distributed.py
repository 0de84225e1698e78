"""Several processes that a launcher started: the rows of a batch shared out, gradients and decisions put together.

Gloo on CPUs, NCCL on GPUs with gloo beside it for messages. Set-up and devices are accelerate's. Gradients are summed
after the backward pass, in one message: DistributedDataParallel would average them, and hide that the loss is global.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from robustdml.branches import Branch
from robustdml.devices import choose_device
from robustdml.errors import EndedElsewhere, ProcessLost, SpecError, Terminated, TrainingError
from robustdml.models import SynchronisedBatchNorm
from robustdml.seeding import derive_seed

T = TypeVar("T")

#: How long processes wait for the last one to start, and then for each other (process 0 validates alone meanwhile).
_MEETING, _WAITING = timedelta(minutes=10), timedelta(hours=12)


class _Gather(torch.autograd.Function):
    """Rows of all processes in their places; the gradient of own rows is theirs of the result."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, index: Tensor, total: int, add: Callable[[Tensor], None]) -> Tensor:
        ctx.save_for_backward(index)
        whole = values.new_zeros(total, *values.shape[1:])
        whole[index] = values
        add(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (index,) = ctx.saved_tensors
        return gradients[0][index], None, None, None


class Distributed:
    """One of several processes; see `robustdml.training.processes.Processes`.

    Args:
        rank: which, from 0.
        count: how many.
        device: where it works.
        store: what processes note down for each other, and can read when one of them is gone.
    """

    _met: Distributed | None = None

    def __init__(self, rank: int, count: int, device: torch.device, store: Store) -> None:
        self.rank, self.count = rank, count
        self._device, self._store = device, store
        self._depth = self._blocks = 0

    @classmethod
    def meet(cls, device: str) -> Distributed:
        """Meet the others, at the first call; later ones return the same object.

        Raises:
            SpecError: they cannot be found.
        """
        if cls._met is None:
            from accelerate import PartialState

            told = device.startswith("cpu") or os.environ.get("ACCELERATE_USE_CPU") == "True"
            cpu = told or not torch.cuda.is_available()
            backend = "gloo" if cpu else "cpu:gloo,cuda:nccl"
            # Left unset, accelerate would choose a number of threads, and warn of it.
            os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
            where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            try:
                store, rank, count = next(rendezvous("env://", timeout=_MEETING))
                settings = {"store": store, "rank": rank, "world_size": count, "timeout": _WAITING}
                state = PartialState(cpu=cpu, backend=backend, **settings)
            except (RuntimeError, ValueError) as error:
                raise SpecError(
                    f"the processes cannot meet at {where} ({_first_line(error)}): check the address and the port that "
                    "the launcher was given"
                ) from error
            cls._met = cls(state.process_index, state.num_processes, state.device, store)
        return cls._met

    def close(self) -> None:
        """Leave the others, for good."""
        distributed.destroy_process_group()

    def choose_device(self, name: str) -> torch.device:
        """The GPU of this process, or the CPU."""
        wanted = choose_device(name)
        if name != "auto" and (wanted.type != self._device.type or wanted.index is not None):
            raise SpecError(f"device '{name}': several processes work on cpu, or on a GPU each with cuda or auto")
        if self._device.type == "cpu":
            return self._device
        # accelerate counts round where there are too few.
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise SpecError(
                f"process {local + 1} on this machine finds {torch.cuda.device_count()} GPUs: start as many processes "
                "as there are GPUs"
            )
        return self._device

    def check(self, batch_size: int, branches: Sequence[Branch], spec: dict[str, Any]) -> None:
        """Refuse idle processes, and different runs."""
        parts = [branch.rows(batch_size) for branch in branches]
        for rank in range(self.count):
            if not any((rank - part.start) % self.count < part.stop - part.start for part in parts):
                raise SpecError(
                    f"a batch of {batch_size} has no image for process {rank + 1} of {self.count}: start fewer "
                    "processes, or raise --batch-size"
                )
        first = self.by_first(lambda: spec)
        differing = sorted(key for key in {*spec, *first} if spec.get(key) != first.get(key))
        if differing:
            raise SpecError(
                f"the processes were started for different runs (they differ in: {', '.join(differing)}): give each "
                "the same command and the same data"
            )

    def own(self, rows: slice) -> slice:
        """Own rows stand in order, so those of a part are a run of them."""
        before, upto = (-(-(edge - self.rank) // self.count) for edge in (rows.start, rows.stop))
        return slice(max(before, 0), max(upto, 0))

    def places(self, rows: slice) -> slice:
        """Every so many, from the first that is this process's."""
        return slice((self.rank - rows.start) % self.count, None, self.count)

    def gather(self, values: Tensor, parts: Sequence[slice]) -> Tensor:
        """By a sum over processes of which each fills in its rows."""
        index: list[int] = []
        total = 0
        for rows in parts:
            length = rows.stop - rows.start
            index += range(total, total + length)[self.places(rows)]
            total += length
        where = torch.tensor(index, dtype=torch.long, device=values.device)
        return _Gather.apply(values, where, total, self.sum)  # type: ignore[no-any-return]

    def extremes(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """By one message."""
        found = torch.stack([-values.min(), values.max()])
        self._call(distributed.all_reduce, found, distributed.ReduceOp.MAX)
        return -found[0], found[1]

    def any(self, flag: bool) -> bool:
        """By a message between CPUs."""
        found = torch.tensor([int(flag)])
        self._call(distributed.all_reduce, found, distributed.ReduceOp.MAX)
        return bool(found)

    def by_first(self, work: Callable[[], T]) -> T:
        """By a message between CPUs."""
        box: list[Any] = [None, ""]
        if self.rank == 0:
            try:
                box[0] = work()
            except TrainingError as error:
                box[1] = str(error)
        self._call(distributed.broadcast_object_list, box, 0)
        if box[1]:
            raise TrainingError(box[1])
        return box[0]  # type: ignore[no-any-return]

    def sum(self, values: Tensor) -> None:
        """In place; the same bits in every process."""
        self._call(distributed.all_reduce, values)

    def settle_gradients(self, model: nn.Module, loss: nn.Module) -> None:
        """One message for the model, one for what the loss learns."""
        learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
        # A parameter that took no part here (a skipped layer, say) may have taken part elsewhere.
        used = torch.tensor([parameter.grad is not None for parameter in learned], dtype=torch.uint8)
        self._call(distributed.all_reduce, used, distributed.ReduceOp.MAX)
        gradients = []
        for parameter in (learned[index] for index in used.nonzero().flatten().tolist()):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        self._together(gradients, self.sum)
        centres = [parameter.grad for parameter in loss.parameters() if parameter.grad is not None]
        self._together(centres, lambda values: self._call(distributed.broadcast, values, 0))

    @staticmethod
    def _together(tensors: Sequence[Tensor], send: Callable[[Tensor], None]) -> None:
        """Send many tensors as one, in place."""
        if not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        send(flat)
        for tensor, values in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(values.view_as(tensor))

    def batchnorm(self) -> SynchronisedBatchNorm:
        """Statistics over all rows."""
        return SynchronisedBatchNorm(self)

    @contextmanager
    def randomness(self, seed: int, *, shared: bool) -> Iterator[None]:
        """Torch's and NumPy's, which layers and miners draw from."""
        derived = derive_seed(seed, "global", "all" if shared else self.rank)
        cuda = self._device.type == "cuda"
        before = np.random.get_state()
        with torch.random.fork_rng(devices=[self._device] if cuda else []):
            torch.default_generator.manual_seed(derived)
            if cuda:
                torch.cuda.manual_seed(derived)
            np.random.seed(derived % 2**32)
            try:
                yield
            finally:
                np.random.set_state(before)

    @contextmanager
    def one_voice(self) -> Iterator[None]:
        """The first process that notes down its error says it; blocks within blocks leave it to the outermost."""
        if self._depth:
            yield
            return
        self._depth, self._blocks = 1, self._blocks + 1
        try:
            yield
        except BaseException as error:
            first = self._speaks_first()
            if isinstance(error, Terminated):
                # All end here together, and none waits for another: each stays until all have noted that down.
                with suppress(ProcessLost):
                    self.any(False)
            elif self._device.type == "cpu":
                # The others may be waiting for this process; with its connections closed they learn of it at once.
                self.close()
            if first:
                raise
            interrupted = 130 if isinstance(error, KeyboardInterrupt) else 2
            raise EndedElsewhere(getattr(error, "exit_code", interrupted)) from error
        finally:
            self._depth = 0

    def _speaks_first(self) -> bool:
        try:
            return int(self._store.add(f"robustdml/ended/{self._blocks}", 1)) == 1
        except RuntimeError:
            return True  # Whoever kept the notes is gone: better said twice than not at all.

    def _call(self, operation: Callable[..., object], *arguments: object) -> None:
        try:
            operation(*arguments)
        except (RuntimeError, ValueError) as error:
            raise ProcessLost(
                f"another process of this training is gone ({_first_line(error)}): see what the launcher says of it, "
                "then repeat the command to go on"
            ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
