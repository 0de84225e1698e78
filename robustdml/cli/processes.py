"""A command that may run in several processes speaks with one voice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from robustdml.launcher import launched


@contextmanager
def one_voice(device: str) -> Iterator[bool]:
    """Within the block, an error in any process ends all, and one of them says why; yields whether this one reports.

    Args:
        device: where the command works.

    Raises:
        SpecError: the processes cannot meet.
        EndedElsewhere: another process says why.
    """
    if not launched():
        yield True
        return
    from robustdml.training.distributed import Distributed

    processes = Distributed.meet(device)
    with processes.one_voice():
        yield processes.rank == 0
    processes.close()
