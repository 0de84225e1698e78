"""The attacks of ART with other aims and other changes: features, one change for all queries, patches, moves."""

from __future__ import annotations

from art.attacks import evasion

from . import drivers as calls
from . import one_by_one as singly
from . import retrieval
from .row import GRADIENT_EFFORT, UNCHANGED, Row

#: By the name of ART's class.
BEYOND: dict[str, Row] = {
    "FeatureAdversariesPyTorch": Row(
        evasion.FeatureAdversariesPyTorch,
        retrieval.features,
        "towards the embedding of the targets, or of the nearest foreign item",
        "sabour2016adversarial",
        eps="delta",
        step=None,
        step_name="step_size",
        hidden=("optimizer", "optimizer_kwargs", "layer"),
        params={"max_iter": 20, "random_start": True},
        effort=GRADIENT_EFFORT,
    ),
    "UniversalPerturbation": Row(
        evasion.UniversalPerturbation,
        calls.universal,
        "one perturbation for all queries of a batch",
        "moosavi2017universal",
        ("linf", "l2"),
        cost="medium",
        goals=("untargeted",),
        hidden=("attacker_params",),
        own=("attacker_steps",),
        params={"attacker_steps": 10, "max_iter": 5},
        effort={"quick": {"attacker": "fgsm", "max_iter": 1}},
    ),
    "TargetedUniversalPerturbation": Row(
        evasion.TargetedUniversalPerturbation,
        calls.universal_towards_a_class,
        "one perturbation for all queries of a batch, towards one class",
        "hirano2019simple",
        ("linf", "l2"),
        cost="medium",
        goals=("untargeted",),
        hidden=("attacker_params", "attacker"),
        params={"max_iter": 5},
        effort={"quick": {"max_iter": 1}},
    ),
    "AdversarialPatchPyTorch": Row(
        evasion.AdversarialPatchPyTorch,
        calls.patch,
        "one patch for all queries of a batch",
        "brown2017patch",
        ("l0",),
        budget="unrestricted",
        cost="medium",
        goals=("untargeted",),
        hidden=("patch_shape", "patch_location"),
        own=("scale",),
        # ART's learning rate is for pixels up to 255.
        params={"learning_rate": 0.1, "max_iter": 100, "scale": 0.5, "scale_min": 0.4, "scale_max": 0.6},
        effort={"quick": {"max_iter": 12, "learning_rate": 0.3}, "thorough": {"max_iter": 500}},
    ),
    "AdversarialPatchNumpy": Row(
        evasion.AdversarialPatchNumpy,
        calls.patch_without_autograd,
        "one patch for all queries of a batch, in NumPy",
        "brown2017patch",
        ("l0",),
        budget="unrestricted",
        cost="medium",
        goals=("untargeted",),
        hidden=("target", "clip_patch"),
        own=("scale",),
        params={"max_iter": 100, "scale": 0.5, "scale_min": 0.4, "scale_max": 0.6},
        effort={"quick": {"max_iter": 12}, "thorough": {"max_iter": 500}},
        by_name_only="art.AdversarialPatchPyTorch is the same attack, stronger and faster",
    ),
    "SpatialTransformation": Row(
        evasion.SpatialTransformation,
        singly.spatial,
        "the worst of a grid of shifts (per cent of the side) and turns (degrees)" + UNCHANGED,
        "engstrom2019exploring",
        ("l2",),
        budget="unrestricted",
        knowledge="decisions",
        cost="medium",
        goals=("untargeted",),
        params={"max_translation": 10.0, "num_translations": 5, "max_rotation": 30.0, "num_rotations": 7},
        effort={"quick": {"num_translations": 2, "num_rotations": 3}, "thorough": {"num_rotations": 31}},
    ),
    "ShadowAttack": Row(
        evasion.ShadowAttack,
        singly.shadow,
        "a smooth change of colour and brightness, without a bound",
        "ghiasi2020breaking",
        ("l2",),
        budget="unrestricted",
        cost="high",
        # ART's batch size is how many noisy copies of the image share the perturbation.
        params={"samples": 8, "sigma": 0.1, "nb_steps": 100},
        renamed={"samples": "batch_size"},
        effort={"quick": {"samples": 1, "nb_steps": 8}, "thorough": {"samples": 100, "nb_steps": 300}},
    ),
    "Wasserstein": Row(
        evasion.Wasserstein,
        calls.wasserstein,
        "moves mass between neighbouring pixels, within a Wasserstein ball that grows" + UNCHANGED,
        "wong2019wasserstein",
        ("l2",),
        budget="unrestricted",
        cost="high",
        hidden=("ball",),
        params={
            "radius": 0.1,
            "step": 0.1,
            "max_iter": 50,
            "conjugate_sinkhorn_max_iter": 100,
            "projected_sinkhorn_max_iter": 100,
        },
        renamed={"radius": "eps", "step": "eps_step"},
        effort={
            "quick": {
                "max_iter": 2,
                "kernel_size": 3,
                "conjugate_sinkhorn_max_iter": 5,
                "projected_sinkhorn_max_iter": 5,
            }
        },
    ),
}
