"""Training methods by name: lists of branches.

Names as in the paper (arXiv 2211.16253, PMLR 222:1231-1246): ST, AT, AdvProp-D (AP'), MP', MDProp (MP''), MP'''.
"""

from __future__ import annotations

from dataclasses import replace

from robustdml.branches import Branch, Method
from robustdml.registry import Registry

_CLEAN = Branch("clean")
_FIRST, _SECOND = (0.0, 0.5), (0.5, 1.0)
_MDPROP = (_CLEAN, Branch("stax", "stax", _FIRST), Branch("mtax", "mtax", _SECOND))
_ROBUST = tuple(replace(branch, eps_factor=4.0) if branch.kind != "clean" else branch for branch in _MDPROP)
_ROBUST_FROZEN = tuple(replace(branch, batchnorm="clean") for branch in _ROBUST)
_FOUR = (
    _CLEAN,
    Branch("stax", "stax", (0.0, 1 / 3)),
    Branch("mtax", "mtax3", (1 / 3, 2 / 3), targets=3),
    Branch("mtax", "mtax5", (2 / 3, 1.0), targets=5),
)

METHODS: Registry[Method] = Registry("method")
for _name, _method in {
    "st": Method("standard training: clean images only", (_CLEAN,)),
    "at": Method("clean and STAX images through one BatchNorm", (_CLEAN, Branch("stax"))),
    "advprop": Method("AdvProp-D (AP'): clean and STAX images, a BatchNorm each", (_CLEAN, Branch("stax", "stax"))),
    "mp1": Method("MP': clean and MTAX images, a BatchNorm each", (_CLEAN, Branch("mtax", "mtax"))),
    "mdprop": Method(
        "MDProp (MP''): clean, STAX (first half of the batch) and MTAX (second half), a BatchNorm each", _MDPROP
    ),
    "mp3": Method("MP''': clean, STAX, MTAX with T = 3 and with T = 5 (a third each), four BatchNorms", _FOUR),
    "robust": Method("MDProp with its images made at four times --eps (docs/mdprop.md)", _ROBUST),
    "robust-frozen": Method(
        "MDProp's images made at four times --eps, with frozen BatchNorm, which from scratch is none (docs/mdprop.md)",
        _ROBUST_FROZEN,
        True,
    ),
    "unadversarial": Method(
        "clean images and images pushed towards their own class, a BatchNorm each",
        (_CLEAN, Branch("unadversarial", "unadversarial")),
    ),
    "unadversarial-shared": Method(
        "clean images and images pushed towards their own class, one BatchNorm", (_CLEAN, Branch("unadversarial"))
    ),
    "st-frozen": Method("standard training with frozen BatchNorm, for pretrained weights", (_CLEAN,), True),
    "at-frozen": Method("AT with frozen BatchNorm, for pretrained weights", (_CLEAN, Branch("stax")), True),
}.items():
    METHODS.add(_name, _method)
