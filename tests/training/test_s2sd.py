"""S2SD: its value from the formula, its gradient, its errors."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from robustdml.attacks import GOALS
from robustdml.config import RunOptions, TrainConfig
from robustdml.data import load_dataset
from robustdml.errors import SpecError
from robustdml.training import TrainResult, build_loss, loop, train
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


def _multisimilarity(x: np.ndarray, labels: np.ndarray) -> float:
    """Wang et al. 2019, eq. 12, over all pairs; alpha 2, beta 40, base 0.5."""
    total = 0.0
    for i, row in enumerate(x @ x.T):
        own = [s for j, s in enumerate(row) if j != i and labels[j] == labels[i]]
        others = [s for j, s in enumerate(row) if labels[j] != labels[i]]
        total += np.log1p(sum(np.exp(-2 * (s - 0.5)) for s in own)) / 2
        total += np.log1p(sum(np.exp(40 * (s - 0.5)) for s in others)) / 40
    return total / len(x)


def test_the_value_is_that_of_the_formula() -> None:
    torch.manual_seed(0)
    loss = build_loss("s2sd(dims='8-16', weight=5, start=0)", "none", classes=2, embedding_dim=4, features=6).double()
    assert isinstance(loss, S2SD)
    embeddings = F.normalize(torch.randn(6, 4, dtype=torch.float64), dim=1)
    features, labels = torch.randn(6, 6, dtype=torch.float64), torch.tensor([0, 0, 0, 1, 1, 1])

    def unit(x: np.ndarray) -> np.ndarray:
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    def rows(x: np.ndarray) -> np.ndarray:
        return np.exp(x @ x.T) / np.exp(x @ x.T).sum(1, keepdims=True)

    def divergence(teacher: np.ndarray) -> float:
        return float((rows(teacher) * np.log(rows(teacher) / rows(ours))).sum(1).mean())

    ours, raw = embeddings.numpy(), features.numpy()
    targets = []
    for branch in loss.targets:
        (w1, b1), (w2, b2) = ((layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in branch[::2])
        targets.append(unit(np.maximum(raw @ w1.T + b1, 0) @ w2.T + b2))
    base = _multisimilarity(ours, labels.numpy())
    wanted = (base + np.mean([_multisimilarity(target, labels.numpy()) for target in targets])) / 2
    wanted += 5 * (np.mean([divergence(target) for target in targets]) + divergence(unit(raw)))
    assert loss(embeddings, labels, features).item() == pytest.approx(wanted, rel=1e-6)


@pytest.mark.slow
def test_training_lowers_it_and_a_stopped_run_ends_with_the_same_weights(tmp_path, monkeypatch) -> None:
    data = load_dataset("digits")
    config = TrainConfig(
        method="mdprop", backbone="resnet-tiny", image_size=16, epochs=3, batch_size=60, embedding_dim=16,
        loss="s2sd(dims='32-64', start=15)", validation_classes=0,
    )  # fmt: skip

    def run(name: str) -> TrainResult:
        options = RunOptions(device="cpu", progress=False)
        return train(data, config, tmp_path / name, goals=GOALS, options=options)

    whole = run("whole")
    # The term on features joins after the first epoch (15 steps each): the two that have it are compared.
    assert whole.history[2]["loss"] < whole.history[1]["loss"]
    original, calls = loop.step_loss, iter(range(1000))

    def dies(*args, **kwargs):
        if next(calls) == 20:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(loop, "step_loss", dies)
    with pytest.raises(KeyboardInterrupt):
        run("stopped")
    monkeypatch.setattr(loop, "step_loss", original)
    resumed = run("stopped")
    assert [row["loss"] for row in resumed.history] == [row["loss"] for row in whole.history]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
