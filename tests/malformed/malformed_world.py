"""What malformed command lines are given that is in order: images, a model, an evaluation; and how one is run."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from command_line import write_images

from robustdml.attacks import GOALS, build_suite
from robustdml.cli import main
from robustdml.config import RunOptions, TrainConfig
from robustdml.data import load_dataset
from robustdml.evaluation import evaluate, load_subjects
from robustdml.reports import write_report
from robustdml.training import train

#: A case that computes longer has failed; and one that does not end is killed after so many seconds of computing, or by
#: the clock, which says nothing on a busy machine.
SECONDS, _COMPUTED, _KILLED = 10.0, 60, 1800.0
#: What a case may ask of memory beside what is there when it begins.
_MEMORY = 6 << 30

_FACTORIES = """
import os, sys, torch
class Text(torch.nn.Module):
    def forward(self, images): return "text"
def good():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 4))
def exits(): sys.exit(0)
def ends(): os._exit(0)
def raises(): raise ValueError("\\x1b[31m" + "long " * 500)
def surrogate(): raise ValueError("\\udcff \\x00")
def text(): return Text()
def nothing(): return None
def meta(): return torch.nn.Linear(4, 4, device="meta")
def lazy(): return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(4))
def stops(): raise KeyboardInterrupt
"""

#: Few and quick: a case that turns out to be in order is a whole training or evaluation.
TRAIN = [
    "--backbone", "resnet-tiny", "--image-size", "16", "--epochs", "1", "--batch-size", "18", "--method", "st",
    "--device", "cpu", "--quiet",
]  # fmt: skip


def make_world(root: Path) -> Path:
    """Images in ``tree``, a training in ``run``, evaluations in ``eval`` and ``other``, code in ``factories.py``."""
    trained = {f"train/{name}": 6 for name in ("red", "green", "blue")}
    write_images(root / "tree", {**trained, **{f"test/{name}": 4 for name in ("cyan", "pink", "grey")}})
    (root / "factories.py").write_text(_FACTORIES)
    data, quiet = load_dataset("folder", root / "tree"), RunOptions(device="cpu", progress=False)
    config = TrainConfig(method="st", backbone="resnet-tiny", image_size=16, epochs=1, batch_size=18)
    train(data, config, root / "run", goals=GOALS, options=quiet)
    for name in ("eval", "other"):
        suite = build_suite("noise" if name == "eval" else "fgsm(goal=margin)", "8/255")
        evaluate(load_subjects([str(root / "run")]), data, suite, out=root / name, options=quiet)
        write_report(root / name)
    return root


@dataclass(frozen=True)
class Outcome:
    """How a command line ended.

    Args:
        code: its exit code; below 0 the signal that ended it.
        output: all that it wrote, stdout and stderr.
        seconds: of computing.
    """

    code: int
    output: str
    seconds: float


def run_copy(arguments: Sequence[str], folder: Path) -> Outcome:
    """Run a command line in a copy of this process, which has imported everything, in ``folder``."""
    said = folder / ".said"
    process = os.fork()
    if not process:
        _become(arguments, folder, said)
    deadline = time.monotonic() + _KILLED
    while True:
        ended, status, used = os.wait4(process, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.003)
    output = said.read_bytes().decode("utf-8", "backslashreplace")
    said.unlink()
    code = os.waitstatus_to_exitcode(status)
    return Outcome(code, output, used.ru_utime + used.ru_stime)


def _become(arguments: Sequence[str], folder: Path, said: Path) -> None:
    """In the copy: be the program."""
    code = 70
    try:
        os.chdir(folder)
        handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
        sys.stdin = os.fdopen(0, closefd=False)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + _MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CPU, (_COMPUTED, _COMPUTED))
        try:
            main(args=list(arguments), prog_name="robustdml")
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
            code = 71
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def state_of(root: Path, *, without: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder with its size and time of change, but what a command may write."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path != without and without not in path.parents:
            there = path.lstat()
            found[str(path)] = (0, 0) if path.is_dir() else (there.st_size, there.st_mtime_ns)
    return found
