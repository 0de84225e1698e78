"""S2SD: its value from the formula, its gradient, its errors."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from robustdml.attacks import GOALS
from robustdml.config import RunOptions, TrainConfig
from robustdml.data import load_dataset
from robustdml.errors import SpecError
from robustdml.models import EmbeddingModel, ModelConfig
from robustdml.models.features import captured_features, check_feature_map
from robustdml.training import TrainResult, build_loss, loop, train
from robustdml.training.processes import ALONE
from robustdml.training.s2sd import S2SD, distillation
from robustdml.training.setup import set_up


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


@pytest.mark.parametrize(
    "part",
    ["dims=wide", "base=s2sd", "target_base=s2sd", "feature_weight=0", "pooling=max", "weight=-1", "start=-1", "foo=1"],
)
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


def test_each_published_choice_changes_its_own_term() -> None:
    """Source and target loss, and the weight of feature distillation, by the difference that each makes."""
    embeddings, features = F.normalize(torch.randn(6, 4), dim=1), torch.randn(6, 6)
    labels = torch.tensor([0, 0, 0, 1, 1, 1])

    def value(text: str) -> tuple[S2SD, float]:
        torch.manual_seed(0)
        loss = build_loss(f"s2sd(dims=8, start=0, {text})", "none", classes=2, embedding_dim=4, features=6)
        assert isinstance(loss, S2SD)
        return loss, loss(embeddings, labels, features).item()

    loss, plain = value("weight=5")
    assert loss.feature_weight == 5
    more = float(distillation(embeddings, F.normalize(features, dim=1), 1))
    assert value("weight=5, feature_weight=50")[1] - plain == pytest.approx(45 * more, rel=1e-4)
    (target,) = loss.targets
    wide = F.normalize(target(features), dim=1)
    source, aim = (build_loss(name, "none", classes=2, embedding_dim=8) for name in ("multisimilarity", "contrastive"))
    change = (aim(wide, labels) - source(wide, labels)).item() / 2
    assert value("weight=5, target_base=contrastive")[1] - plain == pytest.approx(change, rel=1e-4)


@pytest.mark.parametrize("backbone", ["resnet-tiny", "resnet18", "timm.resnet10t"])
def test_targets_see_the_average_and_the_maximum_of_the_map(backbone: str) -> None:
    torch.manual_seed(0)
    model = EmbeddingModel(ModelConfig(backbone, embedding_dim=4, image_size=64)).eval()
    check_feature_map(model)
    maps: list[torch.Tensor] = []
    source = model.backbone.layers if backbone == "resnet-tiny" else model.backbone.layer4
    handle = source.register_forward_hook(lambda _module, _inputs, output: maps.append(output))
    with torch.no_grad(), captured_features(model, "average-maximum") as both, captured_features(model) as plain:
        model(torch.rand(2, 3, 64, 64))
    handle.remove()
    torch.testing.assert_close(plain[0], maps[0].mean((2, 3)))
    torch.testing.assert_close(both[0], maps[0].mean((2, 3)) + maps[0].flatten(2).max(2).values)
    assert not model.training


@pytest.mark.parametrize("backbone", ["vgg11_bn", "alexnet", "vit_b_32"])
def test_a_backbone_whose_features_are_no_average_is_refused(backbone: str) -> None:
    model = EmbeddingModel(ModelConfig(backbone, embedding_dim=4, image_size=64))
    with pytest.raises(SpecError, match=f"features of '{backbone}' are no average over a map.* take pooling=average"):
        check_feature_map(model)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_training_takes_the_pooling_and_does_not_decay_what_the_loss_learns(tmp_path, monkeypatch) -> None:
    data = load_dataset("digits")
    seen = []
    forward = S2SD.forward
    monkeypatch.setattr(S2SD, "forward", lambda self, *args: seen.append(args[2]) or forward(self, *args))
    config = TrainConfig(
        method="st", backbone="resnet-tiny", image_size=16, epochs=1, batch_size=400, embedding_dim=16,
        validation_classes=0, loss="s2sd(base=arcface, dims=32, pooling=average-maximum)", weight_decay=0.1,
    )  # fmt: skip
    run = set_up(data, config, GOALS, RunOptions(device="cpu", progress=False), ALONE)
    assert [(group["weight_decay"], group["peak"]) for group in run.optimizer.adam.param_groups] == [
        (0.1, 1e-3), (0.0, 1e-3), (0.0, 5e-4)
    ]  # fmt: skip
    learned = [sum(part.numel() for part in group["params"]) for group in run.optimizer.adam.param_groups]
    assert learned[1] == sum(part.numel() for part in run.loss.targets.parameters())
    assert learned[2] == sum(part.numel() for name, part in run.loss.named_parameters() if name.endswith("W"))
    result = train(data, config, tmp_path, goals=GOALS, options=RunOptions(device="cpu", progress=False))
    assert result.kept_epoch == 1
    tried = (20, 256)  # the small batch that every loss is tried on
    assert {tuple(features.shape) for features in seen} == {(400, 256), tried}
    decayed = TrainConfig(loss="arcface", loss_weight_decay=0.2)
    assert decayed.to_dict()["loss_weight_decay"] == 0.2


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
