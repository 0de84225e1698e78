"""The command line from the outside: what it writes, and one sentence with exit code 2 for every bad input."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import Result
from command_line import cli, refused, write_images
from few_digits import few_digits

from robustdml.models import load_checkpoint
from robustdml.results import Results

TRAIN = ["--backbone", "resnet-tiny", "--image-size", "16", "--epochs", "1", "--batch-size", "18", "--quiet"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    write_images(root / "train", {"red": 6, "green": 6, "blue": 6})
    write_images(root / "test", {"cyan": 5, "pink": 5, "grey": 5})
    return root


@pytest.fixture(scope="module")
def trained(tree, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    for method in ("st", "mdprop"):
        result = cli("train", "--data", "folder", "--root", tree, "--method", method, "--out", out / method, *TRAIN)
        assert result.exit_code == 0, result.output
    return out


def evaluate(trained: Path, tree: Path, out: Path, *more: object) -> Result:
    models = (trained / "st", trained / "mdprop")
    return cli("evaluate", *models, "--data", "folder", "--root", tree, "--out", out, "--quiet", *more)


@pytest.mark.slow
def test_from_a_folder_of_images_to_a_report(trained, tree, tmp_path):
    result = evaluate(
        trained,
        tree,
        tmp_path / "e",
        "--attacks",
        "quick,torchattacks.PGD,art.FastGradientMethod",
        "--eps",
        "4/255,8/255",
    )
    assert result.exit_code == 0, result.output
    results = Results.load(tmp_path / "e")
    assert [model.name for model in results.models] == ["st", "mdprop"]
    assert [model.method for model in results.models] == ["st", "mdprop"]
    assert results.dataset.image_size == 16
    assert len(results.cells) == 2 * 2 * len(results.attacks)
    assert all(cell.status == "ok" for cell in results.cells), [cell.reason for cell in results.cells]
    assert str(tmp_path / "e" / "report.html") in result.output.replace("\n", "")
    for model, worst in zip(results.models, results.worst[1::2], strict=True):
        assert f"{worst.score.metrics.recall_at_1:.3f}" in result.output
        assert f"{model.clean.metrics.recall_at_1:.3f}" in result.output
    before = (tmp_path / "e" / "report.html").read_bytes()
    (tmp_path / "e" / "report.html").unlink()
    again = cli("report", tmp_path / "e")
    assert again.exit_code == 0
    assert (tmp_path / "e" / "report.html").read_bytes() == before


@pytest.mark.slow
def test_the_same_command_resumes_and_another_is_refused(trained, tree, tmp_path):
    arguments = ("--attacks", "noise", "--eps", "8/255")
    assert evaluate(trained, tree, tmp_path / "e", *arguments).exit_code == 0
    shards = {path: path.stat().st_mtime_ns for path in (tmp_path / "e" / "records").rglob("*.parquet")}
    assert evaluate(trained, tree, tmp_path / "e", *arguments).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in shards} == shards
    refused(
        evaluate(trained, tree, tmp_path / "e", "--attacks", "noise", "--eps", "4/255"), r"holds another run .*attacks"
    )
    assert {path: path.stat().st_mtime_ns for path in shards} == shards


@pytest.mark.slow
def test_every_branch_is_evaluated_and_the_page_says_which(trained, tree, tmp_path):
    result = evaluate(trained, tree, tmp_path / "e", "--attacks", "margin", "--branches", "all")
    assert result.exit_code == 0, result.output
    results = Results.load(tmp_path / "e")
    assert [model.name for model in results.models] == ["st", "mdprop", "mdprop[stax]", "mdprop[mtax]"]
    assert len({model.fingerprint for model in results.models}) == 4
    assert {cell.model for cell in results.cells if cell.score} == {model.name for model in results.models}
    assert "mdprop[stax]" in result.output
    page = (tmp_path / "e" / "report.html").read_text()
    for branch in ("clean (deployed)", "stax", "mtax"):
        assert f"{trained / 'mdprop'}, BatchNorm branch {branch}" in page


def test_a_module_of_ones_own(tree, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import os, torch\n"
        "def end():\n    os._exit(0)\n"
        "def build():\n    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 4))\n"
        "def broken():\n    raise ValueError('no weights')\n"
        "def number():\n    return 4\n"
    )
    monkeypatch.chdir(tmp_path)
    common = ("--data", "folder", "--root", tree, "--image-size", "16", "--attacks", "margin", "--quiet")
    result = cli("evaluate", "mine:build", *common, "--out", tmp_path / "e")
    assert result.exit_code == 0, result.output
    assert Results.load(tmp_path / "e").models[0].source == "mine:build"
    refused(cli("evaluate", "mine:broken", *common, "--out", tmp_path / "f"), "cannot be loaded .*no weights")
    refused(
        cli("evaluate", "mine:number", *common, "--out", tmp_path / "f"), "returned int: it must return a torch module"
    )
    refused(cli("evaluate", "mine:end", *common, "--out", tmp_path / "f"), "tried to end the program")
    refused(cli("evaluate", "mine:absent", *common, "--out", tmp_path / "f"), "cannot be loaded")
    assert not (tmp_path / "f").exists()


def test_an_evaluation_in_which_no_attack_is_judged_ends_with_4(tree, tmp_path):
    common = ("--data", "folder", "--root", tree, "--image-size", "16", "--attacks", "margin", "--quiet")
    result = cli("evaluate", "own_backbones:Own", *common, "--attack-time-limit", "1e-9", "--out", tmp_path / "e")
    assert result.exit_code == 4, result.output
    assert "No attack was judged" in result.output


@pytest.mark.parametrize("what", ["attacks", "goals", "datasets", "backbones", "losses", "methods", "metrics"])
def test_lists_are_the_same_as_text_and_as_json(what):
    text, rows = cli("list", what), json.loads(cli("list", what, "--json").output)
    assert text.exit_code == 0
    assert len(rows) >= 3
    for row in rows:
        assert re.search(rf"^{re.escape(row['name'])} ", text.output, re.MULTILINE)
        assert row["summary"] in text.output


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        (["--attacks", "pdg"], r"unknown attack or suite 'pdg': did you mean 'pgd'\? nearest of \d+ known: pgd, "),
        (["--attacks", "pgd(stepz=3)"], "pgd has no parameter 'stepz', it has: goal, steps"),
        (["--attacks", "pgd(goal=stacks)"], r"unknown goal for pgd 'stacks': did you mean 'stax'\?"),
        (["--attacks", "pgd(steps=many)"], "steps='many' must be a whole number"),
        (["--attacks", "pgd(eps=10)"], "eight grey levels are 8/255"),
        (["--attacks", "torchattacks.DeepFool(eps=0.1)"], "looks for the smallest perturbation and takes no eps"),
        (["--attacks", "torchattacks.DeepFool(goal=mtax)"], "unknown goal for torchattacks.DeepFool 'mtax'"),
        (["--attacks", ""], "no attack given"),
        (["--fail-under", "clean:recall@3=0.1"], r"unknown metric 'recall@3': did you mean 'recall@\d'"),
        (["--data", "grocry"], r"unknown data set 'grocry': did you mean 'grocery'\?"),
        (["--eps", "8"], r"eps 8 is outside \(0, 1\]: .* 8/255"),
        (["--eps", "0"], r"eps 0 is outside \(0, 1\]"),
        (["--eps", "8/256x"], "is not a number"),
        (["--max-queries", "0"], "must be at least 1"),
        (["--branches", "stax"], "'stax' is not one of 'deployed', 'all'"),
        (["--device", "gpu"], "device 'gpu' cannot be used"),
    ],
)
def test_evaluate_refuses(trained, tree, tmp_path, changes, pattern):
    refused(evaluate(trained, tree, tmp_path / "e", "--attacks", "noise", *changes), pattern)
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        (["--backbone", "resnet-tinny"], r"unknown backbone 'resnet-tinny': did you mean 'resnet-tiny'\?"),
        (["--method", "mdprob"], r"unknown method 'mdprob': did you mean 'mdprop'\?"),
        (["--loss", "tripled"], r"unknown loss 'tripled': did you mean 'triplet'\?"),
        (["--eps", "1.5"], r"eps 1.5 is outside \(0, 1\]"),
        (["--m-per-class", "3"], "need 6 classes, there are 3: raise --m-per-class or lower --batch-size"),
        (["--validation-classes", "2"], "cannot hold out 2 of 3 training classes"),
        (["--pretrained"], "small backbones have no pretrained weights"),
        (["--root", "nowhere"], "folder 'nowhere' .* does not exist"),
    ],
)
def test_train_refuses(tree, tmp_path, changes, pattern):
    arguments = ["train", "--data", "folder", "--root", tree, "--out", tmp_path / "run", *TRAIN, *changes]
    refused(cli(*arguments), pattern)
    assert not (tmp_path / "run" / "model.json").exists()


def train_on(root: Path, out: Path) -> Result:
    return cli("train", "--data", "folder", "--root", root, "--out", out, *TRAIN, "--method", "st")


def test_a_corrupt_image_is_named(tree, tmp_path):
    shutil.copytree(tree, tmp_path / "data")
    (tmp_path / "data" / "train" / "red" / "3.png").write_bytes(b"not a picture")
    refused(train_on(tmp_path / "data", tmp_path / "run"), r"train/red/3\.png")


def test_overlapping_classes_a_lonely_training_image_and_an_empty_folder_are_refused(tree, tmp_path):
    shutil.copytree(tree, tmp_path / "overlap")
    shutil.copytree(tree / "train" / "red", tmp_path / "overlap" / "test" / "red")
    refused(train_on(tmp_path / "overlap", tmp_path / "run"), "class 'red' is in both")

    shutil.copytree(tree, tmp_path / "lonely")
    for path in sorted((tmp_path / "lonely" / "train" / "red").iterdir())[1:]:
        path.unlink()
    refused(train_on(tmp_path / "lonely", tmp_path / "run"), "training class 'red' has one image")

    (tmp_path / "empty").mkdir()
    refused(train_on(tmp_path / "empty", tmp_path / "run"), "empty' is empty: it needs a folder with images")
    refused(cli("train", "--data", "folder", "--out", tmp_path / "run"), "root")
    refused(cli("train", "--data", "digits", "--root", tree, "--out", tmp_path / "run"), "built in and reads no folder")


def test_a_checkpoint_that_is_not_ours_is_refused(tree, tmp_path):
    common = ("--data", "folder", "--root", tree, "--attacks", "noise", "--out", tmp_path / "e", "--quiet")
    refused(cli("evaluate", tmp_path / "absent", *common), "no checkpoint at .*absent")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    refused(cli("evaluate", foreign, *common), "is not a robustdml checkpoint")
    (foreign / "model.json").write_text('{"model_type": "resnet"}')
    (foreign / "model.safetensors").write_bytes(b"\x80\x04 a pickle")
    refused(cli("evaluate", foreign, *common), "is not a checkpoint that this robustdml can read")


def test_an_output_folder_that_holds_something_else_is_refused(trained, tree, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    refused(evaluate(trained, tree, tmp_path, "--attacks", "noise"), "is not empty and holds no run")
    refused(train_on(tree, tmp_path), "is not empty and holds no run")
    refused(train_on(tree, trained / "mdprop"), r"holds another run \(it differs in: method\)")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_paths_that_cannot_be_written_are_refused(trained, tree, tmp_path):
    (tmp_path / "file.txt").write_text("mine")
    refused(train_on(tree, tmp_path / "file.txt" / "x"), r"file\.txt.* cannot be written \(there is a file in")
    refused(train_on(tree, tmp_path / "file.txt"), "is a file, not a folder")
    assert evaluate(trained, tree, tmp_path / "e", "--attacks", "noise").exit_code == 0
    refused(cli("report", tmp_path / "e", "--out", tmp_path), "is a directory")
    refused(evaluate(trained, tree, trained / "st", "--attacks", "noise"), "holds a run of another command")


def test_report_refuses_a_folder_without_results(tmp_path):
    refused(cli("report", tmp_path), "no results.json in")
    (tmp_path / "results.json").write_text("{}")
    refused(cli("report", tmp_path), "is not a results file of schema 3")


def test_a_torchvision_that_does_not_fit_its_torch_gets_a_sentence(trained, tree, tmp_path, monkeypatch):
    def fails(*args, **kwargs):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("robustdml.data.load_dataset", fails)
    refused(
        evaluate(trained, tree, tmp_path / "e"),
        "do not fit each other .* install a matching pair .*torchvision==0.29.1",
    )


def test_a_fault_of_ours_asks_for_a_report_and_shows_its_traceback_on_request(monkeypatch, tree, tmp_path):
    def fails(*args, **kwargs):
        raise RuntimeError("a bug\x1b[2J of ours " + "long " * 500)

    monkeypatch.setattr("robustdml.data.load_dataset", fails)
    command = ("train", "--data", "folder", "--root", tree, "--out", tmp_path)
    result = cli(*command)
    assert result.exit_code == 1
    assert re.fullmatch(
        r"Error: RuntimeError: a bug\ufffd\[2J of ours .* please report it, .*--debug.*\n", result.output
    )
    assert len(result.output) <= 400
    for words in ((*command, "--debug"), ("--debug", *command)):
        result = cli(*words)
        assert result.exit_code == 1
        assert "Traceback" in result.output
        assert 'raise RuntimeError("a bug' in result.output


def test_a_mistake_shows_its_traceback_on_request_only(tree, tmp_path):
    command = ("train", "--data", "folder", "--root", tree / "absent", "--out", tmp_path)
    refused(cli(*command), "does not exist")
    shown = cli(*command, "--debug")
    assert shown.exit_code == 2
    assert "Traceback" in shown.output
    assert "does not exist" in shown.output.splitlines()[-1]


@pytest.mark.parametrize("value", ["x" * 5000, "\x1b[31m\x9b2J\u202e", "a\nError: b", "\udcff", "'" * 900, "'a" * 900])
@pytest.mark.parametrize("option", ["--data", "--attacks", "--eps", "--device", "--max-queries", "--nope"])
def test_a_value_is_quoted_on_one_short_line_that_no_terminal_obeys(trained, tree, tmp_path, option, value):
    result = evaluate(trained, tree, tmp_path / "e", f"{option}={value}")
    assert result.exit_code == 2
    said = result.output[result.output.index("Error: ") :]
    assert len(said) <= 310
    assert said.count("\n") == 1
    assert said[:-1].isprintable()


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("", "is empty"),
        ("a\0b", "holds a zero"),
        ("~nobody-of-that-name/x", "there is no user"),
        *(
            (path, "the system's own")
            for path in ("/dev/zero", "/proc/self/environ", "/dev/fd/0", "/dev/shm/../null", "/sys")
        ),
    ],
)
def test_what_is_no_path_of_files_is_refused(tree, trained, tmp_path, path, pattern):
    for words in (("--root", path, "--out", tmp_path / "e"), ("--out", path)):
        refused(cli("train", "--data", "folder", "--root", tree, *words), pattern)
    refused(cli("report", path), pattern)
    refused(cli("export", trained / "st", "--out", path), pattern)


@pytest.mark.slow
def test_the_quick_demo_writes_its_report(tmp_path, monkeypatch):
    monkeypatch.setattr("robustdml.data.load_dataset", lambda _: few_digits(30))
    result = cli("demo", "--quick", "--quiet", "--out", tmp_path / "demo")
    assert result.exit_code == 0, result.output
    results = Results.load(tmp_path / "demo" / "evaluation")
    assert [model.method for model in results.models] == ["st", "advprop", "mdprop"]
    assert all(cell.status == "ok" for cell in results.cells)
    assert (tmp_path / "demo" / "report.html").stat().st_size > 100_000


def test_train_reads_a_recipe_and_typed_options_go_before_it(tree, tmp_path):
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(
        '[train]\nbackbone = "resnet-tiny"\nmethod = "mp1"\nepochs = 7\nbatch_size = 18\nembedding_dim = 16\n'
    )
    data = ("train", "--data", "folder", "--root", tree)
    arguments = ("--epochs", "1", "--quiet", "--out", tmp_path / "run")
    result = cli(*data, "--recipe", recipe, *arguments)
    assert result.exit_code == 0, result.output
    assert "mp1 on folder" in result.output
    training = json.loads((tmp_path / "run" / "spec.json").read_text())["spec"]
    assert (training["epochs"], training["method"], training["batch_size"]) == (1, "mp1", 18)
    refused(cli(*data, "--recipe", tmp_path / "absent.toml", *arguments), "cannot read the recipe")


def test_a_model_is_called_as_it_is_named(tmp_path, tree, trained):
    data = ("--data", "folder", "--root", tree, "--attacks", "noise", "--max-queries", "4")
    result = cli(
        "evaluate", f"first={trained / 'st'}", f"second={trained / 'st'}", *data, "--quiet", "--out", tmp_path / "named"
    )
    assert result.exit_code == 0, result.output
    assert [model.name for model in Results.load(tmp_path / "named").models] == ["first", "second"]


def test_a_typed_method_goes_before_the_branches_of_a_recipe(tree, tmp_path):
    recipe = tmp_path / "own.toml"
    recipe.write_text(
        '[train]\nbackbone = "resnet-tiny"\nepochs = 1\nbatch_size = 18\nembedding_dim = 16\n'
        '[[branch]]\nkind = "clean"\n[[branch]]\nkind = "stax"\nbatchnorm = "own"\n'
    )
    common = ("train", "--data", "folder", "--root", tree, "--recipe", recipe, "--quiet", "--out")
    assert cli(*common, tmp_path / "a").exit_code == 0
    assert cli(*common, tmp_path / "b", "--method", "st").exit_code == 0
    assert load_checkpoint(tmp_path / "a").branches == ("clean", "own")
    assert load_checkpoint(tmp_path / "a").training["method"] == "own"
    assert load_checkpoint(tmp_path / "b").branches == ()
    assert load_checkpoint(tmp_path / "b").training["method"] == "st"


def test_a_failed_attack_is_said_with_its_reason_and_the_rest_goes_on(tmp_path, tree, trained):
    result = evaluate(trained, tree, tmp_path / "run", "--attacks", "noise,stax(choose=given, item=999999)")
    assert result.exit_code == 4, result.output
    assert "2 of 4 attack runs failed, the first since" in result.output
    assert "the gallery has no item with the id 999999" in " ".join(result.output.split())


def test_an_image_size_of_nothing_is_refused(tmp_path, tree, trained):
    refused(evaluate(trained, tree, tmp_path / "run", "--attacks", "noise", "--image-size", "0"), "between 8 and 2048")
