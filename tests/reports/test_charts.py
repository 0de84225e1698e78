"""The numbers of each chart, in its figure and in its table, compared with those recomputed from the results."""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import pytest
from random_run import random_run

from robustdml.reports.index import Index
from robustdml.reports.page.charts import CHART_SECTIONS
from robustdml.reports.page.charts.attacked import bits
from robustdml.reports.page.charts.plot import model_style
from robustdml.results import pack_hits, unpack_hits

NAMES = ("first", "second")


def chart(results, identity):
    """The chart of a run that has an id, or None."""
    sections = [build(Index.of(results), None) for build in CHART_SECTIONS]
    return next((section.data for section in sections if section is not None and section.id == identity), None)


def named(panel):
    """The traces of a panel by key, in the order of the figure."""
    found = {}
    for trace in panel.figure["data"]:
        found.setdefault(trace["meta"]["key"], []).append(trace)
    return found


def rows(panel):
    """The texts of a table by row and column head; rows may share a name."""
    heads = panel.table.heads[1:]
    return [
        (name, dict(zip(heads, [entry.text for entry in entries], strict=True))) for name, entries in panel.table.rows
    ]


def recall(score):
    return score.metrics.recall_at_1


def hits(results, text):
    return unpack_hits(text, len(results.queries.ids))


@pytest.fixture
def run():
    return random_run()


@pytest.fixture
def single():
    """A run at one budget."""
    return random_run(budgets=(8 / 255,))


def test_r1_over_eps_is_clean_then_the_worst_cases(run):
    (panel,) = chart(run, "chart-eps").panels
    traces, table = named(panel), rows(panel)
    for number, model in enumerate(run.models):
        worst = [entry for entry in run.worst if entry.model == model.name]
        scores = [model.clean, *(entry.score for entry in worst)]
        band, line = traces[str(number)]
        assert line["x"] == [0.0, 4 / 255, 8 / 255]
        assert line["y"] == [recall(score) for score in scores]
        highs, lows = band["y"][:3], band["y"][:2:-1]
        assert highs == [score.high for score in scores]
        assert lows == [score.low for score in scores]
        assert [values[model.name] for _, values in table] == [f"{recall(score):.3f}" for score in scores]
    assert [name for name, _ in table] == ["0 (clean)", "4/255", "8/255"]
    assert panel.figure["layout"]["shapes"][0]["y0"] == run.dataset.chance


def test_r1_over_eps_and_under_attacks_exclude_each_other(run, single):
    assert chart(run, "chart-attacks") is None
    assert chart(single, "chart-eps") is None


def test_attacks_are_bars_the_strongest_first(single):
    (panel,) = chart(single, "chart-attacks").panels
    mean = {
        attack.name: sum(recall(cell.score) for cell in single.cells if cell.attack == attack.spec) / 2
        for attack in single.attacks
    }
    names = ["clean", "worst case", *sorted(mean, key=mean.__getitem__)]
    assert panel.figure["layout"]["yaxis"]["ticktext"] == names
    assert [name for name, _ in rows(panel)] == names
    specs = {attack.name: attack.spec for attack in single.attacks}
    for number, model in enumerate(single.models):
        (bars,) = named(panel)[str(number)]
        worst = next(entry.score for entry in single.worst if entry.model == model.name)
        cells = {cell.attack: cell.score for cell in single.cells if cell.model == model.name}
        scores = [model.clean, worst, *(cells[specs[name]] for name in names[2:])]
        assert bars["x"] == [recall(score) for score in scores]
        ends = [value + error for value, error in zip(bars["x"], bars["error_x"]["array"], strict=True)]
        assert ends == pytest.approx([score.high for score in scores])
        assert [values[model.name] for _, values in rows(panel)] == [f"{recall(score):.3f}" for score in scores]
    # Bars of one row stand beside each other.
    first, second = (named(panel)[key][0] for key in ("0", "1"))
    assert all(b - a >= first["width"] for a, b in zip(first["y"], second["y"], strict=True))


def test_more_attacks_than_fit_stand_in_the_table_only():
    results = random_run(attacks=tuple(f"attack-{place}" for place in range(30)), budgets=(8 / 255,))
    found = chart(results, "chart-attacks")
    (panel,) = found.panels
    assert len(panel.figure["layout"]["yaxis"]["ticktext"]) == 2 + 25
    assert len(panel.table.rows) == 2 + 30
    assert "The 5 weaker attacks stand in the table only" in found.caption[0]
    order = [name for name, _ in rows(panel)]
    assert panel.figure["layout"]["yaxis"]["ticktext"] == order[:27]
    specs = {attack.name: attack.spec for attack in results.attacks}
    left = [sum(recall(cell.score) for cell in results.cells if cell.attack == specs[name]) for name in order[2:]]
    assert all(weaker >= stronger - 1e-9 for stronger, weaker in pairwise(left))


def test_many_models_are_dots_on_one_line():
    results = random_run(models=tuple(f"m{place}" for place in range(5)), budgets=(8 / 255,))
    (panel,) = chart(results, "chart-attacks").panels
    assert {trace["type"] for trace in panel.figure["data"]} == {"scatter"}
    assert all(trace["y"] == [0, 1, 2, 3, 4] for trace in panel.figure["data"])


def test_a_dot_per_model_shows_clean_against_worst(run):
    (panel,) = chart(run, "chart-tradeoff").panels
    for number, model in enumerate(run.models):
        worst = next(entry for entry in run.worst if entry.model == model.name and entry.threat.eps == 8 / 255)
        (dot,) = named(panel)[str(number)]
        assert (dot["x"], dot["y"]) == ([recall(model.clean)], [recall(worst.score)])
        assert dot["y"][0] - dot["error_y"]["arrayminus"][0] == pytest.approx(worst.score.low)
        name, values = rows(panel)[number]
        assert name == model.name
        assert values["Clean"] == f"{recall(model.clean):.3f}"
        assert values["Worst case"] == f"{recall(worst.score):.3f}"
        assert values["Relative recall"] == f"{recall(worst.score) / recall(model.clean):.3f}"
    (diagonal,) = panel.figure["layout"]["shapes"]
    assert [diagonal[key] for key in ("x0", "y0", "x1", "y1")] == [0, 0, 1, 1]


def test_one_model_has_nothing_to_be_compared_with():
    assert chart(random_run(models=("only",)), "chart-tradeoff") is None


def test_the_profile_has_every_rank_clean_and_in_the_worst_case(run):
    (panel,) = chart(run, "chart-profile").panels
    expected = []
    for number, model in enumerate(run.models):
        worst = next(entry for entry in run.worst if entry.model == model.name and entry.threat.eps == 8 / 255)
        for trace, kind, score in zip(
            named(panel)[str(number)], ("clean", "worst case"), (model.clean, worst.score), strict=True
        ):
            values = list(score.metrics.model_dump().values())[:4]
            assert trace["x"] == [0, 1, 2, 3]
            assert trace["y"] == values
            assert trace["line"]["dash"] == ("solid" if kind == "clean" else "dash")
            expected.append((model.name, kind, *(f"{value:.3f}" for value in values)))
    assert [(name, *values.values()) for name, values in rows(panel)] == expected


@pytest.mark.parametrize("count", [3, 40])
def test_classes_lose_what_the_hits_say(count):
    results = random_run(queries=600, classes=tuple(f"class {place}" for place in range(count)))
    found = chart(results, "chart-classes")
    for panel, model in zip(found.panels, results.models, strict=True):
        worst = next(entry for entry in results.worst if entry.model == model.name and entry.threat.eps == 8 / 255)
        before, after = hits(results, model.clean_hits), hits(results, worst.hits)
        expected = {}
        for place, name in enumerate(results.queries.class_names):
            own = [query for query, home in enumerate(results.queries.classes) if home == place]
            expected[name] = (
                len(own),
                sum(before[query] for query in own) / len(own),
                sum(after[query] for query in own) / len(own),
            )
        shown = rows(panel)
        assert {name for name, _ in shown} == set(expected)
        for name, values in shown:
            size, clean, left = expected[name]
            assert values["Queries"] == str(size)
            assert values["Clean"] == f"{clean:.3f}"
            assert values["Worst case"] == f"{left:.3f}"
            assert values["Loss"] == f"{clean - left:.3f}"
        losses = [expected[name][1] - expected[name][2] for name, _ in shown]
        assert all(more >= less - 1e-12 for more, less in pairwise(losses))
        clean_dots, worst_dots = named(panel)["clean"][0], named(panel)["worst"][0]
        first = [name for name, _ in shown[:25]]
        assert clean_dots["x"] == [expected[name][1] for name in first]
        assert worst_dots["x"] == [expected[name][2] for name in first]
        assert panel.figure["layout"]["yaxis"]["ticktext"] == first
    assert ("first 25 are drawn" in found.caption[0]) == (count > 25)


def brute_force(results, model, eps):
    """For each attack name, the queries that it breaks."""
    before = hits(results, model.clean_hits)
    names = {attack.spec: attack.name for attack in results.attacks}
    return {
        names[cell.attack]: {query for query, hit in enumerate(hits(results, cell.hits)) if before[query] and not hit}
        for cell in results.cells
        if (cell.model, cell.threat.eps) == (model.name, eps)
    }


@pytest.mark.parametrize(("attacks", "seed"), [(3, 0), (8, 1), (23, 2)])
def test_overlaps_count_the_queries_that_both_break(attacks, seed):
    results = random_run(attacks=tuple(f"attack-{place}" for place in range(attacks)), seed=seed)
    for panel, model in zip(chart(results, "chart-overlap").panels, results.models, strict=True):
        broken = brute_force(results, model, 8 / 255)
        shown = rows(panel)
        order = [name for name, _ in shown]
        assert sorted(order) == sorted(broken)
        assert [len(broken[name]) for name in order] == sorted(map(len, broken.values()), reverse=True)
        right = sum(hits(results, model.clean_hits))
        for name, values in shown:
            others = set().union(*(queries for other, queries in broken.items() if other != name))
            assert values["Breaks"] == str(len(broken[name]))
            assert values["Share"] == f"{len(broken[name]) / right:.3f}"
            assert values["Only it"] == str(len(broken[name] - others))
            for number, other in enumerate(order, 1):
                assert values[str(number)] == str(len(broken[name] & broken[other]))
        (heat,) = panel.figure["data"]
        drawn = order[:20]
        assert heat["z"] == [[len(broken[a] & broken[b]) / len(broken[a]) for b in drawn] for a in drawn]
        assert ("the table has the other 3" in panel.caption) == (attacks == 23)


@pytest.mark.parametrize("count", range(1, 10))
def test_a_bit_string_is_read_as_the_set_of_its_queries(count):
    fates = [place % 3 == 0 for place in range(count)]
    assert f"{bits(pack_hits(fates), count):0{count}b}" == "".join(str(int(hit)) for hit in fates)


def test_an_overlap_says_which_attack_finds_the_most_alone():
    results = random_run(attacks=("a", "b", "c"), seed=3)
    for panel, model in zip(chart(results, "chart-overlap").panels, results.models, strict=True):
        broken = brute_force(results, model, 8 / 255)
        alone = {
            name: len(own - set().union(*(broken[other] for other in broken if other != name)))
            for name, own in broken.items()
        }
        assert panel.caption.rstrip(".").endswith(str(max(alone.values())))


def test_identical_attacks_find_nothing_alone():
    results = random_run(attacks=("a", "b"), models=("only",), budgets=(8 / 255,))
    one, other = results.cells
    same = other.model_copy(update={"hits": one.hits, "score": one.score})
    (panel,) = chart(results.model_copy(update={"cells": (one, same)}), "chart-overlap").panels
    assert [values["Only it"] for _, values in rows(panel)] == ["0", "0"]
    assert panel.caption == "Every broken query is broken by more than one attack."


def test_costs_are_per_query_and_name_their_kind(run):
    (panel,) = chart(run, "chart-cost").panels
    names = {attack.spec: attack.name for attack in run.attacks}
    cells = [cell for cell in run.cells if cell.threat.eps == 8 / 255]
    expected = [
        (
            names[cell.attack],
            cell.model,
            f"{cell.gradient_images / 60:,.4g}",
            f"{cell.forward_images / 60:,.4g}",
            f"{cell.seconds:.1f}",
            f"{recall(cell.score):.3f}",
        )
        for cell in cells
    ]
    assert sorted((name, *values.values()) for name, values in rows(panel)) == sorted(expected)
    for number, model in enumerate(run.models):
        dots = [trace for trace in named(panel)[str(number)] if trace["mode"] == "markers"]
        found = {
            (round(10**x, 6), y, trace["marker"]["symbol"].endswith("-open"))
            for trace in dots
            for x, y in zip(trace["x"], trace["y"], strict=True)
        }
        own = [cell for cell in cells if cell.model == model.name]
        assert found == {
            (round((cell.gradient_images or cell.forward_images) / 60, 6), recall(cell.score), not cell.gradient_images)
            for cell in own
            if cell.forward_images
        }
        assert len(own) == len(found) + 1


def test_the_frontier_of_cost_only_falls(run):
    results = random_run(attacks=tuple(f"attack-{place}" for place in range(12)))
    (panel,) = chart(results, "chart-cost").panels
    for traces in named(panel).values():
        line, *dots = traces
        assert line["mode"] == "lines"
        assert line["x"] == sorted(line["x"])
        assert line["y"] == sorted(line["y"], reverse=True)
        points = [pair for trace in dots for pair in zip(trace["x"], trace["y"], strict=True)]
        assert line["y"][-1] == min(y for _, y in points)
        assert all(
            any(x <= cost and y <= left for x, y in zip(line["x"], line["y"], strict=True)) for cost, left in points
        )
        assert math.isclose(line["x"][0], min(x for x, _ in points))


def test_maps_show_every_query_with_its_outcome(run):
    found = chart(run, "chart-maps")
    assert len(found.panels) == 2
    for panel, drawn in zip(found.panels, run.maps, strict=True):
        kinds = {"held": (True, True), "broken": (True, False), "wrong": None}
        seen = 0
        for key, wanted in kinds.items():
            paths = [
                path
                for path in drawn.paths
                if (not path.clean_hit if wanted is None else (path.clean_hit, path.adversarial_hit) == wanted)
            ]
            links, before, after = named(panel)[key]
            assert list(zip(before["x"], before["y"], strict=True)) == [path.clean for path in paths]
            assert list(zip(after["x"], after["y"], strict=True)) == [path.adversarial for path in paths]
            assert links["x"][:3] == [paths[0].clean[0], paths[0].adversarial[0], None]
            seen += len(paths)
        assert seen == len(drawn.paths) == len(panel.table.rows)
        gallery = [trace for key, traces in named(panel).items() if key.startswith("class-") for trace in traces]
        assert sum(len(trace["x"]) for trace in gallery) == len(drawn.gallery)
        for (name, values), path in zip(rows(panel), drawn.paths, strict=True):
            assert name == str(path.query_id)
            assert values["Class"] == run.queries.class_names[path.class_index]
            assert values["Attacked y"] == f"{path.adversarial[1]:.3f}"
        share = f"{100 * sum(drawn.explained):.0f}\N{NO-BREAK SPACE}%"
        assert f"holds {share} of the gallery's variance" in panel.caption
        assert "too little to judge distances by" in panel.caption


def test_shapes_and_not_only_colours_tell_outcomes_and_models_apart():
    results = random_run(models=tuple(f"m{place}" for place in range(10)))
    (panel, *_) = chart(results, "chart-maps").panels
    assert len({named(panel)[key][-1]["marker"]["symbol"] for key in ("held", "broken", "wrong")}) == 3
    (dots,) = chart(results, "chart-tradeoff").panels
    assert len({trace["marker"]["symbol"] for trace in dots.figure["data"]}) == 10


def test_a_gallery_of_many_classes_is_of_one_colour():
    results = random_run(classes=tuple(f"class {place}" for place in range(9)))
    (panel, *_) = chart(results, "chart-maps").panels
    (gallery,) = named(panel)["gallery"]
    assert len(gallery["x"]) == 400
    names = results.queries.class_names
    assert gallery["text"] == [names[place] for _, _, place in results.maps[0].gallery]


def test_every_model_has_a_map_before_one_has_two():
    results = random_run(models=tuple(f"m{place}" for place in range(10)), maps=3)
    found = chart(results, "chart-maps")
    assert [panel.name.partition(",")[0] for panel in found.panels] == [
        "m0",
        "m0",
        "m1",
        "m1",
        *(f"m{n}" for n in range(2, 10)),
    ]
    assert "18 maps more in the results are not shown" in found.caption[0]


def test_styles_of_thirty_models_are_pairwise_different():
    styles = [(model_style(number).paint, model_style(number).marker) for number in range(30)]
    assert all(one != other for one, other in combinations(styles, 2))
