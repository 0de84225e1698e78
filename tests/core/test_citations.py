"""The BibTeX file: in its one form, and complete."""

from __future__ import annotations

import pytest

from robustdml.citations import BIBTEX, citations, read_bibtex

ENTRY = "@article{key2026,\n  title = {A},\n  year = {2026}\n}"


@pytest.mark.parametrize("key", BIBTEX)
def test_every_entry_says_who_what_where_and_when(key):
    lines = BIBTEX[key].splitlines()
    assert lines[0] == f"@{lines[0][1:].partition('{')[0]}{{{key},"
    fields = {line.split()[0] for line in lines[1:-1]}
    assert {"title", "author", "year"} <= fields
    assert fields & {"booktitle", "journal", "publisher"}


def test_entries_are_read_as_they_are_written():
    other = ENTRY.replace("key2026", "other2026")
    assert read_bibtex(f"{ENTRY}\n\n{other}\n") == {"key2026": ENTRY, "other2026": other}


@pytest.mark.parametrize(
    "text",
    [
        f"{ENTRY}\n\n{ENTRY}",
        ENTRY.replace("{A},", "{A}"),
        ENTRY.replace("{A}", "{{A}"),
        ENTRY.replace("  title", "title"),
        ENTRY.replace("@article", "article"),
        f"{ENTRY}\n\n\n{ENTRY}",
        "",
    ],
)
def test_another_form_is_refused(text):
    with pytest.raises(ValueError, match="BibTeX"):
        read_bibtex(text)


def test_a_run_cites_what_it_names_and_what_all_use_each_once():
    found = citations(["madry2018towards", "unknown2026", "madry2018towards"])
    assert list(found) == ["madry2018towards", "musgrave2020reality", "roth2020revisiting", "douze2024faiss"]
    assert found["madry2018towards"] == BIBTEX["madry2018towards"]
