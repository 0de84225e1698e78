"""The MDProp step against a loop over its branches written out by hand."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from pretend_device import pretend_device
from torch import nn

from robustdml.attacks import GOALS
from robustdml.models import branch_layout, convert_to_multibn
from robustdml.training import METHODS
from robustdml.training.losses import build_loss
from robustdml.training.pixel_examples import TrainingExamples
from robustdml.training.step import Autocast, adversarial_part, step_loss

LOSS = build_loss("multisimilarity", None, classes=4, embedding_dim=6)


class TinyCNN(nn.Module):
    """Two convolutions with BatchNorm; embeddings ``(N, 6)`` of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(self.features(images).mean((2, 3)), dim=1)


@pytest.fixture
def model() -> TinyCNN:
    torch.manual_seed(0)
    network = TinyCNN()
    for _ in range(3):  # running statistics that are not 0 and 1
        network(torch.rand(16, 3, 10, 10))
    return network


def batch(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(size, 3, 10, 10), torch.arange(size) % 4


def attacks_of(method: str):
    targets = {"mtax": {"targets": 2}}
    return {
        branch: TrainingExamples(GOALS[branch.kind](**targets.get(branch.kind, {})), 8 / 255, 1)
        for branch in METHODS[method].branches
        if branch.kind != "clean"
    }


@pytest.mark.parametrize("size", [16, 17])
def test_mdprop_equals_a_loop_over_its_branches(model, size):
    method = METHODS["mdprop"]
    convert_to_multibn(model, method.batchnorms)
    images, labels = batch(size)
    attacks, loss = attacks_of("mdprop"), LOSS
    half = round(size / 2)
    made = {}
    for goal, rows in (("stax", slice(0, half)), ("mtax", slice(half, size))):
        branch = next(branch for branch in method.branches if branch.kind == goal)
        made[goal] = adversarial_part(model, images, labels, branch, attacks[branch], seed=5)
        assert len(made[goal]) == rows.stop - rows.start
        assert (made[goal] - images[rows]).abs().max() > 0

    # The reference: three forward passes in training mode, each through its own branch, one loss over all embeddings.
    reference = TinyCNN()
    convert_to_multibn(reference, method.batchnorms)
    reference.load_state_dict(model.state_dict())
    reference.train()
    parts = []
    for name, part in (("clean", images), ("stax", made["stax"]), ("mtax", made["mtax"])):
        with branch_layout(reference, [(name, None)]):
            parts.append(reference(part))
    expected = loss(torch.cat(parts), torch.cat([labels, labels[:half], labels[half:]]))
    expected.backward()

    model.train()
    value = step_loss(model, images, labels, method.branches, attacks, loss, seed=5)
    value.backward()
    torch.testing.assert_close(value, expected)
    for (name, ours), theirs in zip(model.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name, atol=1e-6, rtol=1e-4)
    for (name, ours), theirs in zip(model.named_buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("st", {"clean": 16}),
        ("advprop", {"clean": 16, "stax": 16}),
        ("mdprop", {"clean": 16, "stax": 8, "mtax": 8}),
        ("mp1", {"clean": 16, "mtax": 16}),
        ("robust", {"clean": 16, "stax": 8, "mtax": 8}),
        ("robust-frozen", {"clean": 32}),
        ("mp3", {"clean": 16, "stax": 5, "mtax3": 6, "mtax5": 5}),
        ("unadversarial", {"clean": 16, "unadversarial": 16}),
        ("unadversarial-shared", {"clean": 32}),
    ],
)
def test_every_row_passes_its_own_branch(model, method, expected):
    recipe = METHODS[method]
    if len(recipe.batchnorms) > 1:
        convert_to_multibn(model, recipe.batchnorms)
    model.train()
    counted: dict[str, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d) and "features.1" in name:
            branch = name.rpartition(".")[2] if "branches" in name else "clean"

            def count(layer: nn.Module, inputs: tuple[torch.Tensor, ...], branch: str = branch) -> None:
                if layer.training:  # the training pass, not the attacks' evaluation passes
                    counted[branch] = counted.get(branch, 0) + len(inputs[0])

            module.register_forward_pre_hook(count)
    images, labels = batch(16)
    step_loss(model, images, labels, recipe.branches, attacks_of(method), LOSS, seed=0)
    assert counted == expected


def test_at_sends_clean_and_adversarial_rows_through_one_batchnorm_at_once(model):
    sizes = []
    model.features[1].register_forward_pre_hook(
        lambda layer, inputs: sizes.append(len(inputs[0])) if layer.training else None
    )
    model.train()
    images, labels = batch(16)
    step_loss(model, images, labels, METHODS["at"].branches, attacks_of("at"), LOSS, seed=0)
    assert sizes == [32]


def test_making_adversarial_images_leaves_the_model_as_it_was(model):
    convert_to_multibn(model, ("clean", "stax"))
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images, labels = batch(8)
    branch = METHODS["advprop"].branches[1]
    made = adversarial_part(model, images, labels, branch, attacks_of("advprop")[branch], seed=0)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert (made - images).abs().max() <= 8 / 255 + 1e-6


def test_autocast_gives_float32_embeddings_near_those_of_full_precision(model):
    model.eval()
    images, _ = batch(4)
    with torch.no_grad():
        half = Autocast(model, torch.device("cpu"), True)(images)
        full = Autocast(model, torch.device("cpu"), False)(images)
    assert half.dtype == full.dtype == torch.float32
    assert not torch.equal(half, full)
    torch.testing.assert_close(half, full, atol=0.05, rtol=0)
    assert torch.equal(full, model(images).detach())


def test_a_step_elsewhere_is_the_same_and_no_gradient_step_of_its_examples_waits():
    """What waits is counted for two lengths of the attack: the draw of targets and noise on the host, and the loss."""

    def taken(device, steps):
        torch.manual_seed(0)
        network, method = TinyCNN(), METHODS["mdprop"]
        convert_to_multibn(network, method.batchnorms)
        attacks = {branch: dataclasses.replace(attack, steps=steps) for branch, attack in attacks_of("mdprop").items()}
        images, labels = batch(16)
        where = images.to(device), labels.to(device), method.branches, attacks, LOSS
        return step_loss(network.to(device), *where, seed=3).detach().cpu()

    waited = []
    for steps in (1, 3):
        with pretend_device() as elsewhere:
            found = taken(elsewhere.device, steps)
            waited.append(elsewhere.round_trips)
        assert torch.equal(found, taken("cpu", steps))
    assert waited[0] == waited[1]
    assert waited[0]["training/pixel_examples.make_together"] == 2  # once for each of MDProp's attacked parts


def test_branches_of_as_many_steps_are_attacked_by_the_same_passes(model):
    """MDProp's halves by one pass, so that a step is two; a third branch of other steps by its own."""
    method = METHODS["mdprop"]
    convert_to_multibn(model, method.batchnorms)
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    attacks = attacks_of("mdprop")
    step_loss(model, *batch(16), method.branches, attacks, LOSS, seed=0)
    assert sizes == [16, 32]
    mtax = list(attacks)[1]
    attacks[mtax] = dataclasses.replace(attacks[mtax], steps=2)
    sizes.clear()
    step_loss(model, *batch(16), method.branches, attacks, LOSS, seed=0)
    assert sizes == [8, 8, 8, 32]
