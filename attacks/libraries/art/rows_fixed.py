"""The attacks of ART that climb a gradient within a budget."""

from __future__ import annotations

from art.attacks import evasion

from . import drivers as calls
from .row import BALLS, GRADIENT_EFFORT, UNCHANGED, Row

#: By the name of ART's class.
FIXED: dict[str, Row] = {
    "ProjectedGradientDescent": Row(
        evasion.ProjectedGradientDescent,
        calls.labelled,
        "ART's PGD, on a RetrievalClassifier",
        "madry2018towards",
        BALLS,
        step=None,
        params={"max_iter": 20, "num_random_init": 1},
        hidden=("random_eps", "decay"),
        rivals="none",
        effort=GRADIENT_EFFORT,
    ),
    "ProjectedGradientDescentNumpy": Row(
        evasion.ProjectedGradientDescentNumpy,
        calls.labelled,
        "ART's PGD in NumPy, which is another code",
        "madry2018towards",
        BALLS,
        step=None,
        params={"max_iter": 20, "num_random_init": 1},
        hidden=("random_eps", "decay"),
        rivals="none",
        effort=GRADIENT_EFFORT,
    ),
    "BasicIterativeMethod": Row(
        evasion.BasicIterativeMethod,
        calls.labelled,
        "PGD from the clean image",
        "kurakin2017physical",
        step=None,
        params={"max_iter": 20},
        rivals="none",
        effort=GRADIENT_EFFORT,
    ),
    "MomentumIterativeMethod": Row(
        evasion.MomentumIterativeMethod,
        calls.labelled,
        "PGD with momentum",
        "dong2018boosting",
        BALLS,
        step=None,
        params={"max_iter": 20},
        rivals="none",
        effort=GRADIENT_EFFORT,
    ),
    "FastGradientMethod": Row(
        evasion.FastGradientMethod,
        calls.labelled,
        "one gradient step",
        "goodfellow2015explaining",
        BALLS,
        hidden=("minimal",),
        rivals="none",
        params={"num_random_init": 0},
    ),
    "AutoProjectedGradientDescent": Row(
        evasion.AutoProjectedGradientDescent,
        calls.labelled,
        "APGD, step length by itself" + UNCHANGED,
        "croce2020reliable",
        BALLS,
        step=2.0,
        params={"max_iter": 20, "nb_random_init": 1, "loss_type": "cross_entropy"},
        effort=GRADIENT_EFFORT,
    ),
    "AutoConjugateGradient": Row(
        evasion.AutoConjugateGradient,
        calls.labelled,
        "ACG, conjugate directions" + UNCHANGED,
        "yamamura2022diversified",
        BALLS,
        step=2.0,
        # The gradient of the cross entropy vanishes where the similarities are far apart, and conjugates of it with it.
        params={"max_iter": 20, "nb_random_init": 1, "loss_type": "difference_logits_ratio"},
        effort=GRADIENT_EFFORT,
    ),
    "RescalingAutoConjugateGradient": Row(
        evasion.RescalingAutoConjugateGradient,
        calls.labelled,
        "ReACG, rescaled conjugate directions" + UNCHANGED,
        "yamamura2024enhancing",
        BALLS,
        step=2.0,
        # The gradient of the cross entropy vanishes where the similarities are far apart, and conjugates of it with it.
        params={"max_iter": 20, "nb_random_init": 1, "loss_type": "difference_logits_ratio"},
        effort=GRADIENT_EFFORT,
    ),
    "AutoAttack": Row(
        evasion.AutoAttack,
        calls.auto_attack,
        "APGD with two losses, DeepFool and Square, one after the other" + UNCHANGED,
        "croce2020reliable",
        BALLS,
        step=2.0,
        goals=("untargeted",),
        cost="medium",
        params={"max_iter": 20, "nb_random_init": 1, "queries": 200},
        hidden=("attacks", "estimator_orig", "parallel_pool_size"),
        own=("max_iter", "nb_random_init", "queries"),
        effort={"quick": {"max_iter": 3, "queries": 5}, "thorough": {"max_iter": 100, "queries": 5000}},
        needs="multiprocess",
    ),
    "VirtualAdversarialMethod": Row(
        evasion.VirtualAdversarialMethod,
        calls.with_probabilities,
        "the direction in which the prediction changes most, by finite differences",
        "miyato2018virtual",
        ("l2",),
        knowledge="scores",
        cost="high",
        goals=("untargeted",),
        # ART's difference of 1e-6 is below the rounding of float32.
        params={"max_iter": 1, "finite_diff": 0.01},
        effort={"thorough": {"max_iter": 3}},
        largest_side=16,
    ),
}
