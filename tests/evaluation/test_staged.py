"""An attack in stages is the same attacks on all queries, at less cost, and says which stage did what."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from squares import QUIET, FakeAttack, SmallNet, make_dataset

from robustdml.attacks import build_attack, build_suite
from robustdml.contracts import Stage
from robustdml.evaluation import evaluate
from robustdml.evaluation.plan import Plan
from robustdml.evaluation.store import CellKey, Store
from robustdml.results import AttackEntry
from robustdml.threat import ThreatModel

EPS = 6 / 255


def squares_with_wrong_labels():
    """Two queries change their labels, so that they are wrong when clean."""
    dataset = make_dataset(classes=16, per_class=6)
    labels = dataset.labels.copy()
    labels[[50, 70]] = labels[[70, 50]]
    return replace(dataset, labels=labels)


DATASET = squares_with_wrong_labels()


@dataclass(frozen=True)
class Stages:
    """Whatever stages it is given."""

    stages: tuple[Stage, ...]
    threat = ThreatModel(EPS)

    def entry(self):
        return AttackEntry(
            spec="stages", name="stages", library="own", goal="margin", knowledge="gradients", norm="linf", citations=()
        )

    def target_rows(self, references, *, seed):
        return None

    def __call__(self, model, images, references, *, seed):
        raise AssertionError("the evaluator runs the stages")


def run(out, attacks, **changes):
    results = evaluate({"net": SmallNet()}, DATASET, attacks, out=out, options=QUIET, **changes)
    store = Store(out, Plan.load(out).fingerprint)
    return results, [store.read_all(CellKey("net", cell.attack, cell.threat)) for cell in results.cells]


def right(records):
    return records.values["recall_at_1"] > 0.5


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The stages of the cascade as attacks on all queries."""
    stages = build_attack("cascade", EPS).stages
    return run(tmp_path_factory.mktemp("alone"), [stage.attack for stage in stages])


def test_the_verdicts_are_those_of_the_stages_on_all_queries_at_less_cost(alone, tmp_path):
    stages = build_attack("cascade", EPS).stages
    results, (found,) = run(tmp_path, [Stages(tuple(replace(stage, closed=0.0) for stage in stages))])
    separate, records = alone
    held = np.logical_and.reduce([right(each) for each in records])
    assert 0 < held.sum() < right(records[0]).sum() < len(held)
    np.testing.assert_array_equal(right(found), held)
    cell = results.cells[0]
    assert cell.gradient_images < sum(each.gradient_images for each in separate.cells)
    assert cell.gradient_images == sum(stage.gradient_images for stage in cell.stages)
    assert results.models[0].clean.metrics.recall_at_1 * len(held) == cell.stages[0].entered


def test_each_query_says_what_broke_it(tmp_path):
    results, (found,) = run(tmp_path, build_suite("standard", EPS))
    clean = Store(tmp_path, Plan.load(tmp_path).fingerprint).read_model("net")[1]
    stages = results.cells[0].stages
    broken = [int((found.broken_by == number).sum()) for number in range(len(stages))]
    assert broken == [stage.broken for stage in stages]
    np.testing.assert_array_equal(found.broken_by == -1, ~right(clean))
    np.testing.assert_array_equal(found.broken_by == len(stages), right(found))
    np.testing.assert_array_equal(found.margins < 0, right(found))
    assert (found.margins >= clean.margins)[right(clean)].all()
    assert stages[0].entered == right(clean).sum()
    assert stages[1].entered <= stages[0].entered - stages[0].broken


def test_verdicts_do_not_depend_on_the_shards(tmp_path):
    outcomes = []
    for size in (7, 64):
        results, (found,) = run(tmp_path / str(size), build_suite("standard", EPS), shard_size=size)
        outcomes.append((found.broken_by.tolist(), [(s.entered, s.broken) for s in results.cells[0].stages]))
    assert outcomes[0] == outcomes[1]


def raises(model, images):
    raise RuntimeError("no memory")


def test_a_stage_that_fails_is_passed_over_and_named(tmp_path):
    margin, broken = build_attack("mi", EPS), FakeAttack(raises, eps=EPS, name="broken")
    results, (found,) = run(tmp_path / "some", [Stages((Stage(broken), Stage(margin)))])
    alone, (expected,) = run(tmp_path / "alone", [Stages((Stage(margin),))])
    np.testing.assert_array_equal(right(found), right(expected))
    assert [stage.reason for stage in results.cells[0].stages] == ["RuntimeError: no memory", None]
    (flag,) = [flag for flag in results.flags if flag.slug == "stage-failed"]
    assert flag.message.endswith("broken: RuntimeError: no memory")
    assert not [flag for flag in alone.flags if flag.slug == "stage-failed"]
    (cell,) = run_failed(tmp_path / "all", Stages((Stage(broken),))).cells
    assert (cell.status, cell.reason) == ("failed", "every stage failed, the first since RuntimeError: no memory")


def looks_and_raises(model, images):
    model(images)
    raise RuntimeError("no memory")


def test_a_stage_that_fails_has_cost_what_it_took(tmp_path):
    failing = FakeAttack(looks_and_raises, eps=EPS, name="failing")
    results, (records,) = run(tmp_path, [Stages((Stage(failing), Stage(build_attack("mi", EPS))))])
    (cell,) = results.cells
    assert cell.stages[0].forward_images == cell.stages[0].entered > 0
    assert records.forward_images == sum(stage.forward_images for stage in cell.stages)


class NeverCopied(SmallNet):
    def __deepcopy__(self, memo):
        raise TypeError("it holds a lock")


def spoils(model, images):
    model.module.head.weight.mul_(-1)
    return images


@pytest.mark.parametrize("net", [SmallNet, NeverCopied])
def test_a_stage_that_changes_the_weights_does_not_reach_the_stages_after_it(tmp_path, net):
    margin, spoiler = build_attack("mi", EPS), FakeAttack(spoils, eps=EPS, name="spoiler")
    outcomes = []
    for name, stages in {"alone": [margin], "after": [spoiler, margin]}.items():
        attack = Stages(tuple(map(Stage, stages)))
        results = evaluate({"net": net()}, DATASET, [attack], out=tmp_path / name, options=QUIET)
        outcomes.append(results.cells[0])
    alone, after = outcomes
    assert after.stages[0].reason.startswith("the attack changed the model's weights")
    assert after.hits == alone.hits != results.models[0].clean_hits
    assert after.stages[1].broken == alone.stages[0].broken > 0


class RootAtZero(SmallNet):
    """The gradient of one pixel is NaN."""

    def forward(self, images):
        corner = images[:, 0, 0, 0]
        return super().forward(images) + (corner - corner.detach()).abs().sqrt()[:, None]


@pytest.mark.parametrize("attack", ["cascade", "margin"])
def test_a_pixel_whose_gradient_is_no_number_does_not_stop_the_attack_on_the_others(tmp_path, attack):
    attack = build_attack(attack, EPS)
    plain, found = (
        evaluate({"net": net()}, DATASET, [attack], out=tmp_path / net.__name__, options=QUIET)
        for net in (SmallNet, RootAtZero)
    )
    assert not any(stage.reason for stage in found.cells[0].stages)
    clean = plain.models[0].clean.value
    assert clean - found.cells[0].score.value >= 0.8 * (clean - plain.cells[0].score.value) > 0


class Tipping(SmallNet):
    """What it answers depends on how many images it is asked about, far more than rounding does."""

    def forward(self, images):
        return super().forward(images) + 0.02 * (len(images) % 5) * torch.arange(8)


def test_what_broke_a_query_fits_its_records_also_where_other_batches_tip_it(tmp_path):
    results = evaluate({"net": Tipping()}, DATASET, build_suite("standard", EPS), out=tmp_path, options=QUIET)
    cell, count = results.cells[0], len(results.cells[0].stages)
    store = Store(tmp_path, Plan.load(tmp_path).fingerprint)
    found = store.read_all(CellKey("net", cell.attack, cell.threat))
    np.testing.assert_array_equal(found.broken_by == count, right(found))
    assert [stage.broken for stage in cell.stages] == np.bincount(found.broken_by + 1, minlength=count + 2)[
        1:-1
    ].tolist()
    assert sum(stage.broken for stage in cell.stages) > 0


def run_failed(out, attack):
    return evaluate({"net": SmallNet()}, DATASET, [attack], out=out, options=QUIET)


def test_what_is_far_from_broken_is_given_up_and_says_where_and_how_far_it_came(tmp_path):
    mi, margin, noise = (build_attack(spec, EPS) for spec in ("mi", "margin", "noise"))
    _, (first,) = run(tmp_path / "first", [Stages((Stage(mi),))])
    clean = Store(tmp_path / "first", Plan.load(tmp_path / "first").fingerprint).read_model("net")[1]
    came = 1 - first.margins / clean.margins
    attack = Stages((Stage(mi), Stage(noise, closed=0.6), Stage(margin, closed=0.8), Stage(margin)))
    results, (found,) = run(tmp_path / "given up", [attack])
    stages = results.cells[0].stages
    left = first.broken_by == 1
    np.testing.assert_array_equal(found.given_up == 1, left & (came < 0.6))
    assert [stage.given_up for stage in stages[:2]] == [0, (left & (came < 0.6)).sum()]
    assert 0 < stages[1].given_up < stages[2].given_up == np.isin(found.given_up, (1, 2)).sum()
    assert stages[1].entered == left.sum() - stages[1].given_up
    # A stage that asks for less meets them again.
    assert stages[3].given_up == 0 < stages[3].entered
    spared = (found.given_up == 1) & right(found)
    assert spared.any()
    assert (found.margins >= first.margins)[spared].all()
    np.testing.assert_array_equal(found.given_up[first.broken_by < 1], len(stages))


def test_the_standard_cascade_gives_up_ever_more_and_the_thorough_one_nothing():
    shares = [stage.closed for stage in build_attack("cascade", EPS).stages if not stage.sample]
    assert shares[0] == 0
    assert sorted(shares) == shares
    assert 0 < shares[1] < shares[-1] < 1
    assert not any(stage.closed for stage in build_attack("cascade(strength=thorough)", EPS).stages)


def test_the_cascade_called_as_an_attack_ends_as_the_evaluator_does(tmp_path):
    cascade = build_attack("cascade(strength=quick)", EPS)
    plain = FakeAttack(lambda model, images: images, eps=EPS)  # not staged: it is called
    object.__setattr__(plain, "change", None)

    class Called(type(plain)):
        def __call__(self, model, images, references, *, seed):
            return cascade(model, images, references, seed=seed)

    called, (by_itself,) = run(tmp_path / "called", [Called(lambda model, images: images, eps=EPS)])
    _, (judged,) = run(tmp_path / "judged", [cascade])
    # Other seeds, for the spec is another one: as many, within a few.
    assert abs(int(right(by_itself).sum()) - int(right(judged).sum())) <= 2
    assert called.cells[0].gradient_images > 0
