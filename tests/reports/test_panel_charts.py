"""The charts of what was measured on request: certificates, natural change, and the spread of the classes."""

from __future__ import annotations

import math
import random
from statistics import mean

import pytest
from random_run import random_run

from robustdml.reports.index import Index
from robustdml.reports.page.charts.certified import certified_chart
from robustdml.reports.page.charts.class_spread import class_spread
from robustdml.reports.page.charts.natural import natural_chart
from robustdml.results import Certified, NaturalChange, pack_hits, unpack_hits

CHANGES = [("fog", "weather", 5), ("jpeg", "digital", 5), ("rotation", "geometry", 5), ("flip", "geometry", 1)]


@pytest.fixture
def run():
    drawn = random.Random(4)
    results = random_run(norm="l2", budgets=(0.1, 0.25))
    count = results.dataset.queries

    def bits() -> list[bool]:
        share = drawn.random()
        return [drawn.random() < share for _ in range(count)]

    certified, natural = [], []
    for model in results.models:
        for certificate in ("vote", "embedding"):
            hits = bits()
            radii = tuple(round(hit * drawn.random() * 0.6, 4) for hit in hits)
            certified.append(
                Certified(
                    model=model.name, certificate=certificate, sigma=0.25, samples=1000, confidence=0.999,
                    recall_at_1=sum(hits) / count, hits=pack_hits(hits), radii=radii,
                )
            )  # fmt: skip
        for name, family, severities in CHANGES:
            for severity in range(1, severities + 1):
                hits = bits()
                value = sum(hits) / count
                natural.append(
                    NaturalChange(
                        model=model.name, name=name, title=name.upper(), family=family, severity=severity, value=value,
                        low=value, high=value, hits=pack_hits(hits),
                    )
                )  # fmt: skip
    return type(results).model_validate(
        {**results.model_dump(), "certified": certified, "natural": natural}, from_attributes=True
    )


def rows(panel):
    return [(name, [entry.text for entry in entries]) for name, entries in panel.table.rows]


def test_certified_recall_counts_the_radii_and_stands_beside_the_attacks(run):
    (panel,) = certified_chart(Index.of(run)).panels
    radii = [float(head.removeprefix("L2 ")) for head in panel.table.heads[3:]]
    assert {0.1, 0.25} <= set(radii)
    found = rows(panel)
    assert len(found) == 3 * len(run.models)
    for model in run.models:
        vote, embedding, bare = (values for name, values in found if name == model.name)
        own = {entry.certificate: entry for entry in run.certified if entry.model == model.name}
        for values, entry in ((vote, own["vote"]), (embedding, own["embedding"])):
            expected = [sum(radius > at for radius in entry.radii) / len(entry.radii) for at in radii]
            assert values[1:] == [f"{value:.3f}" for value in (entry.recall_at_1, *expected)]
        worst = {entry.threat.eps: entry.score.metrics.recall_at_1 for entry in run.worst if entry.model == model.name}
        shown = [f"{worst[at]:.3f}" if at in worst else "—" for at in radii]
        assert bare[1:] == [f"{model.clean.metrics.recall_at_1:.3f}", *shown]
    curves = [trace for trace in panel.figure["data"] if trace["mode"] == "lines"]
    for trace, entry in zip(curves, run.certified, strict=True):
        assert trace["y"][0] == entry.recall_at_1
        assert trace["y"][1] == entry.recall(0)
        assert trace["y"][2:] == [entry.recall(radius) for radius in trace["x"][2:]]


def test_each_strength_of_noise_has_a_panel(run):
    stronger = tuple(entry.model_copy(update={"sigma": 0.5}) for entry in run.certified)
    longer = tuple(entry.model_copy(update={"samples": 10_000}) for entry in run.certified)
    panels = certified_chart(Index.of(run.model_copy(update={"certified": (*run.certified, *stronger)}))).panels
    assert [panel.name for panel in panels] == ["Noise of sigma 0.25", "Noise of sigma 0.5"]
    panels = certified_chart(Index.of(run.model_copy(update={"certified": (*run.certified, *longer)}))).panels
    assert "10,000 copies" in panels[1].name
    assert certified_chart(Index.of(run.model_copy(update={"certified": ()}))) is None


def test_natural_change_has_its_means_its_worst_and_every_cell(run):
    overview, *each = natural_chart(Index.of(run)).panels
    for model, panel in zip(run.models, each, strict=True):
        own = {(entry.name, entry.severity): entry for entry in run.natural if entry.model == model.name}
        for name, _, severities in CHANGES:
            (values,) = [values for title, values in rows(panel) if title == name.upper()]
            expected = [own[name, at].value for at in range(1, severities + 1)]
            assert values[:severities] == [f"{value:.3f}" for value in expected]
            assert set(values[severities:5]) <= {"—"}
            assert values[5] == f"{mean(expected):.3f}"
        shown = [values for name, values in rows(overview) if name == model.name]
        assert [values[0] for values in shown][:3] == ["clean", "corrupted", "moved, turned, cropped or flipped"]
        corrupted = [entry for entry in own.values() if entry.family != "geometry"]
        hardest = min(corrupted, key=lambda entry: entry.value)
        assert shown[1][1:4] == [
            f"{mean(entry.value for entry in corrupted):.3f}",
            f"{hardest.value:.3f}",
            f"{hardest.title}, severity {hardest.severity}",
        ]
    solid = overview.figure["data"][0]
    first = run.models[0].name
    for severity, value in zip(solid["x"][1:], solid["y"][1:], strict=True):
        part = [entry.value for entry in run.natural if entry.model == first and entry.severity == severity]
        assert value == pytest.approx(mean(part[:2]))
    assert natural_chart(Index.of(run.model_copy(update={"natural": ()}))) is None


@pytest.mark.parametrize("classes", [1, 3, 23])
def test_the_worst_tenth_of_the_classes_is_the_mean_of_the_lowest(classes):
    results = random_run(queries=400, classes=tuple(f"class {place}" for place in range(classes)))
    hits = [results.models[0].clean_hits, results.worst[0].hits]
    unpacked = [unpack_hits(text, 400) for text in hits]
    shares = {}
    for place, name in enumerate(results.queries.class_names):
        own = [query for query, home in enumerate(results.queries.classes) if home == place]
        if own:
            shares[name] = mean((unpacked[0][query] + unpacked[1][query]) / 2 for query in own)
    lowest = sorted(shares.values())[: math.ceil(len(shares) / 10)]
    found = class_spread(Index.of(results), hits)
    assert found.worst_tenth == pytest.approx(mean(lowest))
    assert found.worst == pytest.approx(shares[found.name]) == pytest.approx(min(shares.values()))
