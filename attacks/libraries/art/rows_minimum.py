"""The attacks of ART that look for the smallest perturbation with gradients."""

from __future__ import annotations

from art.attacks import evasion

from . import drivers as calls
from . import one_by_one as singly
from .row import UNCHANGED, Row

#: By the name of ART's class.
MINIMUM: dict[str, Row] = {
    "CarliniL2Method": Row(
        evasion.CarliniL2Method,
        calls.labelled,
        "C&W for L2" + UNCHANGED,
        "carlini2017towards",
        ("l2",),
        budget="minimum",
        cost="high",
        # Similarities span a fraction of what a classifier's logits do: the search for the weight starts higher.
        params={"initial_const": 0.1, "binary_search_steps": 5, "max_iter": 20},
        effort={
            "quick": {
                "binary_search_steps": 1,
                "max_iter": 4,
                "max_halving": 2,
                "max_doubling": 2,
                "initial_const": 1.0,
            },
            "thorough": {"binary_search_steps": 10, "max_iter": 50},
        },
    ),
    "CarliniLInfMethod": Row(
        evasion.CarliniLInfMethod,
        singly.logits_to_the_boundary,
        "C&W for L-infinity" + UNCHANGED,
        "carlini2017towards",
        ("linf",),
        budget="minimum",
        cost="high",
        # ART takes every wrong class for the wanted one.
        goals=("untargeted",),
        params={"max_iter": 50, "learning_rate": 0.02, "initial_const": 0.5},
        effort={
            "quick": {
                "max_iter": 5,
                "learning_rate": 0.2,
                "decrease_factor": 0.5,
                "initial_const": 2.0,
                "largest_const": 3.0,
            },
            "thorough": {"max_iter": 100, "learning_rate": 0.01, "initial_const": 0.01, "decrease_factor": 0.9},
        },
    ),
    "CarliniL0Method": Row(
        evasion.CarliniL0Method,
        calls.labelled,
        "C&W for L0" + UNCHANGED,
        "carlini2017towards",
        ("l0",),
        budget="minimum",
        cost="high",
        hidden=("mask",),
        params={"initial_const": 0.1, "binary_search_steps": 3, "max_iter": 10},
        effort={"quick": {"binary_search_steps": 1, "max_iter": 4, "max_halving": 2, "max_doubling": 2}},
        by_name_only="it runs CarliniL2Method again and again, up to once per pixel value",
    ),
    "ElasticNet": Row(
        evasion.ElasticNet,
        calls.labelled,
        "EAD: C&W with a penalty on L1" + UNCHANGED,
        "chen2018ead",
        ("l1",),
        budget="minimum",
        cost="medium",
        params={"initial_const": 0.1, "binary_search_steps": 5, "decision_rule": "L1"},
        effort={"quick": {"binary_search_steps": 1, "max_iter": 7, "initial_const": 1.0, "learning_rate": 0.02}},
    ),
    "DeepFool": Row(
        evasion.DeepFool,
        calls.labelled,
        "steps to the nearest linearised boundary",
        "moosavi2016deepfool",
        ("l2",),
        budget="minimum",
        goals=("untargeted",),
        params={"max_iter": 50},
        effort={"quick": {"max_iter": 3, "nb_grads": 3}},
    ),
    "NewtonFool": Row(
        evasion.NewtonFool,
        calls.with_probabilities,
        "Newton steps that lower the probability of the class",
        "jang2017objective",
        ("l2",),
        budget="minimum",
        goals=("untargeted",),
        params={"max_iter": 50},
        effort={"quick": {"max_iter": 10}},
    ),
    "SaliencyMapMethod": Row(
        evasion.SaliencyMapMethod,
        calls.towards_a_class,
        "JSMA: pairs of pixel values that matter most, raised by theta",
        "papernot2016limitations",
        ("l0",),
        budget="minimum",
        cost="medium",
        params={"theta": 0.5, "gamma": 0.1},
        effort={"quick": {"theta": 1.0, "gamma": 0.006}, "thorough": {"gamma": 1.0}},
    ),
    "BrendelBethgeAttack": Row(
        getattr(evasion, "BrendelBethgeAttack", None),
        singly.from_an_image,
        "along the boundary, from an image of another class" + UNCHANGED,
        "brendel2019accurate",
        ("l2", "linf", "l1"),
        budget="minimum",
        cost="medium",
        goals=("untargeted", "stax"),
        hidden=("init_size",),
        params={"steps": 100},
        effort={"quick": {"steps": 8, "binary_search_steps": 6}, "thorough": {"steps": 1000}},
        needs="numba",
        by_name_only="it compiles itself anew in every process, for about a minute",
    ),
}
