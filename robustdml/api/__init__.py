"""What a program calls: one function for one question, with names, paths or objects for models, data and attacks.

A report needs no torch: what does is imported when it is asked for.
"""

from typing import TYPE_CHECKING

from robustdml.api.reporting import compare as compare
from robustdml.api.reporting import report as report
from robustdml.importing import lazily

if TYPE_CHECKING:
    from robustdml.api.batch import attack as attack
    from robustdml.api.evaluation import evaluate as evaluate
    from robustdml.api.monitor import Monitor as Monitor
    from robustdml.api.monitor import lightning_callback as lightning_callback
    from robustdml.api.training import train as train

_HOMES = {
    "Monitor": "monitor",
    "attack": "batch",
    "evaluate": "evaluation",
    "lightning_callback": "monitor",
    "train": "training",
}

__all__ = ["Monitor", "attack", "compare", "evaluate", "lightning_callback", "report", "train"]

__getattr__, __dir__ = lazily(__name__, _HOMES)
