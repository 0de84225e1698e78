"""Attacks on the gallery and on both sides: budgets, true retrieval of all queries, and what they stay out of."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from squares import QUIET, FakeAttack, SmallNet
from torch.nn import functional as F

from robustdml.attacks import build_attack, build_suite
from robustdml.data.tensors import ImageTensors
from robustdml.evaluation import evaluate
from robustdml.results import unpack_hits

EPS = 16 / 255


def run(data, attacks, out, **changes):
    return evaluate({"net": SmallNet()}, data, attacks, out=out, options=QUIET, **changes)


def load(data, rows):
    return ImageTensors(data.images, data.image_size).batch(rows)


def naive_hits(data, gallery_images, query_images):
    """Whether the first hit of each query is right, by sorting in float64, the query left out by id."""
    model = SmallNet()
    with torch.no_grad():
        gallery, queries = (F.normalize(model(x).double(), dim=1).numpy() for x in (gallery_images, query_images))
    hits = []
    for row, item in enumerate(data.query):
        order = [data.gallery[i] for i in np.argsort(-(gallery @ queries[row])) if data.gallery[i] != item]
        hits.append(bool(data.labels[order[0]] == data.labels[item]))
    return hits


@dataclass(frozen=True)
class Swap(FakeAttack):
    """Replaces given gallery rows by what ``change`` makes of them."""

    rows: tuple[int, ...] = (0, 5)
    seen: list[object] = field(default_factory=list, compare=False)

    def entry(self):
        return super().entry().model_copy(update={"side": "gallery", "goal": "hub"})

    def poisoned_rows(self, gallery, *, seed):
        return torch.tensor(self.rows)

    def __call__(self, model, images, references, *, seed):
        self.seen.append(references)
        return super().__call__(model, images, references, seed=seed)


@dataclass(frozen=True)
class Two(FakeAttack):
    """Changes queries in a gallery that ``poison`` has changed."""

    poison: Swap | None = None
    seen: list[object] = field(default_factory=list, compare=False)

    def entry(self):
        return super().entry().model_copy(update={"side": "both"})

    def __call__(self, model, images, references, *, seed):
        self.seen.append(references)
        return super().__call__(model, images, references, seed=seed)


def brighter(_, images):
    return (images + EPS).clamp(0, 1)


def rolled(_, images):
    """Each item shows the image of the one before: a query of another class finds itself there."""
    return images.roll(1, 0)


def darker(_, images):
    return (images - EPS).clamp(0, 1)


def test_clean_queries_are_judged_against_the_changed_gallery(squares, tmp_path):
    attack = Swap(rolled, eps=1.0, rows=(0, 8, 16))  # of three classes
    results = run(squares, [attack], tmp_path)
    (cell,) = results.cells
    items = load(squares, squares.gallery)
    items[[0, 8, 16]] = items[[0, 8, 16]].roll(1, 0)
    expected = naive_hits(squares, items, load(squares, squares.query))
    assert unpack_hits(cell.hits, 24) == expected
    assert unpack_hits(results.models[0].clean_hits, 24) != expected
    (references,) = attack.seen
    assert references.ids.tolist() == squares.gallery[[0, 8, 16]].tolist()
    assert references.queries.ids.tolist() == squares.query.tolist()
    assert cell.largest_norm > 0.2


def test_the_budget_of_gallery_items_is_enforced_and_said(squares, tmp_path):
    greedy = Swap(lambda _, images: images + 0.5, eps=EPS, name="greedy")
    within = Swap(brighter, eps=EPS, name="within")
    results = run(squares, [greedy, within], tmp_path)
    beyond, honest = results.cells
    assert beyond.score == honest.score
    assert beyond.largest_norm_returned == pytest.approx(0.5, abs=1e-6)
    assert beyond.largest_norm == pytest.approx(EPS, abs=1e-6)
    assert (beyond.queries_projected, honest.queries_projected) == (24, 0)
    assert {flag.attack for flag in results.flags if flag.slug == "budget-exceeded"} == {"greedy"}


@pytest.mark.parametrize(
    ("rows", "change", "reason"),
    [
        ((1, 1), brighter, "each once"),
        ((), brighter, "at least one gallery item"),
        ((2,), lambda _, images: images[:, :1], "it returned shape"),
        ((2,), lambda _, images: images * float("nan"), "not finite"),
    ],
)
def test_what_a_gallery_attack_may_not_do_fails_it_alone(squares, tmp_path, rows, change, reason):
    failed, judged = run(squares, [Swap(change, rows=rows), build_attack("noise", EPS)], tmp_path).cells
    assert failed.status == "failed"
    assert reason in failed.reason
    assert judged.status == "ok"


def test_attacked_queries_meet_the_changed_gallery(squares, tmp_path):
    poison = Swap(brighter, eps=EPS, rows=(3, 0, 20))
    attack = Two(darker, eps=EPS, poison=poison)
    results = run(squares, [attack], tmp_path, shard_size=7)
    (cell,) = results.cells
    items, queries = load(squares, squares.gallery), load(squares, squares.query)
    changed = (items[[3, 0, 20]] + EPS).clamp(0, 1)
    items[[3, 0, 20]] = changed
    assert unpack_hits(cell.hits, 24) == naive_hits(squares, items, (queries - EPS).clamp(0, 1))
    assert len(poison.seen) == 1  # once, for all shards
    assert len(attack.seen) == 4
    gallery = attack.seen[0].gallery
    assert torch.equal(gallery.images(torch.tensor([20, 1, 3])), torch.stack([changed[2], items[1], changed[0]]))
    with torch.no_grad():
        assert torch.allclose(gallery.embeddings[[3, 0, 20]], F.normalize(SmallNet()(changed), dim=1), atol=1e-6)


def test_they_stay_out_of_the_worst_case_the_pictures_and_the_checks_of_query_attacks(squares, tmp_path):
    attacks = build_suite("noise,margin,hub(items=12),both_sides(items=12),ca_plus", EPS)
    results = run(squares, attacks, tmp_path / "all")
    alone = run(squares, attacks[:2], tmp_path / "query")
    assert {entry.side for entry in results.attacks} == {"query", "gallery", "both"}
    assert results.worst == alone.worst
    assert {example.attack for example in results.examples} <= {entry.spec for entry in alone.attacks}
    assert {drawn.attack for drawn in results.maps} <= {entry.spec for entry in alone.attacks}
    assert results.flags == alone.flags
    assert all(cell.status == "ok" for cell in results.cells)


def test_poisoned_items_come_first_for_strangers_and_more_of_them_hurt_more(squares, tmp_path):
    results = run(squares, build_suite("hub(items=1),hub(items=8)", 32 / 255), tmp_path)
    one, eight = results.cells
    clean = results.models[0].clean.metrics.recall_at_1
    for cell in (one, eight):
        assert cell.measures["poisoned_first"] > cell.measures["poisoned_first_clean"]
    assert eight.score.metrics.recall_at_1 < one.score.metrics.recall_at_1 < clean
    assert eight.forward_images == 8 * 21  # of the attack; its result is judged outside of the count


def test_ca_moves_items_in_the_lists_of_its_queries(squares, tmp_path):
    plus, minus = run(squares, build_suite("ca_plus,ca_minus", 32 / 255), tmp_path).cells
    assert plus.measures["rank_percentile"] < plus.measures["rank_percentile_clean"] - 5
    assert minus.measures["rank_percentile"] > minus.measures["rank_percentile_clean"] + 5


def test_a_run_resumes_with_the_measures_it_had(squares, tmp_path):
    attacks = build_suite("hub,ca_minus,qa_plus,both_sides", EPS)
    first = run(squares, attacks, tmp_path, shard_size=8)
    again = run(squares, attacks, tmp_path, shard_size=8)
    assert again.cells == first.cells
    assert run(squares, attacks, tmp_path / "b", shard_size=24).cells[2].measures["rank_percentile"] == pytest.approx(
        first.cells[2].measures["rank_percentile"]
    )


@pytest.mark.slow
def test_one_change_for_all_queries_is_computed_once_and_without_them(squares, tmp_path):
    data = squares.subset_queries(10, 0)
    attacks = build_suite("universal,patch", EPS)
    results = run(data, attacks, tmp_path / "ten", shard_size=4)
    delta, patch = results.cells
    # The 14 gallery items that are no queries: 100 steps; and the queries once, to be judged, outside of the count.
    assert delta.forward_images == delta.gradient_images == 100 * 14
    assert patch.forward_images == 200 * 14
    assert delta.largest_norm <= EPS + 1e-6
    assert delta.threat.eps == EPS
    assert patch.threat.eps is None
    whole = run(data, attacks, tmp_path / "whole", shard_size=10)
    assert [cell.hits for cell in whole.cells] == [cell.hits for cell in results.cells]
    assert len({replace(attack) for attack in attacks}) == 2


def test_it_is_skipped_where_every_gallery_item_is_a_query(squares, tmp_path):
    cells = run(squares, build_suite("universal,patch", EPS), tmp_path).cells
    assert [cell.status for cell in cells] == ["skipped", "skipped"]
    assert all("attack fewer queries (--max-queries)" in cell.reason for cell in cells)


@pytest.mark.parametrize("spec", ["universal(steps=3)", "both_sides(steps=2, items=2)"])
def test_what_is_done_once_is_counted_once_in_a_resumed_run_too(squares, tmp_path, spec):
    data = replace(squares, query=squares.query[:12])
    (attack,) = build_suite(spec, "8/255")
    whole = run(data, [attack], tmp_path, shard_size=4).cells[0]
    (tmp_path / "results.json").unlink()
    for path in sorted(tmp_path.rglob("*.parquet"))[1:]:
        path.unlink()
    resumed = run(data, [attack], tmp_path, shard_size=4).cells[0]
    assert (resumed.forward_images, resumed.gradient_images) == (whole.forward_images, whole.gradient_images)
    assert resumed.hits == whole.hits
