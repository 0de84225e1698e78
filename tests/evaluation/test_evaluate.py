"""Evaluations from end to end: true retrieval judges, budgets hold, failures stay in plain sight, runs resume."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from squares import QUIET, FakeAttack, SmallNet, make_dataset
from torch import nn

from robustdml.attacks import PGD, build_attack, build_suite
from robustdml.data import ArrayImages
from robustdml.data.tensors import ImageTensors
from robustdml.errors import AttackSkipped, CheckpointError, RunFolderError, SpecError
from robustdml.evaluation import Subject, evaluate
from robustdml.evaluation import flags as checks
from robustdml.evaluation import run as run_module
from robustdml.evaluation.records import merged
from robustdml.evaluation.store import read_shard
from robustdml.files import sealed
from robustdml.reports import render_report
from robustdml.results import Results, unpack_hits
from robustdml.retrieval.clustering import nmi, pi_ratio
from robustdml.threat import ThreatModel


def run(data, attacks, out, models=None, **changes):
    return evaluate(models or {"net": SmallNet()}, data, attacks, out=out, options=QUIET, **changes)


def naive_recall(model, data, images):
    """R@1 by sorting all cosine similarities in float64, the query left out by id."""
    with torch.no_grad():
        embed = lambda x: torch.nn.functional.normalize(model(x).double(), dim=1).numpy()  # noqa: E731
        gallery, query = embed(ImageTensors(data.images, data.image_size).batch(data.gallery)), embed(images)
    right = []
    for row, item in enumerate(data.query):
        order = [data.gallery[i] for i in np.argsort(-(gallery @ query[row])) if data.gallery[i] != item]
        right.append(data.labels[order[0]] == data.labels[item])
    return float(np.mean(right))


def identity(model, images):
    return images


def test_clean_and_attacked_recall_equal_a_naive_evaluation(squares, tmp_path):
    model = SmallNet()
    images = ImageTensors(squares.images, 10).batch(squares.query)
    shifted = (images + 8 / 255 * torch.sign(torch.rand_like(images) - 0.5)).clamp(0, 1)
    shift = {tuple(image.flatten()[:6].tolist()): moved for image, moved in zip(images, shifted, strict=True)}
    attack = FakeAttack(lambda _, batch: torch.stack([shift[tuple(x.flatten()[:6].tolist())] for x in batch]))
    results = run(squares, [attack], tmp_path, {"net": model}, shard_size=7)
    assert results.models[0].clean.metrics.recall_at_1 == pytest.approx(naive_recall(model, squares, images))
    assert results.cells[0].score.metrics.recall_at_1 == pytest.approx(naive_recall(model, squares, shifted))
    assert attack.calls == [7, 7, 7, 3]


def test_no_model_is_flattered_by_its_own_wrapper(squares, tmp_path):
    """Outputs of any length are compared by cosine: scaling a model changes nothing."""

    class Scaled(SmallNet):
        def forward(self, images):
            return super().forward(images) * torch.rand(len(images), 1) * 100

    one, other = run(squares, [], tmp_path, {"a": SmallNet(), "b": Scaled()}).models
    assert one.clean.metrics == other.clean.metrics


def test_a_perturbation_beyond_the_budget_is_projected_counted_and_said(squares, tmp_path):
    greedy = FakeAttack(lambda _, images: images + 0.5)
    within = FakeAttack(lambda _, images: (images + 8 / 255).clamp(0, 1), name="within")
    results = run(squares, [greedy, within], tmp_path)
    beyond, honest = results.cells
    assert beyond.largest_norm_returned == pytest.approx(0.5, abs=1e-6)
    assert beyond.largest_norm == pytest.approx(8 / 255, abs=1e-6)
    assert beyond.queries_projected == results.dataset.queries
    assert honest.queries_projected == 0
    assert beyond.score == honest.score
    assert [flag.slug for flag in results.flags if flag.attack == "fake"] == ["budget-exceeded"]


def test_pixels_outside_the_range_are_projected(squares, tmp_path):
    data = dataclasses.replace(squares, images=ArrayImages(np.full((48, 10, 10, 3), 255, np.uint8)))
    results = run(data, [FakeAttack(lambda _, images: images + 4 / 255)], tmp_path)
    assert results.cells[0].queries_projected == results.dataset.queries
    assert results.cells[0].largest_norm == 0


def raises(model, images):
    raise ValueError("no\nluck")


def changes_statistics(model, images):
    model.module.norm.running_mean += 1
    return images


def changes_weights(model, images):
    with torch.no_grad():
        model.module.head.weight.zero_()
    return images


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (raises, "ValueError: no luck"),
        (lambda _, images: images[:1], "it returned shape"),
        (lambda _, images: images * float("nan"), "it returned pixels that are not finite"),
        (changes_statistics, r"changed the model's buffers \(BatchNorm statistics\)"),
        (changes_weights, "changed the model's weights"),
    ],
)
def test_an_attack_that_fails_is_recorded_and_stops_nothing(squares, tmp_path, change, reason):
    model = SmallNet()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    good = build_attack("margin", 8 / 255)
    alone = run(squares, [good], tmp_path / "alone", {"net": SmallNet()})
    results = run(squares, [FakeAttack(change), good], tmp_path / "both", {"net": model})
    failed, judged = results.cells
    assert failed.status == "failed"
    assert failed.score is None
    assert re.search(reason, failed.reason)
    assert judged.score == alone.cells[0].score
    assert results.worst[0].attacks == 1
    assert results.worst[0].attacks_failed == 1
    slug = "unsound-attack" if "changed the model" in reason else "attack-failed"
    assert slug in {flag.slug for flag in results.flags}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_failed_attack_is_tried_again_and_finished_shards_are_not(squares, tmp_path):
    def breaks_once(model, images):
        if len(flaky.calls) == 3:
            raise RuntimeError("out of memory")
        return images

    flaky = FakeAttack(breaks_once)
    assert run(squares, [flaky], tmp_path, shard_size=6).cells[0].status == "failed"
    again = run(squares, [flaky], tmp_path, shard_size=6)
    assert again.cells[0].status == "ok"
    # Two shards, one failure; then the third and fourth alone.
    assert flaky.calls == [6] * 5


@pytest.mark.slow
def test_a_stopped_run_resumes_to_the_same_results(squares, tmp_path):
    suite = build_suite("noise,margin,mtax(targets=2)", "4/255,8/255")
    whole = run(squares, suite, tmp_path / "whole", shard_size=8)

    class KilledError(BaseException):
        pass

    class Killer:
        """Stops the process, as Ctrl-C would, in the second shard of the fourth attack."""

        __module__ = PGD.__module__  # an attack of one's own would be another run

        def __init__(self, attack):
            self.attack, self.calls, self.threat = attack, 0, attack.threat
            self.entry, self.target_rows = attack.entry, attack.target_rows

        def __call__(self, *args, **kwargs):
            self.calls += 1
            if self.calls == 2:
                raise KilledError
            return self.attack(*args, **kwargs)

    with pytest.raises(KilledError):
        run(squares, [*suite[:3], Killer(suite[3]), *suite[4:]], tmp_path / "stopped", shard_size=8)
    assert not (tmp_path / "stopped" / "results.json").exists()
    resumed = run(squares, suite, tmp_path / "stopped", shard_size=8)
    for one, other in zip(whole.cells, resumed.cells, strict=True):
        assert one.model_copy(update={"seconds": 0}) == other.model_copy(update={"seconds": 0})
    assert resumed.worst == whole.worst
    assert resumed.fingerprint == whole.fingerprint


def test_the_worst_case_is_per_query_and_keeps_what_a_smaller_budget_broke(squares, tmp_path):
    half = len(squares.query) // 2
    grey = torch.full((3, 10, 10), 0.5)

    def breaks(first):
        def change(model, images):
            start = sum(attack.calls[:-1])
            chosen = torch.tensor([(start + row < half) == first for row in range(len(images))])
            return torch.where(chosen[:, None, None, None], grey.expand_as(images), images)

        attack = FakeAttack(change, eps=1.0, name=f"first={first}")
        return attack

    small = FakeAttack(lambda _, images: grey.expand_as(images), eps=0.9, name="all, smaller budget")
    one, other = breaks(True), breaks(False)
    results = run(squares, [one, other], tmp_path / "two", shard_size=5)
    recalls = [cell.score.metrics.recall_at_1 for cell in results.cells]
    worst = results.worst[0].score.metrics.recall_at_1
    records = [
        merged([read_shard(path)[0] for path in sorted((tmp_path / "two" / "records").glob(f"net-*/first-{x}-*/*/*"))])
        for x in (True, False)
    ]
    by_hand = np.minimum(records[0].values["recall_at_1"], records[1].values["recall_at_1"]).mean()
    assert worst == pytest.approx(by_hand)
    assert worst < min(recalls)

    with_small = run(squares, [small, FakeAttack(identity, eps=1.0, name="nothing")], tmp_path / "small")
    at_small, at_large = with_small.worst
    assert at_large.threat.eps > at_small.threat.eps
    assert at_large.score.metrics.recall_at_1 <= at_small.score.metrics.recall_at_1
    assert at_small.score.metrics.recall_at_1 < with_small.models[0].clean.metrics.recall_at_1


def test_native_attacks_give_the_same_recall_for_any_shard_size(squares, tmp_path):
    scores = [
        [
            cell.score.metrics
            for cell in run(
                squares, build_suite("noise,margin,stax", "8/255"), tmp_path / str(size), shard_size=size
            ).cells
        ]
        for size in (5, 24)
    ]
    assert scores[0] == scores[1]


def test_another_run_in_the_folder_is_refused(squares, tmp_path):
    run(squares, [FakeAttack(identity)], tmp_path)
    with pytest.raises(RunFolderError, match=r"holds another run \(it differs in: the weights of net\)"):
        run(squares, [FakeAttack(identity)], tmp_path, {"net": SmallNet(seed=1)})
    with pytest.raises(RunFolderError, match=r"differs in: seed"):
        run(squares, [FakeAttack(identity)], tmp_path, seed=4)


def test_results_survive_the_file_and_records_are_per_query(squares, tmp_path):
    results = run(squares, build_suite("margin", "8/255"), tmp_path, shard_size=10)
    assert Results.load(tmp_path) == Results.load(str(tmp_path)) == results
    assert render_report(results, str(tmp_path)) == render_report(results, tmp_path)
    shards = sorted((tmp_path / "records").glob("*/[!c]*/*/*.parquet"))
    assert len(shards) == 3
    records = merged([read_shard(path)[0] for path in shards])
    assert records.ids.tolist() == squares.query.tolist()
    assert records.values["recall_at_1"].mean() == pytest.approx(results.cells[0].score.metrics.recall_at_1)
    assert ((squares.labels[records.top[:, 0]] == records.labels) == (records.values["recall_at_1"] == 1)).all()
    assert results.cells[0].forward_images == 21 * len(squares.query)


def test_examples_show_what_the_records_say(squares, tmp_path):
    results = run(squares, build_suite("margin,mtax(targets=2)", "8/255"), tmp_path)
    assert {example.attack for example in results.examples} == {cell.attack for cell in results.cells}
    for example in results.examples:
        attacked = next(c for c in results.cells if c.attack == example.attack)
        assert attacked.score is not None
        assert example.query_id in squares.query
        assert len(example.adversarial_top) == 5
        assert example.query_id not in {hit.id for hit in (*example.clean_top, *example.adversarial_top)}
        for hit in (*example.clean_top, *example.adversarial_top, *example.targets):
            assert hit.relevant == (hit.class_name == example.class_name)
            assert (tmp_path / hit.image).is_file()
            assert hit.name == squares.images.name(hit.id)
        for hits in (example.clean_top, example.adversarial_top):
            near = [hit.similarity for hit in hits]
            assert None not in near
            assert near == sorted(near, reverse=True)
        for path in (example.image, example.adversarial_image, example.perturbation_image):
            assert (tmp_path / path).is_file()
        assert all(not hit.relevant for hit in example.targets)
    assert any(example.targets for example in results.examples)


def test_attacks_that_share_a_short_name_are_called_by_their_spec(squares, tmp_path):
    results = run(squares, build_suite("margin,pgd(goal=margin, steps=3),shift", "8/255"), tmp_path)
    names = [entry.name for entry in results.attacks]
    assert names == [results.attacks[0].spec, results.attacks[1].spec, "pgd-shift"]


def test_what_programs_of_before_ask_of_results_is_answered(squares, tmp_path):
    results = run(squares, build_suite("margin", "8/255"), tmp_path, max_queries=9)
    assert results.warnings == results.flags != ()
    assert results.cells[0].eps == results.worst[0].eps == 8 / 255
    assert results.worst[0].norm == "linf"
    assert results.dataset.protocol == squares.protocol


def test_a_sample_of_queries_is_said(squares, tmp_path):
    results = run(squares, [], tmp_path, max_queries=9)
    assert (results.dataset.queries, results.dataset.queries_available) == (9, 24)
    assert "sampled-queries" in {flag.slug for flag in results.flags}
    assert results.dataset.chance == pytest.approx(7 / 23)


class Constant(SmallNet):
    def forward(self, images):
        return torch.ones(len(images), 8) + 1e-4 * super().forward(images)


class Masked(SmallNet):
    """Gradients that point nowhere: the image is rounded to four levels."""

    def forward(self, images):
        return super().forward((images * 4).round() / 4 + 0 * images)


def test_a_collapsed_model_is_marked(squares, tmp_path):
    results = run(squares, [], tmp_path, {"constant": Constant(), "alive": SmallNet()})
    assert [model.health.collapsed for model in results.models] == [True, False]
    assert [flag.model for flag in results.flags if flag.slug == "collapse"] == ["constant"]


def test_a_gallery_without_any_variance_is_drawn_without_a_warning(squares, tmp_path):
    class Still(SmallNet):
        def forward(self, images):
            return torch.ones(len(images), 4) + 0 * images.mean((1, 2, 3))[:, None]

    results = run(squares, [FakeAttack(identity)], tmp_path, {"still": Still()})
    assert [found.explained for found in results.maps] == [(0.0, 0.0)]


def test_the_layout_by_class_is_that_of_the_whole_gallery_whatever_the_sample(tmp_path):
    data = make_dataset(classes=20)
    few = run(data, [], tmp_path, max_queries=12).models[0]
    with torch.no_grad():
        embeddings = SmallNet()(ImageTensors(data.images, 10).batch(data.gallery))
    embeddings = torch.nn.functional.normalize(embeddings, dim=1).numpy()
    labels = data.labels[data.gallery]
    assert few.nmi < 1
    assert few.nmi == pytest.approx(nmi(embeddings, labels))
    assert few.pi_ratio == pytest.approx(pi_ratio(embeddings, labels), rel=1e-5)


def test_a_model_that_sees_nothing_has_no_ratio_and_its_results_are_written(squares, tmp_path):
    class Blind(SmallNet):
        def forward(self, images):
            return torch.ones(len(images), 8)

    run(squares, [], tmp_path, {"blind": Blind()})
    entry = Results.load(tmp_path).models[0]
    assert (entry.nmi, entry.pi_ratio) == (0, None)


def test_the_clustering_is_left_out_where_that_is_asked_for_and_made_up_for_once(squares, tmp_path, monkeypatch):
    without = dataclasses.replace(QUIET, nmi=False)
    assert evaluate({"net": SmallNet()}, squares, [], out=tmp_path, options=without).models[0].nmi is None
    assert run(squares, [], tmp_path).models[0].nmi > 0
    monkeypatch.setattr(run_module, "nmi", None)  # what the run folder has is not computed again
    assert run(squares, [], tmp_path).models[0].nmi > 0
    assert evaluate({"net": SmallNet()}, squares, [], out=tmp_path, options=without).models[0].nmi > 0


def test_results_from_before_a_field_was_measured_are_still_read(squares, tmp_path):
    run(squares, [], tmp_path)
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["models"][0].pop("nmi") > 0
    assert written["models"][0].pop("pi_ratio") > 0
    del written["checksum"]
    (tmp_path / "results.json").write_text(sealed(written))
    entry = Results.load(tmp_path).models[0]
    assert (entry.nmi, entry.pi_ratio) == (None, None)


def test_masked_gradients_are_flagged_where_noise_wins(squares, tmp_path):
    results = run(
        squares,
        build_suite("noise(trials=60),margin,shift", "20/255"),
        tmp_path,
        {"masked": Masked(), "net": SmallNet()},
    )
    assert {flag.model for flag in results.flags if flag.slug == "gradient-masking"} == {"masked"}


def test_a_budget_of_zero_is_the_clean_evaluation(squares, tmp_path):
    results = run(squares, [build_attack("margin", 0.0), build_attack("noise", 0.0)], tmp_path)
    assert all(cell.score == results.models[0].clean for cell in results.cells)
    assert all(cell.largest_norm_returned == 0 for cell in results.cells)


def test_an_attack_that_does_nothing_is_no_attempt(squares, tmp_path):
    results = run(squares, [FakeAttack(identity)], tmp_path)
    right = sum(unpack_hits(results.models[0].clean_hits, 24))
    assert right > 0
    assert results.cells[0].queries_unchanged == right
    assert [flag.message for flag in results.flags if flag.slug == "no-attempt"] == [
        f"Of the {right} queries that net answers rightly when clean, fake at 8/255 returned {right} unchanged: "
        "that is no attempt, not robustness."
    ]


def test_a_query_that_is_wrong_when_clean_may_come_back_unchanged(squares, tmp_path):
    labels = squares.labels.copy()
    labels[squares.query[:4]] = labels[squares.query[-1]]  # of another colour than the items of their class
    data = dataclasses.replace(squares, labels=labels)
    images = ImageTensors(data.images, 10).batch(data.query)
    right = unpack_hits(run(data, [], tmp_path / "clean").models[0].clean_hits, 24)
    assert 2 <= right.count(False) < 24  # more than the share from which on there is a flag
    wrong = [image for image, answered in zip(images, right, strict=True) if not answered]

    def moves_what_is_right(_, batch):
        alone = torch.tensor([any(torch.equal(image, other) for other in wrong) for image in batch])
        return torch.where(alone[:, None, None, None], batch, (batch + 4 / 255).clamp(0, 1))

    results = run(data, [FakeAttack(moves_what_is_right)], tmp_path / "attacked")
    assert results.cells[0].queries_unchanged == 0
    assert "no-attempt" not in {flag.slug for flag in results.flags}


def test_no_worst_case_is_claimed_where_every_attack_failed(squares, tmp_path):
    results = run(squares, [FakeAttack(raises, eps=0.5), FakeAttack(identity, eps=0.6, name="ok")], tmp_path)
    assert [worst.threat.eps for worst in results.worst] == [0.6]
    assert run(squares, [FakeAttack(raises)], tmp_path / "none").worst == ()


def test_a_damaged_record_stops_with_its_name_instead_of_a_failed_attack(squares, tmp_path):
    run(squares, [FakeAttack(identity)], tmp_path)
    shard = next((tmp_path / "records").rglob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(RunFolderError, match=r"00000\.parquet' is damaged .* delete that file and evaluate again"):
        run(squares, [FakeAttack(identity)], tmp_path)


def test_a_missing_margin_attack_is_flagged(squares, tmp_path):
    without = run(squares, build_suite("shift,stax", "8/255"), tmp_path / "a")
    with_it = run(squares, build_suite("shift,margin", "8/255"), tmp_path / "b")
    assert "no-margin-attack" in {flag.slug for flag in without.flags}
    assert "no-margin-attack" not in {flag.slug for flag in with_it.flags}
    failed = run(squares, [FakeAttack(raises), *build_suite("noise", "8/255")], tmp_path / "c")
    assert {flag.slug for flag in failed.flags} == {"attack-failed", "no-gradient-attack", "no-margin-attack"}


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        (nn.Conv2d(3, 4, 3), r"gives \(24, 4, 8, 8\) for images \(24, 3, 10, 10\): an embedding model gives \(N, D\)"),
        (nn.Sequential(nn.Flatten(), nn.Linear(300, 4), nn.Threshold(1e9, float("nan"))), "not finite"),
        (nn.Linear(5, 5), r"the model raised RuntimeError on images \(24, 3, 10, 10\)"),
    ],
)
def test_what_is_no_embedding_model_is_refused(squares, tmp_path, module, sentence):
    with pytest.raises(CheckpointError, match=sentence):
        run(squares, [], tmp_path, {"net": module})


def test_what_cannot_be_evaluated_is_refused(squares, tmp_path):
    with pytest.raises(SpecError, match="two models have the name 'a'"):
        run(squares, [], tmp_path, [Subject("a", SmallNet(), "x"), Subject("a", SmallNet(), "y")])
    for wrong in (SmallNet(), {"a": 5}):
        with pytest.raises(SpecError, match=r"\.deployed\(\)"):
            evaluate(wrong, squares, [], out=tmp_path, options=QUIET)
    with pytest.raises(SpecError, match="'margin' is a name, not an attack"):
        run(squares, ["margin"], tmp_path)
    with pytest.raises(SpecError, match="image_size 100000 must be between 8 and 2048"):
        run(squares, [], tmp_path, image_size=100000)
    with pytest.raises(SpecError, match="no model to evaluate"):
        evaluate({}, squares, [], out=tmp_path, options=QUIET)
    with pytest.raises(SpecError, match="is given twice at eps"):
        run(squares, [FakeAttack(identity), FakeAttack(identity)], tmp_path)


def test_the_model_comes_back_as_it_was(squares, tmp_path):
    model = SmallNet().train()
    model.norm.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run(squares, build_suite("standard", "8/255", "quick"), tmp_path, {"net": model})
    assert model.training
    assert not model.norm.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_attack_that_takes_too_long_fails_alone_and_says_how_far_it_came(squares, tmp_path):
    def slow(model, images):
        model(images)
        time.sleep(0.2)
        return model(images) is None or images

    results = evaluate(
        {"net": SmallNet()},
        squares,
        [FakeAttack(slow, name="slow"), FakeAttack(lambda model, images: images, name="idle")],
        out=tmp_path,
        shard_size=8,
        attack_time_limit=0.3,
        options=QUIET,
    )
    slow_cell, other = results.cells
    assert slow_cell.status == "failed"
    assert slow_cell.reason == "stopped after the limit of 0.3 s, with 8 of 24 queries done: raise --attack-time-limit"
    assert other.status == "ok"
    with pytest.raises(SpecError, match="attack_time_limit=0 must be above 0"):
        evaluate({"net": SmallNet()}, squares, [], out=tmp_path / "b", attack_time_limit=0)


def test_a_skipped_attack_is_told_apart_from_a_failed_one(squares, tmp_path):
    def skip(model, images):
        raise AttackSkipped("the images are too large")

    (cell,) = run(squares, [FakeAttack(skip)], tmp_path).cells
    assert (cell.status, cell.reason) == ("skipped", "the images are too large")


def test_an_image_within_a_ball_counts_whatever_budget_it_was_made_under(squares, tmp_path):
    """A strong attack without a budget, whose images are small for half of the queries."""

    def large_or_small(model, images):
        moved = 1 - images
        half = len(images) // 2
        return torch.cat([moved[:half], (images + (moved - images).clamp(-4 / 255, 4 / 255))[half:]])

    @dataclass(frozen=True)
    class Unbounded(FakeAttack):
        @property
        def threat(self):
            return ThreatModel(None, "l2")

        def entry(self):
            return super().entry().model_copy(update={"norm": "l2", "budget": "minimum"})

    results = run(squares, [Unbounded(large_or_small, name="free"), build_attack("noise", 8 / 255)], tmp_path)
    free, noise = results.cells
    count = len(results.queries.ids)
    hits = {name: np.array(unpack_hits(text, count)) for name, text in {"free": free.hits, "noise": noise.hits}.items()}
    clean = np.array(unpack_hits(results.models[0].clean_hits, count))
    (worst,) = results.worst
    assert (worst.threat, worst.attacks) == (ThreatModel(8 / 255), 1)
    small = np.arange(count) >= count // 2
    expected = clean & hits["noise"] & (hits["free"] | ~small)
    assert np.array_equal(unpack_hits(worst.hits, count), expected)
    assert not np.array_equal(expected, clean & hits["noise"] & hits["free"])
    assert free.threat.eps is None
    assert free.median_norm_broken > 0


def test_results_that_contradict_themselves_are_refused(squares, tmp_path):
    run(squares, [build_attack("noise", 8 / 255)], tmp_path)
    path = tmp_path / "results.json"
    for change in (
        lambda data: data["cells"][0].update(model="ghost"),
        lambda data: data["cells"][0]["score"]["metrics"].update(recall_at_1=7),
        lambda data: data["models"][0]["clean"]["metrics"].update(recall_at_1=0.123),
        lambda data: data["worst"][0].update(hits="f"),
    ):
        data = json.loads(path.read_text())
        change(data)
        (tmp_path / "edited").mkdir(exist_ok=True)
        (tmp_path / "edited" / "results.json").write_text(json.dumps(data))
        with pytest.raises(RunFolderError, match="is not a results file of schema 3"):
            Results.load(tmp_path / "edited")


def test_embedding_maps_show_where_the_strongest_attack_takes_the_queries(squares, tmp_path):
    results = run(squares, build_suite("noise,margin,mtax(targets=2)", "8/255"), tmp_path)
    first, *_ = results.maps
    assert len(first.gallery) == len(squares.gallery)
    assert {path.query_id for path in first.paths} == set(results.queries.ids)
    strongest = min(results.cells, key=lambda cell: cell.score.metrics.recall_at_1)
    assert first.attack == strongest.attack
    hits = unpack_hits(strongest.hits, len(results.queries.ids))
    assert [path.adversarial_hit for path in first.paths] == hits
    assert all(path.adversarial != path.clean for path in first.paths)


def test_one_step_on_the_margin_must_not_win_whatever_the_attacks_are_called(squares, tmp_path):
    """Two attacks of one name are called by their specs; the check goes by what they do."""
    results = run(
        squares,
        build_suite("pgd(steps=1, step=1.0),pgd(steps=2, step=0.001, start=0, best=false),pgd(steps=3)", "20/255"),
        tmp_path,
    )
    recalls = {cell.attack: cell.score.metrics.recall_at_1 for cell in results.cells}
    one = next(spec for spec in recalls if "steps=1," in spec)
    weak = checks.flags(results.dataset, results.models, results.attacks[:2], results.cells[:2])
    assert recalls[one] < min(value for spec, value in recalls.items() if "steps=2," in spec)
    assert [flag.attack for flag in weak if flag.slug == "gradient-masking"] == [one]
