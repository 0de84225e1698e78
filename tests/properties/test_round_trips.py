"""What is written is read back the same, whatever it is; and what is computed fast equals loops written out."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_run import random_run
from torch import nn

from robustdml.config import TrainConfig
from robustdml.data import load_dataset
from robustdml.errors import BudgetError, RobustDMLError, SpecError
from robustdml.files import strict_json
from robustdml.models import branch_layout, convert_to_multibn
from robustdml.printable import harmless, plain, sentence
from robustdml.registry import Spec, parse_spec, split_specs
from robustdml.reports import parse_threshold
from robustdml.results import Results, pack_hits, unpack_hits
from robustdml.retrieval.metrics import METRICS, per_query
from robustdml.threat import format_eps, parse_budgets, parse_eps
from robustdml.training import read_recipe

settings.register_profile("robustdml", derandomize=True, deadline=None, max_examples=25, database=None)
settings.load_profile("robustdml")

NUMBERS = st.integers(-(10**12), 10**12) | st.floats(allow_nan=False, allow_infinity=False)
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}(\.[A-Z][a-z]{0,5})?", fullmatch=True)
KEYS = st.from_regex(r"[a-z]{2,8}_x", fullmatch=True)


@given(NAMES, st.dictionaries(KEYS, NUMBERS | WORDS | st.booleans() | st.none(), max_size=4))
def test_specs(name, params):
    spec = Spec(name, params)
    assert parse_spec(str(spec)) == spec
    again = parse_spec(str(parse_spec(str(spec))))
    assert [type(value) for value in again.params.values()] == [type(value) for value in spec.params.values()]


@given(st.lists(st.tuples(NAMES, st.dictionaries(KEYS, NUMBERS, max_size=2)), min_size=1, max_size=5))
def test_lists_of_specs(parts):
    texts = [str(Spec(name, params)) for name, params in parts]
    assert split_specs(", ".join(texts)) == texts


@given(st.text(max_size=60))
def test_any_text_is_a_spec_a_budget_and_a_bar_or_is_refused(text):
    for read in (parse_spec, parse_budgets, parse_threshold):
        try:
            read(text)
        except RobustDMLError as error:
            said = sentence(str(error))
            assert len(said) <= 300
            assert plain(said) == said


@given(st.lists(st.integers(1, 255), min_size=1, max_size=6))
def test_budgets(levels):
    found = parse_budgets(",".join(f"{level}/255" for level in levels))
    assert [round(threat.eps * 255) for threat in found] == sorted(set(levels))
    assert [parse_eps(format_eps(threat.eps)) for threat in found] == pytest.approx([threat.eps for threat in found])


@given(st.floats())
def test_a_budget_is_in_its_range_or_refused(size):
    try:
        assert 0 < parse_eps(repr(size)) <= 1
    except BudgetError:
        assert not 1e-6 <= size <= 1


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "epochs": st.integers(1, 1000),
            "batch_size": st.integers(4, 512),
            "learning_rate": st.floats(1e-6, 10),
            "weight_decay": st.floats(0, 1),
            "seed": st.integers(0, 2**63 - 1),
            "embedding_dim": st.integers(1, 4096),
            "loss": st.sampled_from(["triplet(margin=0.1)", "contrastive"]),
            "schedule": st.sampled_from(["cosine", "constant"]),
            "squash": st.booleans(),
        },
    )
)
def test_recipes(tmp_path_factory, fields):
    path = tmp_path_factory.getbasetemp() / "recipe.toml"
    path.write_text("[train]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in fields.items()))
    assert TrainConfig(**read_recipe(path)) == TrainConfig(**fields)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number in range(8):
        (folder / f"{number}.png").write_bytes(b"never opened")
    return folder


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.booleans(), st.booleans()), min_size=8, max_size=8))
def test_manifests(photos, rows):
    with (photos / "table.csv").open("w", newline="") as file:
        write = csv.writer(file)
        write.writerow(["path", "label", "split", "is_query", "is_gallery"])
        for number, (label, test, query, gallery) in enumerate(rows):
            write.writerow([f"{number}.png", label, "test" if test else "train", query and test, gallery and test])
    asked = [number for number, (_, test, query, _) in enumerate(rows) if test and query]
    searched = {number for number, (_, test, _, gallery) in enumerate(rows) if test and gallery}
    idle = any(test and not query and not gallery for _, test, query, gallery in rows)
    answered = [one for one in asked if any(other != one and rows[other][0] == rows[one][0] for other in searched)]
    try:
        data = load_dataset(photos / "table.csv")
    except RobustDMLError:
        shared = {row[0] for row in rows if row[1] and (row[2] or row[3])} & {row[0] for row in rows if not row[1]}
        alike = len({rows[number][0] for number in {*asked, *searched}}) < 2  # nothing to tell apart
        assert idle or not answered or alike or shared
        return
    assert not idle
    assert data.query.tolist() == answered
    assert set(data.gallery.tolist()) <= searched
    assert data.train.tolist() == [number for number, row in enumerate(rows) if not row[1]]


@settings(max_examples=8)
@given(
    st.integers(0, 10**6),
    st.integers(1, 30),
    st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=12), min_size=1, max_size=3, unique_by=plain),
)
def test_results(tmp_path_factory, seed, queries, names):
    folder = tmp_path_factory.getbasetemp()
    results = random_run(models=tuple(names), queries=queries, seed=seed)
    results.save(folder)
    assert Results.load(folder) == results


@given(st.lists(st.booleans(), max_size=70))
def test_hits(hits):
    assert unpack_hits(pack_hits(hits), len(hits)) == hits


JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(st.characters(codec="utf-8"), max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=9,
)


@given(JSON)
def test_strict_json(value):
    assert strict_json(json.dumps(value)) == value


@given(st.text(max_size=400))
def test_no_text_commands_a_terminal(text):
    for said in (plain(text), sentence(text), harmless(text).replace("\n", "")):
        assert not any(mark < " " or "\x7f" <= mark <= "\x9f" for mark in said)
        said.encode()
    assert len(sentence(text)) <= 300


@given(st.data())
def test_metrics_equal_naive_loops(data):
    count, ranks = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 12))
    relevant = np.array(
        data.draw(st.lists(st.lists(st.booleans(), min_size=ranks, max_size=ranks), min_size=count, max_size=count))
    )
    more = np.array(data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)))
    counts = np.maximum(relevant.sum(1) + more, 1)
    found = per_query([METRICS[name] for name in METRICS], relevant, counts)
    for row in range(count):
        hits, total = relevant[row].tolist(), int(counts[row])
        precisions = [sum(hits[: rank + 1]) / (rank + 1) for rank in range(ranks) if hits[rank]]
        early = [sum(hits[: rank + 1]) / (rank + 1) for rank in range(min(total, ranks)) if hits[rank]]
        for name, metric in METRICS.items():
            if name.startswith("recall_at_"):
                assert found[name][row] == float(any(hits[: metric.depth]))
        assert found["r_precision"][row] == pytest.approx(sum(hits[:total]) / total)
        assert found["map_at_r"][row] == pytest.approx(sum(early) / total)
        assert found["mean_average_precision"][row] == pytest.approx(sum(precisions) / total)


@settings(max_examples=25)
@given(st.lists(st.integers(2, 5), min_size=1, max_size=4), st.booleans(), st.integers(0, 99))
def test_a_batch_split_over_batchnorms_equals_its_parts(sizes, training, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        names = [f"branch{number}" for number in range(len(sizes))]
        images = torch.randn(sum(sizes), 3, 4, 4)

        def network() -> nn.Module:
            torch.manual_seed(seed)
            return convert_to_multibn(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), names).train(training)

        together, apart = network(), network()
        with branch_layout(together, list(zip(names, sizes, strict=True))):
            found = together(images)
        parts = []
        for name, part in zip(names, images.split(sizes), strict=True):
            with branch_layout(apart, [(name, None)]):
                parts.append(apart(part))
    torch.testing.assert_close(found, torch.cat(parts), rtol=1e-4, atol=1e-5)
    for key, value in together.state_dict().items():
        torch.testing.assert_close(value, apart.state_dict()[key], rtol=1e-4, atol=1e-5)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=2), st.sampled_from(["recall@1", "r@1", "map@r"]))
def test_bars(shares, metric):
    text = f"worst@{shares[0]!r}:{metric}={shares[1]!r}"
    try:
        bar = parse_threshold(text)
    except SpecError:
        assert shares[0] < 1e-6
        return
    assert (bar.metric, bar.lowest) == (metric, shares[1])
