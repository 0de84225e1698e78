"""`report --history`: headline numbers over evaluations."""

from __future__ import annotations

import pytest
from command_line import cli, refused


@pytest.fixture
def runs(sample, tmp_path):
    """Three evaluations below one folder, in another order than that of their names."""
    for month, name, models in ((5, "a", ("one", "two")), (3, "b", ("one",)), (4, "c", ("one", "two"))):
        found = sample(tmp_path / "runs" / name, models=models, examples=False, eventful=False)
        found.model_copy(update={"created": f"2026-0{month}-01T00:00:00+00:00"}).save(tmp_path / "runs" / name)
    return tmp_path / "runs"


def test_every_evaluation_is_drawn_the_oldest_first(runs, tmp_path, parse):
    done = cli("report", "--history", runs, "--out", tmp_path / "h.html", "--quiet")
    assert done.exit_code == 0, done.output
    page = parse((tmp_path / "h.html").read_text())
    clean, worst = page.all("table")
    for table in (clean, worst):
        rows = [[cell.text for cell in row.children if cell.tag in {"th", "td"}] for row in table.all("tr")]
        assert rows[0] == ["Evaluation", "No.", "Date", "Queries", "one", "two"]
        assert [row[0] for row in rows[1:]] == ["b", "c", "a"]
        assert rows[1][5] == "—"
        assert rows[1][4][:5] == rows[3][4][:5] == ("0.814" if table is clean else rows[2][4][:5])
    assert "worst case at eps 8/255" in " ".join(summary.text for summary in page.all("summary"))


def test_what_makes_no_history_is_one_sentence(runs, tmp_path):
    refused(cli("report", "--history", runs / "a", "--out", tmp_path / "h.html"), "two evaluations or more")
    refused(cli("report", "--history", tmp_path / "runs" / "a" / "x"), r"no results\.json")
    refused(cli("report", "--history", runs, "--junit", tmp_path / "j"), "--history draws one page")
    assert not (tmp_path / "h.html").exists()
