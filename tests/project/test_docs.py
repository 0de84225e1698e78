"""The documentation: its examples run, its commands have the options that it names, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from robustdml import __version__
from robustdml.cli import main
from robustdml.training import METHODS

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "recipes" / "README.md", *(ROOT / "docs").rglob("*.md")])
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PAGES}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(text: str, *languages: str) -> list[str]:
    return [code for language, code in BLOCK.findall(text) if language in languages]


#: These have tests of their own.
RUN_ELSEWHERE = {"docs/python.md", "docs/before-and-after.md"}
RUN = [page for page, text in TEXTS.items() if blocks(text, "python") and page not in RUN_ELSEWHERE]


@pytest.mark.parametrize("page", RUN)
def test_the_python_examples_run(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for example in blocks(TEXTS[page], "python"):
        exec(compile(example, f"example of {page}", "exec"), {})
        if "robustdml.report(" in example:
            assert (tmp_path / "runs" / "mine" / "report.html").is_file()
            clean, worst = map(float, capsys.readouterr().out.split())
            assert 0 <= worst <= clean <= 1
    if page == "docs/sources.md":
        assert "centre crop 224" in capsys.readouterr().out


def commands_of(page: str) -> list[str]:
    return re.findall(r"^\$ robustdml (.+)$", TEXTS[page], re.MULTILINE)


def test_the_commands_of_the_tutorial_are_those_of_the_readme():
    assert len(commands_of("docs/tutorial.md")) >= 6
    assert set(commands_of("docs/tutorial.md")) <= set(commands_of("README.md"))


@pytest.mark.slow
def test_the_commands_run_in_their_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in commands_of("README.md"):
        # One epoch and few queries: the examples are run, not their results measured.
        quick = re.sub(r"--epochs \d+", "--epochs 1", re.sub(r"--max-queries \d+", "--max-queries 10", command))
        result = CliRunner().invoke(main, shlex.split(quick), catch_exceptions=False)
        assert result.exit_code == 0, f"{command}\n{result.output}"
    assert (tmp_path / "runs" / "report" / "report.html").is_file()


def test_every_method_is_documented():
    for method in METHODS:
        assert f"| `{method}` |" in TEXTS["docs/training.md"]


def named() -> list[tuple[str, str]]:
    """Every command line of robustdml in a block of code, with its page."""
    found = []
    for page, text in TEXTS.items():
        for code in blocks(text, "", "sh", "console", "yaml"):
            joined = re.sub(r"\\\n\s*", " ", code)
            for line in joined.splitlines():
                start = re.search(r"(?:^|[\s$;&|])robustdml (\w+.*)$", line)
                if start:
                    found.append((page, start[1].split("  #")[0].strip()))
    return found


@pytest.mark.parametrize(("page", "line"), named())
def test_commands_exist_and_have_the_options(page, line):
    words = line.split()
    command = main.commands.get(words[0])
    assert command is not None, f"{page}: there is no command '{words[0]}'"
    options = {
        name for item in command.params if isinstance(item, click.Option) for name in (*item.opts, *item.secondary_opts)
    }
    for word in words[1:]:
        name = word.split("=")[0].rstrip(",.;)`'\"")
        if name.startswith("--") and name != "--":
            assert name in options | {"--help"}, f"{page}: '{words[0]}' has no option {name}"


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", text), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()) for heading in headings]
    return {text.strip().replace(" ", "-") for text in plain}


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page):
    home = (ROOT / page).parent
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(#[^)\s]*)?\)", BLOCK.sub("", TEXTS[page])):
        path = (home / target).resolve() if target else ROOT / page
        assert path.is_file(), f"{page}: {target}"
        if anchor:
            assert anchor[1:] in anchors(path.read_text(encoding="utf-8")), f"{page}: {target}{anchor}"


def leaves(part: object) -> list[str]:
    if isinstance(part, dict):
        return [name for value in part.values() for name in leaves(value)]
    return [name for item in part for name in leaves(item)] if isinstance(part, list) else [str(part)]


def test_every_page_is_in_the_navigation_of_the_site():
    listed = leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    elsewhere = {"recipes.md", "changelog.md", "contributing.md", "cli.md", "names.md"}
    assert set(listed) - elsewhere == {
        path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")
    }


def test_the_reference_pages_have_every_command_and_registry(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    import reference

    pages = reference.pages()
    for name, command in main.commands.items():
        assert f"## robustdml {name}" in pages["cli.md"]
        assert all(item.opts[0] in pages["cli.md"] for item in command.params if isinstance(item, click.Option))
    for name in ("cascade", "nearest_negative", "recall_at_1", "multisimilarity", "mdprop", "inshop"):
        assert f"| {name} |" in pages["names.md"]


def test_the_citation_is_of_this_version_and_of_the_paper():
    about = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert about["version"] == __version__
    paper = about["references"][0]
    found = (ROOT / "robustdml" / "citations.bib").read_text(encoding="utf-8").split("\n@")[0]
    assert f"title = {{{paper['title']}}}" in found
    assert all(f"{author['family-names']}, {author['given-names']}" in found for author in paper["authors"])
