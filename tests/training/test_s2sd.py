"""S2SD: its value from the formula, its gradient, its errors."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from robustdml.errors import SpecError
from robustdml.training import build_loss
from robustdml.training.s2sd import S2SD, distillation


def test_distillation_is_the_divergence_of_the_rows_and_does_not_train_the_teacher() -> None:
    student, teacher = (F.normalize(torch.randn(6, d, dtype=torch.float64), dim=1).requires_grad_() for d in (3, 5))
    value = distillation(student, teacher, 0.5)
    p, q = (np.exp(x @ x.T / 0.5) for x in (teacher.detach().numpy(), student.detach().numpy()))
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    assert value.item() == pytest.approx(0.25 * (p * np.log(p / q)).sum(1).mean())
    value.backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_feature_distillation_starts_late() -> None:
    loss = build_loss("s2sd(dims='8-16', start=1)", None, classes=2, embedding_dim=4, features=6)
    assert isinstance(loss, S2SD)
    args = F.normalize(torch.randn(6, 4), dim=1), torch.tensor([0, 0, 0, 1, 1, 1]), torch.randn(6, 6)
    first, second = loss(*args).item(), loss(*args).item()
    more = 50 * float(distillation(args[0], F.normalize(args[2], dim=1), 1))
    assert second - first == pytest.approx(more, rel=1e-3)


@pytest.mark.parametrize("part", ["dims=wide", "base=s2sd", "weight=-1", "start=-1", "foo=1"])
def test_wrong_values_give_a_sentence(part: str) -> None:
    with pytest.raises(SpecError, match=part.split("=")[0]):
        build_loss(f"s2sd({part})", None, classes=2, embedding_dim=4)
