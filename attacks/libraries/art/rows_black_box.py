"""The attacks of ART that see scores or decisions only."""

from __future__ import annotations

from art.attacks import evasion

from . import one_by_one as singly
from . import retrieval
from .row import UNCHANGED, Row

#: By the name of ART's class.
BLACK_BOX: dict[str, Row] = {
    "SquareAttack": Row(
        evasion.SquareAttack,
        retrieval.square,
        "random squares, judged by the goal itself",
        "andriushchenko2020square",
        ("linf", "l2"),
        knowledge="scores",
        cost="medium",
        goals=("margin", "stax", "mtax", "shift"),
        hidden=("adv_criterion", "loss"),
        params={"max_iter": 500},
        effort={"quick": {"max_iter": 30}, "thorough": {"max_iter": 5000}},
    ),
    "SimBA": Row(
        evasion.SimBA,
        singly.scores,
        "random directions, of pixels or frequencies, kept where the score moves; ends where it is enough",
        "guo2019simple",
        ("l2",),
        budget="minimum",
        knowledge="scores",
        cost="high",
        together=False,
        # The step is ART's epsilon, which is no budget: L2 grows by its square root.
        params={"max_iter": 500, "step": 0.2},
        renamed={"step": "epsilon"},
        effort={"quick": {"max_iter": 30, "step": 0.5}, "thorough": {"max_iter": 3000}},
    ),
    "ZooAttack": Row(
        evasion.ZooAttack,
        singly.logits,
        "C&W with gradients by finite differences" + UNCHANGED,
        "chen2017zoo",
        ("l2",),
        budget="minimum",
        knowledge="scores",
        cost="high",
        params={
            "max_iter": 100,
            "learning_rate": 0.1,
            "initial_const": 1.0,
            "use_resize": False,
            "use_importance": False,
            "variable_h": 0.01,
        },
        together=False,
        effort={"quick": {"max_iter": 3, "nb_parallel": 10, "learning_rate": 0.5}},
    ),
    "HopSkipJump": Row(
        evasion.HopSkipJump,
        singly.from_an_image,
        "from an image of another class along the boundary, by decisions" + UNCHANGED,
        "chen2020hopskipjump",
        ("l2", "linf"),
        budget="minimum",
        knowledge="decisions",
        cost="high",
        goals=("untargeted", "stax"),
        hidden=("init_size",),
        params={"max_iter": 20},
        effort={"quick": {"max_iter": 1, "init_eval": 20, "max_eval": 20}, "thorough": {"max_iter": 64}},
    ),
    "BoundaryAttack": Row(
        evasion.BoundaryAttack,
        singly.from_an_image,
        "a walk along the boundary from an image of another class, by decisions" + UNCHANGED,
        "brendel2018decision",
        ("l2",),
        budget="minimum",
        knowledge="decisions",
        cost="high",
        goals=("untargeted", "stax"),
        hidden=("init_size",),
        params={"max_iter": 200, "delta": 0.1, "epsilon": 0.1},
        effort={
            "quick": {"max_iter": 4, "num_trial": 2, "sample_size": 4, "epsilon": 0.3},
            "thorough": {"max_iter": 5000},
        },
    ),
    "SignOPTAttack": Row(
        evasion.SignOPTAttack,
        singly.in_directions,
        "the direction in which the boundary is nearest, by decisions" + UNCHANGED,
        "cheng2020signopt",
        ("l2",),
        budget="minimum",
        knowledge="decisions",
        cost="high",
        goals=("untargeted",),
        hidden=("eval_perform",),
        params={"num_trial": 50, "max_iter": 20, "query_limit": 4000},
        effort={
            "quick": {"num_trial": 5, "max_iter": 1, "k": 5, "beta": 0.5, "query_limit": 100},
            "thorough": {"num_trial": 100, "max_iter": 1000, "query_limit": 20000},
        },
    ),
    "PixelAttack": Row(
        evasion.PixelAttack,
        singly.scores,
        "some pixels, found by differential evolution" + UNCHANGED,
        "su2019one",
        ("l0",),
        eps="th",
        knowledge="scores",
        cost="high",
        # CMA-ES, the other strategy, takes its seed from the clock.
        hidden=("es",),
        params={"max_iter": 10},
        effort={"quick": {"max_iter": 1}, "thorough": {"max_iter": 100}},
        by_name_only="it asks the model at least 800 times per image, whatever its effort",
    ),
}
