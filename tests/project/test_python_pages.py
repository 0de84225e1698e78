"""docs/python.md, docs/before-and-after.md and the notebook, run as they stand, block after block."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def ran(codes, name):
    space = {}
    for number, code in enumerate(codes, start=1):
        exec(compile(code, f"{name}, block {number}", "exec"), space)
    return space


@pytest.mark.slow
def test_the_page_on_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    space = ran(blocks("python.md"), "docs/python.md")
    assert (tmp_path / "report.html").is_file()
    assert (tmp_path / "runs" / "embeddings" / "results.json").is_file()
    assert len(space["monitor"].history) == 2
    assert "R@1 on digits: 10 of" in capsys.readouterr().out


@pytest.mark.slow
def test_the_notebook_runs_and_shows_what_it_ends_with(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((DOCS / "first-look.ipynb").read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    codes = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not [cell for cell in notebook["cells"] if cell.get("outputs")]
    space = ran(codes, "docs/first-look.ipynb")
    assert "<table" in space["results"]._repr_html_()
    assert (tmp_path / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_before_says_more_than_is_left_after(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quick = [
        code.replace("[:200]", "[:40]").replace('"standard"', '"margin"') for code in blocks("before-and-after.md")
    ]
    space = ran(quick, "docs/before-and-after.md")
    before, after = space["before"], space["after"]
    assert before["clean"] == pytest.approx(after["clean"], abs=0.06)
    assert after["worst"] < before["attacked"]


def test_the_lines_are_counted_as_the_page_says():
    counts = [len([line for line in code.splitlines() if line.strip()]) for code in blocks("before-and-after.md")]
    page = (DOCS / "before-and-after.md").read_text(encoding="utf-8")
    assert f"| lines for the question, without the set-up above | {counts[1]} | {counts[2]} |" in page
