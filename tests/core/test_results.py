"""Results that were changed are not believed: by a bit, or by hand and with a fitting checksum."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from random_run import random_run

from robustdml.errors import RunFolderError
from robustdml.files import sealed
from robustdml.results import RESULTS_FILE, Results


@pytest.fixture(scope="module")
def results():
    return random_run(models=("first",), attacks=("noise", "pgd"), queries=24, maps=0)


def test_no_flipped_bit_changes_what_is_believed(results, tmp_path):
    path = results.save(tmp_path)
    assert Results.load(tmp_path) == results
    whole, random = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for place in random.integers(0, 8 * len(whole), 600).tolist():
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            assert Results.load(tmp_path) == results
        except RunFolderError as error:
            refused += 1
            assert len(str(error)) < 400 + len(str(path))  # noqa: PT017
    assert refused > 300


def _worst(data):
    return data["worst"][0]


def _interval(score):
    score["low"], score["high"] = score["high"], score["low"]


#: What is done to the JSON, and how the refusal names it. The checksum fits in every case.
CHANGES = {
    "R@1 and hits together": (
        lambda data: (
            data["cells"][0].update(hits="f" * 6),
            data["cells"][0]["score"]["metrics"].update(dict.fromkeys(data["cells"][0]["score"]["metrics"], 1.0)),
        ),
        r"first, noise.*relative recall",
    ),
    "R@2 below R@1": (
        lambda data: data["cells"][1]["score"]["metrics"].update(recall_at_2=0.0),
        r"first, pgd.*recall_at_1 is .* and recall_at_2 less",
    ),
    "MAP@R of 1": (
        lambda data: data["models"][0]["clean"]["metrics"].update(map_at_r=1),
        "first, clean: map_at_r is 1 and recall_at_1 is not",
    ),
    "interval": (lambda data: _interval(data["models"][0]["clean"]), "first, clean: the interval .* is upside down"),
    "worst case above its cells": (
        lambda data: (
            _worst(data).update(hits=data["models"][0]["clean_hits"], relative_recall=1.0),
            _worst(data)["score"].update(data["models"][0]["clean"]),
        ),
        "first, worst case at 4/255.*: a query survives it that is wrong",
    ),
    "worst case below everything": (
        lambda data: (
            _worst(data).update(hits="000000", relative_recall=0.0),
            _worst(data)["score"]["metrics"].update(dict.fromkeys(_worst(data)["score"]["metrics"], 0.0)),
            _worst(data)["score"].update(low=0.0),
        ),
        "a query falls that no attack breaks",
    ),
    "counts": (lambda data: _worst(data).update(attacks=3), "it says 3 attacks and 0 failed ones, the cells 2 and 0"),
    "relative recall": (lambda data: data["cells"][0].update(relative_recall=0.9), "a relative recall of 0.9 is not"),
    "cells twice": (lambda data: data["cells"].append(data["cells"][0]), "the cell 'first, noise.*' is listed twice"),
    "worst cases twice": (lambda data: data["worst"].append(_worst(data)), "the worst case '.*' is listed twice"),
    "query ids twice": (lambda data: data["queries"]["ids"].__setitem__(0, 5), "the query id '5' is listed twice"),
    "class outside": (lambda data: data["queries"]["classes"].__setitem__(0, 3), "a class index is outside of the 3"),
    "no schema": (lambda data: data.pop("schema_version"), "it has no 'schema_version'"),
    "no model": (lambda data: data.update(models=[], cells=[], worst=[]), "there is no model"),
    "no queries": (lambda data: data["dataset"].update(queries=0), "0 entries that dataset.queries says"),
    "another model": (lambda data: data["models"][0].update(fingerprint="x"), "is not among the models of spec"),
    "another budget": (
        lambda data: data["spec"].update(attacks=data["spec"]["attacks"][1:]),
        r"noise.*it is not among the attacks of spec",
    ),
    "a norm beyond the budget": (lambda data: data["cells"][0].update(largest_norm=0.9), "norm 0.9 is beyond the"),
    "padding of hits": (lambda data: data["cells"][0].update(hits="0" * 7), "its hits are no 24 bits"),
    "negative cost": (lambda data: data["cells"][0].update(seconds=-1), "cells.0.seconds: .* greater than or equal"),
    "a huge budget": (lambda data: data["cells"][0]["threat"].update(eps=1e308), "eps 1e.308 is outside"),
    "year 1": (lambda data: data.update(created="0001-01-01T00:00:00+00:00"), "created: .*the year 1 cannot be"),
    "no time": (lambda data: data.update(created="soon"), "created: .*soon"),
    "metrics": (lambda data: data["cells"][0]["score"]["metrics"].pop("map_at_r"), "has other metrics than"),
    "a recall of 7": (lambda data: data["cells"][0]["score"]["metrics"].update(recall_at_1=7), "recall_at_1: .* less"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_does_not_follow_is_refused_with_its_place(results, tmp_path, name):
    change, pattern = CHANGES[name]
    data = copy.deepcopy(results.model_dump(mode="json"))
    change(data)
    (tmp_path / RESULTS_FILE).write_text(sealed(data))
    with pytest.raises(RunFolderError, match=pattern):
        Results.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        (
            lambda text: text.replace('"flags": [', '"flags": [], "examples": ['),
            "'(flags|examples)' stands there twice",
        ),
        (lambda text: text.replace('"seconds": 100.0', '"seconds": NaN'), "NaN is no number"),
        (lambda text: text.replace('"seconds": 100.0', '"seconds": 101.0'), "does not fit its checksum"),
        (lambda text: "[" * 100_000, "is not a results file"),
        (lambda text: "[]", "is not a results file"),
        (lambda text: "", "is not a results file"),
    ],
)
def test_what_says_two_things_or_none_is_refused(results, tmp_path, change, pattern):
    path = results.save(tmp_path)
    path.write_text(change(path.read_text()))
    with pytest.raises(RunFolderError, match=pattern):
        Results.load(tmp_path)


def test_results_without_a_checksum_are_refused(results, tmp_path):
    (tmp_path / RESULTS_FILE).write_text(json.dumps(results.model_dump(mode="json")))
    with pytest.raises(RunFolderError, match="it has no checksum"):
        Results.load(tmp_path)
