"""Training: methods as lists of branches, what a run is made of, its loop, and what it keeps."""

from robustdml.branches import Branch as Branch
from robustdml.branches import Method as Method
from robustdml.config import RunOptions as RunOptions
from robustdml.config import TrainConfig as TrainConfig
from robustdml.training.loop import train as train
from robustdml.training.losses import LOSSES as LOSSES
from robustdml.training.losses import build_loss as build_loss
from robustdml.training.methods import METHODS as METHODS
from robustdml.training.recipes import read_recipe as read_recipe
from robustdml.training.state import TrainResult as TrainResult
from robustdml.training.step import step_loss as step_loss

__all__ = [
    "LOSSES",
    "METHODS",
    "Branch",
    "Method",
    "RunOptions",
    "TrainConfig",
    "TrainResult",
    "build_loss",
    "read_recipe",
    "step_loss",
    "train",
]
