"""From what a user names to a model."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qsl

from torch import nn

from robustdml.errors import CheckpointError, SpecError
from robustdml.files import is_there
from robustdml.importing import call_factory
from robustdml.models.checkpoints import load_checkpoint
from robustdml.models.sources.agreement import check_agreement
from robustdml.models.sources.files import load_file
from robustdml.models.sources.kinds import folder_kind
from robustdml.models.sources.libraries import LIBRARIES
from robustdml.models.sources.sourced import Found, SourcedModel
from robustdml.preprocessing import Preprocessing, declared
from robustdml.source_options import SourceOptions
from robustdml.values import brief

_DEFAULT = SourceOptions()


@dataclass(frozen=True)
class Parsed:
    """A source in parts: ``timm:resnet18?pretrained=false`` is ``timm``, ``resnet18`` and False.

    Args:
        kind: a library of `LIBRARIES`; ``"code"`` for ``file.py:build`` and ``package.module:build``; ``"run"`` for the
            folder of a training run; ``"file"`` for any other path.
        name: the rest.
        pretrained: whether published weights are wanted.
    """

    kind: str
    name: str
    pretrained: bool = True

    @property
    def short(self) -> str:
        """For tables, where the user gives no name."""
        if self.kind == "code":
            return self.name.rpartition(":")[2]
        return Path(self.name).stem if self.kind == "file" else self.name


def parse_source(source: str) -> Parsed:
    """Tell what a source is; nothing is loaded.

    Raises:
        SpecError: it has settings that there are not.
    """
    library, colon, _ = source.partition(":")
    # A dot, as backbones are named too.
    dotted, dot, _ = source.partition(".")
    known = library if colon and library in LIBRARIES else dotted if dot and dotted in {"timm", "hf"} else ""
    path = Path(source).expanduser()
    if is_there(path) or (not known and (not colon or "/" in source.rpartition(":")[2])):
        return Parsed("run" if path.is_dir() or not path.suffix else "file", source)
    if not known:
        return Parsed("code", source)
    name, _, query = source[len(known) + 1 :].partition("?")
    settings = dict(parse_qsl(query, keep_blank_values=True))
    wanted = settings.pop("pretrained", "true")
    if settings or wanted not in {"true", "false"} or not name:
        raise SpecError(f"cannot read '{source}': write {known}:NAME, or '{known}:NAME?pretrained=false'")
    return Parsed(known, name, wanted == "true")


def load_model(source: str | Path | nn.Module, options: SourceOptions = _DEFAULT) -> nn.Module:
    """A model from wherever it is, as an evaluation takes it.

    Args:
        source: ``timm:NAME``, ``torchvision:NAME`` or ``torchvision:NAME/WEIGHTS``, ``hf:ORG/NAME`` or ``hf:FOLDER``,
            ``open_clip:ARCH/WEIGHTS``, each with ``?pretrained=false`` behind for random weights; the folder of
            ``robustdml train``; a file of weights, with ``options.arch``; TorchScript, torch.export or ONNX;
            ``file.py:build`` or ``package.module:build``, a function without arguments that returns a module; or a
            module.
        options: what the source does not say itself.

    Returns:
        A module that maps images ``(N, 3, S, S)`` in [0, 1] to embeddings ``(N, D)``, differentiably unless its
        attribute ``black_box`` says why not; in evaluation mode, unless it was given as a module. Its attribute
        ``preprocessing`` says how an image becomes such a square, where that is known. The embedding of a library's
        model is that library's own: it was compared.

    Raises:
        UnknownNameError: the library has no such model.
        MissingPackageError: the library is not installed.
        CheckpointError: a file or folder that cannot be loaded; the message says what it is.
        SpecError: weights cannot be had, or the preparation of images is unknown or differs from the library's own.
    """
    if isinstance(source, nn.Module):
        return _prepared(source, type(source).__name__, options)
    if not isinstance(source, str | os.PathLike) or not str(source).strip():
        raise SpecError(
            f"source={brief(source)} must be a module, the path of a run or a file, or a name such as 'timm:resnet50'"
        )
    if not isinstance(options, SourceOptions):
        raise SpecError(f"options={brief(options)} must be robustdml.SourceOptions")
    text = str(os.fspath(source))
    parsed = parse_source(text)
    if parsed.kind == "file":
        return sourced(text, load_file(Path(text).expanduser(), options, _architecture), options)
    if parsed.kind == "run":
        known = folder_kind(Path(text).expanduser())
        if known is not None:
            raise CheckpointError(f"'{text}' is {known[0]}: {known[1]}")
        return load_checkpoint(text, trust_code=options.trust_code).deployed()
    if parsed.kind == "code":
        return _prepared(_made(text, "the model").eval(), text, options)
    return sourced(text, LIBRARIES[parsed.kind](parsed.name, parsed.pretrained, 0), options)


def _architecture(source: str, outputs: int) -> Found:
    """The network that ``--arch`` names, its weights random."""
    parsed = parse_source(source)
    if parsed.kind in LIBRARIES:
        return LIBRARIES[parsed.kind](parsed.name, False, outputs)
    if parsed.kind != "code":
        raise SpecError(f"--arch {source} is no network: write timm:NAME, torchvision:NAME, hf:FOLDER or file.py:build")
    module = _made(source, "the network")
    return Found(module, source, declared(module))


def _made(source: str, what: str) -> nn.Module:
    """The module that a function of the user's returns."""
    module = call_factory(source, what)
    if not isinstance(module, nn.Module):
        raise CheckpointError(f"'{source}' returned {type(module).__name__}: it must return a torch module")
    return module


def _prepared(module: nn.Module, name: str, options: SourceOptions) -> nn.Module:
    """A module of the user's: as it is, or with the preprocessing that the user gives."""
    if not replace(options, size=None).prepares:
        return module
    own = declared(module)
    found = Found(module, type(module).__name__, own)
    return SourcedModel(found, options.completed(own, name)).train(module.training)


def sourced(name: str, found: Found, options: SourceOptions) -> SourcedModel:
    """The model of what was found in a source, compared with what its library gives for photos.

    Raises:
        SpecError: the two differ, or it is not known how images are prepared.
    """
    if found.own is not None and found.preprocessing is not None:
        check_agreement(name, SourcedModel(found, found.preprocessing), found.preprocessing, found.own)
    own = found.preprocessing
    if own is None and found.size is not None and options.mean is not None:
        own = Preprocessing.plain(found.size)
    preprocessing = options.completed(own, name)
    if preprocessing is None or preprocessing.mean is None:
        size = "" if found.size or (preprocessing is not None) else "--size, "
        raise SpecError(
            f"'{name}' does not say how its images are prepared: give {size}--mean and --std (--mean 0 --std 1 where "
            "it takes images in [0, 1] and normalises them itself)"
        )
    return SourcedModel(found, preprocessing).eval()
