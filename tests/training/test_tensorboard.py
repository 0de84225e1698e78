"""Runs in TensorBoard: what they show, each epoch and step once whatever happened to the run, and without it."""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
from pathlib import Path
from unittest import mock

import pytest
from few_digits import few_digits
from killed import KILLED, train_apart
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from robustdml.attacks import build_attack
from robustdml.config import RunOptions, TrainConfig
from robustdml.errors import MissingPackageError, Terminated
from robustdml.training import loop, train
from robustdml.training.tensorboard import Curves

QUIET = RunOptions(device="cpu", progress=False)
SHOWN = dataclasses.replace(QUIET, tensorboard=True)
#: Of 40 digits of four classes: two steps an epoch.
CONFIG = TrainConfig(
    method="st", backbone="resnet-tiny", embedding_dim=16, image_size=16, epochs=4, batch_size=20, validation_classes=1
)
STEPS = 2


@pytest.fixture(scope="module")
def digits():
    return few_digits(10)


def run(digits, out: Path, options: RunOptions = SHOWN, config: TrainConfig = CONFIG):
    return train(digits, config, out, build_attack=build_attack, options=options)


def curves(out: Path) -> dict[str, list[tuple[int, float]]]:
    """Every scalar in the event files, repeated ones too: step and value by tag."""
    events = EventAccumulator(str(out / "tensorboard"), size_guidance={"scalars": 0}, purge_orphaned_data=False)
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def assert_whole(out: Path) -> None:
    """The curves say what metrics.jsonl says, each epoch once, and has each step once."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    found = curves(out)
    assert found.keys() == {"step/loss", *(f"epoch/{name}" for name in rows[0] if name != "epoch")}
    for name in rows[0].keys() - {"epoch"}:
        expected = [(row["epoch"], pytest.approx(row[name], rel=1e-5)) for row in rows]
        assert found[f"epoch/{name}"] == expected, name
    assert [step for step, _ in found["step/loss"]] == list(range(1, len(rows) * STEPS + 1))


def test_the_curves_say_what_the_metrics_say(digits, tmp_path):
    result = run(digits, tmp_path / "run")
    assert_whole(tmp_path / "run")
    assert {"loss", "validation_recall_at_1", "effective_rank", "mean_cosine", "learning_rate", "seconds"} <= set(
        result.history[0]
    )
    losses = [loss for _, loss in curves(tmp_path / "run")["step/loss"]]
    assert sum(losses[:STEPS]) / STEPS == pytest.approx(result.history[0]["loss"], rel=1e-5)
    peak = CONFIG.learning_rate
    assert result.history[0]["learning_rate"] == pytest.approx(peak)
    assert result.history[-1]["learning_rate"] < peak / 10


def test_no_number_changes_with_it_and_without_it_nothing_is_written(digits, tmp_path):
    plain, shown = run(digits, tmp_path / "plain", QUIET), run(digits, tmp_path / "shown")
    strip = lambda rows: [{**row, "seconds": 0} for row in rows]  # noqa: E731
    assert strip(plain.history) == strip(shown.history)
    assert not (tmp_path / "plain" / "tensorboard").exists()
    # The same run: one may be resumed as the other.
    assert (tmp_path / "plain" / "spec.json").read_bytes() == (tmp_path / "shown" / "spec.json").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at", "dies"),
    [
        ("robustdml.training.step.step_loss", 4),  # in the middle of an epoch, which is then made again
        ("robustdml.training.state.save_state", 2),  # an epoch is shown and not yet saved
        ("robustdml.files.write_text", 3),  # ... saved and not yet in metrics.jsonl (first spec.json, then one epoch)
    ],
)
def test_a_killed_run_that_goes_on_shows_each_epoch_once(digits, tmp_path, at, dies):
    out = tmp_path / "run"
    assert train_apart(CONFIG, out, SHOWN, dies=dies, at=at)[0] == KILLED
    assert curves(out), "it was killed before anything was shown"
    run(digits, out)
    assert_whole(out)
    assert len(list((out / "tensorboard").iterdir())) == 1


def test_a_run_that_was_asked_to_end_in_an_epoch_shows_each_step_once(digits, tmp_path, monkeypatch):
    original, calls = loop.step_loss, []

    def asks(*args, **kwargs):
        calls.append(1)
        if len(calls) == STEPS + 1:
            signal.raise_signal(signal.SIGTERM)
        return original(*args, **kwargs)

    monkeypatch.setattr(loop, "step_loss", asks)
    with pytest.raises(Terminated):
        run(digits, tmp_path / "run")
    assert [step for step, _ in curves(tmp_path / "run")["step/loss"]] == [1, 2, 3]
    run(digits, tmp_path / "run")
    assert_whole(tmp_path / "run")


def test_what_was_shown_keeps_its_time(digits, tmp_path):
    def times(out):
        events = EventAccumulator(str(out / "tensorboard")).Reload()
        return {tag: [event.wall_time for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}

    run(digits, tmp_path / "run")
    before = times(tmp_path / "run")
    run(digits, tmp_path / "run")
    assert times(tmp_path / "run") == before


def test_an_epoch_is_brought_to_the_disk_at_once():
    writer = mock.Mock()
    Curves(writer).epoch({"epoch": 3, "loss": 0.5})
    assert writer.mock_calls == [mock.call.add_scalar("epoch/loss", 0.5, 3, walltime=mock.ANY), mock.call.flush()]


def test_a_finished_run_is_shown_when_it_is_asked_for_afterwards(digits, tmp_path):
    run(digits, tmp_path / "run", QUIET)
    run(digits, tmp_path / "run")
    found = curves(tmp_path / "run")
    assert [epoch for epoch, _ in found["epoch/loss"]] == [1, 2, 3, 4]
    assert "step/loss" not in found


def test_a_machine_without_it_is_told_before_anything_is_trained(digits, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(
        MissingPackageError, match=r"needs the package tensorboard .*pip install 'robustdml\[tensorboard"
    ):
        run(digits, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert run(digits, tmp_path / "run", QUIET).history
