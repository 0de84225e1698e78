"""Other kinds of retrieval than equal labels, evaluated as any other: nothing but the protocol changes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from squares import QUIET, FakeAttack, SmallNet
from torch.nn import functional as F

from robustdml.attacks import build_attack
from robustdml.data.protocol import Protocol, Reidentification, SameClass
from robustdml.data.tensors import ImageTensors
from robustdml.errors import DataError, UnknownNameError
from robustdml.evaluation import evaluate
from robustdml.evaluation.store import CellKey, Store
from robustdml.reports import parse_threshold, render_report, violations
from robustdml.results import unpack_hits
from robustdml.retrieval import METRICS, Metric, clean_recall
from robustdml.threat import ThreatModel


@dataclass(frozen=True, eq=False)
class Neighbours(Protocol):
    """Relevant is whoever is at most two rows away: an equality of labels cannot say it."""

    def relevant(self, queries, items):
        return np.asarray(np.abs(queries - items) <= 2)

    def ignored(self, queries, items):
        return np.asarray(queries == items)


def by_loop(model, data, protocol):
    """R@1 and average precision of each query, item by item."""
    with torch.no_grad():
        points = F.normalize(model(ImageTensors(data.images, data.image_size).batch(data.gallery)), dim=1).numpy()
    place = {row: index for index, row in enumerate(data.gallery.tolist())}
    first, average = [], []
    for query in data.query.tolist():
        items = [item for item in data.gallery.tolist() if not protocol.ignored(query, item)]
        items.sort(key=lambda item: -float(points[place[query]] @ points[place[item]]))
        right = [bool(protocol.relevant(query, item)) for item in items]
        first.append(float(right[0]))
        average.append(sum(sum(right[: i + 1]) / (i + 1) for i in range(len(right)) if right[i]) / sum(right))
    return first, average


PROTOCOLS = {
    "equal labels": lambda labels: SameClass(labels),
    "re-identification": lambda labels: Reidentification(np.arange(len(labels)) % 3, labels),
    "relevance that no label says": lambda labels: Neighbours(),
}


@pytest.mark.parametrize("make", PROTOCOLS.values(), ids=PROTOCOLS)
def test_records_and_validation_follow_the_protocol(squares, tmp_path, make):
    protocol, model = make(squares.labels), SmallNet()
    model.head.weight.data[2:] = 0  # a plane is too small for these colours: some queries are wrong
    data = replace(squares, rules=protocol)
    results = evaluate({"net": model}, data, [build_attack("noise", 8 / 255)], out=tmp_path, options=QUIET)
    first, average = by_loop(model, data, protocol)
    _, clean = Store(tmp_path, results.fingerprint).read_model("net")
    assert clean.values["recall_at_1"].tolist() == first
    assert clean.values["mean_average_precision"] == pytest.approx(average)
    assert list(clean.values) == list(protocol.metrics)
    assert 0 < sum(first) < len(first)
    tensors = ImageTensors(data.images, data.image_size)
    assert clean_recall(model, data.test, tensors, torch.device("cpu")) == pytest.approx(np.mean(first))
    attacked = Store(tmp_path, results.fingerprint).read_all(
        CellKey("net", results.attacks[0].spec, ThreatModel(8 / 255))
    )
    assert list(attacked.values) == list(protocol.metrics)


def test_what_the_own_camera_took_is_in_no_list(squares, tmp_path):
    protocol = Reidentification(np.arange(len(squares.labels)) % 3, squares.labels)
    data = replace(squares, rules=protocol)
    results = evaluate({"net": SmallNet()}, data, [], out=tmp_path, options=QUIET)
    top = Store(tmp_path, results.fingerprint).read_model("net")[1].top
    assert not protocol.ignored(data.query[:, None], top).any()
    relevant, searched = protocol.counts(data.query, data.gallery)
    assert results.dataset.chance == pytest.approx((relevant / searched).mean())


class Seer(FakeAttack):
    """An attack that remembers what it was told of the gallery."""

    def __call__(self, model, images, references, *, seed):
        self.seen.append((references.ids.numpy(), references.ignored.numpy(), references.relevant.numpy()))
        if references.gallery.rules is not None:
            vars(references.gallery.rules).get("cameras", np.zeros(1)).fill(0)
        return images


@pytest.mark.parametrize("make", PROTOCOLS.values(), ids=PROTOCOLS)
def test_attacks_know_the_protocol_and_cannot_change_it(squares, tmp_path, make):
    data, expected = replace(squares, rules=make(squares.labels)), make(squares.labels)
    seer = Seer(None)
    object.__setattr__(seer, "seen", [])
    results = evaluate({"net": SmallNet()}, data, [seer], out=tmp_path, options=QUIET)
    ((ids, own, same),) = seer.seen
    ignored = expected.ignored(ids[:, None], data.gallery[None])
    assert (own == ignored).all()
    assert (same == (ignored | expected.relevant(ids[:, None], data.gallery[None]))).all()
    assert results.cells[0].hits == results.models[0].clean_hits
    assert data.rules.identity() == expected.identity()


def precision_at_5(relevant, counts):
    return relevant[:, :5].mean(1)


def test_a_metric_more_is_one_entry_and_is_in_records_results_bars_and_page(squares, tmp_path, monkeypatch):
    meaning = "share of relevant items among the first 5"
    metric = Metric("precision_at_5", "P@5", meaning, "manning2008introduction", 5, precision_at_5)
    monkeypatch.setitem(METRICS._entries, metric.name, metric)
    names = ("recall_at_1", "precision_at_5")
    data = replace(squares, rules=SameClass(metrics=names))
    model = SmallNet()
    model.head.weight.data[2:] = 0
    attack = build_attack("noise", 8 / 255)
    results = evaluate({"net": model}, data, [attack], out=tmp_path, options=QUIET)
    store = Store(tmp_path, results.fingerprint)
    clean = store.read_model("net")[1].values
    attacked = store.read_all(CellKey("net", attack.entry().spec, attack.threat)).values
    worst = np.minimum(clean["precision_at_5"], attacked["precision_at_5"])
    assert 0 < worst.mean() < 1
    for score, values in (
        (results.models[0].clean, clean["precision_at_5"]),
        (results.cells[0].score, attacked["precision_at_5"]),
        (results.worst[0].score, worst),
    ):
        assert score.metrics["precision_at_5"] == values.mean()
        assert set(score.metrics.root) == set(names)
    assert "manning2008introduction" in results.citations
    assert violations(results, [parse_threshold("clean:p@5=1")])
    assert violations(results, [parse_threshold("clean:precision@5=0")]) == ()
    page = render_report(results, tmp_path)
    assert '<th scope="col" title="share of relevant items among the first 5">P@5</th>' in page
    assert "<strong>P@5</strong>: share of relevant items among the first 5." in page
    assert f"{worst.mean():.3f}" in page
    shown = page[page.index("</style>") : page.index('id="plotly"')]
    assert not [title for title in ("R@2", "MAP@R", "mAP", "R@k") if title in shown]


def test_another_headline_is_quoted_tested_and_compared_with_its_own_chance(squares, tmp_path):
    data = replace(squares, rules=SameClass(headline="recall_at_2"))
    model = SmallNet()
    model.head.weight.data[2:] = 0
    results = evaluate({"net": model}, data, [build_attack("noise", 8 / 255)], out=tmp_path, options=QUIET)
    clean = Store(tmp_path, results.fingerprint).read_model("net")[1].values["recall_at_2"]
    entry = results.models[0]
    assert unpack_hits(entry.clean_hits, 24) == (clean == 1).tolist()
    assert entry.clean.value == clean.mean() > entry.clean.metrics.recall_at_1
    assert entry.clean.low <= clean.mean() <= entry.clean.high
    # Of 23 other images seven are of the query's class.
    assert results.dataset.chance == pytest.approx(1 - (16 / 23) * (15 / 22))
    assert "worst-case R@2" in render_report(results, tmp_path)


def test_a_headline_that_is_no_hit_or_miss_is_refused(squares, tmp_path):
    data = replace(squares, rules=SameClass(headline="map_at_r"))
    with pytest.raises(DataError, match="'map_at_r' is no hit or miss of each query: choose one of recall_at_1,"):
        evaluate({"net": SmallNet()}, data, [], out=tmp_path, options=QUIET)


def test_a_metric_that_there_is_not_names_the_nearest(squares, tmp_path):
    data = replace(squares, rules=SameClass(metrics=("recall_at_1", "recall_at_3")))
    with pytest.raises(UnknownNameError, match=r"unknown metric 'recall_at_3': did you mean 'recall_at_\d"):
        evaluate({"net": SmallNet()}, data, [], out=tmp_path, options=QUIET)
