"""Training examples: one forward pass a step, targets of the same part, images in the ball."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robustdml.attacks import GOALS
from robustdml.contracts import batch_references
from robustdml.seeding import uniform_like
from robustdml.training.pixel_examples import START, TrainingExamples

EPS = 8 / 255


class Linear(nn.Module):
    """Embeddings ``W x / |W x|`` of the pixels; counts how often it is called, and in which mode."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 48, generator=torch.Generator().manual_seed(1)).double())
        self.calls: list[bool] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls.append(self.training)
        return F.normalize((images - 0.5).flatten(1) @ self.weight.T, dim=1)


@pytest.fixture
def part() -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.rand(12, 3, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return images, torch.arange(12) // 3


def examples(kind: str, steps: int, eps: float = EPS) -> TrainingExamples:
    return TrainingExamples(goal_of(kind), eps, steps)


def goal_of(kind: str):
    targets = {"mtax": {"targets": 4}, "unadversarial": {"targets": 2}}
    return GOALS[kind](**targets.get(kind, {}))


@pytest.mark.parametrize("kind", ["stax", "mtax", "unadversarial"])
def test_one_step_is_the_sign_of_the_gradient_towards_targets_of_the_part(part, kind):
    """The gradient of the mean distance ``|e - t|``, ``e = y / |y|``, ``y = W (x - 1/2)``, by hand."""
    images, labels = part
    model = Linear()
    made = examples(kind, 1)(model, images, labels, seed=7)

    start = images + START * EPS * uniform_like(images, torch.arange(12), seed=7, purpose="start0")
    start = start.clamp(0, 1)
    weight = model.weight.detach()
    flat = (start - 0.5).flatten(1) @ weight.T
    length = flat.norm(dim=1, keepdim=True)
    unit = flat / length
    rows = goal_of(kind).target_rows(batch_references(unit, labels), seed=7)
    rows = rows.view(12, -1)
    assert ((labels[rows] == labels[:, None]) == (kind[:2] == "un")).all()
    away = unit[:, None] - unit[rows]
    outer = (away / away.norm(dim=2, keepdim=True)).mean(1)
    inner = (outer - unit * (outer * unit).sum(1, keepdim=True)) / length
    moved = start - EPS * (inner @ weight).view_as(images).sign()
    expected = moved.clamp(images - EPS, images + EPS).clamp(0, 1)
    torch.testing.assert_close(made, expected, atol=1e-9, rtol=0)
    assert (made - images).abs().max() > 0.9 * EPS


@pytest.mark.parametrize("steps", [1, 3])
def test_each_step_is_one_forward_pass_in_evaluation_mode_and_the_model_comes_back(part, steps):
    images, labels = part
    model = Linear().train()
    examples("stax", steps)(model, images, labels, seed=0)
    assert model.calls == [False] * steps
    assert model.training
    assert model.weight.requires_grad
    assert model.weight.grad is None


@pytest.mark.parametrize("kind", ["stax", "mtax", "margin", "unadversarial"])
def test_several_steps_raise_the_goal_within_the_ball(part, kind):
    images, labels = part
    model = Linear()
    made = examples(kind, 10)(model, images, labels, seed=3)
    assert (made - images).abs().max() <= EPS + 1e-9
    assert made.min() >= 0
    assert made.max() <= 1
    goal = goal_of(kind)
    with torch.no_grad():
        clean = model(images)
        value = goal.objective(batch_references(clean, labels), seed=3)
        assert (value(model(made)) > value(clean)).all()


def test_the_seed_decides(part):
    images, labels = part
    first, again, other = (examples("stax", 1)(Linear(), images, labels, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
