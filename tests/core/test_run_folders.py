"""Run folders: each belongs to one run, and one process at a time writes into it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

from robustdml.errors import RunFolderError, StorageError
from robustdml.files import fingerprint, write_bytes
from robustdml.run_folders import LOCK_FILE, SPEC_FILE, WRITER_FILE, claimed

SPEC = {"kind": "evaluate", "dataset": "digits", "attacks": [["noise", 0.03]], "seed": 0}


def claim(folder, spec):
    with claimed(folder, spec) as identity:
        assert {path.name for path in folder.iterdir()} >= {SPEC_FILE, LOCK_FILE, WRITER_FILE}
    assert not {path.name for path in folder.iterdir()} & {LOCK_FILE, WRITER_FILE}
    return identity


@pytest.mark.parametrize("exists", [True, False])
def test_claim_a_new_or_empty_folder(tmp_path, exists):
    folder = tmp_path / "runs" / "one"
    if exists:
        folder.mkdir(parents=True)
    identity = claim(folder, SPEC)
    assert identity == fingerprint(SPEC)
    assert json.loads((folder / SPEC_FILE).read_text()) == {"fingerprint": identity, "spec": SPEC}


def test_claim_again_with_the_same_spec_changes_nothing(tmp_path):
    identity = claim(tmp_path, SPEC)
    (tmp_path / "records").mkdir()
    before = (tmp_path / SPEC_FILE).read_bytes(), (tmp_path / SPEC_FILE).stat().st_mtime_ns
    assert claim(tmp_path, dict(reversed(SPEC.items()))) == identity
    assert ((tmp_path / SPEC_FILE).read_bytes(), (tmp_path / SPEC_FILE).stat().st_mtime_ns) == before


def test_claim_with_another_spec_names_what_differs_and_changes_nothing(tmp_path):
    claim(tmp_path, SPEC)
    (tmp_path / "records").mkdir()
    before = (tmp_path / SPEC_FILE).read_bytes()
    other = {key: value for key, value in SPEC.items() if key != "dataset"} | {"seed": 1, "version": "2"}
    with pytest.raises(RunFolderError, match="it differs in: dataset, seed, the version of robustdml") as caught:
        claim(tmp_path, other)
    assert f"'{tmp_path}'" in str(caught.value)
    assert (tmp_path / SPEC_FILE).read_bytes() == before


def test_claim_takes_over_a_folder_whose_run_made_nothing(tmp_path):
    claim(tmp_path, SPEC)
    identity = claim(tmp_path, SPEC | {"seed": 1})
    assert json.loads((tmp_path / SPEC_FILE).read_text()) == {"fingerprint": identity, "spec": SPEC | {"seed": 1}}


def test_claim_refuses_a_folder_with_other_files(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunFolderError, match="is not empty and holds no run of robustdml: choose another --out"):
        claim(tmp_path, SPEC)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_claim_refuses_a_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("x")
    with pytest.raises(RunFolderError, match="is a file, not a folder: choose another --out"):
        claim(path, SPEC)
    assert path.read_text() == "x"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"words"',
        "{}",
        '{"spec": {}}',
        '{"fingerprint": "0"}',
        '{"fingerprint": "0", "spec": 5}',
        '{"fingerprint": "0", "spec": null}',
        '{"fingerprint": "0", "spec": ["a"]}',
        '{"fingerprint": "0", "spec": {}, "spec": {}}',
        "[" * 100_000,
        '{"fingerprint": "0", "spec": {"x": ' + "[" * 100_000,
    ],
)
def test_claim_refuses_a_damaged_spec(tmp_path, text):
    (tmp_path / SPEC_FILE).write_text(text)
    with pytest.raises(RunFolderError, match="is damaged: choose another --out, or delete that folder"):
        claim(tmp_path, SPEC)


def test_claim_refuses_a_spec_that_is_no_text(tmp_path):
    (tmp_path / SPEC_FILE).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RunFolderError, match="is damaged"):
        claim(tmp_path, SPEC)


def test_what_killed_processes_were_writing_is_taken_away_wherever_it_lies(tmp_path):
    claim(tmp_path, SPEC)
    (tmp_path / "records" / "net").mkdir(parents=True)
    for name in (f"records/net/.0.parquet.{os.getppid()}.tmp", ".spec.json.1.tmp", ".writer.json.7.tmp"):
        (tmp_path / name).write_text("ha")
    kept = tmp_path / "records" / ".mine.tmp"
    kept.write_text("")
    claim(tmp_path, SPEC)
    assert [path for path in tmp_path.rglob("*") if path.suffix == ".tmp"] == [kept]


def test_a_folder_in_which_the_very_first_write_was_killed_is_usable(tmp_path):
    for name in (".spec.json.12.tmp", ".writer.json.12.tmp", LOCK_FILE, WRITER_FILE):
        (tmp_path / name).write_text('{"ha')
    claim(tmp_path, SPEC)
    assert [path.name for path in tmp_path.iterdir()] == [SPEC_FILE]


def test_a_folder_that_another_writes_into_is_refused_with_who_and_since_when(tmp_path):
    with claimed(tmp_path, SPEC):
        found = json.loads((tmp_path / WRITER_FILE).read_text())
        with pytest.raises(RunFolderError) as caught, claimed(tmp_path, SPEC):
            pass
        assert str(caught.value) == (
            f"'{tmp_path}' is being written by process {os.getpid()} for 0 minutes: wait for it, stop it, or choose "
            "another --out"
        )
        # What the one that was refused leaves alone.
        assert json.loads((tmp_path / WRITER_FILE).read_text()) == found
        (tmp_path / WRITER_FILE).write_text(
            json.dumps(found | {"host": "far\x1b", "since": "2020-01-01T00:00:00+00:00"})
        )
        with (
            pytest.raises(RunFolderError, match=r"process \d+ on far\ufffd for \d{7} minutes: wait"),
            claimed(tmp_path, SPEC),
        ):
            pass
        (tmp_path / WRITER_FILE).write_text("[]")
        with pytest.raises(RunFolderError, match=r"by another process: wait"), claimed(tmp_path, SPEC):
            pass
    claim(tmp_path, SPEC)


HOLD = """
import sys, time, os
from pathlib import Path
from robustdml.run_folders import claimed
with claimed(Path(sys.argv[1]), {"kind": "evaluate"}):
    if os.fork() == 0:
        print("held", flush=True)
    time.sleep(60)
"""


SPEC_OF_IT = {"kind": "evaluate"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_lock_ends_with_the_process_that_holds_it_whatever_it_left_running(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(RunFolderError, match=f"process {holder.pid} for 0 minutes"),
            claimed(tmp_path, {"kind": "evaluate"}),
        ):
            pass
        holder.kill()
        holder.wait()
        claim(tmp_path, {"kind": "evaluate"})
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.stdout.close()


@pytest.mark.parametrize("how", ["removed", "moved", "replaced", "a file"])
def test_nothing_is_written_into_a_folder_that_is_no_longer_the_one_of_the_run(tmp_path, how):
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"

    def run():
        with claimed(folder, SPEC):
            folder.rename(elsewhere)
            if how == "removed":
                shutil.rmtree(elsewhere)
            elif how == "replaced":
                folder.mkdir()
                (folder / LOCK_FILE).write_text("of another")
            elif how == "a file":
                folder.write_text("mine")
            write_bytes(folder / "records" / "0.parquet", b"data")

    sentence = f"'{folder}' was removed, moved or replaced while it was written into: put it back"
    with pytest.raises(StorageError, match=re.escape(sentence)):
        run()
    there = sorted(path.name for path in tmp_path.iterdir())
    assert there == [*([] if how == "removed" else ["elsewhere"]), *(["run"] if how in {"replaced", "a file"} else [])]
    if how == "replaced":
        assert [path.name for path in folder.iterdir()] == [LOCK_FILE]


def test_other_folders_can_be_written_meanwhile(tmp_path):
    with claimed(tmp_path / "run", SPEC), claimed(tmp_path / "run-2", SPEC):
        (tmp_path / "run").rename(tmp_path / "gone")
        write_bytes(tmp_path / "run-2" / "file", b"")
        with pytest.raises(StorageError):
            write_bytes(tmp_path / "run" / "file", b"")
