"""What experiments write into docs/: between marks that name the command that makes it again."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "experiments"))
import page  # noqa: E402

PARTS = {
    (path.name, part): script
    for path in sorted((ROOT / "docs").glob("*.md"))
    for part, script in re.findall(
        r"^<!-- ([^>]*): made by (experiments/\S+) -->$", path.read_text(encoding="utf-8"), re.MULTILINE
    )
}


@pytest.mark.parametrize(("name", "part"), PARTS)
def test_a_part_that_is_made_is_made_by_a_command_that_the_page_tells(name: str, part: str):
    script = PARTS[name, part]
    assert f'"{name}"' in (ROOT / script).read_text(encoding="utf-8"), f"{script} does not write into {name}"
    assert f"python {script}" in (ROOT / "docs" / name).read_text(encoding="utf-8")


def test_writing_changes_one_part_and_says_where_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "DOCS", tmp_path)
    file = tmp_path / "a.md"
    marked = "before\n<!-- digits: made by x.py -->\n{}<!-- end of digits -->\n<!-- digits, new: made by x.py -->\n"
    file.write_text(marked.format("old \\1\n") + "<!-- end of digits, new -->\nafter\n", encoding="utf-8")
    page.write("a.md", "digits", "a \\1 table\n")
    expected = marked.format("\na \\1 table\n\n") + "<!-- end of digits, new -->\nafter\n"
    assert file.read_text(encoding="utf-8") == expected
    page.write("a.md", "digits", "a \\1 table\n")
    assert file.read_text(encoding="utf-8") == expected
    with pytest.raises(ValueError, match=r"docs/a\.md has 0 parts 'letters'"):
        page.write("a.md", "letters", "a table")
