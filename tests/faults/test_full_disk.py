"""A disk that is full in the middle: one sentence, nothing half-written believed, and resumed to equal results.

The disk is a small tmpfs that grows from run to run, so that each run fills it up further on. Mounting takes root on
Linux. `make faults` fills it 30 times; what a full disk does to each file of an evaluation is tried everywhere (see
tests/evaluation/test_storage.py).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from apart import apart, content

from robustdml.cli import main
from robustdml.models import EmbeddingModel, ModelConfig, save_checkpoint

_PAGE = 4096
_SMALL = "--backbone resnet-tiny --image-size 16 --embedding-dim 16 --batch-size 600 --epochs 3 --validation-classes 1"
#: The command, and how often the disk is full in it with ``--many``.
COMMANDS = {
    "train": (f"train --data digits --method st {_SMALL} --save-every 0 --device cpu --quiet --out OUT", 9),
    "evaluate": (
        "evaluate TRAINED --data digits --attacks noise --max-queries 40 --save-images --device cpu --quiet --out OUT",
        9,
    ),
    "report": ("report EVALUATED --out OUT/report.html --markdown OUT/a.md --junit OUT/a.xml --cards OUT/cards", 5),
    "export": ("export RESNET --out OUT/model.safetensors", 3),
    "demo": ("demo --quick --quiet --device cpu --out OUT", 4),
}


@pytest.fixture(scope="module")
def disk(tmp_path_factory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("disk")
    if sys.platform != "linux" or os.geteuid():
        pytest.skip("mounting a small disk takes root on Linux")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here ({mounted.stderr.strip()})")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def resize(disk: Path, pages: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={pages * _PAGE}", str(disk)], check=True)


def pages(folder: Path) -> int:
    return sum(-(-path.stat().st_size // _PAGE) for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Path]:
    """Where that is which commands read: a training, an evaluation of it, a model that torchvision knows."""
    home = tmp_path_factory.mktemp("made")
    save_checkpoint(EmbeddingModel(ModelConfig("resnet18", 16, 32)), home / "resnet", {})
    found = {"TRAINED": home / "train", "EVALUATED": home / "evaluate", "RESNET": home / "resnet"}
    return found


def run(name: str, out: Path, made: dict[str, Path], said: Path) -> int:
    command = COMMANDS[name][0]
    for word, path in {**made, "OUT": out}.items():
        command = command.replace(word, str(path))
    return apart(lambda: main(command.split()), output=said)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_one_sentence_and_the_same_command_ends_with_the_same(name, disk, made, tmp_path, request):
    many = request.config.getoption("--many")
    if not many and name != "export":
        pytest.skip("minutes of work: make faults")
    for needed in ("train", "evaluate"):  # of those before it, where they are needed
        word, place = {"train": "TRAINED", "evaluate": "EVALUATED"}[needed], made["TRAINED"].parent / needed
        if (word in COMMANDS[name][0] or name == "report") and not place.exists():
            assert run(needed, place, made, tmp_path / "made") == 0
    points = COMMANDS[name][1] if many else 1
    said, whole, out = tmp_path / "said", tmp_path / "whole", disk / name
    assert run(name, whole, made, said) == 0, said.read_text()
    expected, size, occupied = content(whole), pages(whole), pages(disk)
    for point in range(points):
        # What is not yet there fits up to a point; the first time nothing does.
        resize(disk, occupied + max(1, size * point // points))
        assert run(name, out, made, said) == 2, said.read_text()
        sentences = [line for line in said.read_text().splitlines() if line.startswith("Error: ")]
        assert len(sentences) == 1
        assert re.search(
            r"'.+' cannot be written \(the disk is full\): what was finished before is kept; free some s", sentences[0]
        )
        assert "Traceback" not in said.read_text()
        assert len(sentences[0]) < 400
        assert not [path for path in disk.rglob(".*") if path.is_file()]
    resize(disk, occupied + 2 * size + 64)
    assert run(name, out, made, said) == 0, said.read_text()
    assert content(out) == expected
    print(f"{name}: full at {points} points of {size * _PAGE:,} bytes, one sentence each, then equal to the unbroken")
