"""The charts on the page: what the markup carries is what the charts hold, for runs of every shape."""

from __future__ import annotations

import base64
import gzip
import json
import re

import pytest
from random_run import random_run

from robustdml.reports import render_report
from robustdml.reports.index import Index
from robustdml.reports.page.charts import CHART_SECTIONS
from robustdml.reports.page.charts.drawing import draw
from robustdml.reports.page.charts.plot import Bars, Curve, Dots, Links, Tiles
from robustdml.results import Results

HOSTILE = "</script><b>\"'&{{ 7 * 7 }} %{x} \u202egnp \N{PARROT} \u05e9\u05dc\u05d5\u05dd " + "long" * 120

SHAPES = {
    "plain": {},
    "one budget": {"budgets": (8 / 255,)},
    "one model": {"models": ("only",)},
    "one attack": {"attacks": ("pgd",)},
    "one of everything": {"models": ("m",), "attacks": ("a",), "budgets": (0.5,), "classes": ("c",), "queries": 1},
    "no attack": {"attacks": (), "budgets": ()},
    "all failed": {"fails": True},
    "L2 only": {"norm": "l2", "budgets": (0.5, 1.0)},
    "no budget": {"norm": "l2", "budgets": (None,)},
    "no map": {"maps": 0},
    "hostile names": {"models": ("m", HOSTILE), "attacks": ("a", HOSTILE + "2"), "classes": ("c", HOSTILE + "3")},
    "twelve models": {"models": tuple(f"model-{number}" for number in range(12)), "budgets": (8 / 255,)},
}


def charts(results):
    return [section.data for build in CHART_SECTIONS if (section := build(Index.of(results), None)) is not None]


@pytest.fixture(scope="module", params=SHAPES.values(), ids=SHAPES)
def results(request):
    return random_run(**request.param)


@pytest.fixture(scope="module")
def html(results, tmp_path_factory):
    return render_report(results, tmp_path_factory.mktemp("run"))


def squeezed(text):
    return " ".join(text.split())


def test_the_page_carries_the_figures_tables_and_words_of_every_chart(results, html, parse):
    page = parse(html)
    headings = {heading.attributes.get("id"): heading.text for heading in page.all("h2")}
    for chart in charts(results):
        assert headings[chart.id] == chart.title
        for number, panel in enumerate(chart.panels):
            live = page.one(f"{chart.id}-{number}-live").attributes
            assert json.loads(live["data-figure"]) == json.loads(json.dumps(panel.figure, allow_nan=False))
            assert live["aria-label"] == panel.alternative
            shown = [
                [squeezed(cell.text) for cell in row.children]
                for row in page.one(f"{chart.id}-{number}-data").all("tbody")[0].all("tr")
            ]
            assert shown == [
                [squeezed(name), *(squeezed(f"{entry.text} {entry.note}") for entry in entries)]
                for name, entries in panel.table.rows
            ]


def test_the_navigation_leads_to_every_chart(results, html, parse):
    page = parse(html)
    links = [link.attributes["href"] for link in page.all("nav")[0].all("a")]
    assert [f"#{chart.id}" for chart in charts(results)] == [link for link in links if link.startswith("#chart-")]


def test_nothing_is_shown_that_is_no_number(results):
    for chart in charts(results):
        for panel in chart.panels:
            texts = [entry.text for _, entries in panel.table.rows for entry in entries]
            words = " ".join([panel.alternative, panel.caption, *chart.caption, *texts])
            assert not re.search(r"\b(nan|None|inf)\b", words)
            # Refuses NaN and infinity.
            json.dumps(panel.figure, allow_nan=False)


def test_figures_name_no_colour(results):
    for chart in charts(results):
        for panel in chart.panels:
            assert not re.search(r'"color(scale)?"|#[0-9a-f]{6}\b|rgb', json.dumps(panel.figure))
            keys = {trace["meta"]["key"] for trace in panel.figure["data"]}
            assert {entry.key for entry in panel.plot.legend} <= keys


def test_drawings_stay_within_their_picture(results):
    for chart in charts(results):
        for panel in chart.panels:
            drawing = panel.drawing
            outer = [drawing.grid, drawing.guide]
            outer += [shape.path for mark in drawing.marks for shape in mark.shapes]
            places = [place for path in outer for place in re.findall(r"[ML](-?[\d.]+),(-?[\d.]+)", path)]
            assert places
            for across, down in places:
                assert 0 <= float(across) <= drawing.width
                assert 0 <= float(down) <= drawing.height


def test_drawings_have_a_mark_for_every_point(results):
    for chart in charts(results):
        for panel in chart.panels:
            for layer, mark in zip(panel.plot.layers, draw(panel.plot).marks, strict=True):
                paths = "".join(
                    shape.path for shape in mark.shapes if shape.look.startswith(("marker", "dust", "link"))
                )
                match layer:
                    case Curve():
                        assert paths.count("M") == (len(layer.points) if layer.marked else 0)
                    case Dots() | Bars():
                        assert paths.count("M") == len(layer.points)
                    case Links():
                        assert paths.count("M") == len(layer.pairs)
                    case Tiles():
                        assert paths.count("M") == len(layer.cells)


@pytest.mark.parametrize(
    ("shape", "present"),
    [
        ("plain", "eps tradeoff profile classes overlap cost maps"),
        ("one budget", "attacks tradeoff profile classes overlap cost maps"),
        ("one model", "eps profile classes overlap cost maps"),
        ("one attack", "eps tradeoff profile classes cost maps"),
        ("no attack", "attacks profile classes"),
        ("all failed", "attacks profile classes maps"),
        ("L2 only", "attacks tradeoff profile classes overlap cost maps"),
        ("no budget", "attacks profile classes overlap cost maps"),
    ],
)
def test_a_run_has_the_charts_that_it_can_fill(shape, present):
    assert [chart.id.removeprefix("chart-") for chart in charts(random_run(**SHAPES[shape]))] == present.split()


def test_where_every_attack_failed_only_the_clean_numbers_are_drawn():
    found = charts(random_run(**SHAPES["all failed"]))[0]
    assert found.title == "Clean R@1"
    assert found.panels[0].figure["layout"]["yaxis"]["ticktext"] == ["clean"]
    assert [name for name, _ in found.panels[0].table.rows] == ["clean", "noise", "pgd", "square"]


@pytest.mark.parametrize(("shape", "words"), [("L2 only", "at L2 0.5"), ("no budget", "at any size")])
def test_budgets_of_other_norms_are_named(shape, words):
    found = {chart.id: chart for chart in charts(random_run(**SHAPES[shape]))}
    assert words in found["chart-attacks"].caption[0]
    assert words in found["chart-cost"].caption[0]


def test_hostile_names_are_text_wherever_they_stand(tmp_path, parse):
    page = parse(render_report(random_run(**SHAPES["hostile names"]), tmp_path))
    assert not page.all("b")
    assert len(page.all("script")) == 2
    figures = [element.attributes["data-figure"] for element in page.every() if "data-figure" in element.attributes]
    shown = [
        text
        for figure in map(json.loads, figures)
        for text in re.findall(r"<[^>]*>", json.dumps(figure, ensure_ascii=False))
    ]
    # Plotly reads a few tags in its labels: only our own line breaks and the end of a hover box are there.
    assert set(shown) <= {"<br>", "<extra></extra>", "<extra>", "</extra>"}


def test_the_same_run_gives_the_same_charts():
    assert charts(random_run()) == charts(random_run())


def test_higher_recalls_are_drawn_higher_and_larger_eps_to_the_right():
    chart = next(chart for chart in charts(random_run()) if chart.id == "chart-eps")
    for layer, mark in zip(chart.panels[0].plot.layers, chart.panels[0].drawing.marks, strict=True):
        line = next(shape.path for shape in mark.shapes if shape.look.startswith("line"))
        places = [tuple(map(float, place)) for place in re.findall(r"(-?[\d.]+),(-?[\d.]+)", line)]
        recalls = [point.y for point in layer.points]
        assert sorted(range(3), key=lambda place: -places[place][1]) == sorted(range(3), key=recalls.__getitem__)
        assert [across for across, _ in places] == sorted(across for across, _ in places)


@pytest.mark.slow
def test_a_large_run_stays_small_and_carries_its_results(tmp_path, parse):
    results = random_run(
        models=tuple(f"model-{number}" for number in range(10)),
        attacks=tuple(f"library.attack-{number}" for number in range(60)),
        budgets=(2 / 255, 8 / 255, 16 / 255),
        queries=400,
        classes=tuple(f"class {number}" for number in range(100)),
        maps=2,
    )
    html = render_report(results, tmp_path)
    # Pictures of examples come on top of it.
    assert len(html.encode()) < 7_000_000
    (link,) = (anchor for anchor in parse(html).all("a") if "download" in anchor.attributes)
    assert link.attributes["download"] == "results.json.gz"
    data = gzip.decompress(base64.b64decode(link.attributes["href"].partition(",")[2]))
    assert Results.model_validate_json(data) == results
