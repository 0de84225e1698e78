"""What a file or folder is, by its content: so that one that cannot be taken is called by its name."""

from __future__ import annotations

import zipfile
from pathlib import Path

#: Kinds that hold a model, or weights: what `robustdml.models.sources.files` loads.
TORCHSCRIPT, EXPORTED, PICKLE, SAFETENSORS, ONNX = "TorchScript", "torch.export", "pickle", "safetensors", "ONNX"

WRAP = "write a function that returns it as a torch module, and name that as file.py:build"
_TO_ONNX = "export it to ONNX and give model.onnx"
_NOT_A_MODEL = (
    "a model is needed and not its embeddings: give its weights or a function that returns it (docs/sources.md)"
)
#: What else people give: how its first bytes look, what it is, and what to do.
_OTHERS = (
    (b"version https://git-lfs", "a pointer of Git LFS and not the file itself", "fetch it with 'git lfs pull'"),
    (b"<!DOCTYPE", "a web page", "the download went wrong: fetch the file itself"),
    (b"<html", "a web page", "the download went wrong: fetch the file itself"),
    (b"<?xml", "an XML file, as OpenVINO writes them", _TO_ONNX),
    (b"\x89HDF", "an HDF5 file, as Keras writes them", _TO_ONNX),
    (b"GGUF", "a GGUF file of quantised weights", WRAP),
    (b"\x93NUMPY", "a NumPy array", _NOT_A_MODEL),
    (b"PAR1", "a Parquet table", _NOT_A_MODEL),
)
#: In folders: the file by which they are known.
_FOLDERS = (
    ("open_clip_config.json", "a folder of open_clip", WRAP),
    ("config.json", "a folder of transformers", "write hf:{path}"),
    ("saved_model.pb", "a SavedModel of TensorFlow", _TO_ONNX),
    ("Manifest.json", "a package of Core ML", WRAP),
)


def kind_of(path: Path) -> tuple[str, str]:
    """What a file is, and what may be done where it cannot be taken; that is empty for what can.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"PK"):
        return _archive(path)
    for start, what, remedy in _OTHERS:
        if head.lstrip().startswith(start):
            return what, remedy
    if any(word in head for word in (b'"graph-model"', b'"layers-model"', b'"modelTopology"')):
        return "a model of TensorFlow.js", _TO_ONNX
    if head[4:8] == b"TFL3":
        return "a model of TensorFlow Lite", _TO_ONNX
    if head[8:9] == b"{" and 0 < int.from_bytes(head[:8], "little") < path.stat().st_size:
        return SAFETENSORS, ""
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return PICKLE, ""
    # A protocol buffer whose first field is a small number, the version of the format.
    if path.suffix == ".onnx" or (head[:1] == b"\x08" and head[2:3] in b"\x12\x1a\x22\x3a\x42"):
        return ONNX, ""
    return ("an empty file" if not head else "no file of a model that is known here"), WRAP


def folder_kind(path: Path) -> tuple[str, str] | None:
    """The same of a folder; None where it is none that is known."""
    for name, what, remedy in _FOLDERS:
        if (path / name).is_file():
            return what, remedy.format(path=path)
    return None


def _archive(path: Path) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] or name for name in archive.namelist()}
    except zipfile.BadZipFile:
        return "a damaged archive, of which the end is missing", "fetch or save it again"
    if "constants.pkl" in names:
        return TORCHSCRIPT, ""
    if "archive_format" in names or any(name.startswith(("models/", "serialized_exported")) for name in names):
        return EXPORTED, ""
    if "data.pkl" in names:
        return PICKLE, ""
    if "config.json" in names:
        return "a model of Keras", _TO_ONNX
    return "an archive in which no model is known", WRAP
