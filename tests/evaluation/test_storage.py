"""Evaluations on full disks, in folders that others take away, asked to end: never the fault of an attack."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from command_line import cli
from squares import QUIET, FakeAttack, SmallNet

from robustdml.attacks import build_suite
from robustdml.data import ArrayImages
from robustdml.data.tensors import ImageTensors
from robustdml.errors import DataError, RunFolderError, StorageError
from robustdml.evaluation import evaluate
from robustdml.evaluation.run import _Evaluation
from robustdml.stopping import Stopped


def run(data, attacks, out):
    return evaluate({"net": SmallNet()}, data, attacks, out=out, options=QUIET, shard_size=8)


def comparable(results):
    cells = [cell.model_copy(update={"seconds": 0}) for cell in results.cells]
    return cells, results.worst, results.models, results.examples, results.flags, results.fingerprint


def test_wherever_the_disk_is_full_it_is_said_and_the_same_call_ends_with_the_same_results(
    squares, tmp_path, monkeypatch
):
    """The first file that does not fit any more is one after the other; no attack has failed for that."""
    suite = build_suite("noise", "8/255")
    replaced, names = Path.replace, []

    def full(path, target):
        if target.name == full.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        names.append(target.name)
        return replaced(path, target)

    full.name = ""
    monkeypatch.setattr(Path, "replace", full)
    expected = comparable(run(squares, suite, tmp_path / "whole"))
    for full.name in ("spec.json", "00001.parquet", "results.json"):
        assert full.name in names
        with pytest.raises(StorageError, match=r"cannot be written \(the disk is full\): what was finished before is"):
            run(squares, suite, tmp_path / "out")
        assert not [*tmp_path.rglob("failure.json"), *tmp_path.rglob("*.tmp")]
    full.name = ""
    assert comparable(run(squares, suite, tmp_path / "out")) == expected


@pytest.mark.parametrize("what", ["all of it", "the records"])
def test_a_folder_that_is_taken_away_during_the_run_is_said_and_no_success(squares, tmp_path, what):
    def takes(model, images):
        shutil.rmtree(tmp_path / "out" / ("" if what == "all of it" else "records"))
        return images

    attacks = [*build_suite("noise", "8/255"), FakeAttack(takes)]
    with pytest.raises(StorageError, match=r"was removed, moved or replaced|files of '.*' were removed while"):
        run(squares, attacks, tmp_path / "out")
    assert not (tmp_path / "out" / "results.json").exists()


def test_an_attack_that_raises_what_is_said_of_folders_and_data_has_failed_alone(squares, tmp_path):
    def raises(error):
        def change(model, images):
            raise error

        return change

    attacks = [
        FakeAttack(raises(RunFolderError("no")), name="a"),
        FakeAttack(raises(StorageError("full")), name="b"),
        FakeAttack(raises(DataError("gone")), name="c"),
        FakeAttack(raises(OSError(errno.ENOSPC, "its own")), name="d"),
        FakeAttack(lambda _, images: images, name="e"),
    ]
    cells = run(squares, attacks, tmp_path / "out").cells
    assert [cell.status for cell in cells] == ["failed"] * 4 + ["ok"]
    reasons = ["RunFolderError: no", "StorageError: full", "DataError: gone", "OSError: [Errno 28] its own"]
    assert [cell.reason for cell in cells[:4]] == reasons


def test_images_that_are_gone_are_the_fault_of_no_attack(squares, tmp_path, monkeypatch):
    monkeypatch.setattr(ImageTensors.__init__, "__defaults__", (0,))  # as of a data set that does not fit into memory

    class Gone(ArrayImages):
        there = True

        def load(self, index):
            if not self.there:
                raise DataError(f"'{index}.png' cannot be read")
            return super().load(index)

    images = Gone(np.stack([np.asarray(squares.images.load(row)) for row in range(len(squares.images))]))

    def unmounts(model, batch):
        images.there = False
        return batch

    data = dataclasses.replace(squares, images=images)
    with pytest.raises(DataError, match="cannot be read"):
        run(data, [FakeAttack(unmounts)], tmp_path / "out")
    assert not list((tmp_path / "out").rglob("failure.json"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_an_evaluation_that_is_asked_to_end_keeps_its_shards_and_goes_on_from_there(squares, tmp_path, number):
    def asked(model, images):
        if len(attack.calls) == 2:
            try:
                signal.raise_signal(number)
            except BaseException:  # An attack that swallows it is stopped after its shard.
                if number == signal.SIGHUP:
                    return images
                raise
        return images

    attack = FakeAttack(asked)
    handler = signal.getsignal(number)
    with pytest.raises(Stopped) as caught:
        run(squares, [attack], tmp_path / "out")
    assert caught.value.exit_code == 128 + number
    assert signal.getsignal(number) is handler
    assert not [*tmp_path.rglob("failure.json"), *tmp_path.rglob("*.tmp"), *tmp_path.rglob(".lock")]
    assert run(squares, [attack], tmp_path / "out").cells[0].status == "ok"
    assert attack.calls == [8] * (3 if number == signal.SIGHUP else 4)


def test_a_keyboard_interrupt_that_nobody_typed_is_the_attack_s(squares, tmp_path):
    def ends(model, images):
        raise KeyboardInterrupt

    cells = run(squares, [FakeAttack(ends), FakeAttack(lambda _, images: images, name="b")], tmp_path / "out").cells
    assert [cell.status for cell in cells] == ["failed", "ok"]
    assert cells[0].reason == "it tried to end the program (KeyboardInterrupt)"
    assert cells[0].unsound


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_the_command_ends_as_shells_expect_it_and_says_how_to_go_on(tmp_path, monkeypatch, number):
    monkeypatch.setattr(_Evaluation, "_go", lambda _: signal.raise_signal(number))
    model = "torchvision:resnet18?pretrained=false"
    done = cli("evaluate", model, "--data", "digits", "--attacks", "noise", "--out", tmp_path / "out", "--quiet")
    assert (done.exit_code, "Traceback" in done.output) == (128 + number, False)
    assert "Stopped. Repeat the command to go on from what is finished." in done.output
