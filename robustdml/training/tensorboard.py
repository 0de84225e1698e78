"""A run in TensorBoard: what ``metrics.jsonl`` says of each epoch, and the loss of each step.

Every start of a run writes its event file anew. A run that was killed has shown steps that it then makes again; each
must be found once by whatever reads the file, and TensorBoard's own mark for that (``purge_step``) is heeded by
TensorBoard alone.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robustdml.errors import MissingPackageError

TENSORBOARD_FOLDER = "tensorboard"
_STEP_LOSS = "step/loss"
#: Seconds until a step is on the disk at the latest, where someone may be watching.
_FLUSH_SECONDS = 10


def check_tensorboard() -> None:
    """Make sure that TensorBoard can be written to.

    Raises:
        MissingPackageError: it is not installed, or cannot be imported.
    """
    try:
        importlib.import_module("torch.utils.tensorboard")
    except Exception as error:  # Beside a protobuf that does not fit, the import fails in ways of its own.
        raise MissingPackageError(
            f"--tensorboard needs the package tensorboard ({' '.join(str(error).split())}): "
            "pip install 'robustdml[tensorboard]', or leave --tensorboard out"
        ) from None


class Curves:
    """The numbers of a run, as they are shown.

    Args:
        writer: a ``SummaryWriter``, or None: then nothing is shown.
    """

    def __init__(self, writer: Any = None) -> None:
        self._writer = writer

    def step(self, number: int, loss: float, *, at: float | None = None) -> None:
        """Show the loss of a step.

        Args:
            number: of the step in the run, from 1.
            at: when it was, in seconds since 1970; None is now.
        """
        if self._writer:
            self._writer.add_scalar(_STEP_LOSS, loss, number, walltime=at)

    def flush(self) -> None:
        """Bring all that was shown to the disk, before the state is saved that goes on from there."""
        if self._writer:
            self._writer.flush()

    def epoch(self, row: Mapping[str, float], *, at: float | None = None) -> None:
        """Show a row of ``metrics.jsonl``, and bring all that was shown to the disk.

        Called before the row is saved, so that no step is missing from those of a run that goes on from there.
        """
        if self._writer:
            at = time.time() if at is None else at  # one time for the whole row
            for name, value in row.items():
                if name != "epoch":
                    self._writer.add_scalar(_tag(name), value, int(row["epoch"]), walltime=at)
            self._writer.flush()


@contextmanager
def open_tensorboard(
    out: Path, history: Sequence[Mapping[str, float]], done: int, *, enabled: bool
) -> Iterator[Curves]:
    """The curves of a run for the block, with everything on them that is finished, each epoch and step once.

    Epochs are those of the history, whether they were shown before or not. Losses of steps are kept nowhere else: those
    of an earlier start without TensorBoard are missing.

    Args:
        out: the run folder; the event file lies in its ``tensorboard/``.
        history: the rows of ``metrics.jsonl``.
        done: finished steps; those beyond them will be made again, and their losses are taken away.
        enabled: else nothing is written, and nothing that is there is touched.
    """
    if not enabled:
        yield Curves()
        return
    from torch.utils.tensorboard import SummaryWriter

    folder = out / TENSORBOARD_FOLDER
    before = _scalars(folder)
    old = list(folder.glob("events.out.tfevents.*"))
    writer = SummaryWriter(str(folder), flush_secs=_FLUSH_SECONDS)
    try:
        curves = Curves(writer)
        for number, (at, loss) in sorted(before.get(_STEP_LOSS, {}).items()):
            if number <= done:
                curves.step(number, loss, at=at)
        for row in history:
            shown = before.get(_tag("loss"), {}).get(int(row["epoch"]))
            curves.epoch(row, at=shown[0] if shown else None)
        # Only now: a kill between these lines leaves two files that say the same.
        writer.flush()
        for path in old:
            path.unlink()
        yield curves
    finally:
        writer.close()


def _tag(name: str) -> str:
    return f"epoch/{name}"


def _scalars(folder: Path) -> dict[str, dict[int, tuple[float, float]]]:
    """What the event files of a folder hold: for each tag and step, when it was written and the value."""
    if not folder.is_dir():
        return {}
    reader: Any = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    # 0: all of them. A file that was cut off while it was written gives what it holds up to there.
    events = reader.EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {
        tag: {event.step: (event.wall_time, event.value) for event in events.Scalars(tag)}
        for tag in events.Tags()["scalars"]
    }
