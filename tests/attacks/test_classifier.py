"""Retrieval as classification: logits, classes, labels."""

import itertools

import numpy as np
import pytest
import torch
from by_id import same_class
from torch import nn
from torch.nn import functional as F

from robustdml.attacks import RetrievalClassifier, build_attack
from robustdml.attacks.libraries.classifier import SCALE, problems
from robustdml.contracts import Gallery, References
from robustdml.errors import AttackError
from robustdml.retrieval.search import GalleryIndex

IDENTITY = nn.Flatten()


def points(rows, dim=8, *, seed=0):
    return F.normalize(torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def classes():
    """Five classes of one to five references."""
    return list(points(15, seed=1).split([3, 1, 5, 4, 2]))


@pytest.mark.parametrize("scale", [SCALE, 1.0])
def test_logits_are_scaled_similarities_by_plain_loops(scale):
    reduce = ["max", "max", "mean", "max", "mean"]
    queries = points(7, seed=2)
    found = RetrievalClassifier(IDENTITY, classes(), reduce, scale=scale)(queries).numpy()
    assert found.shape == (7, 5)
    for row, column in itertools.product(range(7), range(5)):
        similarities = [float(np.dot(queries[row].numpy(), member)) for member in classes()[column].numpy()]
        distance = sum((2 - 2 * similarity) ** 0.5 for similarity in similarities) / len(similarities)
        expected = max(similarities) if reduce[column] == "max" else 1 - distance**2 / 2
        assert found[row, column] == pytest.approx(scale * (1 + expected), abs=1e-4)
    assert found.min() >= 0  # some attacks blank a logit by multiplying it with 0


def test_logits_depend_on_the_image_alone(world):
    classifier = RetrievalClassifier(world.model, list(world.references.gallery.embeddings.split(2)), ["max"] * 6)
    with torch.no_grad():
        whole = classifier(world.images)
        for chosen in [[0], [5], [0, 1, 3], [4, 2, 1], [5, 4, 3, 2, 1, 0], [2, 0, 1, 5, 3, 4], [3, 3]]:
            assert torch.allclose(classifier(world.images[chosen]), whole[chosen], atol=1e-4)
    assert whole.argmax(1).unique().numel() > 1


def test_gradients_reach_the_image_through_the_nearest_reference():
    query = points(1, seed=5).requires_grad_()
    members = points(4, seed=6)
    logits = RetrievalClassifier(IDENTITY, [members, -members, points(1), points(1, seed=8)], ["max"] * 4)(query)
    (gradient,) = torch.autograd.grad(logits[0, 0], query)
    assert torch.allclose(gradient[0], SCALE * members[(query.detach() @ members.T).argmax()], atol=1e-5)


def test_gradients_come_in_the_order_of_the_images_whatever_the_models(world):
    model = world.model.to(memory_format=torch.channels_last)
    images = world.images.clone().requires_grad_()
    (direct,) = torch.autograd.grad(model(images).sum(), images)
    assert not direct.is_contiguous()  # else this shows nothing
    members = list(world.references.gallery.embeddings.split(3))
    logits = RetrievalClassifier(model, members, ["max"] * 4)(images)
    (gradient,) = torch.autograd.grad(logits.sum(), images)
    assert gradient.is_contiguous()


@pytest.mark.parametrize("position", [0, 2])
def test_a_class_without_references_is_refused(position):
    members = [points(2)] * 4
    members[position] = points(2)[:0]
    with pytest.raises(AttackError, match="a class of the retrieval classifier has no references"):
        RetrievalClassifier(IDENTITY, members, ["max"] * 4)


def references_of(own, *, classes=6, per_class=3, rows=9, seed=0):
    """A gallery with labels 10, 20, … in mixed order; the queries are its first items or new ones."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.arange(classes * per_class) % classes + 1) * 10
    labels = labels[torch.randperm(len(labels), generator=generator)]
    gallery = Gallery(points(len(labels), seed=seed), labels, torch.arange(len(labels)) * 7)
    if own:
        return References(gallery, gallery.embeddings[:rows], labels[:rows], gallery.ids[:rows])
    return References(gallery, points(rows, seed=seed + 50), labels[:rows], torch.arange(rows) + 5000)


def members_of(problem, column):
    """The references of a class of a problem."""
    return problem.classifier.references[problem.classifier.class_of == column]


def rows_in(embeddings, gallery):
    """Which gallery rows these points are."""
    return [int((gallery.embeddings - point).abs().sum(1).argmin()) for point in embeddings]


CASES = [
    {"own": False},
    {"own": True},
    {"own": True, "per_class": 2, "classes": 6, "rows": 12},
    {"own": True, "per_class": 2, "classes": 2, "rows": 4},
    {"own": True, "per_class": 3, "classes": 3, "rows": 9},
    {"own": True, "per_class": 4, "classes": 2, "rows": 1},
    {"own": False, "per_class": 1, "classes": 2, "rows": 2},
]
EVERY_CASE = pytest.mark.parametrize("case", CASES, ids=str)
TARGETED = pytest.mark.parametrize("count", [None, 1, 2], ids=["untargeted", "stax", "mtax"])


def build(case, count):
    references = references_of(**case)
    targets = None
    if count:
        foreign = [torch.nonzero(row).flatten() for row in ~references.relevant]
        targets = torch.stack([row[torch.randperm(len(row))[:count]] for row in foreign])
    return references, targets, problems(IDENTITY, references, targets, rivals="own")


@EVERY_CASE
@TARGETED
def test_every_row_is_in_exactly_one_problem(case, count):
    count = min(count, case.get("per_class", 3)) if count else None
    references, _, found = build(case, count)
    assert sorted(torch.cat([problem.rows for problem in found]).tolist()) == list(range(len(references)))
    for problem in found:
        assert problem.labels.shape == problem.rows.shape
        assert problem.labels.max() < problem.classifier.n_classes
        assert not problem.classifier.training


@EVERY_CASE
def test_the_label_of_an_untargeted_problem_is_the_own_class_without_the_queries(case):
    references, _, found = build(case, None)
    gallery = references.gallery
    for problem in found:
        queries = set(references.ids[problem.rows].tolist())
        for row, label in zip(problem.rows.tolist(), problem.labels.tolist(), strict=True):
            members = rows_in(members_of(problem, label), gallery)
            expected = (gallery.labels == references.labels[row]).nonzero().flatten().tolist()
            expected = [item for item in expected if int(gallery.ids[item]) not in queries]
            assert sorted(members) == expected
            assert int(references.ids[row]) not in gallery.ids[members].tolist()


@EVERY_CASE
def test_no_class_mixes_labels(case):
    references, _, found = build(case, None)
    gallery = references.gallery
    for problem in found:
        seen = []
        for column in range(int(problem.classifier.class_of.max()) + 1):
            (label,) = gallery.labels[rows_in(members_of(problem, column), gallery)].unique().tolist()
            seen.append(label)
        assert len(seen) == len(set(seen))
        assert set(references.labels[problem.rows].tolist()) <= set(seen)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(("rows", "hardest"), [(2, 1), (2, 3), (2, 8), (5, 1), (5, 2), (1, 4)])
def test_the_hardest_classes_of_each_query_are_among_the_candidates(own, rows, hardest):
    for seed in range(6):
        references = references_of(own, classes=9, rows=rows, seed=seed)
        gallery = references.gallery
        for problem in problems(IDENTITY, references, None, rivals=None, hardest=hardest):
            part = references.rows(problem.rows)
            expected = set(part.labels.tolist())
            for point, label in zip(part.embeddings, part.labels.tolist(), strict=True):
                ranked = (gallery.embeddings @ point).argsort(descending=True)
                labels = gallery.labels[ranked].tolist()
                expected |= set(list(dict.fromkeys(other for other in labels if other != label))[:hardest])
            columns = range(int(problem.classifier.class_of.max()) + 1)
            members = [item for column in columns for item in rows_in(members_of(problem, column), gallery)]
            assert set(gallery.labels[members].tolist()) == expected
            assert problem.classifier.n_classes == max(4, len(expected))


@pytest.mark.parametrize("own", [True, False])
def test_the_classifier_is_right_where_retrieval_is(own):
    references = references_of(own, classes=8, rows=10)
    gallery = references.gallery
    protocol = same_class((gallery.ids, gallery.labels), (references.ids, references.labels))
    index = GalleryIndex(gallery.embeddings.numpy(), gallery.ids.numpy(), protocol)
    hits = index.rank(references.embeddings.numpy(), references.ids.numpy(), 1)[:, 0]
    labels = dict(zip(gallery.ids.tolist(), gallery.labels.tolist(), strict=True))
    outcomes = []
    for row in range(10):  # alone, so that nothing but the query itself is left out
        (problem,) = problems(IDENTITY, references.rows(torch.tensor([row])), None, rivals=None)
        predicted = problem.classifier(references.embeddings[row : row + 1]).argmax(1)
        right = labels[int(hits[row])] == int(references.labels[row])
        assert bool(predicted == problem.labels) == right
        outcomes.append(right)
    assert 0 < sum(outcomes) < 10


@EVERY_CASE
@pytest.mark.parametrize("count", [1, 2])
def test_a_targeted_label_stands_for_the_targets_beside_the_own_class(case, count):
    count = min(count, case.get("per_class", 3))
    references, targets, found = build(case, count)
    gallery = references.gallery
    for problem in found:
        (own_label,) = references.labels[problem.rows].unique().tolist()
        own = rows_in(members_of(problem, 0), gallery)
        assert set(gallery.labels[own].tolist()) == {own_label}
        assert not set(gallery.ids[own].tolist()) & set(references.ids[problem.rows].tolist())
        assert problem.labels.tolist() == list(range(1, 1 + len(problem.rows)))
        logits = problem.classifier(references.embeddings)
        for row, label in zip(problem.rows.tolist(), problem.labels.tolist(), strict=True):
            wanted = gallery.embeddings[targets[row]]
            assert torch.equal(members_of(problem, label), wanted)
            distance = (references.embeddings[row] - wanted).norm(dim=1).mean()
            assert logits[row, label] == pytest.approx(SCALE * (2 - float(distance) ** 2 / 2), abs=1e-4)
            nearest = (references.embeddings[row] @ gallery.embeddings[own].T).max()
            assert logits[row, 0] == pytest.approx(SCALE * (1 + float(nearest)), abs=1e-4)


@EVERY_CASE
@pytest.mark.parametrize("count", [1, 2])
def test_without_rivals_the_loss_asks_for_nearness_to_the_targets_and_for_nothing_else(case, count):
    count = min(count, case.get("per_class", 3))
    references, targets, _ = build(case, count)
    (problem,) = problems(IDENTITY, references, targets, rivals="none")
    points = references.embeddings.clone().requires_grad_()
    logits = problem.classifier(points)
    assert (logits.argmax(1) != problem.labels).all()  # never reached, so that no attack stops before its time
    (found,) = torch.autograd.grad(nn.functional.cross_entropy(logits, problem.labels), points)
    wanted = references.gallery.embeddings[targets]
    distance = (points[:, None] - wanted).norm(dim=2).mean(1)
    (expected,) = torch.autograd.grad(distance.sum(), points)
    # On the sphere: what points along the embedding itself changes no ranking.
    tangent = [each - (each * points).sum(1, keepdim=True) * points for each in (found, expected)]
    assert (F.cosine_similarity(*tangent) > 0.999).all()


@pytest.mark.parametrize("spec", ["torchattacks.PGD(goal=stax)", "torchattacks.PGD(goal=mtax)"])
def test_the_goals_of_the_adapters_give_their_targets(world, spec):
    targets = build_attack(spec, 0.1).target_rows(world.references, seed=2)
    assert targets.shape == (6, 5 if "mtax" in spec else 1)
    for problem in problems(world.model, world.references, targets, rivals="own"):
        for row, label in zip(problem.rows.tolist(), problem.labels.tolist(), strict=True):
            assert torch.equal(members_of(problem, label), world.references.gallery.embeddings[targets[row]])


@pytest.mark.parametrize(("most_rows", "most_classes"), [(1, None), (2, None), (None, 4), (3, 5), (None, 1)])
@TARGETED
def test_problems_are_as_small_as_asked_for(most_rows, most_classes, count):
    references = references_of(own=True, classes=9, rows=12)
    targets = None if count is None else torch.stack([(~row).nonzero().flatten()[:count] for row in references.ignored])
    bounds = {"most_rows": most_rows, "most_classes": most_classes, "hardest": 2}
    for rivals in ("own", "none"):
        found = problems(IDENTITY, references, targets, rivals=rivals, **bounds)
        assert sorted(torch.cat([problem.rows for problem in found]).tolist()) == list(range(12))
        assert max(len(problem.rows) for problem in found) <= (most_rows or 12)
        if count is None and most_classes and most_classes > 1:
            assert max(int(problem.classifier.class_of.max()) + 1 for problem in found) <= most_classes
        elif most_classes == 1 and count is None:
            assert all(len(problem.rows) == 1 for problem in found)


@pytest.mark.parametrize("rivals", ["own", "none"])
@TARGETED
def test_a_query_alone_in_its_problem_has_the_same_one_in_every_batch(count, rivals):
    references = references_of(own=True, classes=9, rows=12)
    targets = None if count is None else torch.stack([(~row).nonzero().flatten()[:count] for row in references.ignored])
    whole = problems(IDENTITY, references, targets, rivals=rivals, most_rows=1)
    for problem in whole:
        chosen = torch.tensor([*problem.rows.tolist(), 0])
        again = problems(
            IDENTITY,
            references.rows(chosen),
            None if targets is None else targets[chosen],
            rivals=rivals,
            most_rows=1,
        )[0]
        assert torch.equal(again.classifier.references, problem.classifier.references)
        assert torch.equal(again.labels, problem.labels)


@pytest.mark.parametrize(("per_class", "left_out"), [(2, 1), (9, 1), (20, 2), (35, 3)])
def test_a_class_loses_a_tenth_of_its_members_at_most_to_leaving_queries_out(per_class, left_out):
    references = references_of(own=True, classes=3, per_class=per_class, rows=3 * per_class)
    for problem in problems(IDENTITY, references, None, rivals=None):
        counts = torch.bincount(references.labels[problem.rows] // 10)
        assert counts.max() <= left_out
        for label in references.labels[problem.rows].unique().tolist():
            kept = [rows_in(members_of(problem, column), references.gallery) for column in range(3)]
            (size,) = [len(items) for items in kept if int(references.gallery.labels[items[0]]) == label]
            assert size >= per_class - left_out


def test_a_batch_apart_from_the_gallery_is_never_parted():
    references = references_of(own=False, classes=2, per_class=1, rows=2)
    assert len(problems(IDENTITY, references, None, rivals=None)) == 1


def test_a_query_without_a_relative_is_an_error():
    gallery = Gallery(points(3), torch.tensor([0, 1, 1]), torch.arange(3))
    references = References(gallery, gallery.embeddings[:1], gallery.labels[:1], gallery.ids[:1])
    with pytest.raises(AttackError, match="has no references"):
        problems(IDENTITY, references, None, rivals=None)


@pytest.mark.parametrize("angles", [(10, 130, 250), (0, 180), (45,), (0, 90, 181)])
def test_there_are_four_classes_and_the_padding_never_wins(angles):
    # Queries and gallery lie all around the circle, so that no point of it is far from all of them.
    circle = torch.deg2rad(torch.tensor([*angles, *[angle + 6.0 for angle in angles]], dtype=torch.float32))
    embeddings = torch.stack([circle.cos(), circle.sin()], 1)
    labels = torch.arange(len(angles)).repeat(2)
    gallery = Gallery(embeddings, labels, torch.arange(len(labels)))
    rows = len(angles)
    references = References(gallery, embeddings[:rows], labels[:rows], gallery.ids[:rows])
    (problem,) = problems(IDENTITY, references, None, rivals=None)
    assert problem.classifier.n_classes == 4
    everywhere = torch.deg2rad(torch.arange(0, 360, 5, dtype=torch.float32))
    logits = problem.classifier(torch.stack([everywhere.cos(), everywhere.sin()], 1))
    assert logits.shape == (72, 4)
    assert torch.isfinite(logits).all()
    assert (logits[:, rows:] <= logits[:, :rows].amin(1, keepdim=True) + 1e-4).all()
