"""Attacks on embedding models: the project's own, and those of torchattacks and ART aimed at retrieval.

The library adapters import their libraries; building by name goes through `build_attack`.
"""

from .factory import AttackFactory as AttackFactory
from .goals.embedding import MTAX as MTAX
from .goals.embedding import STAX as STAX
from .goals.embedding import Margin as Margin
from .goals.embedding import NearestNegative as NearestNegative
from .goals.embedding import Shift as Shift
from .goals.rivals import ClassMargin as ClassMargin
from .goals.rivals import ItemMargin as ItemMargin
from .libraries.classifier import RetrievalClassifier as RetrievalClassifier
from .native.apgd import APGD as APGD
from .native.minimum import MinimumNorm as MinimumNorm
from .native.momentum import Momentum as Momentum
from .native.nes import NES as NES
from .native.noise import Noise as Noise
from .native.pgd import PGD as PGD
from .native.rays import RayS as RayS
from .native.square import Square as Square
from .native.transfer import Transfer as Transfer
from .registry import ATTACKS as ATTACKS
from .registry import NOT_OFFERED as NOT_OFFERED
from .registry import build_attack as build_attack
from .suites import SUITES as SUITES
from .suites import build_suite as build_suite

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
    "Transfer",
    "build_attack",
    "build_suite",
]
