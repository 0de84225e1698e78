"""Attacks on embedding models: the project's own, and those of torchattacks and ART aimed at retrieval.

What can be named, and what is built by name, is here at once and needs no torch. Classes load on first use, and a
library of attacks when one of its attacks is first built: importing this package imports none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustdml.importing import lazily

from .building import ATTACKS as ATTACKS
from .building import NOT_OFFERED as NOT_OFFERED
from .building import build_attack as build_attack
from .factory import AttackFactory as AttackFactory
from .factory import goal_parameters as goal_parameters
from .goals import GOALS as GOALS
from .suites import SUITES as SUITES
from .suites import build_suite as build_suite

if TYPE_CHECKING:
    from .goals.rivals import ClassMargin as ClassMargin
    from .goals.rivals import ItemMargin as ItemMargin
    from .goals.targeted import MTAX as MTAX
    from .goals.targeted import STAX as STAX
    from .goals.untargeted import Margin as Margin
    from .goals.untargeted import NearestNegative as NearestNegative
    from .goals.untargeted import Shift as Shift
    from .libraries.classifier import RetrievalClassifier as RetrievalClassifier
    from .native.apgd import APGD as APGD
    from .native.bisection import Bisection as Bisection
    from .native.minimum import MinimumNorm as MinimumNorm
    from .native.momentum import Momentum as Momentum
    from .native.nes import NES as NES
    from .native.noise import Noise as Noise
    from .native.pgd import PGD as PGD
    from .native.rays import RayS as RayS
    from .native.square import Square as Square
    from .native.straight_through import StraightThrough as StraightThrough
    from .native.transfer import Transfer as Transfer

_HOMES = {
    "APGD": "native.apgd",
    "MTAX": "goals.targeted",
    "NES": "native.nes",
    "PGD": "native.pgd",
    "STAX": "goals.targeted",
    "Bisection": "native.bisection",
    "ClassMargin": "goals.rivals",
    "ItemMargin": "goals.rivals",
    "Margin": "goals.untargeted",
    "MinimumNorm": "native.minimum",
    "Momentum": "native.momentum",
    "NearestNegative": "goals.untargeted",
    "Noise": "native.noise",
    "RayS": "native.rays",
    "RetrievalClassifier": "libraries.classifier",
    "Shift": "goals.untargeted",
    "Square": "native.square",
    "StraightThrough": "native.straight_through",
    "Transfer": "native.transfer",
}

__all__ = [
    "APGD",
    "ATTACKS",
    "GOALS",
    "MTAX",
    "NES",
    "NOT_OFFERED",
    "PGD",
    "STAX",
    "SUITES",
    "AttackFactory",
    "Bisection",
    "ClassMargin",
    "ItemMargin",
    "Margin",
    "MinimumNorm",
    "Momentum",
    "NearestNegative",
    "Noise",
    "RayS",
    "RetrievalClassifier",
    "Shift",
    "Square",
    "StraightThrough",
    "Transfer",
    "build_attack",
    "build_suite",
    "goal_parameters",
]

__getattr__, __dir__ = lazily(__name__, _HOMES)
