"""The list of what is shown of a finished model run beside its recalls.

A new analysis is a function of a `ModelRun`, a field of `robustdml.results.Results`, and a line here. One that asks the
model about many images is a `Panel`: it is made on request and resumes. Scores that follow from the cells alone, such
as ERS, are computed when results are assembled (`robustdml.evaluation.assemble`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields

from pydantic import BaseModel

from robustdml.errors import SpecError, UnknownNameError
from robustdml.evaluation.analyses.certify import Certify
from robustdml.evaluation.analyses.examples import examples
from robustdml.evaluation.analyses.maps import embedding_maps
from robustdml.evaluation.analyses.model_run import ModelRun
from robustdml.evaluation.analyses.natural import Natural
from robustdml.evaluation.analyses.panel import Panel
from robustdml.registry import parse_spec

#: By the field of the results that each fills.
ANALYSES: Mapping[str, Callable[[ModelRun], Sequence[BaseModel]]] = {"examples": examples, "maps": embedding_maps}

#: What is made on request, by the option of ``robustdml evaluate`` that asks for it.
PANELS: Mapping[str, type[Certify] | type[Natural]] = {"certify": Certify, "natural": Natural}


def build_panel(name: str, text: str = "") -> Panel:
    """A panel from the value of its option, such as ``sigma=0.25,samples=1000``.

    Raises:
        UnknownNameError: there is no such panel, or it has no such parameter.
        SpecError: the text cannot be read, or a value is of the wrong type or out of range.
    """
    if name not in PANELS:
        raise UnknownNameError("panel", name, PANELS)
    kind = PANELS[name]
    defaults = {each.name: each.default for each in fields(kind)}
    given = dict(parse_spec(f"{name}({text})").params)
    for key, value in given.items():
        if key not in defaults:
            raise UnknownNameError(f"parameter of --{name}", key, defaults)
        wanted = type(defaults[key])
        if wanted is float and type(value) is int:
            given[key] = float(value)
        elif type(value) is not wanted:
            raise SpecError(f"--{name} {text}: {key}={value!r} must be {'a whole' if wanted is int else 'a'} number")
    return kind(**given)  # type: ignore[arg-type]
