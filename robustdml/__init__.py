"""robustdml: how robust is an image-retrieval model really, and how to train one that is.

The public names load on first use, so that ``import robustdml`` and the command line's help need no torch.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustdml._version import __version__

if TYPE_CHECKING:
    from robustdml.api import Monitor as Monitor
    from robustdml.api import attack as attack
    from robustdml.api import compare as compare
    from robustdml.api import evaluate as evaluate
    from robustdml.api import lightning_callback as lightning_callback
    from robustdml.api import report as report
    from robustdml.api import train as train
    from robustdml.config import TrainConfig as TrainConfig
    from robustdml.data import RetrievalDataset as RetrievalDataset
    from robustdml.data import load_dataset as load_dataset
    from robustdml.errors import RobustDMLError as RobustDMLError
    from robustdml.models import EmbeddingModel as EmbeddingModel
    from robustdml.models import SourceOptions as SourceOptions
    from robustdml.models import convert_to_multibn as convert_to_multibn
    from robustdml.models import load_checkpoint as load_checkpoint
    from robustdml.models import load_model as load_model
    from robustdml.results import Results as Results

_HOMES = {
    "EmbeddingModel": "robustdml.models",
    "Monitor": "robustdml.api",
    "Results": "robustdml.results",
    "RetrievalDataset": "robustdml.data",
    "RobustDMLError": "robustdml.errors",
    "SourceOptions": "robustdml.models",
    "TrainConfig": "robustdml.config",
    "attack": "robustdml.api",
    "compare": "robustdml.api",
    "convert_to_multibn": "robustdml.models",
    "evaluate": "robustdml.api",
    "lightning_callback": "robustdml.api",
    "load_checkpoint": "robustdml.models",
    "load_dataset": "robustdml.data",
    "load_model": "robustdml.models",
    "report": "robustdml.api",
    "train": "robustdml.api",
}

__all__ = ["__version__", *sorted(_HOMES)]

# In a checkout, attacks/ and reports/ stand beside this package and not in it (see setup.py).
if not (Path(__file__).parent / "attacks").is_dir():
    __path__.append(str(Path(__file__).parents[1]))


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'robustdml' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
