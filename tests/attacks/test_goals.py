"""Goals: values against plain loops, gradients against differences, targets."""

import itertools

import numpy as np
import pytest
import torch
from by_id import same_class
from torch.nn import functional as F

from robustdml.attacks import MTAX, STAX, Margin, NearestNegative, Shift
from robustdml.contracts import Gallery, References
from robustdml.errors import AttackSkipped, SpecError
from robustdml.retrieval.search import GalleryIndex

GOALS = [
    Shift(),
    Margin(),
    NearestNegative(),
    STAX(),
    STAX(choose="nearest"),
    MTAX(),
    MTAX(targets=2),
    MTAX(targets=3, choose="hardest"),
]
OWN = pytest.mark.parametrize("own", [True, False], ids=["leave-self-out", "gallery"])


def attacked(references, *, spread=0.6):
    """Embeddings of attacked images: near the clean ones, on the sphere."""
    noise = torch.randn(references.embeddings.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return F.normalize(references.embeddings + spread * noise, dim=1)


def by_loops(goal, references, embeddings, seed):
    """The value of a goal in plain Python, from its definition."""
    gallery = references.gallery
    points = gallery.embeddings.numpy()
    targets = goal.target_rows(references, seed=seed)
    found = []
    for row, point in enumerate(embeddings.numpy()):
        if isinstance(goal, Shift):
            found.append(sum((point - references.embeddings[row].numpy()) ** 2))
        elif isinstance(goal, Margin | NearestNegative):
            foreign, own = [], []
            for item in range(len(gallery)):
                similarity = float(sum(point * points[item]))
                if gallery.labels[item] != references.labels[row]:
                    foreign.append(similarity)
                elif gallery.ids[item] != references.ids[row]:
                    own.append(similarity)
            found.append(max(foreign) - (max(own) if isinstance(goal, Margin) else 0))
        else:
            found.append(-np.mean([np.sqrt(sum((point - points[item]) ** 2)) for item in targets[row].tolist()]))
    return np.array(found)


@OWN
@pytest.mark.parametrize("goal", GOALS, ids=repr)
def test_values_are_those_of_plain_loops(make_references, goal, own):
    references = make_references(own=own)
    embeddings = attacked(references)
    value = goal.objective(references, seed=11)(embeddings)
    assert value.shape == (6,)
    assert np.allclose(value.numpy(), by_loops(goal, references, embeddings, 11), atol=1e-6)


@OWN
@pytest.mark.parametrize("goal", GOALS, ids=repr)
def test_gradients_are_those_of_differences(make_references, goal, own):
    references = make_references(own=own)
    assert torch.autograd.gradcheck(goal.objective(references, seed=11), attacked(references).requires_grad_())


@OWN
@pytest.mark.parametrize("goal", GOALS, ids=repr)
def test_the_value_of_a_row_depends_on_that_row_alone(make_references, goal, own):
    references = make_references(own=own)
    embeddings = attacked(references)
    whole = goal.objective(references, seed=11)(embeddings)
    for chosen in [torch.tensor([4]), torch.tensor([5, 0, 3])]:
        part = goal.objective(references.rows(chosen), seed=11)(embeddings[chosen])
        assert torch.allclose(part, whole[chosen])


def test_the_own_gallery_row_is_no_positive(make_references):
    # At the clean embedding the own row has similarity 1: were it counted, no margin could reach -1 + its best foreign.
    references = make_references(own=True)
    similarity = references.embeddings @ references.gallery.embeddings.T
    value = Margin().objective(references, seed=0)(references.embeddings)
    others = similarity.masked_fill(references.ignored | ~references.relevant, -2).amax(1)
    foreign = similarity.masked_fill(references.relevant, -2).amax(1)
    assert torch.allclose(value, foreign - others)
    assert (value > foreign - 1 + 0.01).all()


@OWN
def test_the_margin_is_above_zero_exactly_where_the_first_hit_is_wrong(make_references, own):
    references = make_references(own=own, rows=12, classes=5, per_class=5, dim=4, dtype=torch.float32)
    gallery = references.gallery
    protocol = same_class((gallery.ids, gallery.labels), (references.ids, references.labels))
    index = GalleryIndex(gallery.embeddings.numpy(), gallery.ids.numpy(), protocol)
    labels = dict(zip(gallery.ids.tolist(), gallery.labels.tolist(), strict=True))
    outcomes = []
    for spread in (0.1, 0.3, 0.6):
        embeddings = attacked(references, spread=spread).float()
        hits = index.rank(embeddings.numpy(), references.ids.numpy(), 1)[:, 0].tolist()
        wrong = [labels[hit] != label for hit, label in zip(hits, references.labels.tolist(), strict=True)]
        assert (Margin().objective(references, seed=0)(embeddings) > 0).tolist() == wrong
        outcomes += wrong
    assert 2 < sum(outcomes) < len(outcomes) - 2  # both cases were met


def test_the_margin_searches_its_neighbours_anew():
    points = F.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.1], [0.1, -1.0]]), dim=1)
    gallery = Gallery(points, torch.tensor([0, 1, 2, 3]), torch.arange(4))
    query = F.normalize(torch.tensor([[1.0, 0.2]]), dim=1)
    value = Margin().objective(References(gallery, query, torch.tensor([0]), torch.tensor([9])), seed=0)
    for moved, nearest in [([0.8, 0.6], 1), ([-0.9, 0.1], 2), ([0.3, -0.9], 3)]:
        embedding = F.normalize(torch.tensor([moved]), dim=1)
        assert torch.allclose(value(embedding), embedding @ points[nearest] - embedding @ points[0])


@pytest.mark.parametrize("goal", [STAX(), MTAX(targets=3)], ids=repr)
def test_the_gradient_at_a_reached_target_is_finite(make_references, goal):
    references = make_references(own=False)
    targets = goal.target_rows(references, seed=1)
    embeddings = references.gallery.embeddings[targets[:, 0]].clone().requires_grad_()
    value = goal.objective(references, seed=1)(embeddings)
    (gradient,) = torch.autograd.grad(value.sum(), embeddings)
    assert torch.isfinite(value).all()
    assert torch.isfinite(gradient).all()
    if goal == STAX():
        assert torch.allclose(value, torch.zeros(6, dtype=torch.float64), atol=1e-5)


def test_the_shift_has_no_gradient_at_the_clean_image_and_the_others_have(make_references):
    references = make_references(own=False)
    for goal in GOALS:
        embeddings = references.embeddings.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(goal.objective(references, seed=1)(embeddings).sum(), embeddings)
        assert bool((gradient == 0).all()) == goal.flat_at_clean


@pytest.mark.parametrize("goal", [Shift(), Margin(), NearestNegative()], ids=repr)
def test_untargeted_goals_have_no_targets(make_references, goal):
    assert goal.target_rows(make_references(own=False), seed=0) is None


@pytest.mark.parametrize(("goal", "count"), [(STAX(), 1), (MTAX(), 5), (MTAX(targets=12), 12)], ids=repr)
@OWN
def test_targets_are_distinct_rows_of_other_classes(make_references, goal, count, own):
    references = make_references(own=own)
    for seed in range(20):
        rows = goal.target_rows(references, seed=seed)
        assert rows.shape == (6, count)
        assert rows.dtype == torch.int64
        assert (references.gallery.labels[rows] != references.labels[:, None]).all()
        assert all(len(set(row)) == count for row in rows.tolist())


@pytest.mark.parametrize("goal", [STAX(), MTAX(targets=3)], ids=repr)
def test_targets_depend_on_seed_and_query_alone(make_references, goal):
    references = make_references(own=False)
    whole = goal.target_rows(references, seed=4)
    for chosen in itertools.permutations(range(6), 2):
        part = references.rows(torch.tensor(chosen))
        assert torch.equal(goal.target_rows(part, seed=4), whole[list(chosen)])
    assert not torch.equal(goal.target_rows(references, seed=5), whole)
    renamed = References(references.gallery, references.embeddings, references.labels, references.ids + 1)
    assert not torch.equal(goal.target_rows(renamed, seed=4), whole)
    moved = References(references.gallery, -references.embeddings, references.labels, references.ids)
    assert torch.equal(goal.target_rows(moved, seed=4), whole)


def test_every_foreign_row_is_drawn_sometimes(make_references):
    references = make_references(own=False)
    drawn = torch.cat([STAX().target_rows(references, seed=seed) for seed in range(100)], 1)
    for row, label in zip(drawn, references.labels, strict=True):
        foreign = torch.nonzero(references.gallery.labels != label).flatten()
        counts = torch.bincount(row, minlength=16)[foreign]
        assert counts.min() >= 1
        assert counts.max() <= 24  # 100 draws of 12 rows: 8.3 expected


@pytest.mark.parametrize(("goal", "asked"), [(MTAX(targets=13), 13), (MTAX(targets=99), 99)], ids=repr)
def test_too_few_foreign_rows_are_an_error(make_references, goal, asked):
    with pytest.raises(
        AttackSkipped, match=f"{asked} targets of other classes asked for, the gallery has 12: ask for fewer"
    ):
        goal.target_rows(make_references(own=False), seed=0)


@pytest.mark.parametrize("count", [0, -1])
def test_an_attack_needs_a_target(count):
    with pytest.raises(SpecError, match=f"targets={count}: an attack needs at least one target"):
        MTAX(targets=count)


@OWN
@pytest.mark.parametrize("choose", ["nearest", "hardest"])
def test_nearest_and_hardest_are_the_ends_of_the_ranking_of_other_classes(make_references, choose, own):
    references = make_references(own=own)
    rows = MTAX(targets=3, choose=choose).target_rows(references, seed=0)
    points, labels = references.gallery.embeddings.numpy(), references.gallery.labels.numpy()
    for row, embedding in enumerate(references.embeddings.numpy()):
        foreign = [item for item in range(len(points)) if labels[item] != references.labels[row]]
        ranked = sorted(foreign, key=lambda item: float(((points[item] - embedding) ** 2).sum()))
        assert rows[row].tolist() == (ranked[:3] if choose == "nearest" else ranked[:-4:-1])
    assert torch.equal(STAX(choose=choose).target_rows(references, seed=0), rows[:, :1])


def test_given_items_are_the_targets_of_every_query(make_references):
    references = make_references(own=False)
    ids = references.gallery.ids.tolist()
    assert STAX(choose="given", item=ids[5]).target_rows(references, seed=0).tolist() == [[5]] * 6
    goal = MTAX(choose="given", items=(ids[9], ids[2]))
    assert goal.target_rows(references, seed=0).tolist() == [[9, 2]] * 6
    embeddings = attacked(references)
    value = goal.objective(references, seed=0)(embeddings)
    assert np.allclose(value.numpy(), by_loops(goal, references, embeddings, 0), atol=1e-6)
    with pytest.raises(SpecError, match="the gallery has no item with the id 5000"):
        STAX(choose="given", item=5000).target_rows(references, seed=0)


@pytest.mark.parametrize("choose", ["nearest", "hardest"])
def test_too_few_foreign_rows_are_an_error_however_they_are_chosen(make_references, choose):
    with pytest.raises(AttackSkipped, match="13 targets of other classes asked for, the gallery has 12: ask for fewer"):
        MTAX(targets=13, choose=choose).target_rows(make_references(own=False), seed=0)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: STAX(choose="farthest"), "choose=farthest is not known: random, nearest, hardest, given"),
        (lambda: STAX(choose="given"), "choose=given needs the ids of gallery items"),
        (lambda: MTAX(choose="given"), "choose=given needs the ids of gallery items"),
        (lambda: STAX(item=3), "used with choose=given only, not choose=random"),
        (lambda: MTAX(choose="nearest", items=(3,)), "used with choose=given only, not choose=nearest"),
    ],
)
def test_choices_that_cannot_be_made_are_refused(make, sentence):
    with pytest.raises(SpecError, match=sentence):
        make()
