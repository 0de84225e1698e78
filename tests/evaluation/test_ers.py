"""ERS from published terms and from a run, and what stands beside it."""

from __future__ import annotations

import pytest
import torch
from squares import QUIET, SmallNet
from torch.nn import functional as F

from robustdml.attacks import build_attack, build_suite
from robustdml.data.tensors import ImageTensors
from robustdml.errors import SpecError
from robustdml.evaluation import evaluate
from robustdml.evaluation.analyses.ers import TERMS, ers, normalised
from robustdml.evaluation.records import merged
from robustdml.evaluation.store import read_shard
from robustdml.profiles import ERS_ATTACKS
from robustdml.results import Results

#: Terms and scores as printed in Zhou & Patel 2022: the comparison of defences, and, for the collapsed HM[S,0], the
#: table of the gradual adversary. Both the terms and the scores are rounded there.
PUBLISHED = {
    "CUB, no defence": ((0.0, 100.0, 0.0, 99.9, 0.883, 1.762, 0.0, 0.0, 14.1, 0.0), 3.8),
    "CUB, ACT, 8 steps": ((13.7, 46.8, 12.6, 39.3, 0.547, 0.902, 13.6, 9.8, 21.9, 1.3), 31.3),
    "CUB, HM[S,LGA], 32 steps": ((14.7, 39.6, 15.6, 34.2, 0.523, 0.736, 16.5, 15.0, 26.7, 2.9), 35.9),
    "CUB, HM&ICS, 32 steps": ((15.5, 37.7, 16.6, 30.9, 0.753, 0.506, 17.9, 16.7, 27.3, 2.9), 36.0),
    "CUB, HM[S,0], collapsed": ((19.8, 92.4, 42.0, 51.9, 1.000, 0.000, 1.2, 1.2, 1.0, 14.1), 29.7),
    "Cars, HM&ICS, 8 steps": ((21.0, 23.3, 23.1, 22.2, 0.698, 0.415, 31.2, 38.0, 47.8, 9.6), 47.9),
    "SOP, HM, 32 steps": ((30.6, 4.7, 31.2, 3.5, 0.466, 0.266, 38.6, 40.3, 38.6, 44.3), 61.8),
}


@pytest.mark.parametrize(("terms", "score"), PUBLISHED.values(), ids=PUBLISHED)
def test_published_scores_follow_from_their_printed_terms(terms: tuple[float, ...], score: float) -> None:
    # The score was computed before its terms were rounded: 0.05 for itself, and up to 0.06 for the ten of them.
    assert ers(dict(zip(TERMS, terms, strict=True))) == pytest.approx(score, abs=0.11)


@pytest.mark.parametrize("row", ["CUB, HM&ICS, 32 steps", "CUB, HM[S,0], collapsed"])
def test_the_best_and_the_collapsed_row_come_out_to_the_digit(row: str) -> None:
    terms, score = PUBLISHED[row]
    assert f"{ers(dict(zip(TERMS, terms, strict=True))):.1f}" == f"{score}"


def test_the_collapsed_row_is_paid_for_not_moving() -> None:
    found = normalised(dict(zip(TERMS, PUBLISHED["CUB, HM[S,0], collapsed"][0], strict=True)))
    assert found["es_d"] == 100
    assert found["qa_plus"] == 84
    assert found["qa_minus"] == pytest.approx(48.1)
    assert found["ca_plus"] == pytest.approx(39.6)
    assert found["tma"] == 0


def test_a_missing_term_is_named() -> None:
    with pytest.raises(SpecError, match="ERS needs ten terms, tma, es_d"):
        ers(dict.fromkeys(("ca_plus", "ca_minus", "qa_plus", "qa_minus", "es_r", "ltm", "gtm", "gtt"), 1.0))


class Constant(SmallNet):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(images), 8) + 1e-4 * super().forward(images)


@pytest.mark.slow
def test_a_whole_profile_gives_a_score_with_clean_recall_and_the_mark_of_collapse(squares, tmp_path):
    suite = build_suite("robrank-224,robrank-224-compat,margin", "8/255")
    models = {"net": SmallNet(), "constant": Constant()}
    results = evaluate(models, squares, suite, out=tmp_path, options=QUIET)
    assert [(one.model, one.profile, one.compat) for one in results.ers] == [
        ("net", "robrank-224", False),
        ("net", "robrank-224", True),
        ("constant", "robrank-224", False),
        ("constant", "robrank-224", True),
    ]
    assert Results.load(tmp_path) == results
    for one in results.ers:
        entry = next(model for model in results.models if model.name == one.model)
        assert one.collapsed == entry.health.collapsed == (one.model == "constant")
        assert one.clean_recall_at_1 == entry.clean.metrics.recall_at_1
        assert one.value == pytest.approx(sum(one.normalised.values()) / 10)
        cells = {cell.attack.partition("(")[0]: cell for cell in results.cells if cell.model == one.model}
        assert one.terms["gtt"] == 100 * cells["gtt"].measures["first_hit_retained"]
        shifts = {entry.params["steps"]: cell for entry in results.attacks for cell in results.cells
                  if cell.model == one.model and cell.attack == entry.spec and entry.kind == "es_robrank"}  # fmt: skip
        last, shifted = (shifts[32], shifts[31]) if one.compat else (cells["es"], cells["es"])
        assert one.terms["es_r"] == 100 * last.score.metrics.recall_at_1
        assert one.terms["es_d"] == shifted.measures["embedding_shift"]
        assert one.terms["ca_plus"] == cells["ca_plus"].measures["rank_percentile"]
    # Flat as it is, the collapsed model is moved by nothing and is paid for it.
    assert results.ers[2].normalised["es_d"] > 99.9 > results.ers[0].normalised["es_d"]


@pytest.mark.parametrize("change", ["one missing", "other steps", "a random start", "another budget", "two candidates"])
def test_a_profile_that_is_not_whole_or_not_the_published_one_gives_no_score(squares, tmp_path, change):
    eps, step = 8 / 255, 3 / 8
    specs = {name: {"steps": 32, "step": step, "start": 0, "best": "false"} for name in ERS_ATTACKS}
    if change == "one missing":
        del specs["gtm"]
    elif change == "other steps":
        specs["gtm"]["steps"] = 31
    elif change == "a random start":
        specs["gtm"]["start"] = 1
    elif change == "two candidates":
        specs["qa_plus"]["candidates"] = 2
    else:
        eps = 4 / 255
    written = [f"{name}({', '.join(f'{key}={value}' for key, value in part.items())})" for name, part in specs.items()]
    attacks = [build_attack(text, eps) for text in written]
    results = evaluate({"net": SmallNet()}, squares, attacks, out=tmp_path, max_queries=6, options=QUIET)
    assert all(cell.status == "ok" for cell in results.cells)
    assert results.ers == ()


def test_the_shift_is_that_of_the_embeddings(squares, tmp_path):
    results = evaluate({"net": SmallNet()}, squares, [build_attack("shift", 8 / 255)], out=tmp_path, options=QUIET)
    (cell,) = results.cells
    records = merged([read_shard(path)[0] for path in sorted((tmp_path / "records").glob("*/[!c]*/*/*.parquet"))])
    with torch.no_grad():
        clean = F.normalize(SmallNet()(ImageTensors(squares.images, 10).batch(squares.query)), dim=1)
    moved = torch.stack([torch.from_numpy(records.embeddings[int(item)]) for item in records.ids])
    assert cell.measures["embedding_shift"] == pytest.approx(float((moved - clean).norm(dim=1).mean()), abs=1e-5)
