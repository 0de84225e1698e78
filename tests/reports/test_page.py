"""What a reader of the page sees, compared with the results."""

from __future__ import annotations

import base64
import gzip
import re
import subprocess
import sys
import time

import pytest

from robustdml.reports import render_report, write_report
from robustdml.results import Flag, Results, StageEntry
from robustdml.threat import format_eps

HOSTILE = (
    "</script><script>alert(1)</script>\"'<b>x</b> & {{ 7 * 7 }} \u202egnp \N{PARROT} \u05e9\u05dc\u05d5\u05dd "
    + "long" * 120
)


@pytest.fixture
def page(results, tmp_path, parse):
    return parse(render_report(results, tmp_path))


def grid(table):
    """The cells of a table by row and column head."""
    heads = [head.text for head in table.all("thead")[0].all("th")]
    rows = [[cell for cell in row.children if cell.tag in ("th", "td")] for row in table.all("tbody")[0].all("tr")]
    return [dict(zip(heads, row, strict=True)) for row in rows]


def budget_table(page):
    """The table of the headline budget."""
    return next(table for table in page.all("table") if "budget" in table.attributes.get("class", ""))


def number(cell):
    return float(cell.attributes["data-value"])


def test_every_metric_stands_in_the_table_of_all_metrics(page, results):
    rows = {(row["Model"].text, row["Attack"].text, row["eps"].text): row for row in grid(page.one("all-metrics"))}
    names = {attack.spec: attack.name for attack in results.attacks}
    assert len(rows) == 3 * (1 + 3 * (1 + 4))

    def check(row, score):
        shown = [number(row[name]) for name in ("R@1", "R@2", "R@4", "R@8", "MAP@R", "R-precision")]
        assert shown == list(score.metrics.model_dump().values())
        assert row["MAP@R"].text == f"{score.metrics['map_at_r']:.3f}"

    for model in results.models:
        row = rows[model.name, "clean", "0"]
        check(row, model.clean)
        assert {row[name].text for name in ("relative recall", "norm judged", "seconds")} == {"—"}
    for worst in results.worst:
        row = rows[worst.model, "worst case", format_eps(worst.threat.eps)]
        check(row, worst.score)
        assert number(row["relative recall"]) == worst.relative_recall
    for found in results.cells:
        row = rows[found.model, names[found.attack], format_eps(found.threat.eps)]
        if found.status == "failed":
            assert {cell.text for name, cell in row.items() if name not in ("Model", "Attack", "eps")} == {
                "failed",
                "—",
            }
            continue
        check(row, found.score)
        assert number(row["relative recall"]) == found.relative_recall
        assert number(row["median norm"]) == found.median_norm_broken
        assert number(row["norm returned"]) == found.largest_norm_returned
        assert number(row["norm judged"]) == found.largest_norm
        assert row["norm judged"].text == f"{255 * found.largest_norm:.2f}/255"
        assert number(row["projected"]) == found.queries_projected
        assert number(row["unchanged"]) == found.queries_unchanged
        assert number(row["forward images"]) == found.forward_images
        assert row["forward images"].text == f"{found.forward_images:,}"
        assert number(row["seconds"]) == found.seconds


def test_the_verdict_names_the_numbers_of_each_model(page, results):
    articles = page.all("section")[0].all("article")
    for article, model in zip(articles, results.models, strict=True):
        worst = next(entry for entry in results.worst if entry.model == model.name and entry.threat.eps == 8 / 255)
        scores = (model.clean, worst.score)
        bounds = [f"{score.low:.3f}–{score.high:.3f}" for score in scores]  # noqa: RUF001
        shown = [item.text for item in article.all("dd") if item.text]
        recalls = [f"{score.metrics.recall_at_1:.3f}" for score in scores]
        assert shown == [recalls[0], bounds[0], recalls[1], bounds[1]]
        assert f"{100 * worst.relative_recall:.0f} % of the clean R@1" in article.text
        assert ("1 failed" in article.text) == (model.name == "mdprop-r50")
        assert ("Collapsed:" in article.text) == model.health.collapsed


def test_the_table_of_models_says_where_each_is_from_and_how_its_embeddings_lie(page, results):
    (table,) = (found for found in page.all("table") if found.text.startswith("Where each model comes from"))
    heads, *body = table.all("tr")
    for row, model in zip(body, results.models, strict=True):
        cells = [cell.text for cell in row.every() if cell.tag in {"th", "td"}]
        found = dict(zip((head.text for head in heads.all("th")), cells, strict=True))
        assert found["Source"] == model.source
        assert found["Effective rank"] == f"{model.health.effective_rank:.1f}"
        assert found["Mean cosine"] == f"{model.health.mean_cosine:.3f}"
        assert found["NMI"] == f"{model.nmi:.3f}"
        assert found["π ratio"] == ("—" if model.pi_ratio is None else f"{model.pi_ratio:.3f}")


def test_the_verdict_comes_first_and_leads_to_the_flags(page, results):
    verdict, box = page.all("section")[:2]
    assert verdict.attributes["aria-labelledby"] == "verdict"
    assert "#flags-title" in [link.attributes["href"] for link in verdict.all("a")]
    for flag in results.flags:
        assert flag.slug in verdict.text
        assert flag.slug in box.text
        assert flag.message in box.text
        assert flag.remedy in box.text
    (failed,) = (found for found in results.cells if found.status == "failed")
    assert f"margin on {failed.model} at eps 8/255: {failed.reason}" in box.text
    cells = [cell for cell in budget_table(page).all("td") if cell.text == "failed"]
    assert [cell.attributes["title"] for cell in cells] == [failed.reason]
    assert [cell.all("a")[0].attributes["href"] for cell in cells] == ["#failures"]
    assert "4 attacks, 36 runs over models and eps, 1 failed" in page.all("header")[0].text


def test_a_quiet_run_has_no_flags(sample, tmp_path, parse):
    page = parse(render_report(sample(tmp_path, eventful=False), tmp_path))
    assert "Warning" not in page.all("main")[0].text
    assert "failed" not in page.all("main")[0].text


def test_the_header_and_the_method_say_what_was_measured(page, results):
    header = page.all("header")[0].text
    for fact in (
        "cub200: 100 classes, 64 × 64 pixels",  # noqa: RUF001
        "2,000 of 5,924 available",
        "2/255, 8/255, 16/255",
        "L∞ up to eps",
        "2026-03-04 05:06 UTC",
        "never finds itself",
    ):
        assert fact in header
    method = page.all("section")[-1]
    assert method.attributes["aria-labelledby"] == "method"
    seconds = sum(found.seconds for found in results.cells)
    images = sum(found.forward_images for found in results.cells)
    for fact in (
        results.dataset.protocol,
        "2,000 queries (a sample with all classes in proportion) were matched against 5,924 images",
        "that is chance",
        "margin: An item of another class is brought nearer",
        "McNemar's exact test",
        results.fingerprint,
        results.dataset.fingerprint,
        results.robustdml_version,
        f"{images:,} images forward",
        f"{seconds // 60:.0f} min",
        "torch 2.9.0",
        "@inproceedings{madry2018",
    ):
        assert fact in method.text


def test_flags_of_one_kind_are_told_together(results, tmp_path, parse):
    def flag(number, slug="budget-exceeded", remedy="Report it."):
        return Flag(slug=slug, message=f"message {number}", remedy=remedy, model=results.models[0].name)

    flags = [flag(number) for number in range(5)]
    flags += [flag(number, "no-attempt", f"remedy {number}") for number in (5, 6)]
    flags.append(flag(7, "attack-failed", "Try it again."))
    page = parse(render_report(results.model_copy(update={"flags": tuple(flags)}), tmp_path))
    box = page.all("section")[1]
    assert box.attributes["aria-labelledby"] == "flags-title"
    for number in range(7):
        assert box.text.count(f"message {number}") == 1
    assert box.text.count("Report it.") == 1
    assert "budget-exceeded, 5 times" in box.text
    assert "2 more" in [summary.text for summary in box.all("summary")]
    assert "remedy 5" in box.text
    assert "remedy 6" in box.text
    # What failed is listed with its reason already.
    assert "message 7" not in box.text
    assert "Try it again." in page.one("failures").text


def test_every_goal_of_the_attacks_is_explained(results, tmp_path, parse):
    attacks = tuple(
        attack.model_copy(update={"goal": goal})
        for attack, goal in zip(results.attacks, ("mtax", "stax", "mtax", "of-my-own"), strict=True)
    )
    goals = (
        parse(render_report(results.model_copy(update={"attacks": attacks}), tmp_path)).all("section")[-1].all("dl")[1]
    )
    assert [goal.text for goal in goals.all("code")] == ["mtax", "stax", "of-my-own"]
    assert all(len(meaning.text) > 40 for meaning in goals.all("dd"))


def test_hostile_names_are_shown_literally(sample, tmp_path, parse):
    results = sample(tmp_path, models=("plain", HOSTILE), attacks=("noise", HOSTILE + "a"))
    page = parse(render_report(results, tmp_path))
    assert len(page.all("script")) == 2
    assert not page.all("b")
    shown = " ".join(HOSTILE.split())
    table = budget_table(page)
    assert shown in [head.text for head in table.all("thead")[0].all("th")]
    assert any(head.text.startswith(shown + "a ") for head in table.all("th"))
    isolated = [element.text for element in page.all("bdi")]
    assert shown in isolated


def test_the_page_fetches_nothing(results, tmp_path, parse):
    html = render_report(results, tmp_path)
    (packed,) = re.findall(r'<script type="text/plain" id="plotly">\s*([A-Za-z0-9+/=]+)\s*</script>', html)
    assert b"plotly.js (cartesian - minified)" in gzip.decompress(base64.b64decode(packed))[:200]
    own = html.replace(packed, "")
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", own)
    page = parse(html)
    references = [
        element.attributes[name] for element in page.every() for name in ("src", "href") if name in element.attributes
    ]
    assert {reference.partition(",")[0] for reference in references if not reference.startswith("#")} == {
        "data:image/webp;base64",
        "data:application/gzip;base64",
    }
    anchors = {element.attributes["id"] for element in page.every() if "id" in element.attributes}
    assert {reference[1:] for reference in references if reference.startswith("#")} <= anchors
    (policy,) = (meta for meta in page.all("meta") if meta.attributes.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy.attributes["content"]
    assert "form-action 'none'" in policy.attributes["content"]
    assert "unsafe" not in policy.attributes["content"]
    assert not [element for element in page.every() if "style" in element.attributes]
    assert not [name for element in page.every() for name in element.attributes if name.startswith("on")]


def test_the_download_is_the_results(page, results):
    (link,) = (anchor for anchor in page.all("a") if anchor.attributes.get("download", "").startswith("results"))
    data = gzip.decompress(base64.b64decode(link.attributes["href"].partition(",")[2]))
    assert Results.model_validate_json(data) == results


def test_the_same_results_give_the_same_bytes(results, tmp_path):
    results.save(tmp_path)
    first = write_report(tmp_path)
    assert first == tmp_path / "report.html"
    second = write_report(tmp_path / "results.json", tmp_path / "elsewhere" / "again.html")
    assert first.read_bytes() == second.read_bytes()
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize(
    "shape",
    [
        {"models": ("one",)},
        {"attacks": ("pgd",)},
        {"budgets": (8 / 255,)},
        {"examples": False},
        {"models": ("one",), "attacks": ("pgd",), "budgets": (0.5,), "examples": False, "eventful": False},
        {"attacks": (), "budgets": (), "eventful": False},
        {"models": tuple(f"model-{number}" for number in range(9))},
    ],
    ids=str,
)
def test_runs_of_any_shape_are_rendered(sample, tmp_path, parse, shape):
    results = sample(tmp_path, **shape)
    page = parse(render_report(results, tmp_path))
    heads = budget_table(page).all("thead")[0].all("th")
    assert [head.all("bdi")[0].text for head in heads[1:]] == [model.name for model in results.models]
    assert ("This run kept no examples." in page.text) == (not results.examples)
    visible = page.all("main")[0].text + page.all("footer")[0].text
    assert not re.search(r"\b(nan|None|inf)\b", visible, re.IGNORECASE)


def test_many_models_and_attacks_are_rendered_fast(sample, tmp_path):
    results = sample(
        tmp_path,
        models=tuple(f"model-{number}" for number in range(10)),
        attacks=tuple(f"attack-{number}" for number in range(60)),
        budgets=(4 / 255, 8 / 255),
        examples=False,
    )
    started = time.process_time()
    html = render_report(results, tmp_path)
    assert time.process_time() - started < 5
    # A large run has at least half a megabyte for pictures.
    assert len(html) < 5_000_000


def test_importing_reports_imports_no_heavy_package():
    heavy = {"torch", "torchvision", "numpy", "sklearn", "faiss"}
    code = f"import sys, robustdml.reports; print(sorted({heavy!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def stage_tables(page):
    return [table for table in page.all("table") if table.attributes.get("id") == "stages-table"]


def test_the_stages_of_a_cascade_say_what_each_did(results, tmp_path, parse):
    stages = (
        StageEntry(
            attack="mi(steps=20)", entered=1500, broken=900, forward_images=1, gradient_images=30_000, seconds=3.21
        ),
        StageEntry(
            attack="mi(<b>)", entered=600, broken=0, forward_images=1, gradient_images=0, seconds=0, reason="no memory"
        ),
    )
    assert not stage_tables(parse(render_report(results, tmp_path)))
    cells = (results.cells[0].model_copy(update={"stages": stages}), *results.cells[1:])
    page = parse(render_report(results.model_copy(update={"cells": cells}), tmp_path))
    (table,) = stage_tables(page)
    assert "1. mi(steps=20) 1500 0 900 15.0 3.2" in " ".join(table.text.replace(",", "").split())
    assert "2. mi(<b>) failed: no memory" in " ".join(table.text.split())
