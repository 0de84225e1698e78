"""The table of torchattacks: complete, true to the library, and watertight where the library is not."""

import functools
import inspect
from importlib import metadata

import pytest
import torch
import torchattacks
from torch.nn import functional as F

from robustdml.attacks import ATTACKS, NOT_OFFERED, build_attack
from robustdml.attacks.libraries.torchattacks import drivers
from robustdml.attacks.libraries.torchattacks.rows import ROWS
from robustdml.contracts import Gallery, References
from robustdml.errors import AttackSkipped, SpecError, UnknownNameError

EPS = 12 / 255
OWN_PARAMETERS = {"norm", "step", "hardest", "target_classes"}
EVERY_ROW = pytest.mark.parametrize("kind", ROWS)


def test_the_installed_library_has_no_attack_that_is_neither_offered_nor_explained():
    library = {f"torchattacks.{name}" for name in torchattacks.__all__}
    offered = {name for name in ATTACKS if name.startswith("torchattacks.")}
    explained = {name for name in NOT_OFFERED if name.startswith("torchattacks.")}
    assert library == offered | explained
    assert not offered & explained
    assert len(offered) == 36
    assert metadata.version("torchattacks").startswith("3.5"), "another version: read its code against the table"


@EVERY_ROW
def test_targets_are_offered_where_the_class_supports_them_alone(kind, world):
    attack = build_attack(f"torchattacks.{kind}", EPS).make(world.model)
    offered = bool({"stax", "mtax"} & set(ROWS[kind].goals))
    # FAB says so, but attacks only images that already have the target's label.
    assert offered == ("targeted" in attack.supported_mode and kind != "FAB")


@EVERY_ROW
@pytest.mark.parametrize("effort", ["quick", "standard", "thorough"])
def test_the_class_is_called_with_the_budget_and_the_parameters_of_the_spec(kind, effort, world, monkeypatch):
    row, calls = ROWS[kind], []
    home = drivers if row.make else torchattacks
    original = getattr(home, row.make or kind)

    @functools.wraps(original)  # its signature too
    def make(model, **arguments):
        calls.append(arguments)
        raise RuntimeError("seen")

    monkeypatch.setattr(home, row.make or kind, make)
    attack = build_attack(f"torchattacks.{kind}", EPS, effort)
    with pytest.raises(RuntimeError, match="seen"):
        attack(*world.all, seed=1)
    (arguments,) = calls
    inspect.signature(original).bind(world.model, **arguments)
    expected = {**row.defaults, **row.effort.get(effort, {})}
    for key in set(expected) - OWN_PARAMETERS:
        assert arguments[key] == expected[key]
    if row.budget == "fixed":
        assert arguments[row.eps_name] == attack.threat.eps
    if row.step_name:
        share = expected["step"] or 2.5 / expected[row.steps_name]
        assert arguments[row.step_name] == pytest.approx(share * attack.threat.eps)
    for key in {"n_classes", "seed"} & set(inspect.signature(original).parameters):
        assert key in arguments  # the library's 10 classes and its one seed are never right


@pytest.mark.parametrize(
    ("spec", "key", "value"),
    [
        ("torchattacks.MIFGSM(goal=stax, decay=0.9)", "decay", 0.9),
        ("torchattacks.PGD(step=0.5, steps=3)", "step", 0.5),
        ("torchattacks.Square(norm=l2, eps=1.5)", "norm", "l2"),
        ("torchattacks.Pixle(x_dimensions=(1, 3))", "x_dimensions", (1, 3)),
        ("torchattacks.CW(c=0.5)", "c", 0.5),
        ("torchattacks.UPGD(loss=dlr)", "loss", "dlr"),
        ("torchattacks.JSMA(theta=-0.5)", "theta", -0.5),
    ],
)
def test_parameters_are_those_of_the_library_and_survive_the_way_through_the_entry(spec, key, value):
    attack = build_attack(spec, EPS)
    assert dict(attack.params)[key] == value
    again = build_attack(attack.entry().spec, EPS if attack.threat.norm == "linf" else 0.1)
    assert again.params == attack.params
    assert again.entry() == attack.entry()


@pytest.mark.parametrize(
    ("spec", "error", "sentence"),
    [
        ("torchattacks.MIFGSM(decya=1.0)", SpecError, "has no parameter 'decya', it has: goal, steps, decay, step"),
        ("torchattacks.CW(eps=0.5)", SpecError, "looks for the smallest perturbation and takes no eps"),
        ("torchattacks.GN(eps=0.5)", SpecError, "is bound by no norm and takes no eps"),
        ("torchattacks.CW(goal=mtax)", UnknownNameError, "unknown goal for torchattacks.CW 'mtax'"),
        ("torchattacks.APGD(goal=stax)", UnknownNameError, "unknown goal for torchattacks.APGD 'stax'"),
        ("torchattacks.APGD(norm=l1)", UnknownNameError, "'l1'"),
        ("torchattacks.APGD(loss=margin)", UnknownNameError, "unknown loss of torchattacks.APGD 'margin'"),
        ("torchattacks.UPGD(loss=dlr, goal=stax)", SpecError, "loss=dlr works for goal=untargeted only"),
        ("torchattacks.OnePixel(eps=0.5)", SpecError, "must be a number of pixels, at least 1"),
        ("torchattacks.PGD(steps=0)", SpecError, "torchattacks.PGD: steps=0 must be above 0"),
        ("torchattacks.PGD(step=0)", SpecError, "torchattacks.PGD: step=0 must be above 0"),
        ("torchattacks.PGD(step=-0.5)", SpecError, "torchattacks.PGD: step=-0.5 must be above 0"),
        ("torchattacks.EADL1(max_iterations=9)", SpecError, "max_iterations=9 must be at least 10"),
        ("torchattacks.Pixle(x_dimensions=(0, 3))", SpecError, "x_dimensions=(0, 3) must be above 0"),
        ("torchattacks.CW(lr=0.0)", SpecError, "lr=0.0 must be above 0"),
        ("torchattacks.PIFGSM(momentum=0.5)", SpecError, "has no parameter 'momentum'"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(spec, error, sentence):
    with pytest.raises(error) as caught:
        build_attack(spec, EPS)
    assert sentence in str(caught.value)


@EVERY_ROW
def test_models_in_channels_last_can_be_attacked(kind, world):
    world.model.to(memory_format=torch.channels_last)
    adversarial = build_attack(f"torchattacks.{kind}", EPS, "quick")(*world.all, seed=3)
    assert adversarial.shape == world.images.shape


def test_jsma_skips_images_whose_matrix_would_not_fit(world):
    attack = build_attack("torchattacks.JSMA", EPS)
    with pytest.raises(AttackSkipped, match="images of 33 pixels are too large for torchattacks"):
        attack(world.model, torch.zeros(6, 3, 33, 33), world.references, seed=0)


@pytest.mark.parametrize("kind", [kind for kind, row in ROWS.items() if row.most_rows == 1])
def test_attacks_that_go_image_by_image_change_a_query_alike_in_every_batch(kind, make_world):
    attack, world = build_attack(f"torchattacks.{kind}", EPS, "quick"), make_world("leave-self-out")
    whole = attack(*world.all, seed=3)
    for chosen in ([4], [5, 0, 2]):
        part = attack(*world.rows(torch.tensor(chosen)), seed=3)
        assert torch.allclose(part, whole[chosen], atol=1e-4)


@pytest.mark.parametrize("spec", ["torchattacks.APGD", "torchattacks.Square(n_queries=20)"])
def test_what_is_not_broken_is_no_clean_image_but_the_best_one(spec, world):
    attack = build_attack(spec, 1 / 255)
    adversarial = attack(*world.all, seed=3)
    with torch.no_grad():
        clean, found = world.model(world.images), world.model(adversarial)
    own = world.references.relevant
    gallery = world.references.gallery.embeddings

    def margin(points):
        similarity = points @ gallery.T
        return similarity.masked_fill(own, -2).amax(1) - similarity.masked_fill(~own, -2).amax(1)

    held = margin(found) < 0
    assert held.any()
    assert (margin(found) > margin(clean))[held].all()


@pytest.mark.parametrize("eps", [1, 3])
def test_onepixel_changes_as_many_pixels_as_its_budget_says(world, eps):
    adversarial = build_attack(f"torchattacks.OnePixel(eps={eps}, steps=1)", EPS)(*world.all, seed=0)
    changed = (adversarial != world.images).any(1).flatten(1).sum(1)
    assert (changed <= eps).all()
    assert changed.any()


def test_a_library_seed_does_not_give_every_batch_the_same_start(world):
    # The library reseeds torch with 0 in each call.
    attack = build_attack("torchattacks.APGDT(steps=1, target_classes=1)", EPS)
    assert not torch.equal(attack(*world.all, seed=1), attack(*world.all, seed=2))


def test_a_gallery_of_many_classes_does_not_multiply_the_work():
    class Colours(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = torch.nn.Linear(3 * 64, 16, bias=False)
            self.calls = 0

        def forward(self, images):
            self.calls += 1
            return F.normalize(self.mix(images.flatten(1)), dim=1)

    torch.manual_seed(0)
    counts = []
    for classes in (20, 200):
        model = Colours().eval()
        images = torch.rand(2 * classes, 3, 8, 8)
        labels = torch.arange(classes).repeat(2)
        with torch.no_grad():
            points = model(images)
        gallery = Gallery(points, labels, torch.arange(len(labels)))
        references = References(gallery, points[:8], labels[:8], gallery.ids[:8])
        attack = build_attack("torchattacks.APGDT(steps=2)", 0.001)
        model.calls = 0
        attack(model, images[:8], references, seed=0)
        counts.append(model.calls)
    assert counts[1] <= counts[0] * 1.5
