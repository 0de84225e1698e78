"""A budget per channel from attack to page: cells, records, worst cases, resumed runs, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from squares import QUIET, SmallNet, make_dataset

from robustdml.attacks import build_suite
from robustdml.errors import SpecError
from robustdml.evaluation import evaluate
from robustdml.evaluation.records import Records
from robustdml.evaluation.store import CellKey, Store
from robustdml.reports import parse_threshold, violations, write_report
from robustdml.results import Results
from robustdml.threat import ThreatModel, parse_budget

BUDGETS = "2/255:12/255:5/255,2/255,12/255"
THREAT = parse_budget("2/255:12/255:5/255")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Results, object]:
    out = tmp_path_factory.mktemp("run")
    suite = build_suite("cascade(strength=quick),noise,universal", BUDGETS, "quick")
    results = evaluate({"net": SmallNet()}, make_dataset(), suite, out=out, options=QUIET)
    write_report(out)
    return results, out


def records(results: Results, out, threat: ThreatModel, attack: str = "cascade") -> Records:
    spec = next(entry.spec for entry in results.attacks if entry.kind == attack)
    found = Store(out, results.fingerprint).read_all(CellKey("net", spec, threat))
    assert found is not None
    return found


def test_cells_and_worst_cases_have_the_budget_of_each_channel(run):
    results, out = run
    cells = {(results.attacks[0].spec == cell.attack, cell.threat): cell for cell in results.cells}
    assert cells[True, THREAT].status == "ok"
    assert cells[True, THREAT].largest_norm == pytest.approx(12 / 255, abs=1e-6)
    universal = next(entry.spec for entry in results.attacks if entry.kind == "universal")
    (skipped,) = [cell for cell in results.cells if cell.attack == universal and cell.threat == THREAT]
    assert (skipped.status, skipped.queries_projected) == ("skipped", 0)
    assert "takes one eps for all channels" in (skipped.reason or "")
    assert [worst.threat.text for worst in results.worst] == ["2/255", "2/255:12/255:5/255", "12/255"]
    assert Results.load(out).worst == results.worst


def test_a_worst_case_takes_the_images_that_lie_within_its_ball_and_no_others(run):
    results, out = run
    by_threat = {worst.threat: worst.score.value for worst in results.worst}
    small, own, large = (ThreatModel(2 / 255), THREAT, ThreatModel(12 / 255))
    hits = {threat: [records(results, out, threat, kind).values["recall_at_1"] for kind in ("cascade", "noise")]
            for threat in (small, own, large)}  # fmt: skip
    clean = np.array([bit == "1" for digit in results.models[0].clean_hits for bit in f"{int(digit, 16):04b}"])[:24]
    assert by_threat[own] == np.minimum.reduce([clean, *hits[small], *hits[own]]).mean()
    assert by_threat[large] == np.minimum.reduce([clean, *hits[small], *hits[own], *hits[large]]).mean()
    assert by_threat[small] == np.minimum.reduce([clean, *hits[small]]).mean()


def test_a_repeated_call_resumes_and_another_budget_is_another_run(run):
    results, out = run
    suite = build_suite("cascade(strength=quick),noise,universal", BUDGETS, "quick")
    again = evaluate({"net": SmallNet()}, make_dataset(), suite, out=out, options=QUIET)
    assert again.worst == results.worst
    other = build_suite("cascade(strength=quick),noise,universal", BUDGETS.replace("5/255", "4/255"), "quick")
    with pytest.raises(Exception, match="another"):
        evaluate({"net": SmallNet()}, make_dataset(), other, out=out, options=QUIET)


def test_the_page_and_the_bars_know_the_budget(run):
    results, out = run
    page = (out / "report.html").read_text()
    assert "2/255:12/255:5/255" in page
    bar = parse_threshold("worst@2/255:12/255:5/255:recall@1=1.0")
    missed = violations(results, [bar])
    assert len(missed) == 1
    assert missed[0].key is not None


def test_a_budget_after_normalisation_is_for_models_that_normalise_so(tmp_path):
    model = SmallNet()
    model.preprocessing = {"size": 10, "std": (0.5, 0.5, 0.5), "mean": (0.5, 0.5, 0.5)}
    suite = build_suite("noise", "0.01/normalised", "quick")
    with pytest.raises(SpecError, match=r"'net' divides by 0.5 / 0.5 / 0.5: write it .* as 0.005:0.005:0.005"):
        evaluate({"net": model}, make_dataset(), suite, out=tmp_path / "refused", options=QUIET)
    model.preprocessing = {"size": 10, "std": (0.229, 0.224, 0.225), "mean": (0.5, 0.5, 0.5)}
    results = evaluate({"net": model}, make_dataset(), suite, out=tmp_path / "run", options=QUIET)
    assert results.worst[0].threat.text == "0.01/normalised (0.584, 0.571, 0.574 of 255)"


class Outside:
    """An attack that changes one channel by more than it may."""

    def __init__(self, inner) -> None:
        self.inner, self.threat, self.entry, self.target_rows = inner, inner.threat, inner.entry, inner.target_rows

    def __call__(self, model, images, references, *, seed):
        sent = images.clone()
        sent[:, 0] = torch.where(sent[:, 0] > 0.5, sent[:, 0] - 10 / 255, sent[:, 0] + 10 / 255)
        return sent


def test_the_evaluator_enforces_the_budget_of_each_channel(tmp_path):
    (inner,) = build_suite("noise", "2/255:12/255:5/255")
    results = evaluate({"net": SmallNet()}, make_dataset(), [Outside(inner)], out=tmp_path, options=QUIET)
    (cell,) = results.cells
    assert cell.queries_projected == 24
    assert cell.largest_norm_returned == pytest.approx(10 / 255, abs=1e-6)
    assert cell.largest_norm == pytest.approx(2 / 255, abs=1e-6)
    assert replace(THREAT, eps=THREAT.eps) == cell.threat
