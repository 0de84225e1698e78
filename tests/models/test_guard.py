"""`untouched` and `evaluation_mode`: foreign code gets a model in evaluation mode, and gives it back as it was."""

import contextlib
import random

import numpy as np
import pytest
import torch
from odd_backbones import Counting, NaNBuffer, Recounting, SparseBuffer, exported
from torch import nn

from robustdml.errors import AttackError
from robustdml.models import evaluation_mode, single_precision, untouched, weights_fingerprint

IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model(convnet, batch):
    """Modes mixed, one parameter frozen, some with gradients."""
    model = convnet().train()
    model[1].eval()
    model[0][0].eval()
    model[2].eval()
    model[0][0].weight.requires_grad_(False)
    model(batch(4)).sum().backward()
    model[1][1].bias.grad = None
    return model


def state(model):
    """All that must be as before: objects by identity, tensors by value."""
    return {
        "modes": [module.training for module in model.modules()],
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "gradients": [(id(parameter.grad), parameter.grad is None) for parameter in model.parameters()],
        "parameters": [id(parameter) for parameter in model.parameters()],
        "values": [tensor.tolist() for tensor in model.state_dict().values()],
        "gradient values": [parameter.grad.tolist() for parameter in model.parameters() if parameter.grad is not None],
    }


def run(model, foreign):
    """Run foreign code on the model."""
    with untouched(model):
        foreign()


def random_state():
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()


def test_inside_the_model_is_in_evaluation_mode_and_asks_for_no_gradient(model):
    with untouched(model):
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())


def test_the_fixture_mixes_everything(model):
    before = state(model)
    for key in ("modes", "requires_grad"):
        assert len(set(before[key])) == 2
    assert {missing for _, missing in before["gradients"]} == {True, False}


@pytest.mark.parametrize("fails", [True, False])
def test_modes_gradients_and_flags_are_restored(model, batch, fails):
    before = state(model)

    def foreign():
        model.train()
        model.eval()
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        model(batch(4)).sum().backward()
        model.zero_grad(set_to_none=False)
        if fails:
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop") if fails else contextlib.nullcontext():
        run(model, foreign)
    assert state(model) == before


@pytest.mark.parametrize("fails", [True, False])
def test_global_random_states_are_restored(model, fails):
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    before = random_state()

    def foreign():
        random.seed(7)
        np.random.seed(7)
        torch.manual_seed(7)
        random.random(), np.random.rand(3), torch.rand(3)
        if fails:
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop") if fails else contextlib.nullcontext():
        run(model, foreign)
    assert random_state() == before


def test_changed_batchnorm_statistics_are_restored_and_reported(model, batch):
    before = state(model)
    with pytest.raises(
        AttackError, match=r"changed the model's buffers \(BatchNorm statistics\): its images cannot be"
    ):
        run(model, lambda: model.train()(batch(4)))
    assert state(model) == before


def test_an_error_inside_is_not_hidden_by_changed_statistics(model, batch):
    before = state(model)
    with pytest.raises(ZeroDivisionError):
        run(model, lambda: model.train()(batch(4)) / 0 + 1 // 0)
    assert state(model) == before


def test_a_changed_weight_is_reported(model):
    with pytest.raises(AttackError, match="changed the model's weights"), untouched(model), torch.no_grad():
        model[1][0].weight.mul_(1.001)


def test_a_step_of_an_optimizer_is_reported(model):
    weight = model[4].weight

    def step():
        weight.grad = torch.ones_like(weight)
        torch.optim.SGD([weight], lr=0.1).step()

    with pytest.raises(AttackError, match="changed the model's weights"):
        run(model, step)


def test_reading_the_model_is_no_change(model, batch):
    with untouched(model):
        inputs = batch(4).requires_grad_()
        model(inputs).sum().backward()
        assert inputs.grad is not None


def test_blocks_nest(model, batch):
    before = state(model)
    with untouched(model):
        with untouched(model):
            model(batch(2))
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
    assert state(model) == before


@pytest.mark.parametrize("fails", [True, False])
def test_evaluation_mode_restores_modes_and_gradients(model, batch, fails):
    before = state(model)
    with pytest.raises(ZeroDivisionError) if fails else contextlib.nullcontext(), evaluation_mode(model):
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())
        model.requires_grad_(True)
        model(batch(4)).sum().backward()
        model.zero_grad(set_to_none=False)
        assert not fails or 1 // 0
    assert state(model) == before


@pytest.mark.parametrize("make", [NaNBuffer, Counting, Recounting, SparseBuffer])
def test_what_a_model_does_to_its_own_buffers_is_restored_and_blamed_on_nobody(make):
    model = make()
    before, held = weights_fingerprint(model), dict(model.named_buffers())
    with untouched(model):
        model(torch.rand(2, 3, 16, 16))
    assert weights_fingerprint(model) == before
    assert all(buffer is held[name] for name, buffer in model.named_buffers())


def test_a_buffer_that_foreign_code_sets_or_replaces_is_blamed_on_it():
    for change in (lambda model: model.calls.add_(1), lambda model: setattr(model, "calls", torch.ones(()))):
        model = Counting()
        with pytest.raises(AttackError, match="changed the model's buffers"), untouched(model):
            change(model)
        assert model.calls == 0


def test_statistics_that_move_in_training_mode_are_blamed_although_a_forward_pass_moves_them():
    model = Counting()
    with pytest.raises(AttackError, match="changed the model's buffers"), untouched(model):
        model.train()(torch.rand(2, 3, 16, 16))
    assert model.norm.num_batches_tracked == 0


def test_a_program_without_modes_is_evaluated_as_it_is():
    model = nn.Sequential(exported(), nn.Dropout(0.5))
    with evaluation_mode(model):
        assert not any(module.training for module in model.modules())
        assert torch.equal(*(model(IMAGES) for _ in range(2)))
    assert model[1].training


def test_the_default_type_is_float32_within_and_as_before_afterwards():
    torch.set_default_dtype(torch.float64)
    try:
        with single_precision():
            assert torch.zeros(1).dtype == torch.float32
        assert torch.zeros(1).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
