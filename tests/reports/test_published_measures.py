"""What ranking papers report stands in the page, ERS never without clean recall and the mark of a collapse."""

from __future__ import annotations

from robustdml.reports import render_report
from robustdml.results import Ers, MeasureEntry

TERMS = {"ca_plus": 27.4, "ca_minus": 67.9, "qa_plus": 30.2, "qa_minus": 60.1, "tma": 0.753, "es_d": 0.506,
         "es_r": 17.9, "ltm": 16.7, "gtm": 27.3, "gtt": 2.9}  # fmt: skip


def with_measures(results):
    cells = list(results.cells)
    cells[0] = cells[0].model_copy(
        update={"measures": {"rank_percentile": 3.25, "rank_percentile_clean": 50.5, "own_thing": 0.125}}
    )
    scores = tuple(
        Ers(
            model=model.name,
            profile="robrank-224",
            compat=place == 1,
            terms=TERMS,
            normalised=dict.fromkeys(TERMS, 10.0 + place),
            value=36.04 + place,
            collapsed=model.health.collapsed,
            clean_recall_at_1=model.clean.metrics.recall_at_1,
        )
        for place, model in enumerate(results.models)
    )
    measures = (MeasureEntry(name="rank_percentile", title="rank percentile", description="mean place in the list"),)
    return results.model_copy(update={"cells": tuple(cells), "measures": measures, "ers": scores})


def test_ers_stands_beside_clean_recall_and_the_mark(results, tmp_path, parse):
    page = parse(render_report(with_measures(results), tmp_path))
    rows = page.one("ers").all("tr")[1:]
    for row, model in zip(rows, results.models, strict=True):
        assert model.name in row.text
        assert f"{model.clean.metrics.recall_at_1:.3f}" in row.text
        assert ("collapsed: means nothing" in row.text) == model.health.collapsed
    assert "36.0" in rows[0].text
    assert "as RobRank computes it" in rows[1].text
    assert [cell.text for cell in page.one("ers").all("th")[4:14]] == [
        "CA+", "CA-", "QA+", "QA-", "TMA", "ES:D", "ES:R", "LTM", "GTM", "GTT",
    ]  # fmt: skip
    assert rows[0].all("td")[7].text == "10.0 0.753"


def test_measures_stand_with_their_clean_values(results, tmp_path, parse):
    page = parse(render_report(with_measures(results), tmp_path))
    assert "mean place in the list" in page.text
    rows = [[cell.text for cell in row.all("td")] for row in page.one("measures").all("tr")[1:]]
    name = next(entry.name for entry in results.attacks if entry.spec == results.cells[0].attack)
    assert rows == [
        [name, "2/255", "rank percentile", "50.5", "3.25"],
        [name, "2/255", "own_thing", "—", "0.125"],
    ]


def test_a_run_without_them_has_no_such_section(results, tmp_path, parse):
    page = parse(render_report(results, tmp_path))
    assert all(element.attributes.get("id") != "published-measures" for element in page.every())
