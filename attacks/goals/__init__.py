"""What an attack on an embedding wants."""

from __future__ import annotations

from .candidate import GALLERY_GOALS
from .embedding import MTAX, STAX, Aim, Margin, NearestNegative, Shift, Untargeted
from .first_hit import FIRST_GOALS
from .query import QUERY_GOALS
from .rivals import ClassMargin, ItemMargin
from .unadversarial import Unadversarial

#: Every goal, by its word in specs.
GOALS: dict[str, type[Aim]] = {
    "shift": Shift,
    "margin": Margin,
    "nearest_negative": NearestNegative,
    "stax": STAX,
    "mtax": MTAX,
    "untargeted": Untargeted,
    "item_margin": ItemMargin,
    "class_margin": ClassMargin,
    **QUERY_GOALS,
    **FIRST_GOALS,
    **GALLERY_GOALS,
    "unadversarial": Unadversarial,
}
