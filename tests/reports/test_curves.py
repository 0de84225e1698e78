"""What pages, summaries, cards and comparisons say of curves: the numbers that the results hold."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from robustdml.cli.main import main
from robustdml.reports import compare_runs, merge_runs, render_report
from robustdml.reports.files.cards import card_data, card_markdown
from robustdml.reports.files.summary import markdown_summary
from robustdml.reports.index import Index
from robustdml.reports.text import ABSENT
from robustdml.results import AttackEntry, Curve, CurvePoint, Optimality, Results

LEVELS = (0.25, 0.5, 1, 2, 4, 8, 16)


def curve_of(results, place, norm, factor=1.0):
    """A curve on which the queries that are right when clean break one by one, evenly up to ``factor`` / 16."""
    model = results.models[place]
    count, right = results.dataset.queries, round(model.clean.value * results.dataset.queries)
    sizes = tuple((row + 1) / right * factor / 16 if row < right else 0.0 for row in range(count))
    ordered = sorted(sizes)
    plain = Curve(
        model=model.name,
        norm=norm,
        attack=results.attacks[-1].spec,
        smallest=sizes,
        median=ordered[count // 2 - 1],
        half_distortion=ordered[count - right // 2 - 1],
        half_low=0.8 * ordered[count - right // 2 - 1],
        half_high=None if place == 1 else 1.2 * ordered[count - right // 2 - 1],
        points=(),
        optimality=tuple(
            Optimality(attack=entry.spec, value=0.9 - 0.1 * number - 0.01 * place)
            for number, entry in enumerate(results.attacks[:2])
        ),
    )
    budgets = [level / 255 if norm == "linf" else level / 16 for level in LEVELS]
    points = [(eps, plain.recall(eps)) for eps in budgets]
    return plain.model_copy(
        update={"points": tuple(CurvePoint(eps=eps, recall=r, low=0.9 * r, high=min(1, 1.1 * r)) for eps, r in points)}
    )


def with_curves(results, factor=1.0):
    search = AttackEntry(
        spec="bisection(norm=linf)", name="bisection", library="robustdml", goal="margin", knowledge="gradients",
        norm="linf", budget="minimum", citations=("madry2018",),
    )  # fmt: skip
    results = results.model_copy(update={"attacks": (*results.attacks, search)})
    curves = [curve_of(results, place, norm, factor) for norm in ("linf", "l2") for place in range(2)]
    return Results.model_validate(results.model_copy(update={"curves": tuple(curves)}).model_dump())


@pytest.fixture
def drawn(results):
    return with_curves(results)


def written(size, norm):
    return f"{255 * size:.2f}/255" if norm == "linf" else f"L2 {size:.4g}"


def test_the_page_has_every_number_of_the_curves(drawn, tmp_path, parse):
    page = parse(render_report(drawn, tmp_path))
    heads = [head.text for head in page.one("curves-1").all("th")[4:11]]
    assert heads == [f"R@1 at {level:g}/255" for level in LEVELS]
    for number, norm in enumerate(("linf", "l2"), start=1):
        rows = [
            [cell.text for cell in row.all("th") + row.all("td")] for row in page.one(f"curves-{number}").all("tr")[1:]
        ]
        own = [curve for curve in drawn.curves if curve.norm == norm]
        assert [row[0] for row in rows] == [curve.model for curve in own]
        for row, curve in zip(rows, own, strict=True):
            assert row[2].startswith(written(curve.half_distortion, norm))
            assert row[2].endswith("or more") == (curve.half_high is None)
            assert row[3] == written(curve.median, norm)
            assert [cell[:5] for cell in row[4:]] == [f"{point.recall:.3f}" for point in curve.points]
        shares = [[cell.text for cell in row.all("td")] for row in page.one(f"optimality-{number}").all("tr")[1:]]
        assert shares == [["0.900 highest", "0.890 highest"], ["0.800", "0.790"]]
    cards = [article.text for article in page.all("article")]
    for curve in drawn.curves:
        (card,) = [card for card in cards if curve.model in card]
        assert written(curve.half_distortion, curve.norm) in card
        assert f"median eps {written(curve.median, curve.norm)}" in card
    assert "at eps = 8/255; these need no budget" in page.text


def test_the_chart_falls_from_left_to_right_and_marks_the_budget_of_the_verdict(drawn, tmp_path, parse):
    page = parse(render_report(drawn, tmp_path))
    figure = json.loads(page.one("chart-curves-0-live").attributes["data-figure"])
    assert len(figure["data"]) == 2
    for trace, curve in zip(figure["data"], drawn.curves, strict=False):
        assert trace["y"] == sorted(trace["y"], reverse=True)
        assert trace["y"] == [curve.recall(2**place) for place in trace["x"]]
    (line,) = figure["layout"]["shapes"]
    assert line["x0"] == line["x1"] == pytest.approx(-4.994, abs=1e-2)  # log2(8/255)
    assert figure["layout"]["xaxis"]["ticktext"] == ["0.25", "0.5", "1", "2", "4", "8", "16"]
    assert not json.loads(page.one("chart-curves-1-live").attributes["data-figure"])["layout"]["shapes"]


def test_without_curves_there_is_neither_section(results, tmp_path, parse):
    html = render_report(results, tmp_path)
    assert "half-distortion" not in html.lower()
    assert not [found for found in parse(html).every() if found.attributes.get("id", "").startswith("chart-curves")]


def test_summary_and_cards_say_the_headlines_and_nothing_of_an_invalid_model(drawn):
    summary, first = markdown_summary(drawn), drawn.curves[0]
    assert f"half-distortion in L∞: {written(first.half_distortion, 'linf')}" in summary
    index = Index.of(drawn)
    assert card_data(index, drawn.models[0])["curves"][0]["half_distortion"] == first.half_distortion
    assert "smallest" not in card_data(index, drawn.models[0])["curves"][0]
    assert f"median eps {written(first.median, 'linf')}" in card_markdown(index, drawn.models[0])
    flag = drawn.flags[0].model_copy(update={"grade": "invalid", "title": "It is noise", "model": first.model})
    withheld = drawn.model_copy(update={"flags": (flag,)})
    assert f"{first.model}: invalid: It is noise" in markdown_summary(withheld)
    assert card_data(Index.of(withheld), drawn.models[0])["curves"] == []


def test_runs_are_merged_and_compared_with_their_curves(results, tmp_path):
    before, after = with_curves(results), with_curves(results, factor=0.5)
    for name, found in (("before", before), ("after", after)):
        (tmp_path / name).mkdir()
        found.save(tmp_path / name)
    changes = compare_runs(str(tmp_path / "before"), str(tmp_path / "after"))
    (linf, l2) = changes.models[0].curves
    assert (linf.norm, l2.norm) == ("linf", "l2")
    assert linf.half == (before.curves[0].half_distortion, after.curves[0].half_distortion)
    right = round(before.models[0].clean.value * before.dataset.queries)
    assert (linf.rose, linf.fell) == (0, right)
    shown = CliRunner().invoke(main, ["compare", str(tmp_path / "before"), str(tmp_path / "after")]).output
    flat = " ".join(shown.split())
    assert f"half-distortion {written(linf.half[0], 'linf')} -> {written(linf.half[1], 'linf')}" in flat
    assert f"0 queries need a larger eps, {right} a smaller one" in flat
    data = json.loads(
        CliRunner().invoke(main, ["compare", str(tmp_path / "before"), str(tmp_path / "after"), "--json"]).output
    )
    assert data["models"][0]["curves"][0]["fell"] == right
    other = before.model_copy(
        update={
            "models": tuple(model.model_copy(update={"name": f"other {model.name}"}) for model in before.models),
            **{
                field: tuple(
                    part.model_copy(update={"model": f"other {part.model}"}) for part in getattr(before, field)
                )
                for field in ("cells", "worst", "curves")
            },
            "examples": (),
            "flags": (),
        }
    )
    merged = merge_runs([(tmp_path / "before", before), (tmp_path / "other", other)])
    assert [curve.model for curve in merged.curves if curve.norm == "linf"] == [
        *(model.name for model in before.models[:2]),
        *(f"other {model.name}" for model in before.models[:2]),
    ]


def test_what_a_flag_withholds_is_in_neither_index_nor_table_nor_comparison(drawn, tmp_path, parse):
    first = drawn.curves[0]
    flag = drawn.flags[0].model_copy(update={"grade": "invalid", "title": "It is noise", "model": first.model})
    withheld = drawn.model_copy(update={"flags": (flag,)})
    index = Index.of(withheld)
    assert {curve.model for curve in Index.of(drawn).curves} - {curve.model for curve in index.curves} == {first.model}
    assert all(name != first.model for name, _ in index.worst)
    assert {name for name, _ in index.withheld} == {first.model}
    page = parse(render_report(withheld, tmp_path))
    (row,) = [row for row in page.one("curves-1").all("tr")[1:] if first.model in row.all("th")[0].text]
    clean = next(model.clean for model in drawn.models if model.name == first.model)
    cells = [cell.text for cell in row.all("td")]
    assert cells[0] == f"{clean.metrics.recall_at_1:.3f}"
    assert set(cells[1:]) == {ABSENT}
    shares = [[cell.text for cell in row.all("td")] for row in page.one("optimality-1").all("tr")[1:]]
    assert shares == [[ABSENT, "0.890 highest"], [ABSENT, "0.790"]]
    for name, results in (("before", drawn), ("after", withheld)):
        (tmp_path / name).mkdir()
        results.save(tmp_path / name)
    changes = {one.before: one.curves for one in compare_runs(str(tmp_path / "before"), str(tmp_path / "after")).models}
    assert changes.pop(first.model) == ()
    assert len(changes[drawn.curves[1].model]) == 2
