"""What once broke when the program was attacked, and stands in no other test: a sentence each, and nothing believed."""

from __future__ import annotations

import csv
import json
import pickle
import struct
from pathlib import Path

import pytest
import torch
from command_line import cli, refused, write_images
from squares import QUIET, FakeAttack, SmallNet, make_dataset

from robustdml.attacks import build_suite
from robustdml.data.finding import LeftOut, write_left_out
from robustdml.errors import CheckpointError, StorageError
from robustdml.evaluation import evaluate
from robustdml.evaluation.plan import Plan
from robustdml.evaluation.store import CellKey, Store
from robustdml.files import check_writable, sealed
from robustdml.models import EmbeddingModel, ModelConfig, load_checkpoint, save_checkpoint
from robustdml.papers import ROWS
from robustdml.papers.reproduce import folder_of
from robustdml.results import Results
from robustdml.threat import ThreatModel
from robustdml.training.state import load_state, read_state

MODEL = """
import torch
def small():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(12, 4))
"""


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    write_images(tmp_path / "tree", {"cyan": 3, "pink": 3})
    (tmp_path / "once_broken_model.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    evaluate({"net": SmallNet()}, make_dataset(), build_suite("noise", "8/255"), out=out, options=QUIET)
    return out


def evaluated(*words):
    return cli("evaluate", "once_broken_model:small", "--data", "tree", "--image-size", "16", "--quiet", *words)


@pytest.mark.parametrize("out", ["run:1", "file:run", "~/run", "./~/run"])
def test_an_output_folder_is_a_folder_and_no_address(place, out):
    for _ in range(2):  # the second reads the records of the first
        done = evaluated("--attacks", "noise", f"--out={out}")
        assert done.exit_code == 0, done.output
    home = place / "home" / "run" if out == "~/run" else place / out
    assert Results.load(home).cells[0].status == "ok"
    assert len(list(place.rglob("results.json"))) == 1


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        (["sys:exit"], "tried to end the program"),
        (["builtins:exit"], "tried to end the program"),
        (["once_broken_model:small", "--device", "hpu"], "device 'hpu' cannot be used"),
        (["once_broken_model:small", "--attacks", "mtax(targets=10**9)"], "targets="),
        (["once_broken_model:small", "--attacks", "transfer(surrogate='sys:exit')"], "surrogate"),
        (["once_broken_model:small", "--attacks", "transfer(surrogate='builtins:int')"], "surrogate"),
    ],
    ids=str,
)
def test_what_cannot_be_evaluated_is_no_success(place, words, pattern):
    done = cli("evaluate", *words, "--data", "tree", "--image-size", "16", "--quiet", "--out", "out")
    refused(done, pattern)
    assert not (place / "out" / "results.json").exists()


def test_a_report_needs_a_place(place):
    refused(cli("report", "tree", "--out", ""), "is empty")


class Broken(FakeAttack):
    """From its first call on, one of its descriptions raises."""

    armed = ""

    def _checked(self, name):
        if self.calls and self.armed == name:
            raise ValueError("no \x07 words")

    @property
    def threat(self):
        self._checked("threat")
        return super().threat

    def entry(self):
        self._checked("entry")
        return super().entry()

    def target_rows(self, references, *, seed):
        self._checked("target_rows")


@pytest.mark.parametrize("name", ["threat", "entry", "target_rows"])
def test_an_attack_whose_description_raises_spoils_no_other(run, tmp_path, name, monkeypatch):
    monkeypatch.setattr(Broken, "armed", name)
    attacks = [Broken(lambda _, images: images, name="broken"), *build_suite("noise", "8/255")]
    found = evaluate({"net": SmallNet()}, make_dataset(), attacks, out=tmp_path / "out", options=QUIET)
    broken, noise = found.cells
    assert (broken.status, noise.score) == ("failed", Results.load(run).cells[0].score)
    assert broken.reason.startswith("ValueError: no ")
    assert "\udcff" not in broken.reason


def test_names_that_hold_half_a_character_can_be_written(place):
    (place / "tree" / "cyan").rename(place / "tree" / "c\udcff")
    done = evaluated("--attacks", "noise", "--out", "out")
    assert done.exit_code == 0, done.output
    assert Results.load(place / "out").queries.class_names == ("c\\xff", "pink")
    assert "c\\xff" in (place / "out" / "report.html").read_text()


#: Of the header of a file of weights, what is said that is not so.
LIES = {
    "a length of nothing": lambda header: (0, header),
    "a length of 2^63": lambda header: (2**63, header),
    "a length beyond the file": lambda header: (10**6, header),
    "no JSON": lambda header: (None, "{"),
    "a list": lambda header: (None, []),
    "nested": lambda header: (None, "[" * 5000),
    "no tensors": lambda header: (None, {}),
    "a shape of 2^80": lambda header: (None, _first(header, shape=[2**40, 2**40])),
    "a shape below 0": lambda header: (None, _first(header, shape=[-1])),
    "a shape of much": lambda header: (None, _first(header, shape=[1] * 5000)),
    "offsets beyond": lambda header: (None, _first(header, data_offsets=[0, 2**62])),
    "offsets backwards": lambda header: (None, _first(header, data_offsets=[8, 0])),
    "offsets twice": lambda header: (None, {name: {**entry, "data_offsets": [0, 4]} for name, entry in header.items()}),
    "another type": lambda header: (None, {name: {**entry, "dtype": "F64"} for name, entry in header.items()}),
    "an unknown type": lambda header: (None, _first(header, dtype="PY")),
    "text for a shape": lambda header: (None, _first(header, shape="4")),
}


def _first(header, **changes):
    name = next(name for name in header if name != "__metadata__")
    return {**header, name: {**header[name], **changes}}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_checkpoint(EmbeddingModel(ModelConfig("resnet-tiny", 4, 16)), folder, {"method": "st"})
    return folder


@pytest.mark.parametrize("name", LIES)
def test_no_lying_header_of_weights_is_believed(checkpoint, tmp_path, name):
    data = (checkpoint / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    said, header = LIES[name](json.loads(data[8 : 8 + length]))
    written = (header if isinstance(header, str) else json.dumps(header)).encode()
    (tmp_path / "model.safetensors").write_bytes(
        struct.pack("<Q", len(written) if said is None else said) + written + data[8 + length :]
    )
    # A liar would write the checksum that belongs to it.
    about = json.loads((checkpoint / "model.json").read_text())
    del about["checksum"]
    (tmp_path / "model.json").write_text(json.dumps(about | {"weights_sha256": ""}))
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path)
    assert len(str(caught.value).replace(str(tmp_path), "")) < 400


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ({"backbone": []}, "backbone"),
        ({"image_size": 32.5}, "image_size|size"),
        ({"image_size": 10**9}, "size"),
        ({"embedding_dim": 10**9}, "embedding_dim"),
    ],
    ids=str,
)
def test_a_model_that_cannot_be_is_not_built(checkpoint, tmp_path, model, reason):
    about = json.loads((checkpoint / "model.json").read_text())
    del about["checksum"]
    (tmp_path / "model.safetensors").write_bytes((checkpoint / "model.safetensors").read_bytes())
    (tmp_path / "model.json").write_text(sealed({**about, "model": {**about["model"], **model}}))
    with pytest.raises(CheckpointError, match=reason):
        load_checkpoint(tmp_path)
    refused(cli("export", tmp_path, "--out", tmp_path / "w.safetensors"), reason)


@pytest.mark.parametrize("count", [65, 100_000])
def test_too_many_branches_are_not_built(checkpoint, tmp_path, count):
    about = json.loads((checkpoint / "model.json").read_text())
    del about["checksum"]
    (tmp_path / "model.safetensors").write_bytes((checkpoint / "model.safetensors").read_bytes())
    (tmp_path / "model.json").write_text(sealed({**about, "branches": [f"b{number}" for number in range(count)]}))
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path)
    assert len(str(caught.value).replace(str(tmp_path), "")) < 400


class Executed:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


def test_a_pickled_state_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "state.pt").write_bytes(pickle.dumps(Executed()))
    with pytest.raises(CheckpointError, match=r"state\.pt' is damaged"):
        load_state(read_state(tmp_path), tmp_path, {}, None)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("created", "9999-12-31T23:59:59-14:00"),
        ("maps", 1e308),
        ("seconds", 1e308),
        ("class", 99),
        ("scores", 1e308),
    ],
)
def test_results_that_cannot_be_drawn_are_a_sentence_or_a_page(run, tmp_path, place, value):
    data = json.loads((run / "results.json").read_text())
    del data["checksum"]
    if place == "maps":
        assert data["maps"]
        data["maps"][0]["gallery"][0][0] = value
    elif place == "class":
        data["maps"][0]["gallery"][0][2] = value
    elif place == "scores":
        data["cells"][0]["score"]["metrics"]["recall_at_1"] = value
    else:
        data[place] = value
    (tmp_path / "results.json").write_text(sealed(data))
    done = cli("report", tmp_path, "--out", tmp_path / "page" / "report.html")
    if done.exit_code:
        refused(done, ".")
        assert len(done.output.replace(str(tmp_path), "")) < 400
    else:
        assert "NaN" not in (tmp_path / "page" / "report.html").read_text()


def test_a_record_of_another_eps_is_no_record(tmp_path):
    suite = build_suite("noise", "8/255,16/255")
    evaluate({"net": SmallNet()}, make_dataset(), suite, out=tmp_path, options=QUIET)
    store = Store(tmp_path, Plan.load(tmp_path).fingerprint)
    one, other = (store.path(CellKey("net", "noise(trials=10)", ThreatModel(eps / 255)), 0) for eps in (8, 16))
    other.write_bytes(one.read_bytes())
    done = cli("verify", tmp_path)
    assert done.exit_code == 4
    assert "another eps" in done.output


def test_names_of_images_are_no_formulas_in_the_list_of_what_was_left_out(tmp_path):
    names = ("=1+1.png", "-2+3.png", "+a.png", "@SUM(1).png", " =1.png", "a\nb\x1b[31m.png", 'q",=1.png', "plain.png")
    write_left_out([LeftOut("images", names, details=("=cmd|'/c calc'!A1",) * len(names))], tmp_path)
    with (tmp_path / "left-out.csv").open(newline="") as file:
        rows = [cell for row in list(csv.reader(file))[1:] for cell in row]
    assert not [cell for cell in rows if cell.strip()[:1] in set("=+-@") or not cell.isprintable()]
    assert rows[1::3][4:] == ["' =1.png", "a b\ufffd[31m.png", 'q",=1.png', "plain.png"]
    assert set(rows[2::3]) == {"'=cmd|'/c calc'!A1"}


@pytest.mark.parametrize(
    ("words", "blocked"),
    [
        (["demo", "--quick"], "report.html"),
        (["demo", "--quick"], "evaluation/results.json"),
        (["evaluate", "once_broken_model:small", "--data", "tree", "--attacks", "noise"], "report.html"),
        (["reproduce", "mdprop", "ROW", "--root", "tree", "--miniature"], "ROW-miniature/reproduction.md"),
    ],
    ids=str,
)
def test_what_cannot_be_written_in_the_end_is_told_in_the_beginning(place, monkeypatch, words, blocked):
    row = next(iter(ROWS))
    blocked = blocked.replace("ROW-miniature", folder_of(ROWS[row], "", small=True).name)
    (place / "out" / blocked).mkdir(parents=True)
    monkeypatch.setattr("robustdml.data.load_dataset", lambda *_, **__: pytest.fail("it began"))
    done = cli(*(row if word == "ROW" else word for word in words), "--out", "out", "--quiet")
    refused(done, r"cannot be written \(there is a folder in its place\)")
    assert not [path for path in (place / "out").rglob("*") if path.is_file()]


def test_a_place_that_can_be_written_is_left_as_it_is(tmp_path):
    check_writable(tmp_path / "a" / "b" / "c.html", tmp_path / "d")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "c.html", tmp_path / ("x" * 300), tmp_path):
        with pytest.raises(StorageError, match="cannot be written"):
            check_writable(path)
