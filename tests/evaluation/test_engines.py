"""Engines: the same records wherever a task is done, and a worker that is lost costs its task alone."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path

import by_ray
import pyarrow.parquet as pq
import pytest
import torch
from squares import QUIET, SmallNet

from robustdml.attacks import build_suite
from robustdml.data.tensors import ImageTensors
from robustdml.errors import AttackError, MissingPackageError, SpecError
from robustdml.evaluation import evaluate
from robustdml.evaluation.engines import Inline, engine
from robustdml.evaluation.judge import Judge
from robustdml.evaluation.store import read_shard
from robustdml.evaluation.work import Work
from robustdml.importing import load_object, of_files
from robustdml.results import Results
from robustdml.retrieval.embed import Embedder

ENDED = "its process ended: a crash, a kill, or too little memory"
SUPPORT = Path(by_ray.__file__).parent


def records(run: Path) -> dict[str, tuple[object, ...]]:
    """What the record files say, by cell and shard, but for the seconds."""
    found = {}
    for path in sorted(run.rglob("*.parquet")):
        kept, about = read_shard(path)
        counted = kept.forward_images, kept.gradient_images, kept.undone, kept.measures
        stages = [dataclasses.replace(stage, seconds=0.0) for stage in kept.stages]
        found[f"{about['attack']} {about['shard']}"] = pq.read_table(path).to_pylist(), counted, stages
    return found


def test_work_that_was_sent_to_another_process_gives_the_same_records(squares, tmp_path, monkeypatch):
    """Each task by a copy of its own, in an order of its own."""
    attacks = build_suite("cascade,margin,both_sides", 8 / 255, "quick")
    parts = {"max_queries": 24, "shard_size": 8, "options": QUIET}
    evaluate({"net": SmallNet()}, squares, attacks, out=tmp_path / "one", **parts)

    def elsewhere(self, work, agenda):
        sent = pickle.dumps(work)
        while True:
            waiting = deque(iter(agenda.next, None))
            if not waiting:
                return
            while waiting:
                task = waiting.pop()
                copy: Work = pickle.loads(sent)
                copy.check()
                with copy.opened(task.attack):
                    agenda.done(task, pickle.loads(pickle.dumps(copy.do(task))))

    monkeypatch.setattr(Inline, "run", elsewhere)
    evaluate({"net": SmallNet()}, squares, attacks, out=tmp_path / "other", **parts)
    assert records(tmp_path / "other") == records(tmp_path / "one")


def test_within_a_process_judges_share_what_they_have_and_elsewhere_nothing(squares):
    model, device = Embedder(SmallNet()), torch.device("cpu")
    judge = Judge(model, squares.test, ImageTensors(squares.images, 10), device, name="net")
    fresh, sent = judge.fresh(), pickle.loads(pickle.dumps(judge))
    assert fresh.gallery_embeddings is judge.gallery_embeddings
    assert fresh.models[0] is judge.models[0]
    assert sent.models[0] is not judge.models[0]
    assert (sent.gallery_embeddings == judge.gallery_embeddings).all()
    assert not sent.shared


def test_a_task_that_failed_ends_its_attack_and_no_other(squares, tmp_path, monkeypatch):
    """Whatever is still out of that attack comes back in vain."""

    def losing(self, work, agenda):
        waiting = deque(iter(agenda.next, None))
        first = waiting.popleft()
        agenda.failed(first, AttackError("its worker was lost (ActorDiedError), 2 times"))
        for task in waiting:
            with work.opened(task.attack):
                agenda.done(task, work.do(task))

    monkeypatch.setattr(Inline, "run", losing)
    attacks = build_suite("margin,noise", 8 / 255, "quick")
    results = evaluate({"net": SmallNet()}, squares, attacks, out=tmp_path, shard_size=16, options=QUIET)
    assert [(cell.attack.partition("(")[0], cell.status) for cell in results.cells] == [
        ("pgd", "failed"),
        ("noise", "ok"),
    ]
    assert results.cells[0].reason == "its worker was lost (ActorDiedError), 2 times"


@pytest.mark.parametrize(
    ("engine", "workers", "sentence"),
    [
        ("inline", 2, "workers=2 are those of Ray"),
        ("ray", 0, "workers=0 must be at least 1"),
        ("inline", 2.5, "workers=2.5"),
        ("spark", None, "engine='spark'"),
    ],
)
def test_workers_that_cannot_be_are_refused(squares, tmp_path, engine, workers, sentence):
    attacks, chosen = build_suite("noise", 8 / 255, "quick"), {"engine": engine, "workers": workers}
    with pytest.raises(SpecError, match=sentence):
        evaluate({"net": SmallNet()}, squares, attacks, out=tmp_path, options=dataclasses.replace(QUIET, **chosen))


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("nonsense", "is no address HOST:PORT"),
        ("ray://127.0.0.1:10001", "is no address HOST:PORT"),
        ("127.0.0.1:99999", "is no address HOST:PORT"),
        ("127.0.0.1:{closed}", "Connection refused"),
        ("127.0.0.1:{other}", "what answers at .* is no Ray cluster"),
        ("127.0.0.1:{silent}", "timed out"),
    ],
)
def test_an_address_where_no_cluster_answers_is_said_within_seconds(address, sentence, monkeypatch):
    monkeypatch.setattr("robustdml.evaluation.engines._ANSWER", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as other, socket.create_server(("127.0.0.1", 0)) as silent:
        with socket.create_server(("127.0.0.1", 0)) as gone:
            closed = gone.getsockname()[1]

        def answer():
            with contextlib.suppress(OSError):  # Nobody asked, and the test is over.
                connection, _ = other.accept()
                with connection:
                    connection.sendall(b"HTTP/1.1 400 Bad Request")

        threading.Thread(target=answer, daemon=True).start()
        ports = {"closed": closed, "other": other.getsockname()[1], "silent": silent.getsockname()[1]}
        monkeypatch.setenv("RAY_ADDRESS", address.format(**ports))
        with pytest.raises(SpecError, match=sentence), engine("ray", 2, torch.device("cpu")):
            pass


def test_without_ray_one_sentence_names_the_extra(squares, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    options = dataclasses.replace(QUIET, engine="ray")
    with pytest.raises(MissingPackageError, match=r"--engine ray needs .*pip install 'robustdml\[ray\]'"):
        evaluate({"net": SmallNet()}, squares, build_suite("noise", 8 / 255), out=tmp_path, options=options)
    assert not list(tmp_path.iterdir())


def test_modules_of_files_are_sent_along_and_others_are_not(tmp_path):
    (tmp_path / "beside.py").write_text("def number():\n    return 5\n")
    (tmp_path / "of_a_file.py").write_text("import beside\n\ndef number():\n    return beside.number()\n")
    function = load_object(f"{tmp_path / 'of_a_file.py'}:number")
    names = {module.__name__ for module in of_files()}
    assert {"of_a_file", "beside"} <= names
    assert not {"squares", "torch", "robustdml", "robustdml.attacks"} & names
    assert function() == 5
    for name in ("of_a_file", "beside"):
        del sys.modules[name]


@pytest.fixture
def alone() -> list[str]:
    """Words before a command that give it a network of its own, with loopback only: Ray listens on no other."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'robustdml[ray]'")
    words = ["unshare", "-n"] if os.getuid() == 0 else ["unshare", "-r", "-n"]
    try:
        tried = subprocess.run([*words, "ip", "link", "set", "lo", "up"], capture_output=True, text=True)
    except FileNotFoundError as error:
        pytest.skip(f"no network of its own for Ray: {error}")
    if tried.returncode:
        pytest.skip(f"no network of its own for Ray: {tried.stderr.strip()}")
    return [*words, "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


@pytest.mark.slow
def test_two_workers_of_ray_give_the_same_records_and_one_that_is_lost_costs_its_attack_alone(alone, tmp_path):
    # Tests run where others run too: what they need of the memory is not for Ray to judge.
    paths = os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])
    surroundings = {**os.environ, "PYTHONPATH": paths, "RAY_memory_monitor_refresh_ms": "0"}
    command = [*alone, sys.executable, str(SUPPORT / "by_ray.py"), str(tmp_path)]
    ended = subprocess.run(command, env=surroundings, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert (tmp_path / "mark").exists()  # a worker was killed
    by_ray.equal(tmp_path, "inline")
    assert records(tmp_path / "ray") == records(tmp_path / "inline")
    cells = [*Results.load(tmp_path / "odd").cells, *Results.load(tmp_path / "late").cells]
    assert {cell.attack: (cell.status, cell.reason) for cell in cells} == {
        "odd-segfaults": ("failed", f"{ENDED} (ActorDiedError), 2 times"),
        "odd-does-nothing": ("ok", None),
        "odd-hangs": ("failed", "stopped after the limit of 2 s, with 0 of 24 queries done: raise --attack-time-limit"),
    }
