"""A stage on a sample meets all that is left where it breaks any, whatever the shards are, and changes nothing else."""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace

import numpy as np
import pytest
from known_models import Around, NoiseGradient
from squares import QUIET, SmallNet, make_dataset

from robustdml.attacks import build_attack
from robustdml.attacks.native.cascade import Cascade
from robustdml.contracts import Stage
from robustdml.evaluation import assemble, evaluate
from robustdml.evaluation.attacking.sampled import stratified
from robustdml.evaluation.kept_images import KeptImages
from robustdml.evaluation.plan import Plan
from robustdml.evaluation.store import CellKey, Store
from robustdml.evaluation.work import Work
from robustdml.results import AttackEntry
from robustdml.threat import ThreatModel

EPS = 8 / 255
DATASET = make_dataset(classes=16, per_class=6)
FIRST, SCORES = build_attack("mi(steps=3)", EPS), build_attack("square(queries=60)", EPS)
KEEP = replace(QUIET, save_images=True)


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


class SameNoise(NoiseGradient):
    """The same noise for every image, or it would depend on which images are asked about together."""

    @staticmethod
    def backward(ctx, gradient):
        return NoiseGradient.backward(ctx, gradient[:1]).sign().expand_as(gradient)


def masked():
    return Around(SmallNet(), SameNoise.apply)


def run(out, model, *stages, size=64):
    results = evaluate({"net": model}, DATASET, [Stages(stages)], out=out, shard_size=size, options=KEEP)
    store = Store(out, Plan.load(out).fingerprint)
    key = CellKey("net", "stages", ThreatModel(EPS))
    images = np.concatenate([KeptImages(out, store).read(key, shard)[1].numpy() for shard in store.shards(key)])
    return results, store.read_all(key), images


@pytest.fixture(scope="module")
def everyone(tmp_path_factory):
    """The same stages, each on all that is left."""
    return run(tmp_path_factory.mktemp("all"), masked(), Stage(FIRST), Stage(SCORES))


@pytest.mark.parametrize("size", [7, 64])
def test_where_it_breaks_any_it_is_as_if_all_had_met_it(everyone, tmp_path, size):
    results, expected, images = everyone
    found_results, found, kept = run(tmp_path, masked(), Stage(FIRST), Stage(SCORES, sample=5), size=size)
    assert (expected.broken_by == 1).sum() > 1
    for name in ("broken_by", "margins", "top", "projected", "norm_returned"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-6)
    for name, values in expected.values.items():
        np.testing.assert_array_equal(found.values[name], values)
    np.testing.assert_array_equal(kept, images)
    (cell,), (before,) = found_results.cells, results.cells
    assert (cell.hits, cell.score) == (before.hits, before.score)
    assert [(s.entered, s.broken, s.reason) for s in cell.stages] == [
        (s.entered, s.broken, s.reason) for s in before.stages
    ]
    assert cell.forward_images == sum(stage.forward_images for stage in cell.stages)
    (flag,) = [flag for flag in found_results.flags if flag.slug == "gradient-masking"]
    assert f"break {cell.stages[1].broken} of 48 queries, which its gradient stages left" in flag.message


def test_where_it_breaks_none_the_rest_is_spared_and_verdicts_stay(tmp_path):
    useless = build_attack("square(queries=1)", EPS)
    alone, before, _ = run(tmp_path / "alone", SmallNet(), Stage(FIRST))
    found, after, _ = run(tmp_path / "with", SmallNet(), Stage(FIRST), Stage(useless, sample=5))
    (cell,), left = found.cells, int((before.broken_by == 1).sum())
    assert (cell.stages[1].entered, cell.stages[1].broken, left > 5) == (5, 0, True)
    assert cell.hits == alone.cells[0].hits
    broken = before.broken_by == 0
    assert broken.sum() > 0
    for name in ("margins", "top", "norm_returned"):
        np.testing.assert_array_equal(getattr(after, name)[broken], getattr(before, name)[broken])
    assert (after.margins >= before.margins).all()
    assert "gradient-masking" not in {flag.slug for flag in found.flags}


def test_a_run_that_was_stopped_before_it_says_so_and_goes_on(everyone, tmp_path, monkeypatch):
    def stop(*_):
        signal.raise_signal(signal.SIGINT)

    stages = Stage(FIRST), Stage(SCORES, sample=5)
    with monkeypatch.context() as patched:
        patched.setattr(Work, "_sampled", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, masked(), *stages, size=16)
    stopped = assemble(tmp_path)
    assert stopped.cells[0].stages[1].reason == "the evaluation was stopped before it"
    assert "stage-failed" in {flag.slug for flag in stopped.flags}
    found, _, _ = run(tmp_path, masked(), *stages, size=16)
    assert found.cells[0].hits == everyone[0].cells[0].hits
    assert not [stage.reason for stage in found.cells[0].stages if stage.reason]


def test_one_that_fails_says_why(tmp_path):
    class Failing(type(SCORES)):
        def __call__(self, model, images, references, *, seed):
            raise RuntimeError("no memory")

    found, records, _ = run(tmp_path, SmallNet(), Stage(FIRST), Stage(Failing(EPS), sample=5), size=16)
    assert found.cells[0].stages[1].reason == "RuntimeError: no memory"
    assert found.cells[0].status == "ok"
    assert set(records.broken_by.tolist()) <= {-1, 0, 2}


def test_a_sample_is_even_over_classes_and_its_own():
    ids, labels = np.arange(100, 140), np.repeat([0, 1, 2, 3], [25, 5, 5, 5])
    chosen = stratified(ids, labels, 12, 0)
    assert np.bincount(labels[chosen]).tolist() == [3, 3, 3, 3]
    assert sorted(chosen.tolist()) == chosen.tolist()
    order = np.random.default_rng(0).permutation(40)
    assert set(ids[order][stratified(ids[order], labels[order], 12, 0)]) == set(ids[chosen])
    assert set(stratified(ids, labels, 12, 1)) != set(chosen)
    assert len(stratified(ids, labels, 50, 0)) == 40


@pytest.mark.parametrize(
    ("norm", "strength", "samples"), [("linf", "standard", [16]), ("linf", "quick", []), ("l2", "standard", [16])]
)
def test_the_cascade_ends_in_scores(norm, strength, samples):
    stages = Cascade(EPS, strength, norm).stages
    assert [stage.sample for stage in stages if stage.sample] == samples
    assert [stage.attack.entry().knowledge for stage in stages if stage.sample] == ["scores"] * len(samples)
