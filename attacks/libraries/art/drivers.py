"""How the attacks of ART are called: each function runs one kind of them on a `Job` and returns its images."""

from __future__ import annotations

from typing import Any

import numpy as np
from art.attacks.evasion import AutoProjectedGradientDescent, DeepFool, SquareAttack
from art.utils import to_categorical

from .estimators import ClassifierEstimator, at_home
from .job import Array, Job


def labelled(job: Job) -> Array:
    """The batch at once, with its labels."""
    result: Array = job.make(job.estimator()).generate(job.x, y=job.y)
    return result


def with_probabilities(job: Job) -> Array:
    """The batch at once, on probabilities; the attack takes the prediction for the label."""
    result: Array = job.make(job.estimator(probabilities=True)).generate(job.x)
    return result


class _Evened(ClassifierEstimator):
    """Gradients of one size for all images: the entropy-regularised step puts 3000 of them into an exponential."""

    def loss_gradient(self, x: Array, y: Any, training_mode: bool = False, **kwargs: Any) -> Array:
        gradient = self.answer("loss", x, np.asarray(y).argmax(1))
        largest = np.abs(gradient).max((1, 2, 3), keepdims=True)
        evened: Array = 0.01 * gradient / np.maximum(largest, 1e-12)
        return evened


def wasserstein(job: Job) -> Array:
    """The batch at once; a black image has no mass to move."""
    result: Array = job.make(_Evened(job.classifier, job.images)).generate(job.x, y=job.y)
    return result


def towards_a_class(job: Job) -> Array:
    """Attacks that always go towards a class: untargeted, each query is sent to its likeliest other one."""
    estimator = job.estimator()
    y = job.y if job.targets is not None else job.rivals(estimator.predict(job.x))
    result: Array = job.make(estimator).generate(job.x, y=y)
    return result


def universal(job: Job) -> Array:
    """One perturbation for the batch, made of what ``attacker`` finds for one image after the other."""
    result: Array = _universal(job, job.estimator()).generate(job.x, y=job.y)
    return result


def universal_towards_a_class(job: Job) -> Array:
    """One perturbation for the batch, towards the class that is the likeliest other one of most queries."""
    estimator = job.estimator()
    result: Array = _universal(job, estimator).generate(job.x, y=_magnet(job, estimator))
    return result


def _magnet(job: Job, estimator: ClassifierEstimator) -> Array:
    """The class that is the likeliest other one of most queries, one-hot for each of them."""
    magnet = np.bincount(job.rivals(estimator.predict(job.x))).argmax()
    found: Array = to_categorical(np.full(len(job.images), magnet), estimator.nb_classes)
    return found


def _universal(job: Job, estimator: ClassifierEstimator) -> Any:
    """ART builds the attacker with its defaults, whose budget is far from ours."""
    attack = job.make(estimator)
    if attack.attacker == "deepfool":
        attack.attacker_params = {"verbose": False, "max_iter": job.params["attacker_steps"]}
    else:
        attack.attacker_params = {"eps": attack.eps, "eps_step": attack.eps, "norm": attack.norm}
        if hasattr(attack, "targeted") and attack.targeted:
            attack.attacker_params["targeted"] = True
    return attack


def auto_attack(job: Job) -> Array:
    """ART's ensemble with budgets of our own: its default asks each image five thousand times and more."""
    estimator, p = job.estimator(), job.params
    common = {"batch_size": len(job.images), "verbose": False}
    draft = job.make(estimator, attacks=None)
    ball = {"norm": draft.norm, "eps": draft.eps}
    rises = {**ball, "eps_step": draft.eps_step, "max_iter": p["max_iter"], "nb_random_init": p["nb_random_init"]}
    members: list[Any] = [
        *(
            at_home(AutoProjectedGradientDescent(estimator, loss_type=loss, **rises, **common), job.images.device)
            for loss in ("cross_entropy", "difference_logits_ratio")
        ),
        DeepFool(estimator, max_iter=p["max_iter"], nb_grads=3, **common),
    ]
    if draft.norm != 1:  # ART's SquareAttack accepts L1, and then does nothing
        members.append(SquareAttack(estimator, **ball, max_iter=p["queries"], **common))
    result: Array = job.make(estimator, attacks=members).generate(job.x, y=job.y)
    return result


def patch(job: Job) -> Array:
    """One patch for the batch, trained under random places and turns, then laid on each image at ``scale``."""
    attack = job.make(job.estimator(), patch_shape=tuple(job.images.shape[1:]))
    attack.generate(job.x, y=job.y)
    result: Array = attack.apply_patch(job.x, scale=job.params["scale"])
    return result


def patch_without_autograd(job: Job) -> Array:
    """The same with ART's patch in NumPy, which only knows targets: a class that is likely for most queries."""
    estimator = job.estimator()
    attack = job.make(estimator)
    attack.generate(job.x, y=_magnet(job, estimator))
    result: Array = attack.apply_patch(job.x, scale=job.params["scale"])
    return result
