"""What an attack on an embedding wants.

A goal is a class that says everything of itself (see `robustdml.contracts.Goal`): its names, what it means, what is
measured for it, whom to cite, and what it raises. To add one, write its class, name it here, and name its word among
the goals of the attacks that pursue it (`robustdml.attacks.native.factories`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustdml.values import BriefDict

from .candidate import CAMinus, CAPlus, Hub
from .first_hit import ES, FOA, GTM, GTT, LTM, TMA, ESRobRank
from .query import QAMinus, QAPlus, SPQAMinus, SPQAPlus
from .rivals import ClassMargin, ItemMargin
from .targeted import MTAX, STAX, Unadversarial
from .untargeted import Margin, NearestNegative, Shift, Untargeted

if TYPE_CHECKING:
    from robustdml.contracts import Goal

_CLASSES: tuple[type[Goal], ...] = (
    *(Shift, Margin, NearestNegative, STAX, MTAX, Untargeted, ItemMargin, ClassMargin),
    *(
        QAPlus,
        QAMinus,
        SPQAPlus,
        SPQAMinus,
        TMA,
        ES,
        ESRobRank,
        LTM,
        GTM,
        GTT,
        FOA,
        CAPlus,
        CAMinus,
        Hub,
        Unadversarial,
    ),
)

#: Every goal, by its word in specs; building one needs no argument.
GOALS: dict[str, type[Goal]] = BriefDict({str(goal.name): goal for goal in _CLASSES})
