"""The examples of docs/pipelines.md: files that forges read as they are meant, with commands that make a gate."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml
from command_line import cli, write_images

if sys.version_info >= (3, 11):
    import tomllib
else:  # pytest brings it along
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PIPELINES = ROOT / "docs" / "pipelines"
PAGE = (ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")
GITHUB = yaml.safe_load((PIPELINES / "github-actions.yml").read_text(encoding="utf-8"))
GITLAB = yaml.safe_load((PIPELINES / "gitlab-ci.yml").read_text(encoding="utf-8"))["robustness"]
#: GitLab's guard of a comparison: the first time there is nothing to compare with.
FIRST_TIME = "test ! -e baseline/results.json"
#: Colours survive a small change, and vanish in grey. Blue alone tells nothing.
MODEL = """
import torch
class Mean(torch.nn.Module):
    def forward(self, images):
        return (images - 0.5).mean((2, 3)) {changed}
def build():
    return Mean()
"""


def of_github() -> list[str]:
    steps = [step["run"] for step in GITHUB["jobs"]["gate"]["steps"] if "run" in step]
    return [line for step in steps for line in step.splitlines()]


def of_gitlab() -> list[str]:
    return [*GITLAB["before_script"], *GITLAB["script"], *GITLAB["after_script"]]


def commands(lines: list[str]) -> list[list[str]]:
    plain = (line.removeprefix(f"{FIRST_TIME} || ") for line in lines)
    found = [shlex.split(line)[1:] for line in plain if line.startswith("robustdml ")]
    return [words for words in found if words[0] != "doctor"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A repository with images, the configuration as it stands, and the results of the model in use."""
    place = tmp_path_factory.mktemp("repository")
    write_images(place / "photos", {f"class {number}": 6 for number in range(6)})
    text = (PIPELINES / "evaluate.toml").read_text(encoding="utf-8")
    # One cheap attack, and images of a size: what the gate does is tried, not the suite.
    (place / "evaluate.toml").write_text(f'{text}attacks = "margin(steps=3)"\nimage_size = 16\n')
    (place / "model.py").write_text(MODEL.format(changed=""))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        done = cli(
            "evaluate", "--config", "evaluate.toml", "--quiet", "--out", "baseline", "--fail-under", "clean:R@1=0"
        )
        assert done.exit_code == 0, done.output
    return place


@pytest.mark.parametrize("lines", [of_github(), of_gitlab()], ids=["github", "gitlab"])
def test_a_candidate_as_good_as_before_passes_every_step(place, lines, monkeypatch):
    monkeypatch.chdir(place)
    names = [words[0] for words in commands(lines)]
    assert sorted(names) == ["compare", "evaluate", "report"]
    for words in commands(lines):
        bars = ["--fail-under", "clean:R@1=0"] if words[0] == "evaluate" else []
        done = cli(*words, *bars)
        assert done.exit_code == 0, (words, done.output)
    made = {path.name for path in place.iterdir()}
    assert {"summary.md", "robustness.xml", "changes.md", "changes.xml"} <= made


def test_a_candidate_below_the_bar_and_one_that_is_worse_fail(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    evaluate, compare = commands(of_gitlab())[:2]
    missed = cli(*evaluate, "--eps", "100/255", "--fail-under", "worst:recall@1=1", "--out", "runs/missed")
    assert missed.exit_code == 3
    (place / "blind.py").write_text(MODEL.format(changed="[:, :1] * 0 + images.mean((1, 2, 3))[:, None].sin() ** 9"))
    blind = cli(*evaluate, "candidate=blind.py:build", "--fail-under", "clean:R@1=0", "--out", "runs/candidate-blind")
    assert blind.exit_code in {0, 4}, blind.output
    words = ["runs/candidate-blind" if word == "runs/candidate" else word for word in compare]
    assert cli(*words).exit_code == 3


def test_the_files_are_what_forges_read():
    # YAML 1.1 reads the key `on` as a boolean, and so do GitHub's own examples.
    assert GITHUB[True] == ["pull_request"]
    (job,) = GITHUB["jobs"].values()
    assert set(job) == {"runs-on", "timeout-minutes", "steps"}
    assert all(("run" in step) != ("uses" in step) for step in job["steps"])
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) for step in job["steps"] if "uses" in step)
    assert {"image", "script", "artifacts"} <= set(GITLAB)
    assert [FIRST_TIME in line for line in GITLAB["script"]] == [False, True]
    assert any("hashFiles('baseline/results.json')" in str(step.get("if")) for step in job["steps"])
    reported = set(GITLAB["artifacts"]["reports"]["junit"])
    written = {words[words.index("--junit") + 1] for words in commands(of_gitlab()) if "--junit" in words}
    assert reported == written
    assert any(line == "robustdml doctor" for line in of_github())
    assert "robustdml doctor" in of_gitlab()


def test_the_page_shows_the_configuration_and_its_yaml_and_links_are_right():
    (shown,) = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert tomllib.loads(shown) == tomllib.loads((PIPELINES / "evaluate.toml").read_text(encoding="utf-8"))
    (hook,) = yaml.safe_load(re.search(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)[1])["repos"][0]["hooks"]
    assert shlex.split(hook["entry"])[:2] == ["robustdml", "report"]
    for target in re.findall(r"\]\(([^):#]+)\)", PAGE):
        assert (ROOT / "docs" / target).resolve().is_file(), target


def test_the_hooks_of_this_repository_run_what_make_check_runs():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    (repository,) = config["repos"]
    assert repository["repo"] == "local"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for hook in repository["hooks"]:
        assert {"id", "name", "entry", "language"} <= set(hook)
        tool = hook["entry"].split()[0].removeprefix(".venv/bin/")
        assert f"$(BIN)/{tool}" in makefile


def test_the_container_copies_what_is_there_and_all_that_the_package_needs():
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    steps = [line.split() for line in lines if line and not line.startswith("#")]
    assert steps[0][0] == "FROM"
    copied = [word for step in steps if step[0] == "COPY" for word in step[1:-1]]
    assert {"pyproject.toml", "setup.py", "README.md", "LICENSE", "robustdml", "attacks", "reports"} <= set(copied)
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert all((ROOT / name).exists() and f"!{name}" in ignored for name in copied)
    assert steps[-2] == ["ENTRYPOINT", '["robustdml"]']
