"""Whole runs on a handful of digits: files, resume, choice of the epoch, refusals."""

from __future__ import annotations

import dataclasses
import json
import signal

import numpy as np
import pytest
import torch
from few_digits import few_digits

from robustdml.attacks import GOALS
from robustdml.config import RunOptions, TrainConfig
from robustdml.errors import CheckpointError, RunFolderError, SpecError, Terminated, TrainingError
from robustdml.files import write_bytes
from robustdml.models import EmbeddingModel, load_checkpoint
from robustdml.results import Health
from robustdml.training import loop, setup, state, train
from robustdml.training.schedule import batch_layout, batches, fitting_m_per_class, rate

pytestmark = pytest.mark.slow

QUIET = RunOptions(device="cpu", progress=False)


@pytest.fixture(scope="module")
def digits():
    return few_digits(12)


def config(**changes) -> TrainConfig:
    values = {"backbone": "resnet-tiny", "epochs": 2, "batch_size": 20, "embedding_dim": 16, "eps": 16 / 255}
    return TrainConfig(**(values | changes))


def run(digits, out, options=QUIET, **changes):
    return train(digits, config(**changes), out, goals=GOALS, options=options)


@pytest.mark.parametrize("method", ["st", "at", "advprop", "mdprop"])
def test_a_run_leaves_a_model_and_its_history(digits, tmp_path, method):
    result = run(digits, tmp_path / "run", method=method, epochs=1, validation_classes=1)
    checkpoint = load_checkpoint(tmp_path / "run")
    names = {"st": (), "at": (), "advprop": ("clean", "stax"), "mdprop": ("clean", "stax", "mtax")}
    assert checkpoint.branches == names[method]
    assert checkpoint.training["method"] == method
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows == result.history
    assert rows[0]["epoch"] == 1
    assert np.isfinite(rows[0]["loss"])
    assert 0 <= rows[0]["validation_recall_at_1"] <= 1
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(checkpoint.model(images), result.model(images))


@pytest.mark.parametrize(
    ("changes", "sides", "interpolation"),
    [
        ({}, (32, 32), "bilinear"),
        ({"resize": 36}, (32, 36), "bilinear"),
        ({"pretrained": True}, (32, 40), "bicubic"),
        ({"pretrained": True, "resize": 36}, (32, 36), "bicubic"),
    ],
    ids=str,
)
def test_a_model_keeps_the_view_that_it_was_trained_with(digits, tmp_path, monkeypatch, changes, sides, interpolation):
    """Weights from scratch the plain one, whatever the backbone says; published weights what they were made for."""
    monkeypatch.setattr(setup, "EmbeddingModel", lambda config, pretrained: EmbeddingModel(config))
    seen = []
    tensors = setup.ImageTensors
    monkeypatch.setattr(setup, "ImageTensors", lambda images, how: seen.append(how) or tensors(images, how))
    run(digits, tmp_path, method="st", epochs=1, backbone="own_backbones:Prepared", embedding_dim=4, **changes)
    found = load_checkpoint(tmp_path, trust_code=True).model.preprocessing
    assert ((found.size, found.resize), found.interpolation) == (sides, interpolation)
    assert seen == [found]


def test_a_resize_below_the_crop_is_refused_before_anything_is_trained(digits, tmp_path):
    with pytest.raises(SpecError, match="resize=31 must be at least the 32 pixels"):
        run(digits, tmp_path / "run", method="st", resize=31)
    assert not (tmp_path / "run").exists()


class StoppedError(Exception):
    pass


def test_a_stopped_run_resumes_to_the_same_weights(digits, tmp_path, monkeypatch):
    whole = run(digits, tmp_path / "whole", method="mdprop", epochs=3)

    original = loop.step_loss
    calls = 0

    def dies(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == 5:  # in the second epoch of three steps each
            raise StoppedError
        return original(*args, **kwargs)

    monkeypatch.setattr(loop, "step_loss", dies)
    with pytest.raises(StoppedError):
        run(digits, tmp_path / "stopped", method="mdprop", epochs=3)
    monkeypatch.setattr(loop, "step_loss", original)
    with pytest.raises(CheckpointError, match="is not finished: repeat its command"):
        load_checkpoint(tmp_path / "stopped")
    resumed = run(digits, tmp_path / "stopped", method="mdprop", epochs=3)

    assert [row["loss"] for row in resumed.history] == [row["loss"] for row in whole.history]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_a_finished_run_is_not_trained_again(digits, tmp_path, monkeypatch):
    first = run(digits, tmp_path / "run", method="st")
    monkeypatch.setattr(loop, "step_loss", None)  # would fail if called
    again = run(digits, tmp_path / "run", method="st")
    assert again.history == first.history
    assert again.kept_epoch == first.kept_epoch


def test_the_best_epoch_on_held_out_classes_is_kept(digits, tmp_path, monkeypatch):
    values = iter([0.5, 0.9, 0.2])
    seen = []

    def recall(model, split, tensors, device):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        held_out = set(split.labels[split.query])
        assert len(held_out) == 2
        return next(values)

    monkeypatch.setattr(loop, "clean_recall", recall)
    result = run(digits, tmp_path / "run", method="st", epochs=3, validation_classes=2, m_per_class=10)
    assert result.kept_epoch == 2
    assert all(torch.equal(value, seen[1][name]) for name, value in result.model.state_dict().items())


def test_without_validation_the_last_epoch_is_kept(digits, tmp_path):
    assert run(digits, tmp_path / "run", method="st", epochs=2, validation_classes=0).kept_epoch == 2


def test_training_never_looks_at_the_test_images(digits, tmp_path):
    class Watched:
        def __init__(self, images):
            self.images, self.loaded = images, set()

        def __len__(self):
            return len(self.images)

        def load(self, index):
            self.loaded.add(index)
            return self.images.load(index)

        def name(self, index):
            return self.images.name(index)

        def digest(self):
            return self.images.digest()

    watched = Watched(digits.images)
    run(dataclasses.replace(digits, images=watched), tmp_path / "run", method="st", validation_classes=1)
    assert watched.loaded <= set(digits.train.tolist())
    assert watched.loaded


def test_the_global_generators_are_left_alone(digits, tmp_path):
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    run(digits, tmp_path / "run", method="mdprop", epochs=1)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()


def test_another_run_in_the_folder_is_refused_and_kept(digits, tmp_path):
    run(digits, tmp_path / "run", method="st")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(RunFolderError, match=r"holds another run \(it differs in: epochs\)"):
        run(digits, tmp_path / "run", method="st", epochs=3)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_a_damaged_state_is_refused(digits, tmp_path):
    run(digits, tmp_path / "run", method="st")
    (tmp_path / "run" / "state.pt").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"state\.pt' is damaged"):
        run(digits, tmp_path / "run", method="st")


def test_a_loss_that_is_not_finite_stops_with_a_sentence(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "step_loss", lambda *args, **kwargs: torch.tensor(float("nan"), requires_grad=True))
    with pytest.raises(TrainingError, match=r"the loss is nan in epoch 1, step 1: lower --lr, and train into another"):
        run(digits, tmp_path / "run", method="st")
    assert not (tmp_path / "run" / "model.json").exists()
    with pytest.raises(TrainingError, match="lower --lr, or use --precision fp32, and train into another"):
        run(digits, tmp_path / "bf16", method="st", precision="bf16")


def test_a_run_that_cannot_go_on_keeps_its_best_model_and_says_so_again(digits, tmp_path, monkeypatch):
    original, calls = loop.step_loss, []

    def fails(*args, **kwargs):
        calls.append(1)
        value = original(*args, **kwargs)
        return value * float("nan") if len(calls) > 4 else value  # in the third epoch of two steps each

    recalls = iter([0.9, 0.5])
    monkeypatch.setattr(loop, "step_loss", fails)
    monkeypatch.setattr(loop, "clean_recall", lambda *_: next(recalls))
    sentence = "the loss is nan in epoch 3, step 1: .*; the model of epoch 1 is kept in"
    for _ in range(2):
        with pytest.raises(TrainingError, match=sentence):
            run(digits, tmp_path / "run", method="st", epochs=4, validation_classes=1, m_per_class=10)
        kept = load_checkpoint(tmp_path / "run")
        assert kept.training["kept_epoch"] == 1
        best = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["state"]["best_weights"]
        assert all(torch.equal(value, best[name]) for name, value in kept.model.state_dict().items())


def test_more_targets_than_half_a_batch_can_give_are_refused(digits, tmp_path):
    with pytest.raises(SpecError, match=r"targets=9: .* batch of 20 has 6 images .* lower --targets or raise"):
        run(digits, tmp_path / "run", targets=9)
    run(digits, tmp_path / "run", targets=6, epochs=1)


def test_mdprop_needs_batchnorm(digits, tmp_path):
    with pytest.raises(SpecError, match="'convnext_tiny' has none: choose a ResNet"):
        run(digits, tmp_path / "run", backbone="convnext_tiny")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("batch", "classes", "wanted", "expected"),
    [
        (64, 41, None, 4),
        (64, 5, None, 16),
        (20, 5, None, 4),
        (6, 3, None, 3),
        (64, 41, 2, 2),
    ],
)
def test_images_per_class_fit_the_classes(batch, classes, wanted, expected):
    assert fitting_m_per_class(batch, classes, wanted) == expected


def test_a_batch_larger_than_the_classes_allow_is_refused():
    with pytest.raises(SpecError, match=r"need 32 classes, there are 5: raise --m-per-class or lower --batch-size"):
        fitting_m_per_class(64, 5, 2)
    with pytest.raises(SpecError, match="need 32 classes, there are 5 beside 2 held out: raise"):
        fitting_m_per_class(64, 5, 2, held_out=2)
    with pytest.raises(SpecError, match="divides batches of 7 among 3 classes: choose an even --batch-size, such as 8"):
        fitting_m_per_class(7, 3, None)
    assert fitting_m_per_class(8, 3, None) == 4
    with pytest.raises(SpecError, match="two classes at least, and there is 1: add another class"):
        fitting_m_per_class(64, 1, None)


def test_batches_hold_m_images_of_each_class_and_repeat_with_their_seed():
    labels = np.repeat(np.arange(6), 10)
    first = list(batches(labels, 12, 4, seed=1))
    assert len(first) == 5
    for part in first:
        _, counts = np.unique(labels[part], return_counts=True)
        assert counts.tolist() == [4, 4, 4]
        assert len(set(labels[part[:3]])) == 3, "fewer than four classes take turns"
    assert all((a == b).all() for a, b in zip(first, batches(labels, 12, 4, seed=1), strict=True))
    assert any((a != b).any() for a, b in zip(first, batches(labels, 12, 4, seed=2), strict=True))


def test_classes_stand_one_after_another_so_that_each_half_has_its_own():
    labels = np.repeat(np.arange(6), 10)
    for part in batches(labels, 16, 4, seed=3):
        first, second = set(labels[part[:8]]), set(labels[part[8:]])
        assert len(first) == len(second) == 2
        assert not first & second
    assert batch_layout(16, 4) == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    assert batch_layout(6, 3) == [0, 1, 0, 1, 0, 1]


def test_the_learning_rate_warms_up_and_ends_near_zero():
    rates = [0.1 * rate("cosine", step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == pytest.approx(0.1)
    assert rates.index(max(rates)) in {9, 10}
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.001


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"epochs": 0}, "epochs=0 must be at least 1"),
        ({"batch_size": 10, "m_per_class": 4}, "must be a multiple of m_per_class=4"),
        ({"batch_size": 4, "m_per_class": 4}, "hold at least two classes"),
        ({"m_per_class": 1}, "at least 2"),
        ({"learning_rate": float("nan")}, "learning_rate=nan must be a number above 0"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 must be a number above 0"),
        ({"precision": "fp8"}, "precision 'fp8' is not known: fp32 or bf16"),
        ({"validation_classes": -1}, "validation_classes=-1 must be at least 0"),
        ({"eps": 8.0}, r"eps 8.0 is outside \[0, 1\]"),
    ],
)
def test_impossible_settings_are_refused(changes, sentence):
    with pytest.raises(Exception, match=sentence):
        config(**changes)


def test_what_a_loss_learns_has_its_own_rate_and_survives_a_stop(digits, tmp_path, monkeypatch):
    """ArcFace's centres move, at their own rate, and a resumed run ends with the same ones."""
    values = {"method": "st", "epochs": 2, "loss": "arcface(scale=8)", "loss_learning_rate": 0.01}
    whole = run(digits, tmp_path / "whole", **values)
    slow = run(digits, tmp_path / "slow", **{**values, "loss_learning_rate": 1e-9})
    saved = {
        name: torch.load(tmp_path / name / "state.pt", weights_only=True)["loss"]["loss.W"]
        for name in ("whole", "slow")
    }
    assert saved["whole"].shape == (16, 5)
    assert (saved["whole"] - saved["slow"]).abs().max() > 1e-3
    assert not torch.equal(whole.model.head.weight, slow.model.head.weight)

    original = loop.step_loss
    calls = 0

    def dies(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == 5:
            raise StoppedError
        return original(*args, **kwargs)

    monkeypatch.setattr(loop, "step_loss", dies)
    with pytest.raises(StoppedError):
        run(digits, tmp_path / "stopped", **values)
    monkeypatch.setattr(loop, "step_loss", original)
    resumed = run(digits, tmp_path / "stopped", **values)
    assert torch.equal(resumed.model.head.weight, whole.model.head.weight)
    centres = torch.load(tmp_path / "stopped" / "state.pt", weights_only=True)["loss"]["loss.W"]
    assert torch.equal(centres, saved["whole"])


def test_the_published_arithmetic_trains_and_refuses_what_it_does_not_know(digits, tmp_path):
    values = {"method": "mdprop", "epochs": 1, "arithmetic": "published", "schedule": "constant", "eps": 0.01}
    published = run(digits, tmp_path / "published", **values)
    pixels = run(digits, tmp_path / "pixels", **{**values, "arithmetic": "pixels"})
    assert np.isfinite(published.history[0]["loss"])
    assert published.history[0]["loss"] != pixels.history[0]["loss"]
    with pytest.raises(SpecError, match="arithmetic 'published' knows STAX and MTAX"):
        run(digits, tmp_path / "x", **{**values, "method": "unadversarial"})
    with pytest.raises(SpecError, match="schedule 'linear' is not known: cosine or constant"):
        config(schedule="linear")
    assert {rate("constant", step, 10) for step in range(10)} == {1.0}


def test_a_run_killed_at_five_moments_ends_with_the_same_weights(digits, tmp_path, monkeypatch):
    """Killed in the middle of a step or of writing the state, again and again; batches, noise and averages agree."""
    values = {"method": "mdprop", "epochs": 6, "average_weights": 0.9, "clip_gradient": 1.0, "validation_classes": 1}
    whole = run(digits, tmp_path / "whole", **values)
    moments = np.random.default_rng(7).integers(1, 4, 5).tolist()

    for number, moment in enumerate(moments):
        name = "write_bytes" if number % 2 else "step_loss"
        module = state if number % 2 else loop
        original, calls = getattr(module, name), 0

        def dies(*args, original=original, moment=moment, **kwargs):
            nonlocal calls
            calls += 1
            if calls == (min(moment, 2) if original is write_bytes else moment):
                raise StoppedError
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, dies)
        with pytest.raises(StoppedError):
            run(digits, tmp_path / "killed", **values)
        monkeypatch.setattr(module, name, original)
    again = run(digits, tmp_path / "killed", **values)
    assert [row["loss"] for row in again.history] == [row["loss"] for row in whole.history]
    expected = whole.model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in again.model.state_dict().items())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_a_request_to_end_saves_the_step_and_the_run_goes_on_from_there(digits, tmp_path, monkeypatch, number):
    values = {"method": "advprop", "epochs": 2}
    whole = run(digits, tmp_path / "whole", **values)
    original, calls = loop.step_loss, []

    def asks(*args, **kwargs):
        calls.append(kwargs["seed"])
        if len(calls) == 2:
            signal.raise_signal(number)
        return original(*args, **kwargs)

    handler = signal.getsignal(number)
    monkeypatch.setattr(loop, "step_loss", asks)
    with pytest.raises(Terminated, match="stopped on request in epoch 1, step 3: repeat the command") as caught:
        run(digits, tmp_path / "asked", **values)
    assert caught.value.exit_code == 128 + number
    assert signal.getsignal(number) is handler
    again = run(digits, tmp_path / "asked", **values)
    assert len(calls) == len(set(calls)) == 2 * 3  # no step was made twice
    expected = whole.model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in again.model.state_dict().items())
    assert [row["loss"] for row in again.history] == [row["loss"] for row in whole.history]


def test_a_request_to_end_during_validation_ends_the_run_after_it(digits, tmp_path, monkeypatch):
    original = loop.clean_health

    def asks(*args):
        signal.raise_signal(signal.SIGTERM)
        return original(*args)

    monkeypatch.setattr(loop, "clean_health", asks)
    with pytest.raises(Terminated, match="stopped on request after epoch 1: repeat the command"):
        run(digits, tmp_path / "asked", method="st", epochs=2)
    assert len((tmp_path / "asked" / "metrics.jsonl").read_text().splitlines()) == 1


def test_the_state_is_saved_within_an_epoch_and_a_killed_run_makes_no_saved_step_again(digits, tmp_path, monkeypatch):
    class KilledError(BaseException):
        pass

    values = {"method": "mdprop", "epochs": 2}
    whole = run(digits, tmp_path / "whole", **values)
    original, calls = loop.step_loss, []

    def dies(*args, **kwargs):
        calls.append(kwargs["seed"])
        if len(calls) in {3, 6}:  # the last step of either epoch, of three
            raise KilledError
        return original(*args, **kwargs)

    monkeypatch.setattr(loop, "step_loss", dies)
    often = dataclasses.replace(QUIET, save_minutes=0.0)
    for _ in range(2):
        with pytest.raises(KilledError):
            run(digits, tmp_path / "killed", options=often, **values)
    again = run(digits, tmp_path / "killed", options=often, **values)
    assert len(calls) == 6 + 2  # the two that were under way alone are made again
    assert [row["loss"] for row in again.history] == [row["loss"] for row in whole.history]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


def test_a_collapse_stops_the_run_with_a_sentence_in_its_second_half(digits, tmp_path, monkeypatch):
    dead = Health(effective_rank=1.0, mean_cosine=1.0, collapsed=True)
    monkeypatch.setattr(loop, "clean_health", lambda *_: dead)
    sentence = r"the embeddings have collapsed \(mean cosine 1.0000.* after epoch 2 of 4.* model of epoch 1 is kept in"
    with pytest.raises(TrainingError, match=sentence):
        run(digits, tmp_path / "run", method="st", epochs=4)
    assert load_checkpoint(tmp_path / "run").training["kept_epoch"] == 1
    assert len(run(digits, tmp_path / "trial", method="st", epochs=2).history) == 2


def test_a_run_stops_when_its_patience_is_over(digits, tmp_path, monkeypatch):
    recalls = iter([0.1, 0.5, 0.4, 0.3, 0.9])
    monkeypatch.setattr(loop, "clean_recall", lambda *_: next(recalls))
    result = run(digits, tmp_path / "run", method="st", epochs=5, validation_classes=1, patience=2)
    assert (len(result.history), result.kept_epoch) == (4, 2)


def test_averaged_weights_are_the_ones_that_are_kept(digits, tmp_path):
    plain = run(digits, tmp_path / "plain", method="st", epochs=1)
    averaged = run(digits, tmp_path / "averaged", method="st", epochs=1, average_weights=0.9)
    saved = torch.load(tmp_path / "averaged" / "state.pt", weights_only=True)
    assert torch.equal(saved["model"]["head.weight"], plain.model.head.weight)
    assert torch.equal(saved["average"]["module.head.weight"], averaged.model.head.weight)
    assert not torch.equal(plain.model.head.weight, averaged.model.head.weight)


def test_a_clipped_gradient_is_short(digits, tmp_path, monkeypatch):
    lengths = []

    def spy(parameters, largest):
        found = list(parameters)
        lengths.append(float(torch.nn.utils.get_total_norm([each.grad for each in found if each.grad is not None])))
        assert largest == 0.01
        return original(found, largest)

    original = torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", spy)
    clipped = run(digits, tmp_path / "clipped", method="st", epochs=1, clip_gradient=0.01)
    assert min(lengths) > 0.01
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", original)
    assert not torch.equal(
        clipped.model.head.weight, run(digits, tmp_path / "b", method="st", epochs=1).model.head.weight
    )


def test_frozen_batchnorm_keeps_its_statistics_and_weights(digits, tmp_path):
    frozen = run(digits, tmp_path / "frozen", method="st-frozen", epochs=1).model
    layers = [module for module in frozen.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert all((layer.running_mean == 0).all() and (layer.weight == 1).all() for layer in layers)


def test_patience_without_held_out_classes_is_refused(digits, tmp_path):
    with pytest.raises(SpecError, match="patience=2 waits for a better validation R@1, and no class is held out"):
        run(digits, tmp_path / "run", method="st", patience=2, validation_classes=0)
