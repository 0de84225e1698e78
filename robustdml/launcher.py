"""Whether a launcher (torchrun, accelerate launch) started this process as one of several. Imports no torch."""

from __future__ import annotations

import os

from robustdml.errors import SpecError

#: What a launcher tells each process, and where the processes find each other.
_WHO = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
_WHERE = ("MASTER_ADDR", "MASTER_PORT")
_REMEDY = "start with torchrun or accelerate launch, or unset them to train in one process"


def launched() -> bool:
    """Whether this process is one of several; a launcher that started a single one has nothing to say.

    Raises:
        SpecError: the environment variables of a launcher are incomplete or contradict each other.
    """
    given = [name for name in _WHO if os.environ.get(name)]
    if not given:
        # On a machine without GPUs `accelerate launch --num_processes 2` prepares for two and starts one.
        if "ACCELERATE_MIXED_PRECISION" in os.environ and all(name in os.environ for name in _WHERE):
            raise SpecError(
                "accelerate launch was asked for several processes and started one: add --multi_gpu (on CPUs too), or "
                "use torchrun --nproc_per_node"
            )
        return False
    if os.environ.get("WORLD_SIZE") == "1":
        return False
    missing = [name for name in (*_WHO, *_WHERE) if not os.environ.get(name)]
    if missing:
        raise SpecError(
            f"the environment has {', '.join(given)} of a launcher and lacks {', '.join(missing)}: {_REMEDY}"
        )
    numbers = [os.environ[name] for name in (*_WHO, "MASTER_PORT")]
    rank, local, count, _ = (int(value) if value.isdecimal() else -1 for value in numbers)
    if not 0 <= rank < count or not 0 <= local < count or not numbers[3].isdecimal():
        shown = ", ".join(f"{name}={os.environ[name]}" for name in (*_WHO, "MASTER_PORT"))
        raise SpecError(f"the environment variables of a launcher contradict each other ({shown}): {_REMEDY}")
    return True


def is_first() -> bool:
    """Whether this process is the only one or the first, and so says what all find alike before they have met."""
    try:
        return not launched() or int(os.environ["RANK"]) == 0
    except SpecError:
        return True
