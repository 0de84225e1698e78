"""Embedding models: backbones, BatchNorm branches, checkpoints."""

from robustdml.models.backbones import BACKBONES as BACKBONES
from robustdml.models.backbones import find_backbone as find_backbone
from robustdml.models.checkpoints import Checkpoint as Checkpoint
from robustdml.models.checkpoints import load_checkpoint as load_checkpoint
from robustdml.models.checkpoints import save_checkpoint as save_checkpoint
from robustdml.models.embedding import EmbeddingModel as EmbeddingModel
from robustdml.models.embedding import ModelConfig as ModelConfig
from robustdml.models.embedding import check_backbone as check_backbone
from robustdml.models.embedding import check_image_size as check_image_size
from robustdml.models.export import export as export
from robustdml.models.export import to_torchvision as to_torchvision
from robustdml.models.guard import evaluation_mode as evaluation_mode
from robustdml.models.guard import into_evaluation as into_evaluation
from robustdml.models.guard import kept_randomness as kept_randomness
from robustdml.models.guard import seed_globally as seed_globally
from robustdml.models.guard import single_precision as single_precision
from robustdml.models.guard import untouched as untouched
from robustdml.models.layout import lay_out as lay_out
from robustdml.models.multibn import branch_layout as branch_layout
from robustdml.models.multibn import branch_names as branch_names
from robustdml.models.multibn import convert_to_multibn as convert_to_multibn
from robustdml.models.multibn import fold as fold
from robustdml.models.multibn import freeze_batchnorm as freeze_batchnorm
from robustdml.models.precision import lowered as lowered
from robustdml.models.sources import SourcedModel as SourcedModel
from robustdml.models.sources import SourceOptions as SourceOptions
from robustdml.models.sources import folder_kind as folder_kind
from robustdml.models.sources import load_model as load_model
from robustdml.models.sources import parse_source as parse_source
from robustdml.models.straight import Straightened as Straightened
from robustdml.models.syncbn import SynchronisedBatchNorm as SynchronisedBatchNorm
from robustdml.models.weights import KeptWeights as KeptWeights
from robustdml.models.weights import check_present as check_present
from robustdml.models.weights import copied as copied
from robustdml.models.weights import weights_fingerprint as weights_fingerprint

__all__ = [
    "BACKBONES",
    "Checkpoint",
    "EmbeddingModel",
    "KeptWeights",
    "ModelConfig",
    "SourceOptions",
    "SourcedModel",
    "Straightened",
    "SynchronisedBatchNorm",
    "branch_layout",
    "branch_names",
    "check_backbone",
    "check_image_size",
    "check_present",
    "convert_to_multibn",
    "copied",
    "evaluation_mode",
    "export",
    "find_backbone",
    "fold",
    "folder_kind",
    "freeze_batchnorm",
    "into_evaluation",
    "kept_randomness",
    "lay_out",
    "load_checkpoint",
    "load_model",
    "lowered",
    "parse_source",
    "save_checkpoint",
    "seed_globally",
    "single_precision",
    "to_torchvision",
    "untouched",
    "weights_fingerprint",
]
