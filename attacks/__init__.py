"""Attacks on embedding models: the project's own, and those of torchattacks and ART aimed at retrieval.

The library adapters import their libraries; building by name goes through `build_attack`.
"""

from .apgd import APGD as APGD
from .building import ATTACKS as ATTACKS
from .building import NOT_OFFERED as NOT_OFFERED
from .building import build_attack as build_attack
from .classifier import RetrievalClassifier as RetrievalClassifier
from .decisions import RayS as RayS
from .factory import AttackFactory as AttackFactory
from .goals import MTAX as MTAX
from .goals import STAX as STAX
from .goals import Margin as Margin
from .goals import NearestNegative as NearestNegative
from .goals import Shift as Shift
from .gradient import PGD as PGD
from .minimum import MinimumNorm as MinimumNorm
from .nes import NES as NES
from .noise import Noise as Noise
from .square import Square as Square
from .suites import SUITES as SUITES
from .suites import build_suite as build_suite
from .transfer import Transfer as Transfer

__all__ = [
    "APGD",
    "ATTACKS",
    "MTAX",
    "NES",
    "NOT_OFFERED",
    "PGD",
    "STAX",
    "SUITES",
    "AttackFactory",
    "Margin",
    "MinimumNorm",
    "NearestNegative",
    "Noise",
    "RayS",
    "RetrievalClassifier",
    "Shift",
    "Square",
    "Transfer",
    "build_attack",
    "build_suite",
]
