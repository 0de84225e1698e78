"""The structure of the page against a gold file: what a change moved, added or lost is seen in a diff.

To accept a change: ``python -m pytest tests/reports/test_structure.py``, read the difference that it prints, then move
the file that it names over the gold one.
"""

from __future__ import annotations

from pathlib import Path

from robustdml.reports import render_report

GOLD = Path(__file__).with_name("gold") / "structure.txt"
#: What carries the structure; the rest is prose, numbers and drawings.
SHOWN = {"header", "nav", "main", "section", "article", "h1", "h2", "h3", "h4", "table", "details", "figure", "footer"}


def outline(element, depth: int = 0) -> list[str]:
    """One line per element of `SHOWN`, indented, with its id, its class and what it is called."""
    lines = []
    for child in element.children:
        inner = depth
        if child.tag in SHOWN:
            own = f"{'  ' * depth}{child.tag}"
            own += f" #{child.attributes['id']}" if "id" in child.attributes else ""
            own += f" .{child.attributes['class']}" if child.attributes.get("class") else ""
            if child.tag in {"h1", "h2", "h3", "h4"}:
                own += f": {child.text}"
            if child.tag == "details":
                own += f": {child.all('summary')[0].text}"
            if child.tag == "table":
                heads = [head.text for row in child.all("thead") for head in row.all("th")]
                rows = sum(len(body.all("tr")) for body in child.all("tbody"))
                own += f": {' | '.join(heads)} ({rows} rows)"
            lines.append(own)
            inner += 1
        lines += outline(child, inner)
    return lines


def test_the_structure_is_that_of_the_gold_file(results, tmp_path, parse):
    found = "\n".join(outline(parse(render_report(results, tmp_path)))) + "\n"
    actual = tmp_path / "structure.txt"
    actual.write_text(found, encoding="utf-8")
    assert found == GOLD.read_text(encoding="utf-8"), f"the structure changed: if it is meant, mv {actual} {GOLD}"
