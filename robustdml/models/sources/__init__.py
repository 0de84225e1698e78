"""Models from wherever they are: a library's name, a file, a function, a run folder. See `load_model`."""

from robustdml.models.sources.kinds import folder_kind as folder_kind
from robustdml.models.sources.loading import load_model as load_model
from robustdml.models.sources.loading import parse_source as parse_source
from robustdml.models.sources.sourced import SourcedModel as SourcedModel
from robustdml.source_options import SourceOptions as SourceOptions

__all__ = ["SourceOptions", "SourcedModel", "folder_kind", "load_model", "parse_source"]
