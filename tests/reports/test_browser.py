"""The page in a real browser: what a reader does with it, and what an automatic check of accessibility finds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import axe_core_python
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from robustdml.reports import write_report

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


@pytest.mark.parametrize(("scheme", "viewport"), [("light", WIDE), ("dark", PHONE)], ids=["light-wide", "dark-phone"])
def test_axe_finds_nothing(open_page, scheme, viewport):
    page = open_page(color_scheme=scheme, viewport=viewport)
    page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
    page.evaluate(AXE)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert [(item["id"], [node["html"] for node in item["nodes"]]) for item in found["violations"]] == []


def test_nothing_is_wider_than_a_phone(open_page):
    page = open_page(viewport=PHONE)
    page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


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
