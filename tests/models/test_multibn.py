"""BatchNorm branches: conversion, routing, folding."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from robustdml.errors import SpecError
from robustdml.models import branch_layout, branch_names, convert_to_multibn, fold
from robustdml.models.multibn import MultiBatchNorm

BRANCHES = ("clean", "stax", "mtax")
DIMENSIONS = pytest.mark.parametrize("dimensions", [1, 2, 3])


def multi_layers(model):
    return [module for module in model.modules() if isinstance(module, MultiBatchNorm)]


def states(model, branch):
    """Weights and statistics of a branch in all layers."""
    return [copy.deepcopy(layer.branches[branch].state_dict()) for layer in multi_layers(model)]


def same(one, other):
    return all(torch.equal(a[key], b[key]) for a, b in zip(one, other, strict=True) for key in a)


@pytest.fixture
def multi(convnet, scramble):
    """A trained 2d network whose three branches differ."""
    model = convert_to_multibn(convnet(), BRANCHES)
    scramble(model)
    assert not same(states(model, "clean"), states(model, "stax"))
    assert not same(states(model, "clean"), states(model, "mtax"))
    assert not same(states(model, "stax"), states(model, "mtax"))
    return model


@DIMENSIONS
def test_branches_start_as_exact_copies_of_a_trained_layer(convnet, dimensions):
    model = convnet(dimensions)
    trained = [copy.deepcopy(module.state_dict()) for module in model.modules() if isinstance(module, _BatchNorm)]
    for layer in trained:  # nothing may be right by being untrained
        assert (layer["weight"] != 1).all()
        assert (layer["bias"] != 0).any()
        assert (layer["running_mean"] != 0).all()
        assert (layer["running_var"] != 1).all()
        assert layer["num_batches_tracked"] == 1
    assert convert_to_multibn(model, BRANCHES) is model
    assert branch_names(model) == BRANCHES
    for branch in BRANCHES:
        assert same(states(model, branch), trained)


@DIMENSIONS
def test_conversion_keeps_the_function_and_converts_every_layer(convnet, batch, dimensions):
    model = convnet(dimensions)
    inputs = batch(6, dimensions)
    before = model(inputs)
    convert_to_multibn(model, BRANCHES)
    assert len(multi_layers(model)) == 2
    assert sum(isinstance(module, _BatchNorm) for module in model.modules()) == 6
    assert torch.equal(model(inputs), before)
    for branch in BRANCHES:
        with branch_layout(model, [(branch, None)]):
            assert torch.equal(model(inputs), before)


def test_branches_share_no_memory(convnet):
    for layer in multi_layers(convert_to_multibn(convnet(), BRANCHES)):
        tensors = [tensor for branch in layer.branches.values() for tensor in branch.state_dict().values()]
        assert len({tensor.data_ptr() for tensor in tensors}) == len(tensors) == 15


@DIMENSIONS
@pytest.mark.parametrize("used", BRANCHES)
def test_training_through_a_branch_changes_that_branch_only(convnet, batch, train_a_little, dimensions, used):
    model = convert_to_multibn(convnet(dimensions), BRANCHES)
    before = {branch: states(model, branch) for branch in BRANCHES}
    with branch_layout(model, [(used, None)]):
        train_a_little(model, batch(8, dimensions, seed=9))
    for branch in BRANCHES:
        assert same(states(model, branch), before[branch]) == (branch != used)


@pytest.mark.parametrize("used", BRANCHES)
def test_gradients_reach_the_used_branch_only(multi, batch, used):
    multi.train()
    with branch_layout(multi, [(used, None)]):
        multi(batch(8)).square().sum().backward()
    for layer in multi_layers(multi):
        for branch in BRANCHES:
            assert (layer.branches[branch].weight.grad is not None) == (branch == used)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("sizes", [(4, 2, 2), (5, 3, 2), (7, 1, 3), (1, 1, 7)])
def test_a_split_equals_each_part_through_its_branch(multi, batch, training, sizes):
    inputs = batch(sum(sizes), seed=20)
    layer = multi_layers(multi)[0].train(training)
    features = multi[0][0](inputs).detach()
    alone = copy.deepcopy(layer)
    expected = []
    for branch, part in zip(BRANCHES, features.split(sizes), strict=True):
        with branch_layout(alone, [(branch, None)]):
            expected.append(alone(part))
    with branch_layout(layer, list(zip(BRANCHES, sizes, strict=True))):
        found = layer(features)
    assert torch.equal(found, torch.cat(expected))
    for branch in BRANCHES:
        assert same(states(layer, branch), states(alone, branch))
    assert layer.branches["stax"].num_batches_tracked == 1 + training


@pytest.mark.parametrize("training", [True, False])
def test_a_split_of_a_whole_network_equals_its_parts(multi, batch, training):
    sizes, inputs = (5, 3, 4), batch(12, seed=21)
    multi.train(training)
    alone = copy.deepcopy(multi)
    expected = []
    for branch, part in zip(BRANCHES, inputs.split(sizes), strict=True):
        with branch_layout(alone, [(branch, None)]):
            expected.append(alone(part))
    with branch_layout(multi, list(zip(BRANCHES, sizes, strict=True))):
        found = multi(inputs)
    assert torch.allclose(found, torch.cat(expected), atol=1e-5)
    for branch in BRANCHES:
        for one, other in zip(states(multi, branch), states(alone, branch), strict=True):
            assert all(torch.allclose(one[key], other[key], atol=1e-5) for key in one)


def test_the_order_of_a_layout_is_the_order_of_the_rows(multi, batch):
    inputs = batch(6, seed=22)
    with branch_layout(multi, [("mtax", None)]):
        first = multi(inputs[:4])
    with branch_layout(multi, [("clean", None)]):
        last = multi(inputs[4:])
    with branch_layout(multi, [("mtax", 4), ("clean", 2)]):
        assert torch.allclose(multi(inputs), torch.cat([first, last]), atol=1e-5)


@pytest.mark.parametrize("layout", [[("clean", 4)], [("clean", 4), ("stax", 3)], [("clean", 4), ("stax", 1)], []])
def test_a_batch_that_does_not_fit_the_layout_is_refused(multi, batch, layout):
    with (
        branch_layout(multi, layout),
        pytest.raises(SpecError, match="a batch of 6 rows does not fit the branch layout"),
    ):
        multi(batch(6))


def test_an_unknown_branch_is_refused_and_changes_nothing(multi, batch):
    inputs = batch(4)
    before = multi(inputs)
    with (
        pytest.raises(SpecError, match="no BatchNorm branch 'adv': the model has clean, stax, mtax"),
        branch_layout(multi, [("stax", 2), ("adv", 2)]),
    ):
        pytest.fail("the block must not run")
    assert torch.equal(multi(inputs), before)
    with pytest.raises(SpecError, match="no BatchNorm branch 'adv': the model has clean, stax, mtax"):
        fold(multi, "adv")


def test_the_layout_is_restored_after_a_block_and_after_an_exception(multi, batch):
    inputs = batch(4)
    clean = multi(inputs)
    with branch_layout(multi, [("stax", None)]):
        stax = multi(inputs)
        with branch_layout(multi, [("mtax", None)]):
            assert not torch.equal(multi(inputs), stax)
        assert torch.equal(multi(inputs), stax)
        with pytest.raises(RuntimeError), branch_layout(multi, [("mtax", None)]):
            multi(inputs[:, :1])  # a channel too few
        assert torch.equal(multi(inputs), stax)
    assert torch.equal(multi(inputs), clean)
    assert not torch.equal(stax, clean)


def test_a_layout_has_no_effect_on_an_ordinary_model(convnet, batch):
    model, inputs = convnet(), batch(4)
    with branch_layout(model, [("stax", 3), ("whatever", 9)]):
        inside = model(inputs)
    assert torch.equal(model(inputs), inside)
    assert branch_names(model) == ()


def test_a_model_cannot_be_converted_twice(multi):
    with pytest.raises(SpecError, match="has BatchNorm branches already: fold it to one branch first"):
        convert_to_multibn(multi, BRANCHES)
    assert branch_names(convert_to_multibn(fold(multi, "stax"), ["one", "two"])) == ("one", "two")


def test_a_model_without_batchnorm_cannot_be_converted():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), nn.GroupNorm(2, 4), nn.LayerNorm(4))
    with pytest.raises(SpecError, match="has no BatchNorm layer to give branches to: choose a backbone with BatchNorm"):
        convert_to_multibn(model, BRANCHES)


@pytest.mark.parametrize("names", [[], ["clean", "clean"], ["a", "b", "a"]])
def test_branch_names_must_be_present_and_distinct(convnet, names):
    with pytest.raises(SpecError, match="branch names must be present and distinct, got "):
        convert_to_multibn(convnet(), names)


def test_a_model_that_is_a_batchnorm_is_replaced_and_folds_back():
    layer = nn.BatchNorm1d(4)
    layer(torch.randn(9, 4) * 2 + 3)
    inputs = torch.randn(5, 4)
    expected = layer.eval()(inputs)
    model = convert_to_multibn(layer, BRANCHES)
    assert branch_names(model) == BRANCHES
    assert torch.equal(model(inputs), expected)
    folded = fold(model, "mtax")
    assert type(folded) is nn.BatchNorm1d
    assert torch.equal(folded(inputs), expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("branch", BRANCHES)
def test_a_folded_model_is_bit_equal_to_its_branch(multi, batch, branch, training):
    multi.train(training)
    inputs = batch(7, seed=30)
    folded = fold(multi, branch)
    assert not multi_layers(folded)
    with branch_layout(multi, [(branch, None)]):
        assert torch.equal(folded(inputs), multi(inputs))


def test_folding_leaves_the_original_untouched_and_shares_nothing_with_it(multi, batch):
    inputs, before = batch(4), copy.deepcopy(multi.state_dict())
    output = multi(inputs)
    folded = fold(multi, "stax")
    with torch.no_grad():
        for tensor in folded.state_dict().values():
            tensor.add_(1)
    assert branch_names(multi) == BRANCHES
    assert multi.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in multi.state_dict().items())
    assert torch.equal(multi(inputs), output)


def test_a_folded_state_is_that_of_an_ordinary_model(convnet, multi):
    ordinary = convnet()
    folded = fold(multi, "mtax")
    assert list(folded.state_dict()) == list(ordinary.state_dict())
    ordinary.load_state_dict(folded.state_dict())


def test_folding_an_ordinary_model_copies_it(convnet, batch):
    model, inputs = convnet(), batch(4)
    folded = fold(model, "clean")
    assert folded is not model
    assert torch.equal(folded(inputs), model(inputs))
