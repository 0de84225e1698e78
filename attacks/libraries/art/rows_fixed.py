"""The attacks of ART that climb a gradient within a budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .row import BALLS, GRADIENT_EFFORT, UNCHANGED, ARTRow


def _ascent(summary: str, citation: str, params: Mapping[str, object], **facts: Any) -> ARTRow:
    """An attack that follows a loss in every ball."""
    own = {"norms": BALLS, "rivals": "none", "step_name": "eps_step", "effort": GRADIENT_EFFORT}
    return ARTRow(summary, citation, {"max_iter": 20, **params, "step": None}, **{**own, **facts})


def _by_itself(summary: str, citation: str, loss: str) -> ARTRow:
    """An attack that chooses the length of its steps and tests itself."""
    return ARTRow(
        summary + UNCHANGED,
        citation,
        {"max_iter": 20, "nb_random_init": 1, "loss_type": loss, "step": 2.0},
        norms=BALLS,
        effort=GRADIENT_EFFORT,
        rivals="own",
        step_name="eps_step",
    )


#: By the name of ART's class.
FIXED: dict[str, ARTRow] = {
    "ProjectedGradientDescent": _ascent(
        "ART's PGD, on a RetrievalClassifier",
        "madry2018towards",
        {"num_random_init": 1},
        hidden=("random_eps", "decay"),
    ),
    "ProjectedGradientDescentNumpy": _ascent(
        "ART's PGD in NumPy, which is another code",
        "madry2018towards",
        {"num_random_init": 1},
        hidden=("random_eps", "decay"),
    ),
    "BasicIterativeMethod": _ascent("PGD from the clean image", "kurakin2017physical", {}, norms=("linf",)),
    "MomentumIterativeMethod": _ascent("PGD with momentum", "dong2018boosting", {"decay": 1.0}),
    "FastGradientMethod": ARTRow(
        "one gradient step",
        "goodfellow2015explaining",
        {"num_random_init": 0},
        norms=BALLS,
        hidden=("minimal", "eps_step"),
        rivals="none",
    ),
    "AutoProjectedGradientDescent": _by_itself("APGD, step length by itself", "croce2020reliable", "cross_entropy"),
    # The gradient of the cross entropy vanishes where the similarities are far apart, and conjugates of it with it.
    "AutoConjugateGradient": _by_itself(
        "ACG, conjugate directions", "yamamura2022diversified", "difference_logits_ratio"
    ),
    "RescalingAutoConjugateGradient": _by_itself(
        "ReACG, rescaled conjugate directions", "yamamura2024enhancing", "difference_logits_ratio"
    ),
    "AutoAttack": ARTRow(
        "APGD with two losses, DeepFool and Square, one after the other" + UNCHANGED,
        "croce2020reliable",
        {"step": 2.0, "max_iter": 20, "nb_random_init": 1, "queries": 200},
        call="drivers.auto_attack",
        norms=BALLS,
        goals=("untargeted",),
        cost="medium",
        step_name="eps_step",
        hidden=("attacks", "estimator_orig", "parallel_pool_size"),
        own=("max_iter", "nb_random_init", "queries"),
        effort={"quick": {"max_iter": 3, "queries": 5}, "thorough": {"max_iter": 100, "queries": 5000}},
        needs="multiprocess",
    ),
    "VirtualAdversarialMethod": ARTRow(
        "the direction in which the prediction changes most, by finite differences",
        "miyato2018virtual",
        # ART's difference of 1e-6 is below the rounding of float32.
        {"max_iter": 1, "finite_diff": 0.01},
        call="drivers.with_probabilities",
        norms=("l2",),
        knowledge="scores",
        cost="high",
        goals=("untargeted",),
        effort={"thorough": {"max_iter": 3}},
        largest_side=16,
    ),
}
