"""The command line from the outside, and images for it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from click.testing import CliRunner, Result
from PIL import Image

from robustdml.cli import main


def cli(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def refused(result: Result, pattern: str) -> None:
    """One sentence that says what is wrong, exit code 2, nothing else."""
    assert result.exit_code == 2, result.output
    lines = [line for line in result.output.splitlines() if line.strip()]
    assert lines[-1].startswith("Error: "), result.output
    assert re.search(pattern, lines[-1]), lines[-1]
    assert "Traceback" not in result.output


def write_images(folder: Path, classes: dict[str, int], size: int = 16) -> None:
    for index, (name, count) in enumerate(classes.items()):
        random = np.random.default_rng(index)
        colour = random.integers(40, 216, 3)
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = (colour + random.integers(-40, 41, (size, size, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
