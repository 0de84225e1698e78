"""Curves: the smallest eps of each query from the records of all attacks, and what follows from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from squares import QUIET, FakeAttack, SmallNet, make_dataset

from robustdml.attacks import build_suite
from robustdml.cli.main import main
from robustdml.evaluation import assemble, evaluate
from robustdml.evaluation.analyses.curves import CURVE_BUDGETS, curves, local_optimality
from robustdml.evaluation.plan import Plan
from robustdml.evaluation.store import CellKey, Store
from robustdml.results import Results
from robustdml.threat import ThreatModel

SEARCHES = "bisection(steps=6, rounds=6, items=2),bisection(norm=l2, steps=6, rounds=6, items=2)"


def squares_with_wrong_labels():
    """Two queries change their labels, so that they are wrong when clean."""
    dataset = make_dataset(classes=16, per_class=6)
    labels = dataset.labels.copy()
    labels[[50, 70]] = labels[[70, 50]]
    return replace(dataset, labels=labels)


DATASET = squares_with_wrong_labels()
BUDGETS = [1 / 255, 4 / 255, 16 / 255]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with the searches, and an attack at three budgets."""
    out = tmp_path_factory.mktemp("run")
    attacks = build_suite(f"fgsm(goal=shift),{SEARCHES}", BUDGETS)
    return out, evaluate({"net": SmallNet()}, DATASET, attacks, out=out, options=QUIET)


def records_of(out, results):
    store = Store(out, Plan.load(out).fingerprint)
    return {
        (cell.attack, cell.threat): store.read_all(CellKey("net", cell.attack, cell.threat)) for cell in results.cells
    }


def test_the_smallest_eps_is_that_of_all_images_which_break_the_query(run):
    out, results = run
    records = records_of(out, results)
    right = np.array([bit == "1" for bit in f"{int(results.models[0].clean_hits, 16):048b}"])[: len(DATASET.query)]
    assert 0 < right.sum() < len(right)
    assert [curve.norm for curve in results.curves] == ["linf", "l2"]
    for curve in results.curves:
        by_hand = []
        for query in range(len(right)):
            sizes = [
                found.norms[curve.norm][query] for found in records.values() if found.values["recall_at_1"][query] < 0.5
            ]
            by_hand.append((min(sizes) if sizes else None) if right[query] else 0.0)
        assert list(curve.smallest) == by_hand
        assert by_hand.count(0.0) == (~right).sum()


def test_of_a_model_that_draws_at_random_the_images_of_the_search_alone_count(run):
    out, results = run
    records, clean = records_of(out, results), Store(out, Plan.load(out).fingerprint).read_model("net")[1]
    spec = results.curves[0].attack
    (own,) = (found for (attack, _), found in records.items() if attack == spec)
    # An image of another attack that breaks the first query which held, by nothing.
    other = next(key for key in records if key[0] != spec)
    place = int(np.flatnonzero(np.array(results.curves[0].smallest) != 0)[0])
    lucky = {**records[other].values, "recall_at_1": records[other].values["recall_at_1"].copy()}
    lucky["recall_at_1"][place] = 0.0
    norms = {name: values.copy() for name, values in records[other].norms.items()}
    norms["linf"][place] = 1e-6
    records = {**records, other: replace(records[other], values=lucky, norms=norms)}
    plain, random = (curves("net", clean, records, results.attacks, seed=0, random=each)[0] for each in (False, True))
    assert plain.smallest[place] == 1e-6
    assert random.smallest[place] == own.norms["linf"][place] > 1e-6


def test_r_at_1_falls_from_the_clean_one_and_is_the_worst_case_at_every_budget(run):
    _, results = run
    curve = results.curves[0]
    assert curve.recall(0.0) == results.models[0].clean.value
    values = [point.recall for point in curve.points]
    assert values == sorted(values, reverse=True)
    assert [point.eps for point in curve.points] == list(CURVE_BUDGETS["linf"])
    assert all(point.low <= point.recall <= point.high for point in curve.points)
    worst = {item.threat.eps: item.score.value for item in results.worst}
    assert [curve.recall(eps) for eps in BUDGETS] == [worst[eps] for eps in BUDGETS]
    assert len({*worst.values()}) > 1


def test_the_headlines_are_where_r_at_1_is_one_half_and_half_of_clean(run):
    _, results = run
    clean = results.models[0].clean.value
    for curve in results.curves:
        below = 1 - 1e-3
        assert curve.recall(curve.median) <= 0.5 < curve.recall(curve.median * below)
        assert curve.recall(curve.half_distortion) <= clean / 2 < curve.recall(curve.half_distortion * below)
        assert curve.half_low <= curve.half_distortion <= curve.half_high
        assert curve.half_low < curve.half_high


def test_shards_and_stops_change_nothing(run, tmp_path):
    _, results = run
    attacks = build_suite(f"fgsm(goal=shift),{SEARCHES}", BUDGETS)
    again = evaluate({"net": SmallNet()}, DATASET, attacks, out=tmp_path, options=QUIET, shard_size=7)
    for one, other in zip(results.curves, again.curves, strict=True):
        np.testing.assert_allclose(one.smallest, other.smallest, rtol=1e-5)
    # A stopped run: the records of one shard are lost, and made again.
    lost = next(path for path in sorted(tmp_path.rglob("00001.parquet")) if "bisection" in str(path))
    lost.unlink()
    assert len(assemble(tmp_path).curves) == 1
    resumed = evaluate({"net": SmallNet()}, DATASET, attacks, out=tmp_path, options=QUIET, shard_size=7)
    assert resumed.curves == again.curves


def test_without_a_search_there_is_no_curve_and_older_results_are_read(run, tmp_path):
    out, results = run
    plain = evaluate({"net": SmallNet()}, DATASET, build_suite("margin(steps=1)", BUDGETS), out=tmp_path, options=QUIET)
    assert plain.curves == ()
    assert Results.load(out).curves == results.curves
    older = results.model_dump(mode="json")
    del older["curves"]
    assert Results.model_validate(older).curves == ()


def test_a_query_that_nothing_breaks_has_no_smallest_eps(tmp_path):
    idle = FakeAttack(lambda model, images: images, name="idle")
    object.__setattr__(idle, "entry", lambda: FakeAttack.entry(idle).model_copy(update={"spec": "bisection()"}))
    results = evaluate({"net": SmallNet()}, DATASET, [idle], out=tmp_path, options=QUIET)
    (curve,) = results.curves
    assert set(curve.smallest) == {0.0, None}
    assert (curve.median, curve.half_distortion, curve.half_low, curve.half_high) == (None, None, None, None)
    assert {point.recall for point in curve.points} == {results.models[0].clean.value}


def test_local_optimality_is_that_of_the_areas():
    """Four queries: one wrong when clean, three broken at 1, 2 and 4 at best."""
    best = np.array([0.0, 1, 2, 4])
    assert local_optimality(best, best) == 1
    assert local_optimality(np.array([0, np.inf, np.inf, np.inf]), best) == 0
    # Areas of 4 queries: this attack 1 + 4 + 4 (it ends at 4), the best 7, unbroken 12.
    assert local_optimality(np.array([0, 1, np.inf, 8]), best) == pytest.approx(1 - (9 - 7) / (12 - 7))
    # At the budgets 2 and 4 the best are 2, 2 and 4; the attack has 2, none and 4.
    assert local_optimality(np.array([0, 1.5, np.inf, 4]), best, [2, 4]) == pytest.approx(1 - (10 - 8) / (12 - 8))
    assert local_optimality(best, best, [2, 4]) == 1
    assert local_optimality(np.array([0, np.inf]), np.array([0, np.inf])) is None


def test_every_attack_with_a_curve_of_its_own_has_an_optimality(run):
    _, results = run
    names = {entry.spec: entry.name for entry in results.attacks}
    linf, l2 = results.curves
    found = {names[item.attack]: item.value for item in linf.optimality}
    assert set(found) == {"fgsm-shift", "bisection"}
    assert 0 < found["fgsm-shift"] < 1
    assert found["bisection"] > found["fgsm-shift"]
    assert l2.optimality == ()  # alone in its norm
    assert {"maho2021robic", "cina2025attackbench"} <= set(results.citations)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"smallest": (0.5,)}, "is not of the"),
        ({"median": 1e-5}, "R@1 is still above"),
        ({"half_distortion": 1e-5}, "R@1 is still above"),
    ],
)
def test_an_edited_curve_is_refused(run, tmp_path, change, sentence):
    _, results = run
    edited = results.model_copy(update={"curves": (results.curves[0].model_copy(update=change),)})
    edited.save(tmp_path)
    with pytest.raises(Exception, match=sentence):
        Results.load(tmp_path)


@pytest.mark.parametrize("norms", ["l3", "linf,l0", ""])
def test_there_are_no_curves_in_other_norms(norms):
    shown = CliRunner().invoke(main, ["evaluate", "none", "--data", "digits", "--out", "none", "--curve", norms])
    assert shown.exit_code == 2
    assert "is no norm of curves: write one or more of linf, l2, l1" in " ".join(shown.output.split())


@pytest.mark.slow
def test_the_command_searches_where_it_is_asked_to(tmp_path, monkeypatch):
    (tmp_path / "curved.py").write_text("import torch\n\ndef net():\n    return torch.nn.Flatten()\n")
    monkeypatch.chdir(tmp_path)
    asked = (
        "evaluate curved:net --data digits --max-queries 6 --attacks noise --effort quick --curve l2 --quiet --out run"
    )
    shown = CliRunner().invoke(main, asked.split(), catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    (curve,) = Results.load(tmp_path / "run").curves
    assert (curve.norm, curve.model) == ("l2", "net")
    assert f"L2 {curve.half_distortion:.4g}" in shown.output
    assert curve.attack.startswith("bisection(steps=10, rounds=10, items=0")


def test_a_budget_at_which_something_lies_counts_as_broken(run):
    _, results = run
    curve = results.curves[0].model_copy(update={"smallest": (8 / 255 + 5e-7, 8 / 255 + 5e-6)})
    assert curve.recall(8 / 255) == 0.5
    assert ThreatModel(8 / 255).limit > 8 / 255
