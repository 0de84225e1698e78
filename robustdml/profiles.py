"""The attack profiles behind published scores: which attacks, how strong, how many steps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """Signed gradient steps from the clean image, the last iterate taken, as RobRank's published loop has it.

    Args:
        eps: L-infinity budget, in pixels of [0, 1].
        steps: gradient steps.
        alpha: length of a step, in pixels of [0, 1].
    """

    eps: float
    steps: int
    alpha: float

    @property
    def step(self) -> float:
        """The length of a step as a share of eps."""
        return self.alpha / self.eps


#: RobRank's profiles "rob28" (MNIST, Fashion) and "rob224" (CUB, Cars, SOP; the one of the CVPR 2022 paper).
PROFILES: dict[str, Profile] = {
    "robrank-28": Profile(eps=77 / 255, steps=32, alpha=3 / 255),
    "robrank-224": Profile(eps=8 / 255, steps=32, alpha=3 / 255),
}

#: The attacks that ERS is made of, in the order of its terms (``es`` gives two).
ERS_ATTACKS = ("ca_plus", "ca_minus", "qa_plus", "qa_minus", "tma", "es", "ltm", "gtm", "gtt")
