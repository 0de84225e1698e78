"""One function writes files: what is whole or absent, and on the disk, is so everywhere."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Methods and functions that write a file by themselves.
_WRITE = {"write_text", "write_bytes", "save_file", "to_csv", "to_parquet", "savefig", "tofile", "savez", "copyfile"}
#: Names of our own functions, called as functions and not as methods of a path.
_OURS = {"write_text", "write_bytes"}


def writes(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in _WRITE and not (name in _OURS and isinstance(call.func, ast.Name)):
        return True
    modes = [
        argument.value
        for argument in [*call.args, *(word.value for word in call.keywords if word.arg == "mode")]
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    ]
    # A file that is opened to be written, by its path; a pipe (fdopen) is none.
    return name == "open" and any(set(mode) & set("wax+") and set(mode) <= set("wax+bt") for mode in modes)


def test_all_files_are_written_by_one_function():
    found = []
    for folder in ("robustdml", "attacks", "reports"):
        for path in (ROOT / folder).rglob("*.py"):
            if path == ROOT / "robustdml" / "files.py":
                continue
            calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
            found += [f"{path.relative_to(ROOT)}:{call.lineno}" for call in calls if writes(call)]
    assert not found, "written past robustdml.files.write_bytes and write_text"


def test_what_writes_is_found():
    for text in ("p.write_text(x)", "open(p, 'w')", "p.open('wb')", "p.open(mode='a')", "frame.to_csv(p)"):
        assert writes(ast.parse(text).body[0].value), text
    for text in ("write_text(p, x)", "open(p)", "p.open('rb')", "Image.open(p)", "os.fdopen(3, 'wb')"):
        assert not writes(ast.parse(text).body[0].value), text
