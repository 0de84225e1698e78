"""Networks that are odd in one way: trained, saved, loaded and deployed, or refused with a sentence before a step."""

from __future__ import annotations

import pytest
import torch
from few_digits import few_digits
from odd_backbones import ODD_BACKBONES, SIDE

from robustdml.attacks import GOALS
from robustdml.config import RunOptions, TrainConfig
from robustdml.errors import SpecError, StorageError
from robustdml.models import EmbeddingModel, ModelConfig, convert_to_multibn, load_checkpoint, weights_fingerprint
from robustdml.training import train
from robustdml.training.trial import try_out

QUIET = RunOptions(device="cpu", progress=False)


@pytest.fixture(scope="module")
def digits():
    return few_digits(4)


def trained(digits, out, number, method):
    config = TrainConfig(
        method=method,
        backbone=f"odd_backbones:number_{number}",
        embedding_dim=8,
        image_size=SIDE,
        epochs=1,
        batch_size=8,
        m_per_class=2,
        targets=2,
        validation_classes=0,
        average_weights=0.5,
    )
    return train(digits, config, out, goals=GOALS, options=QUIET)


@pytest.mark.compatible(
    "Models",
    "layers, blocks or a BatchNorm under two names; two layers with one weight",
    "trained, saved, loaded and folded",
)
@pytest.mark.compatible("Models", "weight and spectral normalisation, old and new", "trained, saved, loaded and folded")
@pytest.mark.compatible(
    "Models",
    "BatchNorm over tokens or patches",
    "its branches take their rows where images come one after another; else refused",
)
@pytest.mark.compatible("Models", "a view that needs contiguous memory", "trained, in the memory format that it takes")
@pytest.mark.compatible(
    "Models",
    "tuples (in training mode only, too), lazy layers, weights outside of the state, half precision",
    "refused with a sentence before the first step",
)
@pytest.mark.parametrize("method", ["st", "mdprop"])
@pytest.mark.parametrize("name", ODD_BACKBONES)
def test_an_odd_network_trains_and_deploys_or_is_refused_before_the_first_step(digits, tmp_path, name, method):
    number = list(ODD_BACKBONES).index(name)
    _, *sentences = ODD_BACKBONES[name]
    refused = sentences[method == "mdprop"]
    if refused:
        with pytest.raises(SpecError) as caught:
            trained(digits, tmp_path / "run", number, method)
        assert refused in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "run").exists()
        return
    result = trained(digits, tmp_path / "run", number, method)
    found = load_checkpoint(tmp_path / "run", trust_code=True)
    images = torch.rand(4, 3, SIDE, SIDE)
    with torch.no_grad():
        expected = result.model(images)
        assert torch.equal(found.model(images), expected)
        assert torch.allclose(found.deployed()(images), expected, atol=1e-6)
        # A batch of one is a batch too.
        assert torch.allclose(found.deployed()(images[:1]), expected[:1], atol=1e-5)


def test_a_trial_leaves_no_trace():
    model = EmbeddingModel(ModelConfig("resnet-tiny", embedding_dim=8, image_size=SIDE)).train()
    convert_to_multibn(model, ("clean", "stax"))
    model.backbone.eval()
    model.head.weight.grad = torch.ones_like(model.head.weight)
    before, random = weights_fingerprint(model), torch.get_rng_state()
    try_out(model, torch.contiguous_format, attacked=True)
    assert weights_fingerprint(model) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert (model.training, model.backbone.training, model.head.training) == (True, False, True)
    assert torch.equal(model.head.weight.grad, torch.ones_like(model.head.weight))
    assert model.head.bias.grad is None


def test_a_full_folder_for_temporary_files_is_not_the_fault_of_a_backbone(digits, tmp_path, monkeypatch):
    def full(*_):
        raise StorageError("'/tmp/x' cannot be written (the disk is full)")

    monkeypatch.setattr("robustdml.training.trial.save_checkpoint", full)
    number = next(index for index, (_, refused, _) in enumerate(ODD_BACKBONES.values()) if not refused)
    with pytest.raises(StorageError, match=r"^'/tmp/x' cannot be written"):
        trained(digits, tmp_path / "run", number, "st")
