"""Checkpoints: ``model.safetensors`` and ``model.json`` in a folder, enough to rebuild an `EmbeddingModel`.

Safetensors holds numbers only. Nothing of a foreign checkpoint is executed, unless its backbone is code and is trusted.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from robustdml.errors import CheckpointError, RobustDMLError, SpecError
from robustdml.files import sealed, strict_json, unsealed, write_bytes, write_text
from robustdml.models.backbones import is_code
from robustdml.models.embedding import EmbeddingModel, ModelConfig
from robustdml.models.layout import lay_out
from robustdml.models.multibn import branch_names, convert_to_multibn, fold
from robustdml.models.weights import put_weights
from robustdml.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from robustdml.values import ByValue, place

WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "model.json"
#: What a training run needs to go on; written by `robustdml.training`.
STATE_FILE = "state.pt"
_FORMAT = "robustdml-embedding-model"
_VERSION = 2
#: In the configuration: SHA-256 of the file of weights.
_WEIGHTS = "weights_sha256"
#: Characters of the reason why a file cannot be read.
_REASON = 160
#: What version 1 did not say of the preprocessing: it was the same for every backbone.
_VERSION_1 = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "resize": 0, "squash": False, "interpolation": "bilinear"}


@dataclass(frozen=True, eq=False, repr=False)
class Checkpoint(ByValue):
    """A loaded model and where it came from.

    Args:
        model: the whole model, with all its BatchNorm branches.
        branches: their names, the deployed one first; empty for an ordinary model.
        training: how it was trained, as JSON values (method, data set, …).
    """

    model: EmbeddingModel
    branches: tuple[str, ...]
    training: dict[str, Any]

    def deployed(self, branch: str | None = None) -> EmbeddingModel:
        """The ordinary model of one branch (by default the clean one)."""
        if not self.branches:
            return self.model
        folded = fold(self.model, branch or self.branches[0])
        assert isinstance(folded, EmbeddingModel)
        return folded


def weights_file(model: nn.Module, metadata: dict[str, str] | None = None) -> bytes:
    """The weights as safetensors. A tensor under two names is written under both: names alone are read back.

    Raises:
        SpecError: the module's state holds something that safetensors does not.
    """
    state = model.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
            kind = f"a {value.layout} tensor" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise SpecError(
                f"'{name}' of the model's state is {kind}, and a checkpoint holds dense tensors only: keep it as a "
                "dense buffer, or out of the state (register_buffer(..., persistent=False), no get_extra_state)"
            )
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    places = Counter(tensor.untyped_storage().data_ptr() for tensor in tensors.values())
    return safetensors.torch.save(
        {
            name: tensor.clone() if places[tensor.untyped_storage().data_ptr()] > 1 else tensor
            for name, tensor in tensors.items()
        },
        metadata,
    )


def save_checkpoint(model: EmbeddingModel, folder: Path, training: dict[str, Any]) -> None:
    """Write the model into ``folder``, each file in one step.

    Raises:
        SpecError: see `weights_file`.
    """
    weights = weights_file(model)
    write_bytes(folder / WEIGHTS_FILE, weights)
    about = {
        "format": _FORMAT,
        "version": _VERSION,
        "model": model.config.to_dict(),
        "branches": branch_names(model),
        "training": training,
        _WEIGHTS: hashlib.sha256(weights).hexdigest(),
    }
    write_text(folder / CONFIG_FILE, sealed(about))


def load_checkpoint(folder: str | Path, *, trust_code: bool = False) -> Checkpoint:
    """Read a folder that `save_checkpoint` wrote (the ``--out`` of ``robustdml train``).

    Args:
        trust_code: allow a backbone ``package.module:factory``: it is imported and called.

    Raises:
        CheckpointError: the folder is missing, is not ours, or is damaged, or its backbone is code that is not trusted.
    """
    folder = place("folder", folder)
    if not folder.exists():
        raise CheckpointError(
            f"no checkpoint at '{folder}': give the --out folder of 'robustdml train', or a model by name, such as "
            "timm:resnet50 (docs/sources.md)"
        )
    config, weights = folder / CONFIG_FILE, folder / WEIGHTS_FILE
    if (folder / STATE_FILE).is_file() and not config.is_file():
        raise CheckpointError(f"the training in '{folder}' is not finished: repeat its command to go on with it")
    if not config.is_file() or not weights.is_file():
        raise CheckpointError(
            f"'{folder}' is not a robustdml checkpoint (a folder with {CONFIG_FILE} and {WEIGHTS_FILE}): give the "
            "--out folder of 'robustdml train', or wrap a model of your own as package.module:factory"
        )
    try:
        about, data = strict_json(config.read_bytes()), weights.read_bytes()
        if about["format"] != _FORMAT or about["version"] not in {1, _VERSION}:
            raise ValueError(f"its format is '{about['format']}', version {about['version']}")
        # Checkpoints from before have neither.
        if "checksum" in about:
            unsealed(about)
        if about.get(_WEIGHTS, "") not in {"", hashlib.sha256(data).hexdigest()}:
            raise ValueError(f"{WEIGHTS_FILE} was changed since it was written: it does not fit its checksum")
        model_config = ModelConfig(**(_VERSION_1 | about["model"]))
        if is_code(model_config.backbone) and not trust_code:
            raise CheckpointError(
                f"the backbone of '{folder}' is code, '{model_config.backbone}': if you trust it, give --trust-code"
            )
        model = EmbeddingModel(model_config)
        branches, training = tuple(about["branches"]), dict(about["training"])
        if branches:
            convert_to_multibn(model, branches)
        put_weights(model, safetensors.torch.load(data))
    except CheckpointError:
        raise
    except (
        ValueError,
        KeyError,
        TypeError,
        UnicodeDecodeError,
        RobustDMLError,
        SafetensorError,
        RuntimeError,
    ) as error:
        reason = str(error).splitlines()[0][:_REASON] if str(error) else type(error).__name__
        if isinstance(error, KeyError):
            reason = f"{CONFIG_FILE} has no {reason}"
        raise CheckpointError(
            f"'{folder}' is not a checkpoint that this robustdml can read ({reason}): it is damaged, from another "
            "program or from another version; train again"
        ) from None
    # As in training, so that a reloaded model gives the same bits.
    lay_out(model)
    return Checkpoint(model.eval(), branches, training)
