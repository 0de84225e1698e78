"""Every attack where the tensors are elsewhere: no two devices meet, and who waits for the device is listed here."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pretend_device import MixedDevicesError, pretend_device, sent

from robustdml.attacks import ATTACKS, build_attack
from robustdml.attacks.libraries.art.estimators import ClassifierEstimator
from robustdml.attacks.libraries.art.rows import ROWS
from robustdml.attacks.libraries.classifier import problems
from robustdml.contracts import GalleryAttack

#: So small that no attack is done before its last step.
EPS = 1 / 255
NAMES = [name for name, factory in ATTACKS.items() if not factory.by_name_only]
OURS = [name for name in NAMES if not name.startswith(("art.", "torchattacks."))]

#: The parameter that counts steps, by attack where it is not ``steps``, and from how many to how many it is raised.
STEPS = {
    "noise": ("trials", 2, 4),
    "square": ("queries", 2, 4),
    "rays": ("queries", 2, 4),
    "nes": ("queries", 42, 84),
    "torchattacks.SPSA": ("nb_iter", 1, 2),
    "torchattacks.EADL1": ("max_iterations", 10, 12),
    "torchattacks.EADEN": ("max_iterations", 10, 12),
    "torchattacks.PIFGSM": ("num_iter_set", 2, 4),
    "torchattacks.PIFGSMPP": ("num_iter_set", 2, 4),
    "torchattacks.Pixle": ("max_iterations", 1, 2),
    "torchattacks.Square": ("n_queries", 2, 4),
    "torchattacks.SparseFool": ("steps", 1, 2),
}
#: Their length is no parameter.
WITHOUT_STEPS = {
    "cascade",
    "torchattacks.FGSM",
    "torchattacks.FFGSM",
    "torchattacks.JSMA",
    "torchattacks.GN",
    "torchattacks.OnePixel",
}

#: Our own attacks that wait at every step, by the line of code; a comment there says why.
WAITING = {
    "mi": {"native/momentum._rows_left": 1},
    # Where some are done, who belongs to the others is asked again: here once for each of the two.
    "bisection": {"native/momentum._rows_left": 1, "goals/search.of": 2},
    # Each step is taken on other images, and who belongs to them is asked.
    "universal": {"goals/search.of": 2},
    "patch": {"goals/search.of": 2},
    # A question to the service: its images go there, its answers come back.
    "noise": {"native/black_box.search": 2},
    "square": {"native/black_box.search": 2},
    "rays": {"native/black_box.search": 2},
    "nes": {"native/black_box.search": 8 / 42},  # each of the two steps that 42 queries more are asks twice
}
#: What of torchattacks waits at every step, in its own code, which picks rows by masks or asks about each image.
LIBRARY_WAITS = {
    *("APGD", "APGDT", "AutoAttack", "CW", "DeepFool", "EADEN", "EADL1", "FAB", "Jitter", "Pixle", "SPSA"),
    *("SparseFool", "Square"),
}

#: An attack of ART for each way in which they are called.
OF_EACH_CALL = {row.call: f"art.{name}" for name, row in sorted(ROWS.items(), reverse=True)}


def there(world, device):
    """The arguments of an attack on the first two queries, on the device."""
    references, items = world.references.rows(torch.tensor([0, 1])), world.references.gallery.images
    gallery = replace(sent(references.gallery, device), images=lambda rows: items(rows.cpu()).to(device))
    known = replace(sent(replace(references, gallery=None), device), gallery=gallery)
    return world.model.to(device), world.images[:2].to(device), known


def made(name, **params):
    given = ", ".join(f"{key}={value}" for key, value in params.items())
    return build_attack(f"{name}({given})" if given else name, EPS, "quick")


def run_there(make_world, attack):
    """The images, back again, and what was seen on the way."""
    world = make_world("leave-self-out" if isinstance(attack, GalleryAttack) else "gallery")
    with pretend_device() as device:
        arguments = there(world, device.device)
        device.round_trips.clear()
        images = attack(*arguments, seed=3)
        assert images.device == device.device
        assert all(part.device == device.device for part in arguments[0].parameters())
        seen = device.round_trips.copy()
        return images.cpu(), seen


def run_here(make_world, attack):
    world = make_world("leave-self-out" if isinstance(attack, GalleryAttack) else "gallery")
    return attack(*world.rows(torch.tensor([0, 1])), seed=3)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("art.")])
def test_the_images_are_those_of_the_processor_and_no_step_waits_unlisted(make_world, name):
    if name in WITHOUT_STEPS:
        attack = made(name)
        assert torch.equal(run_there(make_world, attack)[0], run_here(make_world, attack))
        return
    key, few, many = STEPS.get(name, ("steps", 2, 4))
    more = {"rounds": 1} if name in ("minimum", "bisection") else {}
    attack = made(name, **{key: few}, **more)
    images, seen = run_there(make_world, attack)
    assert torch.equal(images, run_here(make_world, attack))
    seen_longer = run_there(make_world, made(name, **{key: many}, **more))[1]
    grown = {place: (seen_longer[place] - seen[place]) / (many - few) for place in seen_longer}
    waiting = {place: count for place, count in grown.items() if count}
    if name in OURS:
        assert waiting == pytest.approx(WAITING.get(name, {}))
    else:
        assert all(place.startswith("attacks/") for place in waiting), "not the library's own code"
        assert bool(waiting) == (name.removeprefix("torchattacks.") in LIBRARY_WAITS)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*OF_EACH_CALL.values(), "art.AutoProjectedGradientDescent"])
def test_art_computes_where_the_model_is_and_leaves_it_there(make_world, name):
    attack = made(name)
    assert torch.equal(run_there(make_world, attack)[0], run_here(make_world, attack))


def test_art_is_told_the_device_and_does_not_choose_one(make_world, monkeypatch):
    """With a model on the second of two GPUs, ART would take the first, and move the model to it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    with pretend_device() as device:
        model, images, references = there(make_world("gallery"), device.device)
        problem = problems(model, references, None, rivals=None)[0]
        estimator = ClassifierEstimator(problem.classifier, images)
        assert estimator.device == device.device
        assert {part.device for part in model.parameters()} == {device.device}
        assert estimator.predict(images.cpu().numpy()).shape == (2, problem.classifier.n_classes)


def test_the_pretend_device_refuses_to_mix_and_counts_who_waits():
    with pretend_device() as device:
        here, elsewhere = torch.arange(4.0), torch.arange(4.0).to(device.device)
        with pytest.raises(MixedDevicesError, match=r"\(4,\) on cpu"):
            here + elsewhere
        with pytest.raises(MixedDevicesError, match="generator"):
            torch.rand(3, device=device.device, generator=torch.Generator())
        with pytest.raises(RuntimeError, match="numpy"):
            elsewhere.numpy()
        cases = {
            "an item": (lambda: elsewhere[0].item(), 1),
            "a list": (lambda: elsewhere.tolist(), 1),
            "a question": (lambda: bool(elsewhere.sum() > 1), 1),
            "equality": (lambda: torch.equal(elsewhere, elsewhere), 1),
            "a mask": (lambda: elsewhere[elsewhere > 1], 1),
            "values by a mask": (lambda: elsewhere.clone().index_put_((elsewhere > 1,), elsewhere[:2]), 1),
            "on its way there": (lambda: torch.tensor([1.0, 2.0], device=device.device), 1),
            "an index from here": (lambda: elsewhere[torch.tensor([0])], 1),
            "into a tensor here": (lambda: torch.empty(4).copy_(elsewhere), 1),
            "a number by a mask": (lambda: elsewhere.clone().masked_fill_(elsewhere > 1, 0.0), 0),
            "choosing by a mask": (lambda: torch.where(elsewhere > 1, elsewhere, 0.0), 0),
            "an index there": (lambda: elsewhere[torch.arange(2, device=device.device)], 0),
            "arithmetic": (lambda: (elsewhere * 2 + torch.zeros_like(elsewhere)).sum(), 0),
        }
        for case, (call, count) in cases.items():
            device.round_trips.clear()
            call()
            assert device.round_trips.total() == count, case
        assert torch.equal((elsewhere * 2).cpu(), here * 2)
