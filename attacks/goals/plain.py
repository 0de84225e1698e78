"""What goals have in common that want nothing special."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:  # what goals mean is listed without torch
    from torch import Tensor

    from robustdml.contracts import References


class PlainGoal:
    """A goal of no paper that aims at no item, of which nothing is measured beside retrieval; others say otherwise.

    Its name, title, meaning and objective are still to be said: see `robustdml.contracts.Goal`.
    """

    measures: ClassVar[tuple[str, ...]] = ()
    citation: ClassVar[str] = ""
    flat_at_clean: ClassVar[bool] = False

    def target_rows(self, references: References, *, seed: int) -> Tensor | None:
        """None: no item is meant in particular."""
        return None
