"""Clean retrieval of one model, and whether its space is alive: the short way, for validation and whoever asks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from robustdml.data import RetrievalSplit
from robustdml.data.tensors import ImageTensors
from robustdml.models import evaluation_mode
from robustdml.results import Health
from robustdml.retrieval.collapse import health
from robustdml.retrieval.embed import Embedder, embed_rows
from robustdml.retrieval.search import GalleryIndex


def clean_recall(model: torch.nn.Module, split: RetrievalSplit, tensors: ImageTensors, device: torch.device) -> float:
    """R@1 of ``model`` on ``split``, in [0, 1]; the model comes back as it was."""
    with evaluation_mode(model):
        rows = np.union1d(split.query, split.gallery)
        embeddings = embed_rows(Embedder(model), tensors, rows, device=device)
    query, gallery = (embeddings[np.searchsorted(rows, part)] for part in (split.query, split.gallery))
    first = GalleryIndex(gallery, split.gallery, split.rules).rank(query, split.query, 1)[:, 0]
    return float(split.rules.relevant(split.query, first).mean())


def clean_health(
    model: torch.nn.Module, rows: npt.NDArray[np.int64], tensors: ImageTensors, device: torch.device
) -> Health:
    """Whether the embeddings of some rows are alive; the model comes back as it was."""
    with evaluation_mode(model):
        return health(embed_rows(Embedder(model), tensors, rows, device=device))
