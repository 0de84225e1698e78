"""Records prove themselves: whose they are, and that nobody changed them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from robustdml.errors import RunFolderError
from robustdml.evaluation.records import TOP, Records, StagePass, merged
from robustdml.evaluation.store import CellKey, Failure, Store
from robustdml.threat import NORMS, ThreatModel

CELL = CellKey("net", "margin", ThreatModel(8 / 255))


def records(first: int = 0, count: int = 4) -> Records:
    random = np.random.default_rng(first)
    ids = np.arange(first, first + count)
    margins = random.random(count) - 0.5
    return Records(
        ids=ids,
        labels=ids % 2,
        values={"recall_at_1": (margins < 0).astype(float), "map_at_r": random.random(count)},
        top=random.integers(0, 99, (count, TOP)),
        norm_returned=random.random(count),
        norms=dict(zip(NORMS, random.random(count) * np.array([[0.03], [1], [10], [9]]), strict=True)),
        projected=random.random(count) > 0.5,
        margins=margins,
        targets=random.integers(0, 99, (count, 2)),
        pictures={first: (b"an image", b"a change")},
        embeddings={first: random.random(3).astype(np.float32)},
        forward_images=9,
        gradient_images=7,
        seconds=0.25,
        measures={"embedding_shift": (1.5, count)},
        stages=(StagePass("mi", count, 2, 5, 4, 0.125), StagePass("broken", 2, reason="it raised")),
        broken_by=random.integers(-1, 3, count),
        given_up=random.integers(0, 3, count),
    )


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path, "this run")


def test_records_come_back_as_they_were(store):
    store.write(CELL, 0, records())
    found = store.read(CELL, 0)
    np.testing.assert_equal(vars(found), vars(records()))


def test_records_without_targets_come_back_so(store):
    store.write(CELL, 0, replace(records(), targets=np.empty((4, 0), np.int64)))
    assert store.read(CELL, 0).targets.shape == (4, 0)


def test_shards_are_merged_by_number_and_their_cost_adds_up(store):
    store.write(CELL, 1, records(4))
    store.write(CELL, 0, records(0))
    assert store.shards(CELL) == [0, 1]
    found = store.read_all(CELL)
    assert found.ids.tolist() == list(range(8))
    assert (found.forward_images, found.seconds, found.measures["embedding_shift"]) == (18, 0.5, (3.0, 8))
    assert found.stages == (StagePass("mi", 8, 4, 10, 8, 0.25), StagePass("broken", 4, reason="it raised"))
    assert found.broken_by.tolist() == [*records(0).broken_by, *records(4).broken_by]
    assert found.given_up.tolist() == [*records(0).given_up, *records(4).given_up]


def test_records_of_an_attack_without_stages_come_back_so(store):
    store.write(CELL, 0, replace(records(), stages=(), broken_by=None, given_up=None))
    found = store.read(CELL, 0)
    assert (found.stages, found.broken_by, found.given_up) == ((), None, None)


def test_a_query_in_two_shards_is_refused(store):
    store.write(CELL, 0, records(0))
    store.write(CELL, 1, records(2))
    with pytest.raises(RunFolderError, match="a query is in two shards"):
        store.read_all(CELL)
    with pytest.raises(ValueError, match="no shard"):
        merged([])


def test_no_flipped_bit_changes_what_is_believed(store, tmp_path):
    store.write(CELL, 0, records())
    (path,) = tmp_path.rglob("*.parquet")
    whole, random = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for place in random.integers(0, 8 * len(whole), 600).tolist():
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            np.testing.assert_equal(vars(store.read(CELL, 0)), vars(records()))
        except RunFolderError:
            refused += 1
    assert refused > 300


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (replace(CELL, model="other"), "model"),
        (replace(CELL, attack="shift"), "attack"),
        (replace(CELL, threat=ThreatModel(16 / 255)), "eps"),
        (replace(CELL, threat=ThreatModel(8 / 255, "l2")), "norm"),
    ],
)
def test_a_file_of_another_cell_is_refused(store, tmp_path, other, named):
    store.write(other, 0, records())
    (theirs,) = tmp_path.rglob("*.parquet")
    content = theirs.read_bytes()
    store.write(CELL, 0, records())
    store.path(CELL, 0).write_bytes(content)
    with pytest.raises(RunFolderError, match=f"holds the records of another {named}: delete that file"):
        store.read(CELL, 0)


def test_a_file_of_another_run_or_shard_is_refused(store, tmp_path):
    store.write(CELL, 0, records())
    with pytest.raises(RunFolderError, match="another run"):
        Store(tmp_path, "another run").read(CELL, 0)
    store.path(CELL, 1).write_bytes(store.path(CELL, 0).read_bytes())
    with pytest.raises(RunFolderError, match="another shard"):
        store.read(CELL, 1)


def test_a_failure_is_a_record_too_and_goes_when_the_cell_succeeds(store):
    assert store.read_failure(CELL) is None
    store.write_failure(CELL, Failure("skipped", "too large"))
    assert store.read_failure(CELL) == Failure("skipped", "too large")
    store.write(CELL, 0, records())
    assert store.read_failure(CELL) is None


@pytest.mark.parametrize("change", [{"status": "skipped"}, {"reason": "none"}])
def test_a_changed_failure_is_refused(store, tmp_path, change):
    store.write_failure(CELL, Failure("failed", "it raised"))
    (path,) = tmp_path.rglob("failure.json")
    content = json.loads(path.read_text())
    content["content"].update(change)
    path.write_text(json.dumps(content))
    with pytest.raises(RunFolderError, match="damaged or belongs to another run"):
        store.read_failure(CELL)


#: What is done to records; the checksum fits in every case.
IMPOSSIBLE = {
    "a recall of 7": lambda r: r.values["recall_at_1"].__setitem__(0, 7.0),
    "a recall that is NaN": lambda r: r.values["map_at_r"].__setitem__(0, np.nan),
    "one recall flipped": lambda r: r.values["recall_at_1"].__setitem__(0, 1 - r.values["recall_at_1"][0]),
    "R@2 below R@1": lambda r: r.values.update(recall_at_2=np.zeros(4)),
    "all ids equal": lambda r: r.ids.fill(3),
    "a negative id": lambda r: r.ids.__setitem__(0, -1),
    "linf 0.9 at 8/255": lambda r: r.norms["linf"].__setitem__(0, 0.9),
    "linf above l2": lambda r: r.norms["l2"].fill(0.0),
    "an infinite norm": lambda r: r.norm_returned.__setitem__(0, np.inf),
    "a margin of 3": lambda r: r.margins.__setitem__(0, 3.0),
    "a margin that is NaN": lambda r: r.margins.__setitem__(0, np.nan),
    "broken by a stage that there is not": lambda r: r.broken_by.__setitem__(0, 3),
    "given up at a stage that there is not": lambda r: r.given_up.__setitem__(0, 3),
    "a picture of nobody": lambda r: r.pictures.update({99: (b"", b"")}),
    "a negative cost": lambda r: vars(r).update(seconds=-1.0),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_records_that_say_what_cannot_be_are_refused(store, name):
    # A query below 8/255 in every norm, so that each change is the only fault.
    found = records()
    found.norms.update(linf=found.norms["linf"] / 2, l2=found.norms["linf"] * 2, l1=found.norms["linf"] * 4)
    IMPOSSIBLE[name](found)
    store.write(CELL, 0, found)
    with pytest.raises(RunFolderError, match=r"says what cannot be|is damaged"):
        store.read(CELL, 0)


def test_records_without_rows_are_refused(store):
    """There is no shard without queries."""
    rows = {name: value[:0] for name, value in vars(records()).items() if isinstance(value, np.ndarray)}
    by_name = {
        part: {name: value[:0] for name, value in getattr(records(), part).items()} for part in ("values", "norms")
    }
    store.write(CELL, 0, replace(records(), **rows, **by_name, pictures={}, embeddings={}))
    with pytest.raises(RunFolderError, match=r"is damaged|says what cannot be"):
        store.read(CELL, 0)
