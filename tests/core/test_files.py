"""Files that are whole or absent, and run folders."""

import json
from pathlib import Path

import pytest

from robustdml.errors import RunFolderError
from robustdml.files import (
    SPEC_FILE,
    claim_run_folder,
    content_hash,
    fingerprint,
    write_bytes,
    write_text,
)

SPEC = {"kind": "evaluate", "dataset": "digits", "attacks": [["noise", 0.03]], "seed": 0}


def test_write_bytes_makes_folders_and_returns_the_path(tmp_path):
    path = tmp_path / "a" / "b" / "file.bin"
    assert write_bytes(path, b"\x00\xff") == path
    assert path.read_bytes() == b"\x00\xff"
    assert [found.name for found in path.parent.iterdir()] == ["file.bin"]


def test_write_bytes_replaces_a_file(tmp_path):
    path = tmp_path / "file"
    write_bytes(path, b"a long first content")
    write_bytes(path, b"second")
    assert path.read_bytes() == b"second"


def test_write_text_is_utf8(tmp_path):
    assert write_text(tmp_path / "t", "ε ≤ 8/255\n").read_bytes() == "ε ≤ 8/255\n".encode()


@pytest.mark.parametrize("method", ["write_bytes", "replace"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_write_that_fails_keeps_the_old_content_and_leaves_nothing_behind(tmp_path, monkeypatch, method, error):
    path = write_bytes(tmp_path / "file", b"old")
    original = Path.write_bytes

    def fail(self, *args):
        if method == "write_bytes":
            original(self, b"ha")
        raise error

    monkeypatch.setattr(Path, method, fail)
    with pytest.raises(type(error)):
        write_bytes(path, b"half written")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_never_sees_half_a_file(tmp_path, monkeypatch):
    path = write_bytes(tmp_path / "file", b"old")
    seen = []
    original = Path.write_bytes

    def watch(self, data):
        original(self, data[:1])
        seen.append(path.read_bytes())
        return original(self, data)

    monkeypatch.setattr(Path, "write_bytes", watch)
    write_bytes(path, b"new")
    assert seen == [b"old"]
    assert path.read_bytes() == b"new"


def test_fingerprint_depends_on_the_value_and_not_on_the_order_of_its_keys():
    assert fingerprint({"a": 1, "b": [2, 3]}) == fingerprint({"b": [2, 3], "a": 1})
    values = [{"a": 1}, {"a": 2}, {"b": 1}, {"a": [1]}, {"a": "1"}, {"a": [1, 2]}, {"a": [2, 1]}, {}]
    assert len({fingerprint(value) for value in values}) == len(values)


def test_content_hash_tells_contents_apart():
    assert content_hash(b"a") == content_hash(b"a") != content_hash(b"b")
    assert len(content_hash(b"a")) == 16


@pytest.mark.parametrize("exists", [True, False])
def test_claim_a_new_or_empty_folder(tmp_path, exists):
    folder = tmp_path / "runs" / "one"
    if exists:
        folder.mkdir(parents=True)
    identity = claim_run_folder(folder, SPEC)
    assert identity == fingerprint(SPEC)
    assert json.loads((folder / SPEC_FILE).read_text()) == {"fingerprint": identity, "spec": SPEC}


def test_claim_again_with_the_same_spec_changes_nothing(tmp_path):
    identity = claim_run_folder(tmp_path, SPEC)
    (tmp_path / "records").mkdir()
    before = (tmp_path / SPEC_FILE).read_bytes(), (tmp_path / SPEC_FILE).stat().st_mtime_ns
    assert claim_run_folder(tmp_path, dict(reversed(SPEC.items()))) == identity
    assert ((tmp_path / SPEC_FILE).read_bytes(), (tmp_path / SPEC_FILE).stat().st_mtime_ns) == before


def test_claim_with_another_spec_names_what_differs_and_changes_nothing(tmp_path):
    claim_run_folder(tmp_path, SPEC)
    (tmp_path / "records").mkdir()
    before = (tmp_path / SPEC_FILE).read_bytes()
    other = {key: value for key, value in SPEC.items() if key != "dataset"} | {"seed": 1, "version": "2"}
    with pytest.raises(RunFolderError, match="it differs in: dataset, seed, the version of robustdml") as caught:
        claim_run_folder(tmp_path, other)
    assert f"'{tmp_path}'" in str(caught.value)
    assert (tmp_path / SPEC_FILE).read_bytes() == before


def test_claim_takes_over_a_folder_whose_run_made_nothing(tmp_path):
    claim_run_folder(tmp_path, SPEC)
    identity = claim_run_folder(tmp_path, SPEC | {"seed": 1})
    assert json.loads((tmp_path / SPEC_FILE).read_text()) == {"fingerprint": identity, "spec": SPEC | {"seed": 1}}


def test_claim_refuses_a_folder_with_other_files(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunFolderError, match="is not empty and holds no run of robustdml: choose another --out"):
        claim_run_folder(tmp_path, SPEC)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_claim_refuses_a_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("x")
    with pytest.raises(RunFolderError, match="is a file, not a folder: choose another --out"):
        claim_run_folder(path, SPEC)
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
    ],
)
def test_claim_refuses_a_damaged_spec(tmp_path, text):
    (tmp_path / SPEC_FILE).write_text(text)
    with pytest.raises(RunFolderError, match="is damaged: choose another --out, or delete that folder"):
        claim_run_folder(tmp_path, SPEC)


def test_claim_refuses_a_spec_that_is_no_text(tmp_path):
    (tmp_path / SPEC_FILE).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RunFolderError, match="is damaged"):
        claim_run_folder(tmp_path, SPEC)
