"""Each model is given images as it says that they must be prepared, and a reader is told where it was not."""

from __future__ import annotations

import json
import re

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from squares import QUIET, FakeAttack, SmallNet, make_dataset

from robustdml.attacks import build_attack, build_suite
from robustdml.cli.summary import summarise
from robustdml.data.tensors import ImageTensors
from robustdml.errors import RunFolderError, SpecError
from robustdml.evaluation import evaluate
from robustdml.files import sealed
from robustdml.models import EmbeddingModel, ModelConfig
from robustdml.preprocessing import Preprocessing
from robustdml.reports import compare_runs, write_outputs, write_report
from robustdml.results import Results

PLAIN = Preprocessing(10)
CROPPED = Preprocessing(10, 14, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
LARGE = Preprocessing(16, 20)


class Declaring(SmallNet):
    """A model that says how its images are prepared, and keeps what it was given."""

    def __init__(self, preprocessing=None) -> None:
        super().__init__()
        if preprocessing is not None:
            self.preprocessing = preprocessing
        self.seen = []

    def forward(self, images):
        self.seen.append(images.detach().clone())
        return super().forward(images)


@pytest.fixture
def pictures():
    """Images larger than what the models take."""
    return make_dataset(size=20)


def side_lengths(picture) -> tuple[int, int]:
    with Image.open(picture) as image:
        return image.size


def run(data, models, out, attacks=(), **changes):
    return evaluate(models, data, list(attacks), out=out, options=QUIET, **changes)


def is_given(model: Declaring, data, preprocessing: Preprocessing) -> bool:
    """Whether the first images that a model saw are those of the data set, prepared like that."""
    expected = ImageTensors(data.images, preprocessing).batch(data.test.gallery)
    return torch.equal(model.seen[0], expected)


def test_models_of_one_size_and_different_views_each_see_their_own(pictures, tmp_path):
    models = {"plain": Declaring(PLAIN), "cropped": Declaring(CROPPED), "silent": Declaring()}
    attacked = []
    attack = FakeAttack(lambda _, images: attacked.append(images.clone()) or images, eps=0.1)
    results = run(pictures, models, tmp_path / "all", [attack, *build_suite("pgd(norm=l2)", "0.5")])
    used = {"plain": PLAIN, "cropped": CROPPED, "silent": PLAIN}
    for (name, how), images in zip(used.items(), attacked, strict=True):
        assert is_given(models[name], pictures, how)
        assert torch.equal(images, ImageTensors(pictures.images, how).batch(pictures.query))
    assert not torch.equal(attacked[0], attacked[1])
    assert {model.name: model.preprocessing for model in results.models} == used
    assert [model.declared for model in results.models] == [PLAIN, CROPPED, None]
    assert "other-preprocessing" not in {flag.slug for flag in results.flags}
    assert Results.load(tmp_path / "all").models == results.models
    # And the others make no difference to any of them.
    alone = run(pictures, {"cropped": Declaring(CROPPED)}, tmp_path / "alone")
    assert alone.models[0] == results.models[1]


def test_models_of_different_sizes_each_see_their_own_under_a_budget_per_pixel(pictures, tmp_path):
    models = {"small": Declaring({"size": 10}), "large": Declaring(LARGE), "silent": Declaring()}
    results = run(pictures, models, tmp_path, build_suite("fgsm(goal=margin)", "8/255"))
    for name, how in (("small", PLAIN), ("large", LARGE), ("silent", Preprocessing(20))):  # the data set's
        assert is_given(models[name], pictures, how)
    assert results.dataset.image_size == results.spec.image_size == 20
    for model in results.models:
        shown = [example for example in results.examples if example.model == model.name]
        assert shown
        side = model.preprocessing.size
        for example in shown:
            pictured = [example.image, example.adversarial_image, example.perturbation_image]
            pictured += [hit.image for hit in example.clean_top]
            assert {side_lengths(tmp_path / picture) for picture in pictured} == {(side, side)}
    page = write_report(tmp_path).read_text()
    assert "10 x 10, 16 x 16, 20 x 20 pixels" in page.replace("\N{MULTIPLICATION SIGN}", "x")
    assert "shorter side to 20 (bilinear), centre crop 16<" in page
    assert "shorter side to 20 (bilinear), centre crop 20 (the model does not say how)" in page


@pytest.mark.parametrize("spec", ["pgd(norm=l2, eps=0.5)", "minimum(norm=l2)"])
def test_models_of_different_sizes_are_refused_under_a_budget_that_grows_with_the_size(pictures, tmp_path, spec):
    models = {"small": Declaring(PLAIN), "large": Declaring(LARGE)}
    attacks = build_suite(f"noise,{spec}", "8/255")
    with pytest.raises(SpecError, match=r"\(small of 10 x 10, large of 16 x 16 pixels\), .* is counted in L2"):
        run(pictures, models, tmp_path, attacks)
    results = run(pictures, models, tmp_path, attacks, image_size=10)
    assert {model.preprocessing.size for model in results.models} == {10}


def test_a_patch_bounds_no_norm_and_may_meet_models_of_different_sizes(pictures, tmp_path):
    results = run(
        pictures, {"a": Declaring(PLAIN), "b": Declaring(LARGE)}, tmp_path, [build_attack("patch", None)], max_queries=6
    )
    assert [cell.status for cell in results.cells] == ["ok", "ok"]


def test_another_size_is_said_everywhere(pictures, tmp_path, capsys):
    own = EmbeddingModel(ModelConfig("resnet-tiny", 8, 16, resize=20, interpolation="bicubic"))
    models = {"trained": own, "silent": Declaring(), "same": Declaring({"size": 12, "resize": 12})}
    results = run(pictures, models, tmp_path, image_size=12)
    trained, silent, same = results.models
    assert trained.preprocessing == own.preprocessing.at(12)
    assert (trained.preprocessing.resize, trained.preprocessing.interpolation) == (15, "bicubic")
    assert trained.declared == own.preprocessing
    assert silent.preprocessing == same.preprocessing == Preprocessing(12)
    (flag,) = [flag for flag in results.flags if flag.slug == "other-preprocessing"]
    assert flag.model == "trained"
    sentence = (
        "trained's images were not prepared as it says that they must be: shorter side to 15 (bicubic), "
        "centre crop 12, in place of shorter side to 20 (bicubic), centre crop 16."
    )
    assert flag.message == sentence
    summarise(results)
    assert " ".join(capsys.readouterr().out.split()).count(sentence) == 1
    page = write_outputs([tmp_path], cards=tmp_path / "cards").page
    cards = "".join(path.read_text() for path in (tmp_path / "cards").glob("*.md"))
    for text in (page.read_text(), re.sub(r"\\(.)", r"\1", cards)):
        assert "std 0.229 / 0.224 / 0.225 (the model is made for: shorter side to 20 (bicubic), centre crop 16)" in text
        assert "shorter side to 12 (bilinear), centre crop 12 (the model does not say how)" in text
        assert text.count("the model is made for") == 1
        assert "shorter side to 15 (bicubic), centre crop 12, in place of" in text


@pytest.mark.parametrize(
    "other",
    [
        {"size": 10, "resize": 12},
        {"size": 10, "squash": True},
        {"size": 10, "interpolation": "bicubic"},
        {"size": 10, "mean": (0.5, 0.5, 0.5)},
    ],
    ids=str,
)
def test_another_preprocessing_is_another_run(pictures, tmp_path, other):
    first = run(pictures, {"net": Declaring(PLAIN)}, tmp_path)
    assert run(pictures, {"net": Declaring({"size": 10})}, tmp_path).fingerprint == first.fingerprint
    with pytest.raises(RunFolderError, match=r"differs in: preprocessing of net\)"):
        run(pictures, {"net": Declaring(other)}, tmp_path)


def test_what_a_model_declares_must_be_possible(pictures, tmp_path):
    with pytest.raises(SpecError, match="Declaring declares cannot be read"):
        run(pictures, {"net": Declaring({"crop": 10})}, tmp_path)
    with pytest.raises(SpecError, match="image_size 4 x 4 must be between 8 and 2048"):
        run(pictures, {"net": Declaring({"size": 4})}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_comparison_says_where_images_were_not_prepared_alike(pictures, tmp_path):
    for name, how in (("before", PLAIN), ("after", CROPPED)):
        run(pictures, {"net": Declaring(how)}, tmp_path / name)
    (model,) = compare_runs(str(tmp_path / "before"), str(tmp_path / "after")).models
    assert model.same_weights
    (note,) = model.notes
    assert note.endswith(f": {PLAIN} before, {CROPPED} after")
    (model,) = compare_runs(str(tmp_path / "before"), str(tmp_path / "before")).models
    assert model.notes == ()


def test_results_with_a_preprocessing_of_a_newer_version_are_read_and_damaged_ones_are_refused(pictures, tmp_path):
    results = run(pictures, {"net": Declaring(CROPPED)}, tmp_path)
    content = json.loads((tmp_path / "results.json").read_text())
    del content["checksum"]
    content["models"][0]["preprocessing"]["of_a_newer_version"] = [1]
    (tmp_path / "results.json").write_text(sealed(content))
    assert Results.load(tmp_path) == results
    content["models"][0]["preprocessing"]["resize"] = 3
    (tmp_path / "results.json").write_text(sealed(content))
    with pytest.raises(RunFolderError, match=r"not a results file of schema \d \(.*resize=3 must be at least"):
        Results.load(tmp_path)


def test_code_named_on_the_command_line_declares_its_input_too(tmp_path, monkeypatch):
    from robustdml.cli import main

    (tmp_path / "theirs.py").write_text(
        "from squares import SmallNet\n"
        "def build():\n"
        "    net = SmallNet()\n"
        "    net.preprocessing = {'size': 16, 'resize': 18, 'interpolation': 'nearest'}\n"
        "    return net\n"
    )
    monkeypatch.chdir(tmp_path)
    command = ["evaluate", "theirs:build", "--data", "digits", "--attacks", "noise", "--max-queries", "10"]
    done = CliRunner().invoke(main, [*command, "--out", "out", "--quiet"])
    assert done.exit_code == 0, done.output
    assert Results.load(tmp_path / "out").models[0].preprocessing == Preprocessing(16, 18, interpolation="nearest")
