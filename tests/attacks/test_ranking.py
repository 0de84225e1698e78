"""The ranking goals against their definitions, written as plain loops in NumPy over random embeddings."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from robustdml.attacks import SUITES, build_attack
from robustdml.attacks.goals import GOALS
from robustdml.contracts import Gallery, References
from robustdml.errors import SpecError
from robustdml.profiles import ERS_ATTACKS, PROFILES

OWN = pytest.mark.parametrize("own", [True, False], ids=["leave-self-out", "gallery"])
QUERY_GOALS = [
    *[GOALS[name](candidates=m) for name in ("qa_plus", "qa_minus") for m in (1, 2, 5, 10)],
    *[GOALS[name](candidates=m, balance=3.0) for name in ("spqa_plus", "spqa_minus") for m in (1, 5)],
    GOALS["tma"](),
    GOALS["es"](),
    GOALS["es_robrank"](),
    GOALS["ltm"](),
    GOALS["ltm"](compat="robrank"),
    GOALS["gtm"](),
    GOALS["gtm"](compat="robrank"),
    GOALS["gtt"](),
    GOALS["foa"](candidates=2),
    GOALS["foa"](candidates=5),
]
ITEM_GOALS = [GOALS[name](candidates=w) for name in ("ca_plus", "ca_minus") for w in (1, 2, 5, 10)]


def attacked(references, spread=0.6):
    """Embeddings of attacked images: near the clean ones, on the sphere."""
    noise = torch.randn(references.embeddings.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return F.normalize(references.embeddings + spread * noise, dim=1)


def apart(one, other):
    return float(np.sqrt(((one - other) ** 2).sum()))


def hinge(values):
    return float(np.mean([max(value, 0.0) for value in values]))


class Plain:
    """One query in plain NumPy: who it is, what it sees, and the list that it had before it was attacked."""

    def __init__(self, references, row):
        gallery = references.gallery
        self.items, self.labels = gallery.embeddings.numpy(), gallery.labels.tolist()
        self.clean, self.label = references.embeddings[row].numpy(), int(references.labels[row])
        own = int(references.ids[row])
        self.others = [place for place, item in enumerate(gallery.ids.tolist()) if item != own]
        self.list = sorted(self.others, key=lambda place: apart(self.clean, self.items[place]))

    def qa(self, point, rows, sign):
        pairs = itertools.product(rows, self.others)
        return -hinge([sign * (apart(point, self.items[c]) - apart(point, self.items[x])) for c, x in pairs])


def by_definition(goal, references, points, seed):
    """The value of each query, from the definition of its goal."""
    rows = goal.target_rows(references, seed=seed)
    found = []
    for row, point in enumerate(points.numpy()):
        plain = Plain(references, row)
        aimed = [] if rows is None else rows[row].tolist()
        if goal.name in ("qa_plus", "qa_minus"):
            found.append(plain.qa(point, aimed, 1 if goal.name == "qa_plus" else -1))
        elif goal.name in ("spqa_plus", "spqa_minus"):
            kept = [place for place in plain.list if place not in aimed][:5]
            lost = -plain.qa(point, kept, 1)
            weight = min(np.exp(goal.balance * lost), 1e9)
            found.append(plain.qa(point, aimed, 1 if goal.name == "spqa_plus" else -1) - weight * lost)
        elif goal.name == "tma":
            found.append(float(point @ plain.items[aimed[0]]))
        elif goal.name == "ltm":
            foreign = [apart(point, x) for x, y in zip(plain.items, plain.labels, strict=True) if y != plain.label]
            positive = plain.others if goal.compat == "off" else range(len(plain.items))
            near = [apart(point, plain.items[x]) for x in positive if plain.labels[x] == plain.label]
            found.append(-max(max(foreign) - min(near), 0.0))
        elif goal.name == "gtm":
            found.append(-apart(point, plain.items[aimed[0]]))
        elif goal.name == "gtt":
            found.append(plain.qa(point, [plain.list[0]], -1))
        else:
            pairs = itertools.combinations(aimed, 2)
            found.append(-hinge([apart(point, plain.items[i]) - apart(point, plain.items[j]) for i, j in pairs]))
    return np.array(found)


def large(make_references, own):
    """As many items as a hundredth needs to be more than one."""
    return make_references(own=own, rows=6, classes=5, per_class=60)


@OWN
@pytest.mark.parametrize("goal", [goal for goal in QUERY_GOALS if goal.name not in ("es", "es_robrank")], ids=repr)
def test_values_are_those_of_the_definition(make_references, goal, own):
    references = make_references(own=own, classes=4, per_class=6)
    points = attacked(references)
    value = goal.objective(references, seed=5)(points)
    assert value.shape == (6,)
    assert np.allclose(value, by_definition(goal, references, points, 5), atol=1e-6)
    assert value.std() > 1e-4


# In the gradient of SPQA the weight of the kept items is a constant, on purpose.
@OWN
@pytest.mark.parametrize("goal", [goal for goal in QUERY_GOALS if not goal.name.startswith("spqa")], ids=repr)
def test_gradients_are_those_of_differences(make_references, goal, own):
    references = make_references(own=own, classes=4, per_class=6)
    # The step is small, for the losses have kinks.
    value = goal.objective(references, seed=5)
    assert torch.autograd.gradcheck(value, attacked(references).requires_grad_(), eps=1e-8, atol=1e-4)


@OWN
@pytest.mark.parametrize("goal", QUERY_GOALS, ids=repr)
def test_the_value_of_a_row_depends_on_that_row_alone(make_references, goal, own):
    references = large(make_references, own)
    points = attacked(references)
    whole = goal.objective(references, seed=5)(points)
    for chosen in [torch.tensor([4]), torch.tensor([5, 0, 3])]:
        part = goal.objective(references.rows(chosen), seed=5)(points[chosen])
        assert torch.allclose(part, whole[chosen])


def test_the_shift_grows_with_the_distance_and_has_a_gradient_at_the_clean_embedding(make_references):
    references = make_references(own=False)
    points = references.embeddings.clone().requires_grad_()
    value = GOALS["es"]().objective(references, seed=0)
    (gradient,) = torch.autograd.grad(value(points).sum(), points)
    assert torch.allclose(gradient.norm(dim=1), torch.ones(6, dtype=torch.float64), atol=1e-3)
    moved = attacked(references)
    assert torch.allclose(value(moved), (moved - references.embeddings).norm(dim=1), atol=2e-3)


@OWN
@pytest.mark.parametrize("goal", QUERY_GOALS, ids=repr)
def test_candidates_are_drawn_from_where_the_papers_draw_them(make_references, goal, own):
    references = large(make_references, own)
    drawn = set()
    for seed in range(30):
        rows = goal.target_rows(references, seed=seed)
        if rows is None:
            assert goal.name in ("es", "es_robrank", "ltm")
            return
        for row, aimed in enumerate(rows.tolist()):
            plain = Plain(references, row)
            assert len(set(aimed)) == len(aimed)
            if goal.name != "gtm" or goal.compat == "off":
                assert set(aimed) <= set(plain.others)
            if goal.name in ("qa_minus", "spqa_minus", "foa"):
                assert set(aimed) <= set(plain.list[: max(3, goal.candidates)])  # a hundredth of 300
            if goal.name == "gtm" and goal.compat == "off":
                assert aimed[0] == next(place for place in plain.list if plain.labels[place] != plain.label)
            if goal.name == "gtt":
                assert aimed == plain.list[:1]
            drawn.add((row, tuple(aimed)))
    assert (len(drawn) == 6) == (goal.name in ("gtm", "gtt"))


def test_two_items_are_swapped_and_more_are_shuffled(make_references):
    references = large(make_references, own=True)
    for seed in range(10):
        for row, (first, then) in enumerate(GOALS["foa"](candidates=2).target_rows(references, seed=seed).tolist()):
            listed = Plain(references, row).list
            assert listed.index(first) > listed.index(then)
    orders = {tuple(GOALS["foa"](candidates=3).target_rows(references, seed=seed)[0].tolist()) for seed in range(60)}
    assert len(orders) == 6


@OWN
def test_the_published_gtm_takes_a_place_among_the_foreign_for_a_place_in_the_gallery(make_references, own):
    references = large(make_references, own)
    right = GOALS["gtm"]().target_rows(references, seed=0)[:, 0].tolist()
    published = GOALS["gtm"](compat="robrank").target_rows(references, seed=0)[:, 0].tolist()
    for row, taken in enumerate(published):
        plain = Plain(references, row)
        label = plain.labels[plain.list[0]]
        foreign = [place for place, other in enumerate(plain.labels) if other != label]
        nearest = next(place for place in plain.list if plain.labels[place] != label)
        assert taken == foreign.index(nearest)
    assert published != right


def test_the_published_ltm_mask_matters_only_where_the_query_is_in_the_gallery(make_references):
    for own in (True, False):
        references = large(make_references, own)
        points = attacked(references, spread=0.1)
        ours, theirs = (GOALS["ltm"](compat=c).objective(references, seed=0)(points) for c in ("off", "robrank"))
        assert torch.allclose(ours, theirs) != own


def item_references(make_references, own):
    """Gallery items under attack; the searchers are the gallery, or queries apart from it."""
    base = make_references(own=True, rows=6, classes=4, per_class=10)
    if own:
        return base
    points = make_references(own=False, rows=30, classes=30).embeddings
    queries = Gallery(points, torch.arange(30) % 4, torch.arange(30) + 5000)
    return References(base.gallery, base.embeddings, base.labels, base.ids, queries)


@OWN
@pytest.mark.parametrize("goal", ITEM_GOALS, ids=repr)
def test_values_of_gallery_items_are_those_of_the_definition(make_references, goal, own):
    references = item_references(make_references, own)
    points = attacked(references)
    rows = goal.target_rows(references, seed=5)
    gallery, queries = references.gallery, references.queries
    found = []
    for row, point in enumerate(points.numpy()):
        values = []
        for place in rows[row].tolist():
            assert queries.ids[place] != references.ids[row]
            query = queries.embeddings[place].numpy()
            left_out = {int(references.ids[row]), int(queries.ids[place])}
            items = [x for x, item in enumerate(gallery.ids.tolist()) if item not in left_out]
            sign = 1 if goal.name == "ca_plus" else -1
            values.append(
                hinge([sign * (apart(point, query) - apart(gallery.embeddings[x].numpy(), query)) for x in items])
            )
        found.append(-np.mean(values))
    value = goal.objective(references, seed=5)(points)
    assert np.allclose(value, found, atol=1e-6)
    for chosen in [torch.tensor([4]), torch.tensor([5, 0, 3])]:
        part = goal.objective(references.rows(chosen), seed=5)(points[chosen])
        assert torch.allclose(part, value[chosen])


def test_ca_minus_draws_from_the_searchers_near_the_item(make_references):
    base = make_references(own=True, rows=6, classes=5, per_class=60)
    for seed in range(10):
        for row, places in enumerate(GOALS["ca_minus"](candidates=2).target_rows(base, seed=seed).tolist()):
            assert set(places) <= set(Plain(base, row).list[:3])


@OWN
def test_the_hub_value_is_the_smooth_share_of_stand_ins_that_find_it_first(make_references, own):
    references = item_references(make_references, own)
    points, gallery = attacked(references, spread=2.0), references.gallery
    sharp = GOALS["hub"](softness=1e-6).objective(references, seed=0)(points)
    for row, point in enumerate(points):
        firsts = []
        for place, standin in enumerate(gallery.embeddings):
            if gallery.labels[place] != references.labels[row]:
                others = [x for x in range(len(gallery)) if x != place and gallery.ids[x] != references.ids[row]]
                firsts.append(float(standin @ point) > max(float(standin @ gallery.embeddings[x]) for x in others))
        assert float(sharp[row]) == pytest.approx(np.mean(firsts))
    assert 0 < sharp.sum() < 6


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: GOALS["qa_plus"](candidates=0), "candidates=0 must be at least 1"),
        (lambda: GOALS["foa"](candidates=1), "candidates=1 must be at least 2"),
        (lambda: GOALS["gtm"](compat="robran"), "compat=robran is not known: off or robrank"),
        (lambda: GOALS["hub"](softness=0.0), "softness=0.0 above 0"),
        (lambda: build_attack("ca_plus(items=0)", 0.1), "items=0 must be at least 1"),
        (lambda: build_attack("qa_plus(steps=0)", 0.1), "steps=0"),
        (lambda: build_attack("ltm(candidates=2)", 0.1), "ltm has no parameter 'candidates'"),
    ],
)
def test_what_cannot_be_is_refused(make, sentence):
    with pytest.raises(SpecError, match=sentence):
        make()


def test_more_candidates_than_there_are_items_are_refused(make_references):
    with pytest.raises(SpecError, match="99 candidates asked for, there are 15: ask for fewer"):
        GOALS["qa_plus"](candidates=99).target_rows(make_references(own=True), seed=0)
    with pytest.raises(SpecError, match="99 candidates asked for, there are 15: ask for fewer"):
        GOALS["qa_minus"](candidates=99).target_rows(make_references(own=True), seed=0)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("compat", ["", "-compat"])
def test_profiles_are_the_published_loop(profile, compat):
    attacks = [build_attack(spec, 0.5) for spec in SUITES[profile + compat]]
    expected = [{"es": "es_robrank"}.get(name, name) if compat else name for name in ERS_ATTACKS]
    assert [attack.goal.name for attack in attacks] == [*expected, *(["es_robrank"] if compat else [])]
    assert [attack.steps for attack in attacks] == [32] * 9 + ([31] if compat else [])
    levels = 77 if profile == "robrank-28" else 8
    for attack in attacks:
        assert attack.eps == levels / 255
        assert attack.step * attack.eps == pytest.approx(3 / 255)
        assert (attack.start, attack.best) == (0, False)
        assert getattr(attack.goal, "candidates", 1) == 1
        assert getattr(attack.goal, "compat", "off") == ("robrank" if compat else "off") or attack.goal.name not in (
            "ltm",
            "gtm",
        )
    assert {a.goal.compat for a in attacks if a.goal.name in ("ltm", "gtm")} == {"robrank" if compat else "off"}


@pytest.mark.parametrize("spec", ["qa_plus", "spqa_minus(candidates=2)", "tma", "ltm", "gtm", "gtt", "foa"])
def test_the_published_loop_raises_the_value(world, spec):
    name, _, rest = spec.partition("(")
    attack = build_attack(f"{name}(start=0, best=false{', ' + rest if rest else ')'}", 12 / 255)
    value = attack.goal.objective(world.references, seed=3)
    with torch.no_grad():
        before, after = value(world.references.embeddings), value(world.model(attack(*world.all, seed=3)))
    assert after.mean() > before.mean() + 0.2 * before.mean().abs().clamp_min(0.02)


def robrank_es(model, images, eps, alpha, steps):
    """RobRank's published loop: the shift that it reports is measured before the last step (1.4845 for 1.4983)."""
    with torch.no_grad():
        clean = model(images)
    current, reported = images.clone(), None
    for _ in range(steps):
        current = current.detach().requires_grad_()
        shift = F.pairwise_distance(model(current), clean)
        (gradient,) = torch.autograd.grad(shift.sum(), current)
        reported = shift.detach()
        moved = current.detach() + alpha * gradient.sign()
        current = moved.clamp(images - eps, images + eps).clamp(0, 1)
    return current.detach(), reported


def test_es_as_robrank_s_code_runs_it_and_the_shift_that_it_reports(world):
    model, images, references = world.all
    eps, alpha = 8 / 255, 3 / 255
    for steps in (1, 2, 5):
        last, reported = robrank_es(model, images, eps, alpha, steps)
        ours = build_attack(f"es_robrank(steps={steps}, step={alpha / eps!r}, start=0, best=false)", eps)
        # A sign may fall the other way where a gradient is next to nothing.
        assert (ours(*world.all, seed=0) - last).abs().gt(1e-6).float().mean() < 0.01
        if steps > 1:
            before = build_attack(f"es_robrank(steps={steps - 1}, step={alpha / eps!r}, start=0, best=false)", eps)
            with torch.no_grad():
                shift = (model(before(*world.all, seed=0)) - references.embeddings).norm(dim=1)
            torch.testing.assert_close(shift, reported, rtol=2e-3, atol=1e-4)
    with torch.no_grad():
        after = (model(last) - references.embeddings).norm(dim=1)
    assert (after > reported).float().mean() > 0.5


def test_the_compat_profile_has_es_at_its_last_step_and_at_the_one_before():
    specs = SUITES["robrank-224-compat"]
    assert [spec.partition("(")[0] for spec in specs] == [
        "ca_plus", "ca_minus", "qa_plus", "qa_minus", "tma", "es_robrank", "ltm", "gtm", "gtt", "es_robrank",
    ]  # fmt: skip
    assert "steps=32" in specs[5]
    assert "steps=31" in specs[-1]
    assert not any("robrank" in spec for spec in SUITES["robrank-224"])
    assert not any(spec.startswith("es_robrank") for spec in SUITES["all"])
