"""Models in files: weights with the name of their network, TorchScript, torch.export, ONNX, pickled modules."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MethodType
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from robustdml.errors import CheckpointError
from robustdml.models.external import line
from robustdml.models.sources import kinds
from robustdml.models.sources.onnx import load_onnx
from robustdml.models.sources.recognition import heads_of, network_of, plainly, recognised
from robustdml.models.sources.sourced import Found, OneSize
from robustdml.models.weights import put_weights
from robustdml.preprocessing import declared
from robustdml.source_options import SourceOptions

#: ``(source, outputs)`` to the network that ``--arch`` names, its weights random.
Build = Callable[[str, int], Found]


def load_file(path: Path, options: SourceOptions, build: Build) -> Found:
    """The model in a file.

    Args:
        build: makes the network that ``options.arch`` names.

    Raises:
        CheckpointError: there is no file, or none that holds a model; the message says what it is and what to type.
    """
    if not path.is_file():
        raise CheckpointError(
            f"no checkpoint at '{path}': give the --out folder of 'robustdml train', a file of weights, or a model by "
            "name, such as timm:resnet50 (docs/sources.md)"
        )
    kind, remedy = kinds.kind_of(path)
    if remedy:
        raise CheckpointError(f"'{path}' is {kind}: {remedy}")
    if kind in {kinds.TORCHSCRIPT, kinds.EXPORTED, kinds.ONNX}:
        if options.arch is not None:
            raise CheckpointError(f"'{path}' is a whole model ({kind}) and needs no network: leave --arch out")
        try:
            load = {kinds.TORCHSCRIPT: _scripted, kinds.EXPORTED: _exported, kinds.ONNX: load_onnx}[kind]
            return load(path)
        except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise CheckpointError(f"'{path}' is a {kind} file and cannot be loaded ({line(error)})") from None
    held = _safetensors(path) if kind == kinds.SAFETENSORS else _unpickled(path, options.trust_pickle)
    if isinstance(held, nn.Module):
        return Found(held, type(held).__name__, declared(held))
    what, state = plainly(held)
    if not state:
        raise CheckpointError(f"'{path}' holds {what} and no weights: {kinds.WRAP}")
    if options.arch is None:
        like = recognised(state)
        named = (
            f"{what} of {like[0]}: add --arch {like[1]}"
            if like
            else (
                f"{what} of a network that is not known here ({len(state)} tensors, the first '{next(iter(state))}'): "
                "add --arch with its name, such as timm:resnet50, torchvision:resnet50 or file.py:build"
            )
        )
        raise CheckpointError(f"'{path}' is {named}")
    return _with_weights(path, what, state, options, build)


def _with_weights(path: Path, what: str, state: Mapping[str, Tensor], options: SourceOptions, build: Build) -> Found:
    """The network of ``--arch`` with the weights of a file, its classifier off unless it is to be kept."""
    arch = str(options.arch)
    heads = heads_of(state)
    found = build(arch, next(iter(heads.values())) if options.keep_head and heads else 0)
    weights = network_of(found.network, state)
    own = found.network.state_dict()
    missing = [name for name in own if name not in weights and not name.endswith("num_batches_tracked")]
    other = [name for name in weights if name in own and weights[name].shape != own[name].shape]
    left = [name for name in weights if name not in own]
    strange = [name for name in left if name.rpartition(".")[0] not in heads]
    if missing or other or strange:
        parts = [
            f"{len(names)} {text} ('{names[0]}')"
            for names, text in ((missing, "missing"), (other, "of another shape"), (strange, "too many"))
            if names
        ]
        like = recognised(state)
        hint = f": it is {what} of {like[0]}, so give --arch {like[1]}" if like and like[1] not in arch else ""
        raise CheckpointError(f"the weights in '{path}' are not those of {arch}, {', '.join(parts)}{hint}")
    put_weights(found.network, {name: weights[name] for name in own if name in weights}, strict=False)
    return found


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except Exception as error:  # Its errors have no common base.
        raise CheckpointError(f"'{path}' is a damaged safetensors file ({line(error)}): fetch it again") from None


def _unpickled(path: Path, trusted: bool) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=not trusted)
    except Exception as error:  # Whatever the pickled classes raise.
        if trusted:
            raise CheckpointError(f"'{path}' cannot be unpickled ({line(error)})") from None
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # Of the old format, or damaged.
        named = []
    inside = f", which holds {', '.join(sorted(named)[:4])}" if named else ""
    raise CheckpointError(
        f"'{path}' is a pickle{inside}, and to read it would run its code: save its state_dict() instead, or give "
        "--trust-pickle if you trust where it is from"
    )


def _scripted(path: Path) -> Found:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.jit is to go one day
        return Found(torch.jit.load(path, map_location="cpu"), "TorchScript", opaque=True)


def _exported(path: Path) -> Found:
    program = torch.export.load(path)
    network: Any = program.module()
    # It is in the mode that it was exported in, and says so by an error where another one is asked for.
    network.train = MethodType(lambda self, mode=True: self, network)
    network.eval = MethodType(lambda self: self, network)
    names = program.graph_signature.user_inputs
    shapes = [node.meta["val"].shape for node in program.graph.nodes if node.name in names and "val" in node.meta]
    size = shapes[0][0] if shapes and len(shapes[0]) == 4 else None
    wrapped = network if not isinstance(size, int) else OneSize(network, size)
    return Found(wrapped, "torch.export", opaque=True)
