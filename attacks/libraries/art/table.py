"""The attacks of ART that are offered: one row each. What ART's own defaults do not fit is said beside it."""

from __future__ import annotations

from .row import Row
from .rows_beyond import BEYOND
from .rows_black_box import BLACK_BOX
from .rows_fixed import FIXED
from .rows_minimum import MINIMUM

#: Every attack of ART that is offered, by the name of its class.
ROWS: dict[str, Row] = {**FIXED, **MINIMUM, **BLACK_BOX, **BEYOND}
