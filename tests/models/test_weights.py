"""Fingerprints, copies and kept weights of modules whose state is more than dense tensors by name."""

from __future__ import annotations

import threading

import pytest
import torch
from odd_backbones import ODD_BACKBONES, ExtraState, SparseBuffer, Stash, old_weight_norm, quantised
from torch import nn

from robustdml.errors import CheckpointError
from robustdml.models import (
    EmbeddingModel,
    KeptWeights,
    ModelConfig,
    SourceOptions,
    copied,
    load_checkpoint,
    load_model,
    save_checkpoint,
    to_torchvision,
    weights_fingerprint,
)

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def fingerprint_of(make):
    torch.manual_seed(0)
    return weights_fingerprint(make())


@pytest.mark.parametrize("make", [ExtraState, SparseBuffer, quantised, old_weight_norm])
def test_equal_states_have_equal_fingerprints(make):
    assert fingerprint_of(make) == fingerprint_of(make)


def changed_extra() -> nn.Module:
    model = ExtraState()
    model.get_extra_state = lambda: {"version": 4}
    return model


def changed_sparse() -> nn.Module:
    model = SparseBuffer()
    model.adjacency = (2 * torch.eye(4)).to_sparse()
    return model


def changed_quantised() -> nn.Module:
    torch.manual_seed(1)
    return quantised()


@pytest.mark.parametrize(
    ("make", "other"), [(ExtraState, changed_extra), (SparseBuffer, changed_sparse), (quantised, changed_quantised)]
)
def test_other_states_have_other_fingerprints(make, other):
    assert fingerprint_of(make) != fingerprint_of(other)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_the_layout_of_a_sparse_buffer_is_part_of_it():
    def compressed():
        model = SparseBuffer()
        model.adjacency = torch.eye(4).to_sparse_csr()
        return model

    assert fingerprint_of(compressed) != fingerprint_of(SparseBuffer)


def test_weights_that_are_not_there_are_refused():
    with pytest.raises(CheckpointError, match="'weight' of the model is a lazy layer's and has no shape yet"):
        weights_fingerprint(nn.LazyLinear(3))
    with torch.device("meta"):
        model = nn.Linear(2, 3)
    with pytest.raises(CheckpointError, match="'weight' of the model is on torch's meta device"):
        weights_fingerprint(model)


@pytest.mark.parametrize("make", [Stash, old_weight_norm, *(made[0] for made in list(ODD_BACKBONES.values())[:5])])
def test_a_copy_after_a_forward_pass_answers_alike_and_shares_nothing(make):
    model = make().eval()
    expected = model(IMAGES)
    found = copied(model)
    assert torch.equal(found(IMAGES), expected)
    with torch.no_grad():
        for tensor in (*found.parameters(), *found.buffers()):
            tensor.zero_()
    assert torch.equal(model(IMAGES), expected)


def test_ties_between_weights_survive_copying():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    found = copied(model)
    assert found[1].weight is found[0].weight is not model[0].weight


def test_what_cannot_be_copied_says_so():
    model = nn.Linear(2, 2)
    model.lock = threading.Lock()
    with pytest.raises(TypeError, match="lock"):
        copied(model)


def test_kept_weights_come_back_as_the_same_tensors():
    model = SparseBuffer()
    weight, buffer, before = model.first.weight, model.adjacency, weights_fingerprint(model)
    kept = KeptWeights(model)
    with torch.no_grad():
        model.first.weight = nn.Parameter(torch.zeros_like(weight))
        model.second.weight.mul_(2)
        model.norm.running_mean.fill_(float("nan"))
        model.adjacency = torch.zeros(4, 4)
    kept.restore()
    assert weights_fingerprint(model) == before
    assert model.first.weight is weight
    assert model.adjacency is buffer


@pytest.mark.compatible(
    "Models", "layers that ask which version wrote a state (MNASNet)", "trained, saved, loaded, exported"
)
def test_layers_that_ask_which_version_wrote_their_state(tmp_path):
    torch.manual_seed(0)
    model = EmbeddingModel(ModelConfig("mnasnet0_5", 8, 32)).eval()
    save_checkpoint(model, tmp_path / "run", training={})
    plain = to_torchvision(model)
    torch.save(dict(plain.state_dict()), tmp_path / "plain.pt")
    options = SourceOptions(arch="torchvision:mnasnet0_5", keep_head=True, size=32)
    found = load_model(str(tmp_path / "plain.pt"), options)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(load_checkpoint(tmp_path / "run").model(images), model(images))
        expected = plain((images - model.mean) / model.std)
        assert torch.allclose(found(images), expected, atol=1e-5)
