"""ONNX files: as a torch module by onnx2torch, with gradients; as a black box by onnxruntime where that gives up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustdml.errors import CheckpointError, MissingPackageError
from robustdml.files import content_hash
from robustdml.models.external import line, package
from robustdml.models.sources.sourced import Found, OneSize

#: The least cosine between what the converted network and onnxruntime give for the same noise.
_LEAST = 0.999


class _Session(nn.Module):
    """An ONNX file as onnxruntime runs it, without gradients.

    Args:
        path: of the file, which is read again by a copy.
        batch: the only batch that it takes; None where any will do.
    """

    digest: Tensor

    def __init__(self, path: Path) -> None:
        super().__init__()
        runtime: Any = package("onnxruntime", "onnx")
        self.path = path
        self.session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[1] not in {3, None} | _words(inputs[0]):
            shown = ", ".join(f"{one.name} {one.shape}" for one in inputs)
            raise CheckpointError(f"'{path}' takes {shown}: a model here takes images (N, 3, H, W) alone")
        self.input, self.output = inputs[0].name, outputs[0].name
        self.precise = "double" in inputs[0].type
        self.batch = inputs[0].shape[0] if isinstance(inputs[0].shape[0], int) else None
        sides = inputs[0].shape[2:]
        #: S, where the file says it.
        self.size = sides[0] if isinstance(sides[0], int) and sides[0] == sides[1] else None
        # What the file is, for the fingerprint of the weights.
        self.register_buffer("digest", torch.tensor(list(bytes.fromhex(content_hash(path.read_bytes())[:32]))))

    def __deepcopy__(self, memo: dict[int, Any]) -> _Session:
        return _Session(self.path)

    def forward(self, images: Tensor) -> Tensor:
        found = []
        for part in images.detach().cpu().split(self.batch or max(1, len(images))):
            array = part.numpy().astype(np.float64 if self.precise else np.float32)
            if self.batch:
                array = np.concatenate([array, np.repeat(array[-1:], self.batch - len(array), 0)])
            (values,) = self.session.run([self.output], {self.input: array})
            found.append(torch.from_numpy(values[: len(part)]).float())
        return torch.cat(found).to(images)


def _words(one: Any) -> set[Any]:
    """Names of sides that an ONNX file leaves open."""
    return {side for side in one.shape if isinstance(side, str)}


class _Converted(nn.Module):
    """A converted ONNX file, with the file's hash beside its weights: some are no part of its state."""

    digest: Tensor

    def __init__(self, network: nn.Module, digest: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("digest", digest)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.network(images)
        return found


def load_onnx(path: Path) -> Found:
    """The model of an ONNX file; with gradients where onnx2torch can convert it and gives what onnxruntime gives.

    Raises:
        MissingPackageError: the extra ``onnx`` is not installed.
        CheckpointError: it takes something else than images, or is damaged.
    """
    package("onnx", "onnx")
    try:
        session = _Session(path)
    except (CheckpointError, MissingPackageError):
        raise
    except Exception as error:  # onnxruntime's errors have no common base.
        raise CheckpointError(f"'{path}' is an ONNX file that onnxruntime cannot load ({line(error)})") from None
    size = session.size
    try:
        converted = _Converted(package("onnx2torch", "onnx").convert(str(path)), session.digest.clone()).eval()
        unlike = _unlike(converted, session)
        if unlike and session.batch:  # It reshapes to the batch it was exported with, and mixes the images of others.
            converted.network = OneSize(converted.network, session.batch)
            unlike = _unlike(converted, session)
    except MissingPackageError:
        raise
    except Exception as error:  # Whatever its converters raise.
        unlike = f"onnx2torch cannot convert it: {line(error)}"
    if unlike:
        return Found(session, "ONNX (onnxruntime)", size=size, opaque=True, black_box=unlike)
    return Found(converted, "ONNX (onnx2torch)", size=size, opaque=True)


def _unlike(converted: nn.Module, session: _Session) -> str:
    """In what a converted network differs from the file; empty where it does not, also in batches of several."""
    side = session.size or 224
    noise = torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = session(noise)
        try:
            ours = converted(noise)
        except Exception as error:  # Whatever its layers raise.
            return f"as converted by onnx2torch it fails: {line(error)}"
    if ours.shape != theirs.shape:
        return f"as converted by onnx2torch it gives {tuple(ours.shape)}, and by onnxruntime {tuple(theirs.shape)}"
    cosine = float(F.cosine_similarity(ours.flatten(1).double(), theirs.flatten(1).double()).min())
    if not cosine >= _LEAST:
        return f"as converted by onnx2torch its embeddings have a cosine of {cosine:.4f} with onnxruntime's"
    return ""
