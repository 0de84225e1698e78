"""Attacks that run a model in lower precision: the judge stays in fp32, and the results say what was used."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from squares import QUIET, FakeAttack, SmallNet
from torch import nn
from torch.nn import functional as F

from robustdml.attacks import GOALS, PGD, build_attack
from robustdml.errors import SpecError
from robustdml.evaluation import evaluate, victim
from robustdml.evaluation import run as run_module
from robustdml.models import lowered
from robustdml.reports import render_report

MARGIN = PGD(GOALS["margin"](), 8 / 255, steps=4)
IMAGES = torch.rand(6, 3, 10, 10, generator=torch.Generator().manual_seed(0))


def run(data, attacks, out, model=None, **changes):
    return evaluate({"net": model or SmallNet()}, data, attacks, out=out, options=QUIET, **changes)


class Branching(nn.Module):
    """A convolution whose output is read twice, one that is called twice, and a BatchNorm after neither."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.twice, self.after = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.alone, self.head = nn.BatchNorm2d(4), nn.Linear(4, 5)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-1, 1)
                module.running_var.uniform_(0.2, 2)
        self.eval()

    def forward(self, images):
        made = self.first(images)
        images = self.norm(made) + made
        images = self.after(self.twice(self.twice(images)))
        return self.head(self.alone(images.relu()).mean((2, 3)))


class Plain(nn.Sequential):
    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, bias=False), nn.BatchNorm2d(6)
        )
        super().extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)])
        with torch.no_grad():
            for _ in range(9):
                self(IMAGES)
        self.eval()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize(("make", "folded"), [(Plain, 2), (SmallNet, 1), (Branching, 0)])
def test_a_lowered_model_answers_as_the_model_does_and_leaves_it_alone(make, folded, precision):
    model = make()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = lowered(model, precision, IMAGES)
    asked, other = (IMAGES.clone().requires_grad_() for _ in range(2))
    embeddings, expected = F.normalize(found(asked), dim=1), F.normalize(model(other), dim=1)
    assert found(asked).dtype == torch.float32
    torch.testing.assert_close(embeddings, expected, rtol=0, atol=0.03)
    weights = torch.rand_like(expected)
    slopes = [
        torch.autograd.grad((answer * weights).sum(), at)[0] for answer, at in ((embeddings, asked), (expected, other))
    ]
    assert F.cosine_similarity(*(slope.flatten(1) for slope in slopes)).min() > 0.98
    assert sum(isinstance(layer, nn.Identity) for layer in found.modules()) == folded
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_gradients_in_fp16_do_not_vanish():
    """Of a model whose gradient by a pixel is below the smallest number of fp16."""

    class Faint(SmallNet):
        def forward(self, images):
            return super().forward(0.5 + 1e-5 * (images - 0.5))

    model, images = Faint(), IMAGES.clone().requires_grad_()
    found = lowered(model, "fp16", IMAGES)
    (slope,) = torch.autograd.grad(found(images).sum() * 1e-2, images)
    (expected,) = torch.autograd.grad(model(images).sum() * 1e-2, images)
    assert (slope[expected != 0] != 0).float().mean() > 0.95


def test_attacks_see_the_lowered_model_and_the_judge_does_not(squares, tmp_path):
    seen = []

    def look(model, images):
        with torch.no_grad():
            seen.append(model(images))
        return (images + 8 / 255 * torch.sign(torch.sin(1000 * images))).clamp(0, 1)

    attack, found = FakeAttack(look), {}
    for precision in ("fp32", "bf16"):
        results = run(squares, [attack], tmp_path / precision, precision=precision)
        assert results.models[0].precision == results.spec.precision == precision
        found[precision] = results
    one, other = found.values()
    half = len(seen) // 2
    assert all(0 < (a - b).abs().max() < 0.05 for a, b in zip(seen[:half], seen[half:], strict=True))
    # The same images, the same verdicts and margins to the last bit.
    assert one.cells[0].score == other.cells[0].score
    assert one.cells[0].hits == other.cells[0].hits
    assert one.models[0].clean == other.models[0].clean
    assert "attacks ran net in bf16; judged in fp32" in render_report(other, tmp_path / "bf16")
    assert "judged in fp32" not in render_report(one, tmp_path / "fp32")


def test_what_auto_has_found_is_kept_and_not_found_anew(squares, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "fastest", lambda *_: "bf16")
    first = run(squares, [MARGIN], tmp_path, precision="auto")
    assert (first.models[0].precision, first.spec.precision) == ("bf16", "auto")

    def never(*_):
        raise AssertionError

    monkeypatch.setattr(run_module, "fastest", never)
    for path in tmp_path.rglob("*.parquet"):
        if "pgd" in str(path):
            path.unlink()
    again = run(squares, [MARGIN], tmp_path, precision="auto")
    assert again.cells[0].hits == first.cells[0].hits
    explicit = run(squares, [MARGIN], tmp_path.parent / "explicit", precision="bf16")
    assert explicit.cells[0].hits == first.cells[0].hits


@pytest.mark.parametrize(
    ("seconds", "gained", "chosen"),
    [((2.0, 1.0), (0.5, 0.5), "bf16"), ((2.0, 1.9), (0.5, 0.6), "fp32"), ((2.0, 1.0), (0.5, 0.4), "fp32")],
    ids=["faster", "no faster", "weaker"],
)
def test_auto_takes_what_is_faster_and_as_strong(seconds, gained, chosen, monkeypatch):
    tried = iter(zip(seconds, gained, strict=True))
    monkeypatch.setattr(victim, "_tried", lambda *_: next(tried))
    monkeypatch.setattr(victim, "victim", lambda *_: None)

    class Judge:
        model = None

    assert victim.fastest(Judge(), IMAGES, np.arange(6)) == chosen


def test_auto_measures_steps_that_raise_the_margins(squares, tmp_path, monkeypatch):
    measured = []
    real = victim._tried

    def watch(*arguments):
        measured.append(real(*arguments))
        return measured[-1]

    monkeypatch.setattr(victim, "_tried", watch)
    run(squares, [], tmp_path, precision="auto")
    (seconds, gained), (faster, as_strong) = measured
    assert min(seconds, faster) > 0
    assert gained > 0.01
    assert as_strong == pytest.approx(gained, rel=0.05)


def test_a_model_that_cannot_be_lowered_is_refused_by_name_and_left_by_auto(squares, tmp_path):
    class Stubborn(SmallNet):
        def forward(self, images):
            if torch.is_autocast_enabled("cpu"):
                raise RuntimeError("no autocast here")
            return super().forward(images)

    with pytest.raises(SpecError, match=r"'net': it cannot be run in bf16 .*no autocast here.*give --precision fp32"):
        run(squares, [MARGIN], tmp_path / "bf16", Stubborn(), precision="bf16")
    assert run(squares, [MARGIN], tmp_path / "auto", Stubborn(), precision="auto").models[0].precision == "fp32"
    with pytest.raises(SpecError, match="precision='int8' must be one of: fp32, auto, bf16, fp16"):
        run(squares, [MARGIN], tmp_path / "int8", precision="int8")


def test_libraries_attack_a_lowered_model_too(squares, tmp_path):
    attacks = [build_attack(name, 8 / 255) for name in ("torchattacks.PGD", "mi(goal=margin)")]
    results = run(squares, attacks, tmp_path, precision="bf16")
    assert all(cell.status == "ok" for cell in results.cells)
