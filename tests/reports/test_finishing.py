"""What a phone puts before the cells of its cards, and whole names where labels are cut."""

from __future__ import annotations

import re

from robustdml.reports import render_report
from robustdml.reports.page.finishing import finished


def test_cards_name_their_columns_and_no_name_breaks_out_of_the_style_sheet():
    odd = 'a"}</style><b>\\'.replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    rows = f'<tr><th>n</th><th>{odd}</th></tr><tr><th>r</th><td data-value="1">one</td></tr>'
    html = f'<div><table id="x">{rows}</table></div>'
    page, rules = finished(html)
    assert page.startswith('<div><table data-cards="0" id="x">')
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
