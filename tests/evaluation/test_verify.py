"""A run folder proves itself: what does not follow from its records, or from its images, is named."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch
from squares import QUIET, SmallNet, make_dataset

from robustdml.attacks import build_suite
from robustdml.data.tensors import ImageTensors
from robustdml.errors import RunFolderError
from robustdml.evaluation import build_panel, evaluate
from robustdml.evaluation.checks.rejudging import rejudge
from robustdml.evaluation.plan import Plan
from robustdml.evaluation.store import Store
from robustdml.evaluation.subjects import Subject
from robustdml.evaluation.verify import verify
from robustdml.files import sealed
from robustdml.results import RESULTS_FILE, Results

SAVING = dataclasses.replace(QUIET, save_images=True)
SUITE = build_suite("noise,margin", "8/255")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run of two models with all its images."""
    out = tmp_path_factory.mktemp("run") / "out"
    models = {"net": SmallNet(0), "other": SmallNet(1)}
    evaluate(models, make_dataset(), SUITE, out=out, options=SAVING, shard_size=16)
    return out


@pytest.fixture
def run(whole, tmp_path):
    """A copy that may be damaged."""
    return shutil.copytree(whole, tmp_path / "run")


def test_an_honest_run_has_no_problem(whole):
    found = verify(whole)
    assert (found.problems, found.files) == ((), 2 * 1 + 2 * 2 * 2)
    assert found.numbers > 100
    again = rejudge(whole, [Subject("mine", SmallNet(0), "memory")], make_dataset(), options=QUIET)
    assert (again.problems, again.notes, again.files, again.numbers) == ((), (), 4, 48)


def edit(run, change):
    """Change results.json by hand, with a fitting checksum."""
    data = json.loads((run / RESULTS_FILE).read_text())
    del data["checksum"]
    change(data)
    (run / RESULTS_FILE).write_text(sealed(data))


EDITS = {
    "a removed flag": (lambda data: data.update(flags=data["flags"][1:]), r"results\.json: flags is a list of"),
    "the interval": (
        lambda data: data["worst"][0]["score"].update(low=0.0),
        r"worst\[0\]\.score\.low is 0\.0, the rec",
    ),
    "another MAP": (
        lambda data: data["cells"][0]["score"]["metrics"].update(map_at_r=0.5),
        r"cells\[0\]\.score\.metrics\.map_at_r is 0\.5",
    ),
    "a strong attack taken out": (
        lambda data: data.update(
            cells=[cell for cell in data["cells"] if "pgd" not in cell["attack"]],
            worst=[{**worst, "attacks": 1} for worst in data["worst"]],
        ),
        r"cells is a list of 2, the records say a list of 4|a query falls",
    ),
    "a cost": (lambda data: data["cells"][1].update(forward_images=1), r"cells\[1\]\.forward_images is 1"),
    "a health": (lambda data: data["models"][0]["health"].update(mean_cosine=0.0), r"health\.mean_cosine is 0\.0"),
}


@pytest.mark.parametrize("name", EDITS)
def test_results_that_do_not_follow_from_the_records_are_named(run, name):
    change, pattern = EDITS[name]
    edit(run, change)
    (problem, *_) = verify(run).problems
    assert re.search(pattern, problem), problem


def test_damage_to_any_file_is_named(run):
    for path in sorted(run.rglob("*")):
        if path.suffix in {".parquet", ".json"} and path.name != "answers.json":
            content = path.read_bytes()
            path.write_bytes(bytes(value ^ (place % 40 > 20) for place, value in enumerate(content)))
            assert verify(run).problems, path
            path.write_bytes(content)
    assert not verify(run).problems


def test_a_picture_that_was_changed_or_is_gone_is_named(run):
    picture = Results.load(run).examples[0].adversarial_image
    (run / picture).write_bytes(b"another")
    assert verify(run).problems == (f"the picture '{picture}' was changed since it was written",)
    (run / picture).unlink()
    assert verify(run).problems == (f"the picture '{picture}' is not there",)


def test_records_of_no_cell_and_another_identity_are_named(run, whole):
    stray = next((run / "records").rglob("00001.parquet"))
    shutil.copy(stray, run / "records" / "00001.parquet")
    assert "belongs to no cell of the run" in verify(run).problems[0]
    (run / "records" / "00001.parquet").unlink()
    (run / "spec.json").write_text((whole / "spec.json").read_text().replace('"seed": 0', '"seed": 1'))
    assert verify(run).problems == (
        "spec.json does not say what plan.json says: one of them is damaged or of another run",
    )


def test_what_is_no_run_is_refused_or_named(tmp_path):
    with pytest.raises(RunFolderError, match="no run in"):
        verify(tmp_path / "nowhere")
    (problem,) = verify(tmp_path).problems
    assert "no plan.json" in problem


def test_kept_images_are_what_was_judged_and_what_others_can_read(whole):
    for path in (whole / "adversarial").rglob("*.safetensors"):
        found = safetensors.torch.load_file(path)
        assert found["images"].shape == found["images_8bit"].shape == (len(found["query_ids"]), 3, 10, 10)
        assert torch.equal(found["images_8bit"], (found["images"] * 255).round().to(torch.uint8))
        clean = ImageTensors(make_dataset().images, 10).batch(found["query_ids"].numpy())
        assert (found["images"] - clean).abs().max() <= 8 / 255 + 1e-6


def test_images_that_were_changed_or_exchanged_are_named(run):
    files = sorted((run / "adversarial").rglob("*.safetensors"))
    content = files[0].read_bytes()
    subject = [Subject("net", SmallNet(0), "memory"), Subject("other", SmallNet(1), "memory")]
    for damaged in (content[:-1] + bytes([content[-1] ^ 1]), files[1].read_bytes(), b""):
        files[0].write_bytes(damaged)
        (problem,) = rejudge(run, subject, make_dataset(), options=QUIET).problems
        assert "is damaged or belongs to another run" in problem


def test_records_that_the_images_do_not_bear_out_are_named(run):
    """Whoever writes records with fitting checksums still has to have the images."""
    plan = Plan.load(run)
    store = Store(run, plan.fingerprint)
    key = plan.cells("net")[1]
    records = store.read(key, 0)
    right = np.ones(len(records))
    values = dict.fromkeys(records.values, right)
    store.write(key, 0, dataclasses.replace(records, values=values, margins=-np.abs(records.margins) - 0.1))
    (first, *_) = rejudge(run, [Subject("net", SmallNet(0), "memory")], make_dataset(), options=QUIET).problems
    assert first.startswith(f"net, {key.attack} at 8/255: ")
    assert "queries are judged otherwise" in first
    assert any("the records say" in problem for problem in verify(run).problems)


def test_another_model_or_data_set_judges_nothing(whole):
    found = rejudge(whole, [Subject("net", SmallNet(5), "memory")], make_dataset(), options=QUIET)
    assert found.problems == ("'net' is no model of the run: none there has its weights",)
    (problem,) = rejudge(whole, [Subject("net", SmallNet(0), "memory")], make_dataset(size=12), options=QUIET).problems
    assert "is not that of the run" in problem


def test_images_asked_for_later_are_made_and_change_no_record(tmp_path):
    models = {"net": SmallNet(0)}
    before = evaluate(models, make_dataset(), SUITE, out=tmp_path, options=QUIET)
    assert not (tmp_path / "adversarial").exists()
    (note, *_) = rejudge(tmp_path, [Subject("net", SmallNet(0), "memory")], make_dataset(), options=QUIET).notes
    assert "no images were kept" in note
    after = evaluate(models, make_dataset(), SUITE, out=tmp_path, options=SAVING)
    assert len(list((tmp_path / "adversarial").rglob("*.safetensors"))) == 2
    assert [cell.score for cell in after.cells] == [cell.score for cell in before.cells]
    assert not verify(tmp_path).problems


def test_a_run_without_attacks_or_with_panels_has_no_problem(tmp_path):
    panels = [build_panel("certify", "sigma=0.1,samples=20"), build_panel("natural")]
    evaluate({"net": SmallNet()}, make_dataset(), [], out=tmp_path, panels=panels, options=QUIET)
    assert verify(tmp_path).problems == ()
    panel_files = sorted((tmp_path / "records").glob("*/*/*.json"))
    assert len(panel_files) >= 2
    for path in panel_files:
        content = path.read_bytes()
        path.write_bytes(content.replace(b"0.", b"1.", 1) if b"0." in content else content[:-20])
        assert str(path) in verify(tmp_path).problems[0]
        path.write_bytes(content)
    other = panel_files[0].with_name("00077.json")
    panel_files[0].rename(other)
    assert "belongs to another panel" in verify(tmp_path).problems[0]
