"""`robustdml train` in two processes: under both launchers, stopped, resumed, failing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shared_steps import free_port, launcher_variables

from robustdml.models import EmbeddingModel, ModelConfig, convert_to_multibn, load_checkpoint

pytestmark = pytest.mark.slow

_TRAIN = (
    "train --method mdprop --backbone resnet-tiny --embedding-dim 16 --batch-size 120 --lr 1e-4 --targets 2 "
    "--clip-gradient 1 --average-weights 0.5 --image-size 16 --epochs 3 --device cpu --quiet"
)
TRAIN = _TRAIN.split()
DIGITS = [*TRAIN, "--data", "digits", "--validation-classes", "1"]
LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--nproc_per_node", "2", "--master_port"],
    "accelerate": ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port"],
}
Weights = dict[str, torch.Tensor]


def weights(folder: Path) -> Weights:
    return load_checkpoint(folder).model.state_dict()


def distance(first: Weights, second: Weights) -> float:
    learned = [name for name in first if "running" not in name and "num_batches" not in name]
    return float(torch.stack([(first[name] - second[name]).norm() for name in learned]).norm())


def start(arguments: list[str], out: Path) -> list[subprocess.Popen[str]]:
    """Two processes as a launcher starts them, but without one to end the second when the first has ended."""
    port = free_port()
    command = [sys.executable, "-m", "robustdml", *arguments, "--out", str(out)]
    return [
        subprocess.Popen(command, env=os.environ | launcher_variables(rank, 2, port), stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]


def ends(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Exit code and standard error of each."""
    try:
        errors = [process.communicate(timeout=240)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, text) for process, text in zip(processes, errors, strict=True)]


def wait_for_epoch(epoch: int, out: Path, processes: list[subprocess.Popen[str]]) -> None:
    metrics = out / "metrics.jsonl"
    while not metrics.exists() or len(metrics.read_text().splitlines()) < epoch:
        assert all(process.poll() is None for process in processes), ends(processes)
        time.sleep(0.02)


def train_alone(out: Path) -> None:
    """In a process of its own: nothing that other tests left in this one is met."""
    command = [sys.executable, "-m", "robustdml", *DIGITS, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    train_alone(folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def launched(tmp_path_factory) -> dict[str, Path]:
    """The same run under both launchers, one after the other."""
    folder = tmp_path_factory.mktemp("launched")
    for name, (module, *options) in LAUNCHERS.items():
        command = [sys.executable, "-m", module, *options, str(free_port()), "-m", "robustdml", *DIGITS]
        done = subprocess.run([*command, "--out", str(folder / name)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("mdprop on digits: model in") == 1
    return {name: folder / name for name in LAUNCHERS}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_trains_the_model_of_one_process(alone, launched, name):
    """To rounding, which signed gradients and Adam make larger: half the statistics would be ten times as far off."""
    expected, found = weights(alone), weights(launched[name])
    assert expected.keys() == found.keys()
    torch.manual_seed(0)
    initial = EmbeddingModel(ModelConfig("resnet-tiny", 16, 16))
    convert_to_multibn(initial, ("clean", "stax", "mtax"))
    assert distance(expected, found) < 0.05 * distance(expected, initial.state_dict())
    ours, theirs = (
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (launched[name], alone)
    )
    assert [row["loss"] for row in ours] == pytest.approx([row["loss"] for row in theirs], rel=2e-3)
    assert (launched[name] / "spec.json").read_bytes() == (alone / "spec.json").read_bytes()


def test_the_launchers_train_the_same_model(launched):
    first, second = (weights(folder) for folder in launched.values())
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_run_that_was_killed_and_stopped_goes_on_in_any_number_of_processes(alone, launched, tmp_path):
    out = tmp_path / "run"
    processes = start(DIGITS, out)
    wait_for_epoch(1, out, processes)
    processes[1].kill()
    (code, text), (killed, _) = ends(processes)
    assert (code, killed) == (2, -9)
    assert text.count("Error: another process of this training is gone") == text.count("Error") == 1

    processes = start(DIGITS, out)
    wait_for_epoch(2, out, processes)
    processes[1].terminate()
    found = ends(processes)
    assert [code for code, _ in found] == [143, 143]
    assert sum(text.count("stopped on request in epoch 3, step") for _, text in found) == 1
    shutil.copytree(out, tmp_path / "with one")

    assert [code for code, _ in ends(start(DIGITS, out))] == [0, 0]
    expected = weights(launched["torchrun"])
    assert all(torch.equal(value, expected[name]) for name, value in weights(out).items())
    train_alone(tmp_path / "with one")
    assert distance(weights(tmp_path / "with one"), expected) < 2 * distance(weights(alone), expected)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Images of which the second process alone reads the broken one first."""
    root = tmp_path_factory.mktemp("images")
    numbers = np.random.default_rng(0)
    for part, classes in (("train", range(6)), ("test", range(6, 8))):
        for label in classes:
            (root / part / f"{label}").mkdir(parents=True)
            for image in range(4):
                pixels = numbers.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / f"{label}" / f"{image}.png")
    (root / "train" / "0" / "1.png").write_bytes(b"nothing")
    return root


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ([], "images cannot be read"),
        (["--loss", "nosuch"], "unknown loss 'nosuch'"),
        (["--nosuch"], "No such option"),
    ],
)
def test_an_error_in_any_process_ends_all_with_one_sentence(folder, tmp_path, changes, sentence):
    found = ends(start([*TRAIN, "--data", "folder", "--root", str(folder), *changes], tmp_path / "run"))
    assert [code for code, _ in found] == [2, 2], found
    texts = "".join(text for _, text in found)
    assert texts.count(sentence) == texts.count("Error") == 1, texts
    assert not (tmp_path / "run").exists()
