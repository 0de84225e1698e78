"""The tables of attacks by models: their numbers, the best and the lowest, and what is significant."""

from __future__ import annotations

from itertools import combinations

import pytest

from robustdml.reports import render_report
from robustdml.reports.index import Index
from robustdml.reports.page.budget_tables import budget_tables
from robustdml.reports.statistics import holm, mcnemar
from robustdml.results import Results
from robustdml.threat import ThreatModel, format_eps


@pytest.fixture
def tables(results, tmp_path, parse):
    """The tables of the page by budget: the text of each cell by row and column, beside its element."""
    page = parse(render_report(results, tmp_path))
    found = {}
    for table in page.all("table"):
        if "budget" in table.attributes.get("class", ""):
            heads = [head.text.removesuffix(" collapsed") for head in table.all("thead")[0].all("th")]
            rows = [row for body in table.all("tbody") for row in body.all("tr")]
            found[table.attributes["data-eps"]] = {
                row.all("th")[0].all("bdi")[0].text: dict(zip(heads[1:], row.all("td"), strict=True)) for row in rows
            }
    return found


def changed(results, **updates):
    """Results with some fields replaced, validated again."""
    return Results.model_validate(results.model_copy(update=updates).model_dump())


def test_every_recall_stands_in_the_table_of_its_budget(tables, results):
    assert list(tables) == ["8/255", "16/255", "2/255"]
    names = {attack.spec: attack.name for attack in results.attacks}

    def check(cell, score):
        recall = score.metrics.recall_at_1
        assert float(cell.attributes["data-value"]) == recall
        assert cell.text.startswith(f"{recall:.3f}")
        assert cell.text.endswith(f"{score.low:.3f}–{score.high:.3f}")  # noqa: RUF001

    done = [found for found in results.cells if found.score]
    assert len(done) == 3 * 4 * 3 - 1
    for found in done:
        check(tables[format_eps(found.threat.eps)][names[found.attack]][found.model], found.score)
    for worst in results.worst:
        check(tables[format_eps(worst.threat.eps)]["worst case"][worst.model], worst.score)
    for model in results.models:
        for table in tables.values():
            check(table["clean"][model.name], model.clean)


def test_the_lowest_attack_of_each_model_is_marked_in_words(tables, results):
    for table in tables.values():
        for model in results.models:
            column = {name: row[model.name] for name, row in table.items() if name not in ("clean", "worst case")}
            measured = {
                name: float(cell.attributes["data-value"])
                for name, cell in column.items()
                if "data-value" in cell.attributes
            }
            marked = [name for name, row in table.items() if "lowest of its column" in row[model.name].text]
            assert marked == [min(measured, key=measured.__getitem__)]


def test_differences_are_from_the_best_of_the_row(tables):
    for row in tables["8/255"].values():
        numbers = {
            name: float(cell.attributes["data-value"]) for name, cell in row.items() if "failed" not in cell.text
        }
        best = max(numbers.values())
        for name, value in numbers.items():
            shown = row[name].text.split()
            assert ("best" in shown) == (value == best)
            if value < best:
                assert any(word.startswith(f"−{best - value:.3f}") for word in shown)  # noqa: RUF001


def test_stars_are_those_of_the_corrected_test_over_the_whole_table(results):
    index = Index.of(results)
    table = budget_tables(index)[0]
    assert table.eps == "8/255"
    lines = {"clean": [model.clean_hits for model in results.models]}
    lines["worst case"] = [worst.hits for worst in results.worst if worst.threat.eps == 8 / 255]
    names = [model.name for model in results.models]
    for attack in results.attacks:
        lines[attack.name] = [index.cells[name, attack.spec, ThreatModel(8 / 255)].hits for name in names]
    keys = [
        (name, first, second)
        for name, hits in lines.items()
        for first, second in combinations(range(3), 2)
        if hits[first] and hits[second]
    ]
    corrected = dict(zip(keys, holm([mcnemar(lines[n][a], lines[n][b]).p_value for n, a, b in keys]), strict=True))
    assert len(keys) == 5 * 3 + 1  # margin failed on one model
    stars = 0
    for row in (*table.fixed, *table.rows):
        best = next(place for place, reading in enumerate(row.readings) if reading.best)
        for place, reading in enumerate(row.readings):
            if reading.difference:
                p_value = corrected[row.name, min(place, best), max(place, best)]
                assert reading.significant == (p_value < 0.05)
                stars += reading.significant
    assert stars


def test_equal_models_are_all_best(sample, tmp_path):
    results = sample(tmp_path, models=("one", "two"), attacks=("pgd",), budgets=(8 / 255,), eventful=False)
    first = results.cells[0]
    twin = first.model_copy(update={"model": "two"})
    (row,) = budget_tables(Index.of(changed(results, cells=(first, twin))))[0].rows
    assert [(reading.best, reading.difference) for reading in row.readings] == [(True, ""), (True, "")]


def test_one_model_is_compared_with_none(sample, tmp_path):
    table = budget_tables(Index.of(sample(tmp_path, models=("only",), examples=False)))[0]
    readings = [reading for row in (*table.fixed, *table.rows) for reading in row.readings]
    assert not any(reading.best or reading.difference for reading in readings)
    assert sum(reading.lowest for reading in readings) == 1


def test_what_was_not_run_to_its_end_says_why(results, tmp_path, parse):
    place = next(place for place, found in enumerate(results.cells) if found.status == "failed")
    failed = results.cells[place]
    skipped = failed.model_copy(update={"status": "skipped", "reason": "needs a classifier"})
    cells = (*results.cells[:place], skipped, *results.cells[place + 1 :])
    page = parse(render_report(changed(results, cells=cells), tmp_path))
    (cell,) = [found for found in page.all("td") if found.text == "skipped"][:1]
    assert cell.attributes["title"] == "needs a classifier"
    assert cell.all("a")[0].attributes["href"] == "#failures"
    assert "needs a classifier" in page.one("failures").text


def other_norms(results):
    """The run with the attack stax in L2 and square without a budget."""
    specs = {attack.name: attack.spec for attack in results.attacks}
    updates = {
        specs["stax"]: {"norm": "l2"},
        specs["square"]: {"norm": "l2", "budget": "minimum"},
    }
    attacks = tuple(attack.model_copy(update=updates.get(attack.spec, {})) for attack in results.attacks)
    cells = []
    for found in results.cells:
        if found.attack == specs["square"]:
            if found.threat.eps != 8 / 255:
                continue
            found = found.model_copy(update={"threat": ThreatModel(None, "l2"), "median_norm_broken": 0.4321})
        elif found.attack == specs["stax"]:
            found = found.model_copy(update={"threat": ThreatModel(found.threat.eps, "l2")})
        cells.append(found)
    return changed(results, attacks=attacks, cells=tuple(cells))


def test_budgets_of_other_norms_have_tables_of_their_own(results):
    tables = {table.eps: table for table in budget_tables(Index.of(other_norms(results)))}
    assert list(tables)[:3] == ["8/255", "16/255", "2/255"]
    assert [row.name for row in tables["8/255"].rows] == ["noise", "margin"]
    other = tables[f"L2 {8 / 255:g}"]
    assert [row.name for row in other.rows] == ["stax"]
    assert any(reading.difference for reading in other.rows[0].readings)


def test_attacks_of_any_size_say_how_large_they_were_and_are_not_compared(results, tmp_path, parse):
    changed_results = other_norms(results)
    table = budget_tables(Index.of(changed_results))[-1]
    assert (table.eps, table.sized) == ("any size", False)
    assert [row.name for row in table.fixed] == ["clean"]
    (row,) = table.rows
    assert {reading.note for reading in row.readings} == {"median L2 0.4321"}
    assert not any(reading.best or reading.lowest or reading.difference for reading in row.readings)
    assert "median L2 0.4321" in parse(render_report(changed_results, tmp_path)).text


def test_an_attack_on_the_gallery_is_named_so_and_never_the_lowest(results, tmp_path, parse):
    attacks = tuple(
        attack.model_copy(update={"side": "gallery"}) if attack.name == "square" else attack
        for attack in results.attacks
    )
    found = changed(results, attacks=attacks)
    rows = {row.name: row for row in budget_tables(Index.of(found))[0].rows}
    assert not any(reading.lowest for reading in rows["square"].readings)
    assert all(any(row.readings[place].lowest for row in rows.values()) for place in range(3))
    assert "changes the gallery" in parse(render_report(found, tmp_path)).text


def test_rows_carry_what_they_are_filtered_by(results, tmp_path, parse):
    page = parse(render_report(results, tmp_path))
    rows = [row for row in page.all("tr") if "data-goal" in row.attributes]
    assert len(rows) == 3 * len(results.attacks)
    for row in rows:
        attack = results.attacks[int(row.attributes["data-key"])]
        assert row.all("bdi")[0].text == attack.name
        assert (row.attributes["data-goal"], row.attributes["data-library"]) == (attack.goal, attack.library)
        assert row.attributes["data-knowledge"] in row.text
    details = [row for row in page.one("all-metrics").all("tr") if "data-key" in row.attributes]
    assert len(details) == len(results.cells)
    assert {row.all("td")[0].text for row in details if row.attributes["data-key"] == "2"} == {"stax"}
