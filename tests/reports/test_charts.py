"""The charts, compared with the results."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import pytest

from robustdml.reports import render_report


@pytest.fixture
def page(results, tmp_path, parse):
    return parse(render_report(results, tmp_path))


def grid(table):
    """The cells of a table by row and column head."""
    heads = [head.text for head in table.all("thead")[0].all("th")]
    rows = [[cell for cell in row.children if cell.tag in ("th", "td")] for row in table.all("tbody")[0].all("tr")]
    return [dict(zip(heads, row, strict=True)) for row in rows]


def test_the_chart_plots_the_worst_cases(page, results):
    figure = json.loads(page.one("chart-live").attributes["data-figure"])
    lines = {trace["name"]: trace for trace in figure["data"] if "name" in trace}
    rows = {row["eps"].text: row for row in grid(page.one("chart-data"))}
    for model in results.models:
        worst = [entry for entry in results.worst if entry.model == model.name]
        assert lines[model.name]["x"] == [0.0, *(entry.eps for entry in worst)]
        recalls = [model.clean.metrics.recall_at_1, *(entry.score.metrics.recall_at_1 for entry in worst)]
        assert lines[model.name]["y"] == recalls
        for label, recall in zip(["0 (clean)", "2/255", "8/255", "16/255"], recalls, strict=True):
            assert rows[label][model.name].text.startswith(f"{recall:.3f}")
    assert figure["layout"]["shapes"][0]["y0"] == results.dataset.chance_recall_at_1


def test_the_drawing_shows_higher_recalls_higher(page):
    groups = page.one("chart-drawn").all("g")
    assert len(groups) == 3
    for group in groups:
        moves = [path.attributes["transform"] for path in group.all("path") if "transform" in path.attributes]
        places = [tuple(map(float, re.fullmatch(r"translate\((\S+) (\S+)\)", move).groups())) for move in moves]
        assert len(places) == 4
        # To the right, and down the page, as recall falls with eps.
        assert all(left[0] < right[0] and left[1] < right[1] for left, right in pairwise(places))


def test_one_budget_gives_bars(sample, tmp_path, parse):
    results = sample(tmp_path, budgets=(8 / 255,))
    page = parse(render_report(results, tmp_path))
    figure = json.loads(page.one("chart-live").attributes["data-figure"])
    assert figure["layout"]["yaxis"]["ticktext"] == ["clean", "worst case", "noise", "margin", "stax", "square"]
    for trace, model in zip(figure["data"], results.models, strict=True):
        cells = [found.score for found in results.cells if found.model == model.name]
        worst = next(entry.score for entry in results.worst if entry.model == model.name)
        scores = [model.clean, worst, *cells]
        assert trace["x"] == [score.metrics.recall_at_1 for score in scores]
        ends = [value + error for value, error in zip(trace["x"], trace["error_x"]["array"], strict=True)]
        assert ends == pytest.approx([score.recall_at_1_high for score in scores])
