"""Results at a glance: summary, HTML for notebooks, frames of pandas, figures of Plotly."""

from __future__ import annotations

import pickle
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from random_run import random_run

from robustdml.errors import MissingPackageError, SpecError, UnknownNameError
from robustdml.results import Flag, Results, unpack_hits

RESULTS = random_run(models=("first", "<b>second</b>"))
INVALID = Flag(
    slug="collapsed", message="All are alike.", remedy="Train again.", model="first", grade="invalid", title="C"
)


def test_a_summary_says_each_headline_with_its_interval():
    text = RESULTS.summary()
    for model in RESULTS.models:
        (line,) = [line for line in text.splitlines() if line.startswith(model.name)]
        worst = [one for one in RESULTS.worst if one.model == model.name]
        for score in (model.clean, *(one.score for one in worst)):
            assert f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]" in line
    assert "worst at 4/255" in text
    assert "60 queries" in text


def test_what_a_flag_withholds_is_not_quoted():
    flagged = RESULTS.model_copy(update={"flags": (INVALID,)})
    text = flagged.summary()
    (line,) = [line for line in text.splitlines() if line.startswith("first")]
    assert line.count("invalid") == 2
    assert "Invalid (collapsed): C. All are alike. Train again." in text
    frame = flagged.to_pandas()
    assert set(frame[frame.withheld].model) == {"first"}
    assert "clean" not in set(frame[frame.withheld].condition)


class Seen(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cells: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.cells.append(data)


def test_html_holds_the_same_and_nothing_of_a_name_is_a_tag():
    seen = Seen()
    seen.feed(RESULTS._repr_html_())
    assert set(seen.tags) <= {"div", "p", "table", "tr", "th", "td", "ul", "li"}
    assert "<b>second</b>" in seen.cells
    assert seen.tags.count("tr") == 3
    assert len(RESULTS._repr_html_()) < 5000


def test_frames_hold_every_number():
    frame = RESULTS.to_pandas()
    assert len(frame) == len(RESULTS.models) + len(RESULTS.worst) + len(RESULTS.cells)
    for cell in RESULTS.cells:
        name = next(attack.name for attack in RESULTS.attacks if attack.spec == cell.attack)
        (row,) = frame[(frame.model == cell.model) & (frame.attack == name) & (frame.eps == cell.eps)].to_dict(
            "records"
        )
        assert {key: row[key] for key in cell.score.metrics.root} == cell.score.metrics.root
        assert (row["low"], row["high"]) == (cell.score.low, cell.score.high)


def test_queries_have_a_row_each_and_means_that_are_the_scores():
    frame = RESULTS.to_pandas("queries")
    clean = frame[(frame.model == "first") & (frame.condition == "clean")]
    assert clean["hit"].tolist() == unpack_hits(RESULTS.models[0].clean_hits, 60)
    assert clean["hit"].mean() == pytest.approx(RESULTS.models[0].clean.value)
    assert len(frame) == 60 * (len(RESULTS.models) + len(RESULTS.worst) + len(RESULTS.cells))
    assert set(frame["class"]) == {"wren", "lark", "crow"}


def test_flags_are_a_frame_and_other_tables_there_are_not():
    flagged = RESULTS.model_copy(update={"flags": (INVALID,)})
    assert flagged.to_pandas("flags").to_dict("records")[0]["slug"] == "collapsed"
    with pytest.raises(UnknownNameError, match="unknown table of results 'score': did you mean 'scores'"):
        RESULTS.to_pandas("score")


def test_results_without_an_attack_have_a_summary_too():
    bare = RESULTS.model_copy(update={"attacks": (), "cells": (), "worst": ()})
    assert "0 attacks" in bare.summary()
    assert len(bare.to_pandas()) == 2
    assert len(bare.plot_models().data) == 1
    assert [trace.name for trace in bare.plot_attacks().data] == ["first", "&lt;b&gt;second&lt;/b&gt;"]


def test_bars_have_the_scores_and_their_intervals():
    figure = RESULTS.plot_models()
    clean, *worst = figure.data
    assert clean.name == "clean"
    assert list(clean.y) == [model.clean.value for model in RESULTS.models]
    assert [bar.name for bar in worst] == ["worst at eps 4/255", "worst at eps 8/255"]
    first = [one.score for one in RESULTS.worst if one.eps == 8 / 255]
    assert list(worst[1].y) == [score.value for score in first]
    assert list(worst[1].error_y.array) == pytest.approx([score.high - score.value for score in first])


def test_the_line_over_eps_is_that_of_the_page():
    figure = RESULTS.plot_over_eps()
    lines = [trace for trace in figure.data if trace.showlegend]
    assert [line.name for line in lines] == ["first", "&lt;b&gt;second&lt;/b&gt;"]
    assert list(lines[0].x) == [0, 4 / 255, 8 / 255]
    worst = [one.score.value for one in RESULTS.worst if one.model == "first"]
    assert list(lines[0].y) == [RESULTS.models[0].clean.value, *worst]
    assert lines[0].line.color.startswith("#")
    assert lines[0].line.color != lines[1].line.color


def test_what_was_not_measured_is_not_drawn():
    with pytest.raises(SpecError, match="this chart needs a curve, as attacks='bisection' searches it"):
        RESULTS.plot_curves()
    with pytest.raises(SpecError, match="two L-infinity budgets or more"):
        random_run(budgets=(8 / 255,)).plot_over_eps()


def test_figures_are_json_and_results_are_values():
    for figure in (RESULTS.plot_over_eps(), RESULTS.plot_models(), RESULTS.plot_attacks()):
        assert len(figure.to_json()) > 1000
    assert pickle.loads(pickle.dumps(RESULTS)) == RESULTS
    assert len(repr(RESULTS)) < 600
    assert Results.model_validate_json(RESULTS.model_dump_json()) == RESULTS


@pytest.mark.parametrize(
    ("module", "extra", "call"), [("pandas", "pandas", "to_pandas"), ("plotly", "plots", "plot_models")]
)
def test_a_package_that_is_absent_is_named_with_its_extra(module, extra, call, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, f"{module}.graph_objects", None)
    with pytest.raises(MissingPackageError, match=rf"needs the package {module} .*pip install 'robustdml\[{extra}\]'"):
        getattr(RESULTS, call)()


@pytest.mark.slow
def test_neither_is_imported_before_it_is_needed(tmp_path):
    RESULTS.save(tmp_path)
    code = (
        "import sys, robustdml\n"
        f"results = robustdml.Results.load({str(tmp_path)!r})\n"
        "results.summary(), results._repr_html_()\n"
        "print(sorted({'pandas', 'plotly', 'torch'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
