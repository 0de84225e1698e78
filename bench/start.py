"""What starting costs, in CPU time, as ratios to importing torch and torchvision: the least that an attack needs.

Run: python bench/start.py [--rounds 3]

Each command is a process of its own, and the two that a ratio compares take turns: a shared machine drifts.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from robustdml.models import EmbeddingModel

_UNIT = "import torch, torchvision"
_LIST = "from robustdml.cli import main; main(['list', 'attacks'], standalone_mode=False)"
#: Until the first image would be attacked: data, model and clean retrieval are done then.
_FIRST_ATTACK = """
import os
from robustdml.attacks import PGD
from robustdml.cli import main
PGD.__call__ = lambda *args, **kwargs: os._exit(0)
main(['evaluate', 'start:model', '--data', 'digits', '--attacks', 'margin', '--out', OUT, '--quiet'])
raise SystemExit('no attack was reached')
"""


def model() -> EmbeddingModel:
    """A small model of digits; it need not be a good one."""
    from robustdml.models import EmbeddingModel, ModelConfig

    return EmbeddingModel(ModelConfig("resnet-tiny", image_size=32))


def cpu_seconds(code: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-c", code.replace("OUT", repr(folder + "/run"))],
            cwd=Path(__file__).parent,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            check=True,
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


@click.command()
@click.option("--rounds", default=3, show_default=True)
def main(rounds: int) -> None:
    """Print the ratios."""
    codes = {"list attacks": _LIST, "evaluate --attacks margin, to its first attack": _FIRST_ATTACK}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in codes}
    for number in range(rounds + 1):
        for name, code in codes.items():
            pair = cpu_seconds(code), cpu_seconds(_UNIT)
            if number:  # the first round fills the file cache
                taken[name].append(pair)
    for name, pairs in taken.items():
        seconds = statistics.median(first for first, _ in pairs)
        ratio = statistics.median(first / unit for first, unit in pairs)
        click.echo(f"{name}: {ratio:.2f} x importing torch and torchvision ({seconds:.2f} s of CPU)")


if __name__ == "__main__":
    main()
