"""The attacks of ART that are offered: one row each. What ART's own defaults do not fit is said beside it."""

from __future__ import annotations

import importlib.util

from ..row import factories
from .refused import REFUSED
from .row import ARTRow
from .rows_beyond import BEYOND
from .rows_black_box import BLACK_BOX
from .rows_fixed import FIXED
from .rows_minimum import MINIMUM

#: Every attack of ART that is offered, by the name of its class.
ROWS: dict[str, ARTRow] = {**FIXED, **MINIMUM, **BLACK_BOX, **BEYOND}

_ABSENT = {
    kind: row.needs
    for kind, row in ROWS.items()
    if row.needs is not None and importlib.util.find_spec(row.needs) is None
}

FACTORIES = factories("art", "art.adapter.ARTAttack", {kind: row for kind, row in ROWS.items() if kind not in _ABSENT})

NOT_OFFERED: dict[str, str] = {
    **{f"art.{name}": reason for name, reason in REFUSED.items()},
    **{f"art.{kind}": f"needs a package that is not here: pip install {needs}" for kind, needs in _ABSENT.items()},
}
