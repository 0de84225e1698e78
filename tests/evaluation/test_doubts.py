"""Models that hide from gradients fall as their honest twin does, or no number is given for them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from known_models import Around, NoiseGradient, OtherBranch, jpeg
from squares import QUIET, SmallNet, make_dataset
from torch import nn

from robustdml.attacks import build_suite
from robustdml.evaluation import evaluate
from robustdml.evaluation.plan import Plan
from robustdml.evaluation.store import CellKey, Store
from robustdml.registry import parse_spec

EPS = 6 / 255
DATASET = make_dataset(classes=16, per_class=6)


def evaluated(out, models, suite="cascade(strength=quick)", queries=None):
    return evaluate(models, DATASET, build_suite(suite, EPS), out=out, max_queries=queries, options=QUIET)


def worst(results, model):
    return next(found.score.value for found in results.worst if found.model == model)


def stages(results, model):
    return next(cell.stages for cell in results.cells if cell.model == model)


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    return evaluated(tmp_path_factory.mktemp("twin"), {"net": SmallNet()})


HIDING = {
    "rounds": lambda: Around(SmallNet(), lambda x: (x * 255).round() / 255),
    "cuts": lambda: Around(SmallNet(), lambda x: (x * 255).byte().float() / 255),
    "detaches": lambda: Around(SmallNet(), lambda x: x.detach()),
    "replaces the gradient": lambda: Around(SmallNet(), NoiseGradient.apply),
    "rounds the embedding": lambda: Around(SmallNet(), after=lambda z: (50 * z).round() / 50),
}


@pytest.mark.parametrize("name", HIDING)
def test_straight_gradients_that_pass_the_checks_break_a_model_as_its_twin_is_broken(name, twin, tmp_path):
    found = evaluated(tmp_path, {"hides": HIDING[name]()})
    assert abs(worst(found, "hides") - worst(twin, "net")) <= 2 / 48
    assert worst(twin, "net") < twin.models[0].clean.value - 0.2
    assert found.invalid("hides") is None
    told = [flag for flag in found.flags if "The standard evaluation took gradients straight" in flag.message]
    assert {flag.grade for flag in told} == {"grave"}
    assert stages(found, "hides")[0].attack.startswith("straight(")


def test_without_the_standard_evaluation_the_flag_is_invalid(tmp_path):
    found = evaluated(tmp_path, {"hides": HIDING["rounds"]()}, "margin")
    assert found.invalid("hides").slug == "zero-gradients"
    assert "standard evaluation" not in found.invalid("hides").message


def test_of_another_branch_scores_find_what_gradients_do_not_and_no_number_is_given(twin, tmp_path):
    found = evaluated(tmp_path, {"hides": OtherBranch(SmallNet(), SmallNet(3))})
    assert found.invalid("hides").slug == "gradient-branch"
    assert "tried what was left: straight-through gradients, what scores alone find" in found.invalid("hides").message
    last = stages(found, "hides")[-1]
    assert (last.knowledge, last.attack.partition("(")[0]) == ("scores", "square")
    assert last.broken > 0
    assert worst(found, "hides") < twin.models[0].clean.value


class Sealed(nn.Module):
    """Nothing leads into it."""

    def __init__(self):
        super().__init__()
        self.net = SmallNet()

    def forward(self, images):
        with torch.inference_mode():
            found = self.net(images)
        return found.clone()


def test_images_made_on_other_models_of_the_report_come_in(twin, tmp_path):
    found = evaluated(tmp_path, {"sealed": Sealed(), "twin": SmallNet(), "other": SmallNet(1)})
    transfers = [stage for stage in stages(found, "sealed") if stage.knowledge == "transfer"]
    assert [parse_spec(stage.attack).params["surrogate"] for stage in transfers] == ["twin", "other"]
    assert not any(stage.reason for stage in stages(found, "sealed"))
    assert transfers[0].broken > 0
    assert worst(found, "sealed") <= worst(twin, "net") + 2 / 48
    assert "images made on twin and images made on other" in found.invalid("sealed").message
    assert [(stage.attack, stage.broken) for stage in stages(found, "twin")] == [
        (stage.attack, stage.broken) for stage in stages(twin, "net")
    ]


class Draws(SmallNet):
    def forward(self, images):
        return super().forward((images + 0.1 * torch.randn_like(images)).clamp(0, 1))


def test_of_a_model_that_draws_the_mean_gradient_is_climbed_and_one_attack_counts(tmp_path):
    suite = "cascade(strength=quick),noise,margin"
    found, again = (evaluated(tmp_path / name, {"net": Draws()}, suite) for name in ("one", "two"))
    cells = {cell.attack.partition("(")[0]: cell for cell in found.cells}
    assert "samples=16" in cells["cascade"].stages[0].attack
    clean = found.models[0].clean.value
    recalls = [cell.score.value for cell in found.cells]
    assert worst(found, "net") == min(recalls) < clean
    store = Store(tmp_path / "one", Plan.load(tmp_path / "one").fingerprint)
    records = [store.read_all(CellKey("net", cell.attack, cell.threat)) for cell in found.cells]
    least = np.minimum.reduce([each.values["recall_at_1"] for each in records]).mean()
    assert least < worst(found, "net")
    assert found.invalid("net") is None
    assert "climbed the mean of 16 draws" in next(flag.message for flag in found.flags if flag.slug == "stochastic")
    assert [cell.hits for cell in again.cells] == [cell.hits for cell in found.cells]


def test_jpeg_is_gone_around(tmp_path):
    found = evaluated(tmp_path, {"hides": Around(SmallNet(), jpeg)}, queries=8)
    assert stages(found, "hides")[0].attack.endswith("around=True)")
    assert stages(found, "hides")[0].broken > 0
