"""The list of what is shown of a finished model run beside its recalls.

A new analysis is a function of a `ModelRun`, a field of `robustdml.results.Results`, and a line here. Scores that
follow from the cells alone, such as ERS, are computed when results are assembled (`robustdml.evaluation.assemble`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pydantic import BaseModel

from robustdml.evaluation.analyses.examples import examples
from robustdml.evaluation.analyses.maps import embedding_maps
from robustdml.evaluation.analyses.model_run import ModelRun

#: By the field of the results that each fills.
ANALYSES: Mapping[str, Callable[[ModelRun], Sequence[BaseModel]]] = {"examples": examples, "maps": embedding_maps}
