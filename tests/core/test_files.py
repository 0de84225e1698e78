"""Files that are whole or absent."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from robustdml.errors import StorageError
from robustdml.files import (
    content_hash,
    fingerprint,
    strict_json,
    write_bytes,
    write_text,
)


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
    assert write_text(tmp_path / "t", os.fsdecode(b"caf\xe9")).read_bytes() == rb"caf\udce9"


class Disk:
    """The calls by which a file is written, as they come; one of them fails."""

    CALLS = ("open", "write", "fsync of the file", "replace", "fsync of the folder")

    def __init__(self, monkeypatch, fails, error):
        self.fails, self.error, self.syncs = fails, error, 0
        real = {"open": Path.open, "replace": Path.replace, "fsync": os.fsync}

        def opened(path, *mode):
            self.check("open")
            file = real["open"](path, *mode)
            if fails == "write":
                file.write(b"ha")
                file.flush()
                file.close()
                raise error
            return file

        def replaced(path, target):
            self.check("replace")
            return real["replace"](path, target)

        def synced(descriptor):
            self.syncs += 1
            self.check(("fsync of the file", "fsync of the folder")[self.syncs - 1])
            real["fsync"](descriptor)

        monkeypatch.setattr(Path, "open", opened)
        monkeypatch.setattr(Path, "replace", replaced)
        monkeypatch.setattr(os, "fsync", synced)

    def check(self, call):
        if call == self.fails:
            raise self.error


@pytest.mark.parametrize("call", Disk.CALLS)
def test_a_write_that_fails_keeps_the_old_content_and_leaves_nothing_behind(tmp_path, monkeypatch, call):
    path = write_bytes(tmp_path / "file", b"old")
    Disk(monkeypatch, call, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(StorageError) as caught:
        write_bytes(path, b"half written")
    monkeypatch.undo()
    assert str(caught.value) == (
        f"'{path}' cannot be written (the disk is full): what was finished before is kept; free some space, and repeat "
        "the command to go on"
    )
    # When the folder cannot be brought to the disk, the file is whole all the same.
    assert path.read_bytes() == (b"half written" if call == "fsync of the folder" else b"old")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("call", Disk.CALLS)
def test_a_write_that_is_interrupted_leaves_nothing_behind(tmp_path, monkeypatch, call):
    path = write_bytes(tmp_path / "file", b"old")
    Disk(monkeypatch, call, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        write_bytes(path, b"half written")
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_never_sees_half_a_file_and_what_it_sees_is_on_the_disk(tmp_path, monkeypatch):
    path = write_bytes(tmp_path / "file", b"old")
    seen = []
    synced = os.fsync

    def watch(descriptor):
        seen.append((path.read_bytes(), stat.S_ISDIR(os.fstat(descriptor).st_mode)))
        synced(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    write_bytes(path, b"new")
    assert seen == [(b"old", False), (b"new", True)]


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (errno.EDQUOT, "your share of the disk is used up"),
        (errno.EROFS, "the disk is read-only"),
        (errno.EACCES, "there is no permission"),
        (errno.EIO, "the disk reports a fault"),
        (errno.EMFILE, "Too many open files"),
    ],
)
def test_each_fault_of_the_disk_is_called_by_its_name(tmp_path, monkeypatch, number, why):
    Disk(monkeypatch, "open", OSError(number, os.strerror(number)))
    with pytest.raises(StorageError, match=rf"file' cannot be written \({why}\): what was finished before is kept; "):
        write_bytes(tmp_path / "file", b"")


def test_names_that_no_file_can_have_and_files_in_the_place_of_folders_are_refused_in_a_sentence(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder" / "within").mkdir(parents=True)
    wrong = {
        "a" * 300: "the name is too long",
        "a\0b": "null byte",
        "file/b": "there is a file in the place of a folder",
        "folder": "there is a folder in its place",
    }
    for name, why in wrong.items():
        with pytest.raises(StorageError, match=why):
            write_bytes(tmp_path / name, b"data")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "mine"


def test_the_longest_name_and_names_that_are_no_utf8_can_be_written(tmp_path):
    for name in ("a" * 255, "\N{CAMERA}" * 63, os.fsdecode(b"\xff" * 255)):
        assert write_bytes(tmp_path / name, b"data").read_bytes() == b"data"
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
def test_what_is_no_ordinary_file_is_written_and_not_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    write_bytes(tmp_path / "real" / "file", b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "file")
    write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "file").read_bytes() == b"new"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_bytes(tmp_path / "pipe", b"data")
    assert os.read(reader, 9) == b"data"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


def test_what_a_killed_process_was_writing_is_taken_away_by_the_next_write_and_nothing_else(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    kept = [f".page.html.{os.getppid()}.tmp", ".page.tmp", f".other.{process.pid}.tmp", f"page.html.{process.pid}.tmp"]
    for name in [*kept, f".page.html.{process.pid}.tmp", f".page.html.{os.getpid()}.tmp"]:
        (tmp_path / name).write_text("ha")
    write_text(tmp_path / "page.html", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "page.html"])


def test_fingerprint_depends_on_the_value_and_not_on_the_order_of_its_keys():
    assert fingerprint({"a": 1, "b": [2, 3]}) == fingerprint({"b": [2, 3], "a": 1})
    values = [{"a": 1}, {"a": 2}, {"b": 1}, {"a": [1]}, {"a": "1"}, {"a": [1, 2]}, {"a": [2, 1]}, {}]
    assert len({fingerprint(value) for value in values}) == len(values)


def test_content_hash_tells_contents_apart():
    assert content_hash(b"a") == content_hash(b"a") != content_hash(b"b")
    assert len(content_hash(b"a")) == 16


@pytest.mark.parametrize("opened", ["[", '{"a": ', '[{"a": '])
def test_json_may_be_nested_and_not_without_end(opened):
    closed = "".join({"[": "]", "{": "}"}[mark] for mark in reversed(opened) if mark in "[{")
    for count in (1, 45):
        assert strict_json(opened * count + "1" + closed * count)
    for count in (101, 950, 100_000):
        with pytest.raises(ValueError, match="nested too deeply"):
            strict_json(opened * count + "1" + closed * count)
