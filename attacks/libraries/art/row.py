"""A row of the table of ART's attacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field

from robustdml.config import Effort
from robustdml.results import Norm

from ..row import LibraryRow

#: The norms of balls that most gradient attacks know.
BALLS: tuple[Norm, ...] = ("linf", "l2", "l1")

#: Gradient steps of the efforts beside the standard one.
GRADIENT_EFFORT: Mapping[Effort, Mapping[str, object]] = {"quick": {"max_iter": 10}, "thorough": {"max_iter": 100}}

#: ART's attacks hand the clean image back where their own criterion is not met: this is said in their summaries.
UNCHANGED = "; unchanged where it fails"


@dataclass(frozen=True)
class ARTRow(LibraryRow):
    """One attack of ART.

    Args:
        call: runs it on a `Job` and returns its images: ``module.function`` in this package.
        renamed: parameters that ART has under another name.
        own: parameters that are not handed to ART, but used by ``call``.
        together: whether ART's batch size may be above 1.
    """

    _: KW_ONLY
    call: str = "drivers.labelled"
    steps_name: str = "max_iter"
    renamed: Mapping[str, str] = field(default_factory=dict)
    own: tuple[str, ...] = ()
    together: bool = True
