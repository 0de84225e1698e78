"""The download of each table as CSV, and what a phone puts before the cells of its cards."""

from __future__ import annotations

import base64
import csv
import io
import re

import pytest

from robustdml.reports import render_report
from robustdml.reports.page.finishing import finished, table_csv


def downloads(page) -> dict[str, list[list[str]]]:
    links = [link.attributes for link in page.all("a") if link.attributes.get("download", "").endswith(".csv")]
    texts = (base64.b64decode(link["href"].partition("base64,")[2]).decode("utf-8-sig") for link in links)
    return {link["download"]: list(csv.reader(io.StringIO(text))) for link, text in zip(links, texts, strict=True)}


def test_each_table_can_be_downloaded_with_all_its_rows(results, tmp_path, parse):
    page = parse(render_report(results, tmp_path))
    tables, found = page.all("table"), downloads(page)
    assert len(found) == len(tables) > 8
    for table, rows in zip(tables, found.values(), strict=True):
        assert len(rows) == len(table.all("tr"))
        assert len({len(row) for row in rows}) == 1
    main = found["table-0.csv"]
    assert main[0][1:] == [f"{model.name}{' collapsed' * model.health.collapsed}" for model in results.models]
    assert main[1] == ["clean", *(str(model.clean.value) for model in results.models)]
    (everything,) = [rows for name, rows in found.items() if name == "all-metrics.csv"]
    numbers = {cell for row in everything for cell in row}
    for cell in results.cells:
        if cell.score:
            assert str(cell.score.value) in numbers


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+1+1", "'+1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-2+3|cmd", "'-2+3|cmd"),
        ("\t=1", "'\t=1"),
        ("\r=1", '"\'\r=1"'),
        ("-0.25", "-0.25"),
        ("-1e-3", "-1e-3"),
        ("a=b", "a=b"),
        ('a,"b"', '"a,""b"""'),
        ("π", "π"),
    ],
)
def test_no_cell_is_a_formula(cell, written):
    assert table_csv([[cell]]) == f"{written}\r\n"


def test_cards_name_their_columns_and_no_name_breaks_out_of_the_style_sheet():
    odd = 'a"}</style><b>\\'.replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    rows = f'<tr><th>n</th><th>{odd}</th></tr><tr><th>r</th><td data-value="1">one</td></tr>'
    html = f'<div><table id="x">{rows}</table></div>'
    page, rules = finished(html)
    assert page.startswith('<div><table data-cards="0" id="x">')
    assert '<a download="x.csv"' in page
    (content,) = re.findall(r'\[data-cards="0"\] td:nth-child\(2\)::before \{ content: "(.*)"; \}', rules)
    assert re.fullmatch(r"(\\[0-9a-f]+ |[A-Za-z0-9])+", content)
    assert "".join(
        chr(int(code, 16)) if code else mark for code, mark in re.findall(r"\\([0-9a-f]+) |(.)", content)
    ) == ('a"}</style><b>\\')


def test_a_cut_label_of_a_chart_says_the_whole_name(sample, tmp_path, parse):
    long = "an-attack-of-a-name-that-no-axis-has-room-for"
    page = parse(render_report(sample(tmp_path, attacks=(long, "short")), tmp_path))
    titles = [text for text in page.all("text") if text.all("title")]
    said = [title.text for text in titles for title in text.all("title")]
    assert said.count(long) >= 2
    assert "short" not in said
    figures = [part.attributes["data-figure"] for part in page.every() if "data-figure" in part.attributes]
    assert any(f'"{long}"' in figure.split('"whole"')[1] for figure in figures if '"whole"' in figure)
