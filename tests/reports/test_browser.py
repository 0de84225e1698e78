"""The page in a real browser: what a reader does with it, and what an automatic check of accessibility finds."""

from __future__ import annotations

import csv
import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import axe_core_python
import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from random_run import random_run

from robustdml.reports import render_report, write_history, write_report

pytestmark = pytest.mark.slow

# A busy computer may take its time: what is tested is what happens, not how fast.
expect.set_options(timeout=60_000)

AXE = Path(axe_core_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; there must be one."""
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def address(results, tmp_path) -> str:
    """Where the page of the sample run lies."""
    results.save(tmp_path)
    return write_report(tmp_path).as_uri()


@pytest.fixture
def open_page(browser, address):
    """Open the page; at the end, nothing may have been asked for or complained about."""
    contexts, faults = [], []

    def opened(**options) -> Page:
        context = browser.new_context(**{"viewport": WIDE, **options})
        # A busy computer may take its time: what is tested is what happens, not how fast.
        context.set_default_timeout(120_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: faults.append(request.url) if not _own(request.url, address) else None)
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert faults == []


def _own(url: str, address: str) -> bool:
    return url == address or url.startswith("data:")


def attacks_shown(page: Page) -> list[str]:
    """The attacks of the headline table in their order."""
    names = page.locator("table.budget").first.locator("tbody:last-child tr:visible th > bdi")
    return names.all_inner_texts()


def drawn_traces(page: Page, chart: str) -> int:
    """How many traces of a live chart are in its picture."""
    return page.locator(f"#{chart}-0-live .main-svg .scatterlayer > .trace").count()


def live(page: Page, chart: str) -> Locator:
    """The figure of a chart, once Plotly has drawn it."""
    figure = page.locator(f"#{chart}-0-live").locator("xpath=ancestor::figure")
    figure.scroll_into_view_if_needed()
    expect(page.locator(f"#{chart}-0-live .main-svg").first).to_be_visible()
    expect(figure.locator(".chart-drawn")).to_be_hidden()
    return figure


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(open_page, scheme, viewport):
    page = open_page(color_scheme=scheme, viewport=viewport)
    page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
    page.evaluate(AXE)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert [(item["id"], [node["html"] for node in item["nodes"]]) for item in found["violations"]] == []


LONG = "a folder of phone photos with a long name/God-Morgon-Orange-Red-Grapefruit-Juice_" + "0123456789" * 20 + ".JPG"


@pytest.mark.parametrize("kind", ["one model, long names", "history"])
def test_axe_finds_nothing_on_a_phone_in_the_dark(browser, sample, tmp_path, kind):
    run = sample(tmp_path, models=("one",), eventful=False)
    if kind == "history":
        for month in (1, 2):
            at = run.model_copy(update={"created": f"2026-0{month}-01T00:00:00+00:00"})
            at.save(tmp_path / "runs" / str(month))
        page_file = write_history([tmp_path / "runs"], tmp_path / "history.html")
    else:

        def named(hit):
            return hit.model_copy(update={"name": LONG, "class_name": LONG, "similarity": 0.5})

        examples = tuple(
            one.model_copy(
                update={key: tuple(map(named, getattr(one, key))) for key in ("clean_top", "adversarial_top")}
            )
            for one in run.examples
        )
        run.model_copy(update={"examples": examples}).save(tmp_path)
        page_file = write_report(tmp_path)
    context = browser.new_context(viewport=PHONE, color_scheme="dark")
    context.set_default_timeout(120_000)
    try:
        page = context.new_page()
        page.goto(page_file.as_uri())
        page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        page.evaluate(AXE)
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        assert [(item["id"], [node["html"] for node in item["nodes"]]) for item in found["violations"]] == []
    finally:
        context.close()


def test_nothing_is_wider_than_a_phone(open_page):
    page = open_page(viewport=PHONE)
    page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def downloaded(page: Page, number: int) -> tuple[str, list[list[str]]]:
    """The CSV of a table, and what it is folded in: its file name and rows."""
    page.evaluate("for (const folded of document.querySelectorAll('details')) folded.open = true")
    with page.expect_download() as caught:
        page.locator("p.csv button").nth(number).click()
    file = caught.value
    return file.suggested_filename, list(csv.reader(io.StringIO(Path(file.path()).read_text("utf-8-sig"))))


def test_each_table_can_be_downloaded_with_all_its_rows(open_page, results):
    page = open_page()
    tables = page.locator("table")
    assert tables.count() == page.locator("p.csv button").count() > 8
    found = dict(downloaded(page, number) for number in range(tables.count()))
    assert len(found) == tables.count()
    for number, rows in enumerate(found.values()):
        assert len(rows) == tables.nth(number).locator("tr").count()
        assert len({len(row) for row in rows}) == 1
    main = found["table-0.csv"]
    assert main[0][1:] == [f"{model.name}{' collapsed' * model.health.collapsed}" for model in results.models]
    assert main[1] == ["clean", *(str(model.clean.value) for model in results.models)]
    numbers = {cell for row in found["all-metrics.csv"] for cell in row}
    for cell in results.cells:
        if cell.score:
            assert str(cell.score.value) in numbers


def test_no_cell_of_a_csv_is_a_formula(open_page):
    page = open_page()
    cells = {
        "=HYPERLINK(1)": "'=HYPERLINK(1)",
        "+1+1": "'+1+1",
        "@SUM(A1)": "'@SUM(A1)",
        "-2+3|cmd": "'-2+3|cmd",
        "\t=1": "'=1",
        "\r=1": "'=1",
        "-0.25": "-0.25",
        "-1e-3": "-1e-3",
        "a=b": "a=b",
        'a,"b"': 'a,"b"',
        "\u03c0": "\u03c0",
    }
    page.evaluate(
        """(texts) => {
            const row = document.querySelector("table").tBodies[0].rows[0];
            for (const text of texts) row.append(Object.assign(document.createElement("td"), { textContent: text }));
        }""",
        list(cells),
    )
    _, rows = downloaded(page, 0)
    assert rows[1][-len(cells) :] == list(cells.values())


def test_a_column_is_sorted_by_its_button_with_clean_and_worst_case_on_top(open_page):
    page = open_page()
    table = page.locator("table.budget").first
    head = table.locator("th", has_text="plain-r50").first
    head.locator("button").focus()
    for direction, order in (
        ("descending", ["noise", "margin", "stax", "square"]),
        ("ascending", ["square", "stax", "margin", "noise"]),
    ):
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == direction
        assert attacks_shown(page) == order
    assert table.locator("tbody").first.locator("th").all_inner_texts() == ["clean", "worst case"]


def test_attacks_are_filtered_by_name_and_by_facet_in_every_table(open_page):
    page = open_page()
    section = page.locator("section[aria-labelledby=tables]")
    section.get_by_label("Knowledge").select_option("scores only")
    assert attacks_shown(page) == ["square"]
    assert section.get_by_role("status").inner_text() == "1 of 4 attacks shown"
    page.get_by_text("All metrics, norms and costs").click()
    shown = page.locator("#all-metrics tbody tr:visible td:nth-child(2)").all_inner_texts()
    assert set(shown) == {"clean", "worst case", "square"}
    section.get_by_role("button", name="Show all").click()
    section.get_by_label("Name contains").fill("STA")
    assert attacks_shown(page) == ["stax"]


def test_examples_are_filtered_and_empty_rooms_go(open_page):
    page = open_page()
    section = page.locator("section[aria-labelledby=examples]")
    section.get_by_label("Attack").select_option("stax")
    assert section.get_by_role("status").inner_text() == "3 of 12 examples shown"
    assert section.locator("article:visible").count() == 1
    section.locator("summary").nth(1).click()
    assert section.locator("article:visible").count() == 2
    section.get_by_label("Name contains").fill("no such query")
    assert section.locator("details:visible").count() == 0


def test_the_page_is_complete_without_javascript(open_page):
    page = open_page(java_script_enabled=False)
    assert attacks_shown(page) == ["noise", "margin", "stax", "square"]
    assert not page.locator(".controls").first.is_visible()
    assert page.locator("article.exhibit img").first.is_visible()
    assert page.locator("th button").count() == 0


def test_an_entry_of_the_legend_switches_its_traces_off_and_on(open_page):
    page = open_page()
    figure = live(page, "chart-eps")
    entry = figure.locator(".legend").get_by_role("button", name="plain-r50")
    before = drawn_traces(page, "chart-eps")
    own = page.evaluate(
        "key => document.getElementById('chart-eps-0-live').data.filter(trace => trace.meta.key === key).length",
        entry.locator("xpath=ancestor::li").get_attribute("data-key"),
    )
    assert 0 < own < before
    # By pointer, and by key.
    entry.click()
    expect(entry).to_have_attribute("aria-pressed", "false")
    expect(page.locator("#chart-eps-0-live .main-svg .scatterlayer > .trace")).to_have_count(before - own)
    entry.press("Enter")
    expect(entry).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#chart-eps-0-live .main-svg .scatterlayer > .trace")).to_have_count(before)


def test_a_live_chart_shows_the_number_under_the_pointer(open_page):
    page = open_page()
    place = live(page, "chart-eps").locator(".scatterlayer .point").last.bounding_box()
    page.mouse.move(0, 0)
    page.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2, steps=8)
    expect(page.locator("#chart-eps-0-live .hoverlayer .hovertext").first).to_be_visible()


def test_an_example_is_opened_with_all_its_pictures(open_page):
    page = open_page()
    room = page.locator("details.room").nth(1)
    exhibit = room.locator("article").first
    assert not exhibit.is_visible()
    # As with a keyboard.
    room.locator("summary").press("Enter")
    expect(exhibit).to_be_visible()
    expect(exhibit.locator(".triple figcaption")).to_have_text(
        ["query", re.compile("^perturbation "), "attacked query"]
    )
    sizes = exhibit.locator("img").evaluate_all("all => all.map(it => it.checkVisibility() ? it.naturalWidth : 0)")
    assert len(sizes) > 3
    assert all(sizes)
    room.locator("summary").press("Enter")
    expect(exhibit).to_be_hidden()


def test_the_scheme_of_the_reader_colours_the_page_and_its_charts(open_page):
    page = open_page(color_scheme="light")
    live(page, "chart-eps")
    ground = "getComputedStyle(document.body).backgroundColor"
    line = "getComputedStyle(document.querySelector('#chart-eps-0-live .js-line')).stroke"
    light = [page.evaluate(ground), page.evaluate(line)]
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"before => {line} !== before", arg=light[1])
    dark = [page.evaluate(ground), page.evaluate(line)]
    brightness = [sum(int(part) for part in re.findall(r"\d+", colour)[:3]) for colour in (light[0], dark[0])]
    assert brightness[0] > 600
    assert brightness[1] < 200


HOSTILE = (
    "</script><script>document.title = 'taken'</script>",
    "<img src=x onerror=\"document.title = 'taken'\">",
    "\"'`&amp;{{ 7 * 7 }}%{x}",
    "\u202egnp.exe \u05e9\u05dc\u05d5\u05dd",
    "long" * 125,
    "\N{PARROT}\N{ZERO WIDTH JOINER}\N{PARROT}",
)


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_hostile_names_are_shown_literally_and_run_nothing(browser, tmp_path, viewport):
    run = random_run(models=HOSTILE, attacks=HOSTILE, classes=HOSTILE, queries=12)
    path = tmp_path / "page.html"
    path.write_text(render_report(run, tmp_path), encoding="utf-8")
    context = browser.new_context(viewport=viewport)
    context.set_default_timeout(120_000)
    page, faults = context.new_page(), []
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: faults.append(dialog.message))
    page.on("request", lambda request: faults.append(request.url) if not _own(request.url, path.as_uri()) else None)
    page.goto(path.as_uri())
    page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
    live(page, "chart-eps")
    assert "taken" not in page.title()
    shown = page.locator("section[aria-labelledby=verdict] article h3 bdi").evaluate_all(
        "all => all.map(it => it.textContent)"
    )
    assert sorted(shown) == sorted(HOSTILE)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    context.close()
    assert faults == []


INTRUDERS = """
<script>document.title = "taken"</script>
<script src="https://example.invalid/x.js"></script>
<img src="https://example.invalid/x.png" onerror="document.title = 'taken'">
<img src="data:," onerror="document.title = 'taken'">
<svg onload="document.title = 'taken'"></svg>
<iframe src="https://example.invalid/"></iframe>
<link rel="stylesheet" href="https://example.invalid/x.css">
<style>main { display: none }</style>
<p id="styled" style="position: fixed; inset: 0">over all</p>
<base href="https://example.invalid/">
<a id="code" href="javascript:document.title = 'taken'">here</a>
"""


def test_the_policy_of_the_page_stops_what_got_into_it_and_all_charts_draw(browser, results, tmp_path):
    """As if a name had not been escaped: no script runs, nothing is asked for, no style is applied."""
    results.save(tmp_path)
    path = tmp_path / "page.html"
    path.write_text(render_report(results, tmp_path).replace("<main>", f"{INTRUDERS}<main>", 1), encoding="utf-8")
    context = browser.new_context(viewport=WIDE)
    context.set_default_timeout(120_000)
    page, asked, errors = context.new_page(), [], []
    # What the policy stops is told as a failed request, without ever having left.
    page.on("request", lambda request: asked.append(request))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(path.as_uri())
    page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
    charts = page.locator("figure.chart")
    for number in range(charts.count()):
        charts.nth(number).scroll_into_view_if_needed()
        expect(charts.nth(number).locator(".chart-live .main-svg").first).to_be_attached()
    assert charts.count() >= 5
    page.evaluate("document.getElementById('code').click()")
    assert "taken" not in page.title()
    assert page.locator("main").is_visible()
    assert page.locator("#styled").evaluate("it => getComputedStyle(it).position") == "static"
    left = [request.url for request in asked if not _own(request.url, path.as_uri()) and request.failure != "csp"]
    assert left == []
    assert errors == []
    context.close()


@pytest.mark.parametrize("scripted", [True, False])
def test_what_is_folded_is_printed(open_page, tmp_path, scripted):
    page = open_page(java_script_enabled=scripted)
    folded = page.get_by_text("Fingerprint", exact=True)
    assert not folded.is_visible()
    page.emulate_media(media="print")
    if scripted:
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert folded.is_visible()
    assert len(page.pdf(path=tmp_path / "page.pdf")) > 10_000
