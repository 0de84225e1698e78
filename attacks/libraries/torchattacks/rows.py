"""The table of torchattacks 3.5.1: each of its 36 attacks, and why the rest is not offered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robustdml.config import Effort
from robustdml.results import Norm

from ..row import factories
from .row import TorchattacksRow

_UNTARGETED = ("untargeted",)
_ONE_TARGET = ("untargeted", "stax")
_STEPS: Mapping[Effort, Mapping[str, object]] = {"quick": {"steps": 10}, "thorough": {"steps": 100}}
_BOTH: tuple[Norm, ...] = ("linf", "l2")

#: The L2 attacks divide by the norm of the gradient, which a larger scale would let underflow.
_SCALE_L2 = 10.0

#: The library's 0.5 leaves little of an image to a model that was not trained for smoothing; this is the least of the
#: paper's four levels.
_NOISE = 0.12

#: The black boxes that follow a probability in float32 see nothing beside 1, where a larger scale would put it.
_SCALE_PROBABILITY = 5.0


def _iterated(summary: str, citation: str, params: Mapping[str, object], **facts: Any) -> TorchattacksRow:
    """An attack of gradient steps on the cross entropy, whose length is called alpha."""
    own = {"effort": _STEPS, "rivals": "none", "step_name": "alpha"}
    return TorchattacksRow(summary, citation, {**params, "step": None}, **{**own, **facts})


def _few(**parameters: object) -> Mapping[Effort, Mapping[str, object]]:
    """Presets of attacks that take several gradients per step."""
    return {"quick": parameters, "thorough": {"steps": 50}}


def _elastic(summary: str) -> TorchattacksRow:
    return TorchattacksRow(
        summary,
        "chen2018ead",
        {
            "lr": 0.01,
            "binary_search_steps": 9,
            "max_iterations": 100,
            "abort_early": True,
            "initial_const": 0.001,
            "beta": 0.001,
        },
        goals=_ONE_TARGET,
        norms=("l1",),
        budget="minimum",
        cost="high",
        # The library's first step moves its copy of the clean image as well: the first constant must stay small.
        effort={"quick": {"binary_search_steps": 3, "max_iterations": 10, "initial_const": 0.05}},
        # A confidence above 0 is taken from the columns of all labels of the batch at once.
        hidden=("kappa",),
        least={"max_iterations": 10},
        rivals="own",
    )


def _patchwise(summary: str, citation: str, params: Mapping[str, object], **facts: Any) -> TorchattacksRow:
    return TorchattacksRow(
        summary,
        citation,
        {"num_iter_set": 20, "amplification": 10.0, **params},
        effort={"quick": {"num_iter_set": 10}, "thorough": {"num_iter_set": 100}},
        hidden=("momentum", "prob"),
        eps_name="max_epsilon",
        **facts,
    )


_RANDOM_START = {"steps": 20, "random_start": True}
_MOMENTUM = {"steps": 20, "decay": 1.0}
_NEARBY = {"steps": 10, "decay": 1.0, "N": 5, "beta": 1.5}
_SMOOTHED = {"steps": 10, "noise_type": "guassian", "noise_sd": _NOISE, "noise_batch_size": 5}  # the library's spelling
_DIVERSE = {"resize_rate": 0.9, "diversity_prob": 0.5, "random_start": False}

ROWS: dict[str, TorchattacksRow] = {
    "FGSM": TorchattacksRow("one signed gradient step", "goodfellow2015explaining", rivals="none"),
    "BIM": _iterated("iterated FGSM from the clean image", "kurakin2017physical", {"steps": 20}),
    "RFGSM": _iterated("iterated FGSM after a random sign step", "tramer2018ensemble", {"steps": 20}),
    "PGD": _iterated("PGD from a random start, the last step", "madry2018towards", _RANDOM_START),
    "EOTPGD": _iterated(
        "PGD on a gradient averaged over calls, for models that draw",
        "zimmermann2019comment",
        {"steps": 20, "eot_iter": 2, "random_start": True},
        cost="medium",
        effort=_few(steps=5),
    ),
    "FFGSM": TorchattacksRow(
        "one step from a random start (the Fast of fast adversarial training)",
        "wong2020fast",
        {"step": 1.25},
        step_name="alpha",
        rivals="none",
    ),
    "TPGD": _iterated(
        "PGD on TRADES' divergence from the clean prediction, which may also grow by certainty",
        "zhang2019theoretically",
        {"steps": 20},
        goals=_UNTARGETED,
        rivals=None,
    ),
    "MIFGSM": _iterated("iterated FGSM with momentum", "dong2018boosting", _MOMENTUM),
    "UPGD": _iterated(
        "PGD with momentum, a choice of loss and averaged gradients",
        "kim2020torchattacks",
        {"steps": 20, "random_start": False, "loss": "ce", "decay": 1.0, "eot_iter": 1},
        choices={"loss": ("ce", "dlr")},
    ),
    "APGD": TorchattacksRow(
        "Auto-PGD: step length by progress; here the step of the highest loss",
        "croce2020reliable",
        {"steps": 20, "n_restarts": 1, "loss": "ce", "eot_iter": 1, "rho": 0.75},
        goals=_UNTARGETED,
        norms=_BOTH,
        effort=_STEPS,
        choices={"loss": ("ce", "dlr")},
        scale=_SCALE_L2,
        run="best_loss",
    ),
    "APGDT": TorchattacksRow(
        "Auto-PGD towards each of the likeliest classes; what it fails to break comes back clean",
        "croce2020reliable",
        {"steps": 20, "n_restarts": 1, "eot_iter": 1, "rho": 0.75, "target_classes": 9},
        goals=_UNTARGETED,
        norms=_BOTH,
        cost="medium",
        effort={"quick": {"steps": 5, "target_classes": 2}, "thorough": {"steps": 100}},
    ),
    "DIFGSM": _iterated(
        "iterated FGSM on images resized and padded at random",
        "xie2019improving",
        {"steps": 20, "decay": 0.0, **_DIVERSE},
        square_only=True,
    ),
    "TIFGSM": _iterated(
        "iterated FGSM with a smoothed gradient, for transfer",
        "dong2019evading",
        {"steps": 20, "decay": 0.0, "kernel_name": "gaussian", "len_kernel": 15, "nsig": 3.0, **_DIVERSE},
        choices={"kernel_name": ("gaussian", "linear", "uniform")},
        square_only=True,
    ),
    "Jitter": _iterated(
        "PGD on rescaled, noisy probabilities",
        "schwinn2021exploring",
        {"steps": 20, "scale": 10.0, "std": 0.1, "random_start": True},
        rivals="own",  # its noise hides the probability of a class that is never reached
    ),
    "NIFGSM": _iterated("iterated FGSM with Nesterov's momentum", "lin2020nesterov", _MOMENTUM),
    "PGDRS": _iterated(
        "PGD through noise, for randomized smoothing",
        "salman2019provably",
        _SMOOTHED,
        cost="medium",
        effort=_few(steps=3, noise_batch_size=3),
        hidden=("batch_max",),
        choices={"noise_type": ("guassian", "uniform")},
        scale=_SCALE_L2,
    ),
    "SINIFGSM": _iterated(
        "Nesterov's momentum, over darker copies of the image",
        "lin2020nesterov",
        {"steps": 10, "decay": 1.0, "m": 5},
        cost="medium",
        effort=_few(steps=4, m=2),
    ),
    "VMIFGSM": _iterated(
        "momentum with the variance of the gradient nearby",
        "wang2021enhancing",
        _NEARBY,
        cost="medium",
        effort=_few(steps=3, N=2),
    ),
    "VNIFGSM": _iterated(
        "Nesterov's momentum with the variance of the gradient nearby",
        "wang2021enhancing",
        _NEARBY,
        cost="medium",
        effort=_few(steps=3, N=2),
    ),
    "SPSA": TorchattacksRow(
        "gradient estimated from scores at random corners",
        "uesato2018adversarial",
        {"delta": 0.01, "nb_iter": 10, "nb_sample": 128, "step": None},
        knowledge="scores",
        cost="high",
        effort={"quick": {"nb_iter": 2, "nb_sample": 16}, "thorough": {"nb_iter": 50}},
        step_name="lr",
        steps_name="nb_iter",
        hidden=("max_batch_size",),
        rivals="none",
    ),
    "JSMA": TorchattacksRow(
        "saliency map: the two values at a time that help most; untargeted, towards the nearest class",
        "papernot2016limitations",
        {"theta": 1.0, "gamma": 0.02, "hardest": 3},
        goals=_ONE_TARGET,
        norms=("l0",),
        budget="minimum",
        cost="high",
        # A step builds several matrices over all pairs of values: 38 MB each at 32 pixels, 90 GB at 224.
        largest_side=32,
        effort={"quick": {"gamma": 0.0005, "hardest": 3}},
        rivals="own",
        most_rows=1,
        run="towards_nearest",
    ),
    "EADL1": _elastic("elastic net, the smallest L1 that succeeds; clean where none does"),
    "EADEN": _elastic("elastic net, the smallest L2 and some L1 that succeeds; clean where none does"),
    "PIFGSM": _patchwise(
        "patch-wise: what the budget cuts off goes to the pixels around", "gao2020patchwise", {}, goals=_UNTARGETED
    ),
    "PIFGSMPP": _patchwise(
        "patch-wise with a smoothed gradient, for targets",
        "gao2020patchwiseplus",
        {"project_factor": 0.8},
        rivals="none",
    ),
    "CW": TorchattacksRow(
        "Carlini-Wagner, the smallest L2 that succeeds; clean where none does",
        "carlini2017towards",
        {"c": 1.0, "kappa": 0.0, "steps": 100, "lr": 0.01},
        goals=_ONE_TARGET,
        norms=("l2",),
        budget="minimum",
        cost="medium",
        effort={"quick": {"steps": 10, "lr": 0.05}, "thorough": {"steps": 500}},
        rivals="own",
    ),
    "PGDL2": _iterated(
        "PGD with steps along the gradient",
        "madry2018towards",
        _RANDOM_START,
        norms=("l2",),
        hidden=("eps_for_division",),
        scale=_SCALE_L2,
    ),
    "DeepFool": TorchattacksRow(
        "to the nearest boundary of the linearised model, again and again",
        "moosavi2016deepfool",
        {"steps": 50, "overshoot": 0.02, "hardest": 10},
        goals=_UNTARGETED,
        norms=("l2",),
        budget="minimum",
        cost="medium",
        effort={"quick": {"steps": 3, "hardest": 3}, "thorough": {"steps": 100}},
        most_rows=1,
    ),
    "PGDRSL2": _iterated(
        "PGD through noise, for randomized smoothing, in L2",
        "salman2019provably",
        {**_SMOOTHED, "batch_max": 2048},
        norms=("l2",),
        cost="medium",
        effort=_few(steps=3, noise_batch_size=3),
        hidden=("eps_for_division",),
        choices={"noise_type": ("guassian", "uniform")},
        scale=_SCALE_L2,
    ),
    "SparseFool": TorchattacksRow(
        "DeepFool that changes few values",
        "modas2019sparsefool",
        {"steps": 10, "lam": 3.0, "overshoot": 0.02, "deepfool_steps": 50, "hardest": 10},
        goals=_UNTARGETED,
        norms=("l0",),
        budget="minimum",
        cost="high",
        effort={"quick": {"steps": 1, "hardest": 3, "deepfool_steps": 2}, "thorough": {"steps": 20}},
        most_rows=1,
        make="sparse_fool",
    ),
    "OnePixel": TorchattacksRow(
        "differential evolution of the places and colours of eps pixels",
        "su2019one",
        {"steps": 10, "popsize": 10},
        goals=_ONE_TARGET,
        norms=("l0",),
        knowledge="scores",
        cost="high",
        effort={"quick": {"steps": 1}, "thorough": {"steps": 50}},
        hidden=("inf_batch",),
        eps_name="pixels",
        scale=_SCALE_PROBABILITY,
        rivals="own",
        most_rows=1,
    ),
    "Pixle": TorchattacksRow(
        "moves pixels to other places, as many as it takes",
        "pomponi2022pixle",
        square_only=True,
        params={
            "x_dimensions": (2, 10),
            "y_dimensions": (2, 10),
            "pixel_mapping": "random",
            "restarts": 20,
            "max_iterations": 10,
            "update_each_iteration": False,
        },
        goals=_ONE_TARGET,
        norms=("l0",),
        budget="unrestricted",
        knowledge="scores",
        cost="high",
        effort={"quick": {"restarts": 2, "max_iterations": 4}, "thorough": {"restarts": 50}},
        choices={"pixel_mapping": ("random", "similarity", "similarity_random", "distance", "distance_random")},
        scale=_SCALE_PROBABILITY,
        rivals="own",
        most_rows=1,
    ),
    "FAB": TorchattacksRow(
        "fast adaptive boundary: the smallest perturbation that succeeds; clean where none does",
        "croce2020minimally",
        {
            "steps": 20,
            "alpha_max": 0.1,
            "eta": 1.05,
            "beta": 0.9,
            "multi_targeted": False,
            "hardest": 10,
            "target_classes": 9,
        },
        goals=_UNTARGETED,
        norms=_BOTH,
        budget="minimum",
        cost="medium",
        effort={"quick": {"steps": 4, "hardest": 3}, "thorough": {"steps": 100}},
        # It holds the gradients of all classes at once. Random starts would need a bound to be drawn within.
        most_classes=16,
        fixed={"eps": float("inf"), "n_restarts": 1},
    ),
    "AutoAttack": TorchattacksRow(
        "APGD, APGDT, FAB and Square in turn; what none of them breaks comes back clean",
        "croce2020reliable",
        {"version": "standard", "steps": 20, "n_queries": 1000, "target_classes": 9},
        goals=_UNTARGETED,
        norms=_BOTH,
        cost="high",
        effort={
            "quick": {"steps": 5, "n_queries": 20, "target_classes": 2},
            "thorough": {"steps": 100, "n_queries": 5000},
        },
        choices={"version": ("standard", "plus", "rand")},
        most_classes=16,
        make="auto_attack",
    ),
    "Square": TorchattacksRow(
        "random search of squares on scores; here the best image so far",
        "andriushchenko2020square",
        {"n_queries": 1000, "p_init": 0.8, "loss": "margin", "resc_schedule": True},
        norms=_BOTH,
        knowledge="scores",
        cost="high",
        effort={"quick": {"n_queries": 60}, "thorough": {"n_queries": 5000}},
        hidden=("n_restarts",),
        choices={"loss": ("ce", "margin")},
        rivals="none",
        run="best_score",
    ),
    "GN": TorchattacksRow(
        "Gaussian noise of a given size",
        "kim2020torchattacks",
        {"std": 0.1},
        goals=_UNTARGETED,
        norms=("l2",),
        budget="unrestricted",
        knowledge="none",
    ),
}

FACTORIES = factories("torchattacks", "torchattacks.adapter.Torchattack", ROWS)

NOT_OFFERED = {
    "torchattacks.VANILA": "it returns the clean images: every evaluation has them",
    "torchattacks.MultiAttack": "it runs other attacks in turn: list them, the worst case over a list is reported",
    "torchattacks.LGV": "it trains further copies of the model, for which it needs the training images and labels",
}
