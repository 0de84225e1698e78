"""The table of torchattacks 3.5.1: each of its 36 attacks, and why the rest is not offered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torchattacks

from robustdml.config import Effort
from robustdml.results import Norm

from .row import Row, auto_attack, best_loss, best_score, sparse_fool, towards_nearest

_UNTARGETED = ("untargeted",)
_STEPS: Mapping[Effort, Mapping[str, object]] = {"quick": {"steps": 10}, "thorough": {"steps": 100}}
_BOTH: tuple[Norm, ...] = ("linf", "l2")

#: The L2 attacks divide by the norm of the gradient, which a larger scale would let underflow.
_SCALE_L2 = 10.0

#: The library's 0.5 leaves little of an image to a model that was not trained for smoothing; this is the least of the
#: paper's four levels.
_NOISE = 0.12

#: The black boxes that follow a probability in float32 see nothing beside 1, where a larger scale would put it.
_SCALE_PROBABILITY = 5.0


def _iterated(make: Callable[..., Any], summary: str, citation: str, *, steps: int = 20, **changed: object) -> Row:
    """An attack of gradient steps on the cross entropy, whose length is called alpha."""
    return Row(make, summary, citation, effort=_STEPS, step="alpha", changed={"steps": steps, **changed})


def _few(**parameters: object) -> Mapping[Effort, Mapping[str, object]]:
    """Presets of attacks that take several gradients per step."""
    return {"quick": parameters, "thorough": {"steps": 50}}


def _elastic(make: Callable[..., Any], summary: str) -> Row:
    return Row(
        make,
        summary,
        "chen2018ead",
        goals=("untargeted", "stax"),
        norms=("l1",),
        budget="minimum",
        cost="high",
        # The library's first step moves its copy of the clean image as well: the first constant must stay small.
        effort={"quick": {"binary_search_steps": 3, "max_iterations": 10, "initial_const": 0.05}},
        changed={"lr": 0.01},
        # A confidence above 0 is taken from the columns of all labels of the batch at once.
        hidden=("kappa",),
        eps=None,
        least={"max_iterations": 10},
        rivals="own",
    )


ROWS: dict[str, Row] = {
    "FGSM": Row(torchattacks.FGSM, "one signed gradient step", "goodfellow2015explaining"),
    "BIM": _iterated(torchattacks.BIM, "iterated FGSM from the clean image", "kurakin2017physical"),
    "RFGSM": _iterated(torchattacks.RFGSM, "iterated FGSM after a random sign step", "tramer2018ensemble"),
    "PGD": _iterated(torchattacks.PGD, "PGD from a random start, the last step", "madry2018towards"),
    "EOTPGD": replace(
        _iterated(
            torchattacks.EOTPGD, "PGD on a gradient averaged over calls, for models that draw", "zimmermann2019comment"
        ),
        cost="medium",
        effort=_few(steps=5),
    ),
    "FFGSM": Row(
        torchattacks.FFGSM,
        "one step from a random start (the Fast of fast adversarial training)",
        "wong2020fast",
        step="alpha",
        changed={"step": 1.25},
    ),
    "TPGD": replace(
        _iterated(
            torchattacks.TPGD,
            "PGD on TRADES' divergence from the clean prediction, which may also grow by certainty",
            "zhang2019theoretically",
        ),
        goals=_UNTARGETED,
    ),
    "MIFGSM": _iterated(torchattacks.MIFGSM, "iterated FGSM with momentum", "dong2018boosting"),
    "UPGD": replace(
        _iterated(
            torchattacks.UPGD, "PGD with momentum, a choice of loss and averaged gradients", "kim2020torchattacks"
        ),
        choices={"loss": ("ce", "dlr")},
    ),
    "APGD": Row(
        torchattacks.APGD,
        "Auto-PGD: step length by progress; here the step of the highest loss",
        "croce2020reliable",
        goals=_UNTARGETED,
        norms=_BOTH,
        effort=_STEPS,
        changed={"steps": 20},
        choices={"loss": ("ce", "dlr")},
        scale=_SCALE_L2,
        run=best_loss,
    ),
    "APGDT": Row(
        torchattacks.APGDT,
        "Auto-PGD towards each of the likeliest classes; what it fails to break comes back clean",
        "croce2020reliable",
        goals=_UNTARGETED,
        norms=_BOTH,
        cost="medium",
        effort={"quick": {"steps": 5, "target_classes": 2}, "thorough": {"steps": 100}},
        changed={"steps": 20, "target_classes": 9},
    ),
    "DIFGSM": _iterated(
        torchattacks.DIFGSM, "iterated FGSM on images resized and padded at random", "xie2019improving"
    ),
    "TIFGSM": replace(
        _iterated(
            torchattacks.TIFGSM, "iterated FGSM with a smoothed gradient, for transfer", "dong2019evading", nsig=3.0
        ),
        choices={"kernel_name": ("gaussian", "linear", "uniform")},
    ),
    "Jitter": replace(
        _iterated(torchattacks.Jitter, "PGD on rescaled, noisy probabilities", "schwinn2021exploring", scale=10.0),
        rivals="own",  # its noise hides the probability of a class that is never reached
    ),
    "NIFGSM": _iterated(torchattacks.NIFGSM, "iterated FGSM with Nesterov's momentum", "lin2020nesterov"),
    "PGDRS": replace(
        _iterated(
            torchattacks.PGDRS,
            "PGD through noise, for randomized smoothing",
            "salman2019provably",
            steps=10,
            noise_sd=_NOISE,
        ),
        cost="medium",
        effort=_few(steps=3, noise_batch_size=3),
        hidden=("batch_max",),
        choices={"noise_type": ("guassian", "uniform")},
        scale=_SCALE_L2,
    ),
    "SINIFGSM": replace(
        _iterated(
            torchattacks.SINIFGSM, "Nesterov's momentum, over darker copies of the image", "lin2020nesterov", steps=10
        ),
        cost="medium",
        effort=_few(steps=4, m=2),
    ),
    "VMIFGSM": replace(
        _iterated(
            torchattacks.VMIFGSM, "momentum with the variance of the gradient nearby", "wang2021enhancing", steps=10
        ),
        cost="medium",
        effort=_few(steps=3, N=2),
    ),
    "VNIFGSM": replace(
        _iterated(
            torchattacks.VNIFGSM,
            "Nesterov's momentum with the variance of the gradient nearby",
            "wang2021enhancing",
            steps=10,
        ),
        cost="medium",
        effort=_few(steps=3, N=2),
    ),
    "SPSA": Row(
        torchattacks.SPSA,
        "gradient estimated from scores at random corners",
        "uesato2018adversarial",
        knowledge="scores",
        cost="high",
        effort={"quick": {"nb_iter": 2, "nb_sample": 16}, "thorough": {"nb_iter": 50}},
        step="lr",
        steps="nb_iter",
        changed={"nb_iter": 10},
        hidden=("max_batch_size",),
    ),
    "JSMA": Row(
        torchattacks.JSMA,
        "saliency map: the two values at a time that help most; untargeted, towards the nearest class",
        "papernot2016limitations",
        goals=("untargeted", "stax"),
        norms=("l0",),
        budget="minimum",
        cost="high",
        # A step builds several matrices over all pairs of values: 38 MB each at 32 pixels, 90 GB at 224.
        largest_side=32,
        effort={"quick": {"gamma": 0.0005, "hardest": 3}},
        changed={"gamma": 0.02, "hardest": 3},
        eps=None,
        rivals="own",
        most_rows=1,
        run=towards_nearest,
    ),
    "EADL1": _elastic(torchattacks.EADL1, "elastic net, the smallest L1 that succeeds; clean where none does"),
    "EADEN": _elastic(
        torchattacks.EADEN, "elastic net, the smallest L2 and some L1 that succeeds; clean where none does"
    ),
    "PIFGSM": Row(
        torchattacks.PIFGSM,
        "patch-wise: what the budget cuts off goes to the pixels around",
        "gao2020patchwise",
        goals=_UNTARGETED,
        effort={"quick": {"num_iter_set": 10}, "thorough": {"num_iter_set": 100}},
        changed={"num_iter_set": 20},
        hidden=("momentum", "prob"),
        eps="max_epsilon",
    ),
    "PIFGSMPP": Row(
        torchattacks.PIFGSMPP,
        "patch-wise with a smoothed gradient, for targets",
        "gao2020patchwiseplus",
        effort={"quick": {"num_iter_set": 10}, "thorough": {"num_iter_set": 100}},
        changed={"num_iter_set": 20},
        hidden=("momentum", "prob"),
        eps="max_epsilon",
    ),
    "CW": Row(
        torchattacks.CW,
        "Carlini-Wagner, the smallest L2 that succeeds; clean where none does",
        "carlini2017towards",
        goals=("untargeted", "stax"),
        norms=("l2",),
        budget="minimum",
        cost="medium",
        effort={"quick": {"steps": 10, "lr": 0.05}, "thorough": {"steps": 500}},
        changed={"c": 1.0, "kappa": 0.0, "steps": 100, "lr": 0.01},
        eps=None,
        rivals="own",
    ),
    "PGDL2": replace(
        _iterated(torchattacks.PGDL2, "PGD with steps along the gradient", "madry2018towards"),
        norms=("l2",),
        hidden=("eps_for_division",),
        scale=_SCALE_L2,
    ),
    "DeepFool": Row(
        torchattacks.DeepFool,
        "to the nearest boundary of the linearised model, again and again",
        "moosavi2016deepfool",
        goals=_UNTARGETED,
        norms=("l2",),
        budget="minimum",
        cost="medium",
        effort={"quick": {"steps": 3, "hardest": 3}, "thorough": {"steps": 100}},
        changed={"hardest": 10},
        eps=None,
        rivals="own",
        most_rows=1,
    ),
    "PGDRSL2": replace(
        _iterated(
            torchattacks.PGDRSL2,
            "PGD through noise, for randomized smoothing, in L2",
            "salman2019provably",
            steps=10,
            noise_sd=_NOISE,
        ),
        norms=("l2",),
        cost="medium",
        effort=_few(steps=3, noise_batch_size=3),
        hidden=("eps_for_division",),
        choices={"noise_type": ("guassian", "uniform")},
        scale=_SCALE_L2,
    ),
    "SparseFool": Row(
        sparse_fool,
        "DeepFool that changes few values",
        "modas2019sparsefool",
        goals=_UNTARGETED,
        norms=("l0",),
        budget="minimum",
        cost="high",
        effort={"quick": {"steps": 1, "hardest": 3, "deepfool_steps": 2}, "thorough": {"steps": 20}},
        changed={"lam": 3.0, "hardest": 10},
        eps=None,
        rivals="own",
        most_rows=1,
    ),
    "OnePixel": Row(
        torchattacks.OnePixel,
        "differential evolution of the places and colours of eps pixels",
        "su2019one",
        goals=("untargeted", "stax"),
        norms=("l0",),
        knowledge="scores",
        cost="high",
        effort={"quick": {"steps": 1}, "thorough": {"steps": 50}},
        hidden=("inf_batch",),
        eps="pixels",
        scale=_SCALE_PROBABILITY,
        rivals="own",
        most_rows=1,
    ),
    "Pixle": Row(
        torchattacks.Pixle,
        "moves pixels to other places, as many as it takes",
        "pomponi2022pixle",
        goals=("untargeted", "stax"),
        norms=("l0",),
        budget="unrestricted",
        knowledge="scores",
        cost="high",
        effort={"quick": {"restarts": 2, "max_iterations": 4}, "thorough": {"restarts": 50}},
        choices={
            "pixel_mapping": ("random", "similarity", "similarity_random", "distance", "distance_random"),
        },
        eps=None,
        scale=_SCALE_PROBABILITY,
        rivals="own",
        most_rows=1,
    ),
    "FAB": Row(
        torchattacks.FAB,
        "fast adaptive boundary: the smallest perturbation that succeeds; clean where none does",
        "croce2020minimally",
        goals=_UNTARGETED,
        norms=_BOTH,
        budget="minimum",
        cost="medium",
        effort={"quick": {"steps": 4, "hardest": 3}, "thorough": {"steps": 100}},
        changed={"steps": 20, "hardest": 10, "target_classes": 9},
        # It holds the gradients of all classes at once. Random starts would need a bound to be drawn within.
        most_classes=16,
        fixed={"eps": float("inf"), "n_restarts": 1},
        eps=None,
    ),
    "AutoAttack": Row(
        auto_attack,
        "APGD, APGDT, FAB and Square in turn; what none of them breaks comes back clean",
        "croce2020reliable",
        goals=_UNTARGETED,
        norms=_BOTH,
        cost="high",
        effort={
            "quick": {"steps": 5, "n_queries": 20, "target_classes": 2},
            "thorough": {"steps": 100, "n_queries": 5000},
        },
        changed={"steps": 20, "n_queries": 1000, "target_classes": 9},
        choices={"version": ("standard", "plus", "rand")},
        most_classes=16,
    ),
    "Square": Row(
        torchattacks.Square,
        "random search of squares on scores; here the best image so far",
        "andriushchenko2020square",
        norms=_BOTH,
        knowledge="scores",
        cost="high",
        effort={"quick": {"n_queries": 60}, "thorough": {"n_queries": 5000}},
        changed={"n_queries": 1000},
        hidden=("n_restarts",),
        choices={"loss": ("ce", "margin")},
        run=best_score,
    ),
    "GN": Row(
        torchattacks.GN,
        "Gaussian noise of a given size",
        "kim2020torchattacks",
        goals=_UNTARGETED,
        norms=("l2",),
        budget="unrestricted",
        knowledge="none",
        eps=None,
    ),
}

NOT_OFFERED = {
    "torchattacks.VANILA": "it returns the clean images: every evaluation has them",
    "torchattacks.MultiAttack": "it runs other attacks in turn: list them, the worst case over a list is reported",
    "torchattacks.LGV": "it trains further copies of the model, for which it needs the training images and labels",
}
