"""The images that attacks sent instead of the queries, kept for others to judge (``evaluate --save-images``).

One safetensors file per cell and shard under ``adversarial/``, which every program can read: ``images`` float32 and
``images_8bit`` uint8, both ``(N, 3, H, W)``, and ``query_ids`` int64. Its metadata says of which run, model, attack and
budget they are. The float images are what was judged; those of 8 bits are the same, rounded.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from robustdml.errors import RunFolderError
from robustdml.evaluation.store import CellKey, Store
from robustdml.files import strict_json, write_bytes

IMAGES_FOLDER = "adversarial"


class KeptImages:
    """The images of one run.

    Args:
        run: the run folder.
        store: its records.
    """

    def __init__(self, run: Path, store: Store) -> None:
        self._root, self._store = run / IMAGES_FOLDER, store

    def path(self, cell: CellKey, shard: int) -> Path:
        """Of the file of a shard, there or not."""
        record = self._store.path(cell, shard)
        return self._root.joinpath(*record.parts[-4:-1], f"{record.stem}.safetensors")

    def write(self, cell: CellKey, shard: int, ids: np.ndarray[Any, Any], images: Tensor) -> None:
        """Keep the images ``(N, 3, H, W)`` in [0, 1] that were judged instead of the queries ``ids``, ``(N,)``."""
        exact = images.detach().float().cpu().contiguous()
        tensors = {"images": exact, "images_8bit": _rounded(exact), "query_ids": torch.from_numpy(ids)}
        about = {**self._store.identity(cell), "shard": shard}
        metadata = {"about": json.dumps(about, sort_keys=True), "sha256": _digest(tensors, about)}
        write_bytes(self.path(cell, shard), safetensors.torch.save(tensors, metadata))

    def read(self, cell: CellKey, shard: int) -> tuple[np.ndarray[Any, Any], Tensor]:
        """The ids ``(N,)`` and the images ``(N, 3, H, W)`` of a shard.

        Raises:
            RunFolderError: the file is damaged, was changed, or belongs to another run, cell or shard.
        """
        path, about = self.path(cell, shard), {**self._store.identity(cell), "shard": shard}
        try:
            with safe_open(path, "pt") as file:
                found, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
            genuine = strict_json(metadata["about"]) == about and metadata["sha256"] == _digest(found, about)
            genuine = genuine and torch.equal(found["images_8bit"], _rounded(found["images"]))
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError):
            genuine = False
        if not genuine:
            raise RunFolderError(f"'{path}' is damaged or belongs to another run: delete that file and evaluate again")
        return found["query_ids"].numpy(), found["images"]


def _rounded(images: Tensor) -> Tensor:
    return (images * 255).round().to(torch.uint8)


def _digest(tensors: dict[str, Tensor], about: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\0{name}{tuple(tensor.shape)}{tensor.dtype}\0".encode())
        digest.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    return digest.hexdigest()
