"""The guarantees of a retrieval data set, its query subsets and its validation split."""

import dataclasses

import numpy as np
import pytest

from robustdml.data import ArrayImages, Reidentification, RetrievalDataset, RetrievalSplit, SameClass
from robustdml.errors import DataError, SpecError

# Classes 0 to 4 are trained on, 5 to 7 tested; the sizes differ, so that proportions can be told apart.
SIZES = [4, 6, 2, 3, 5, 10, 20, 70]
LABELS = np.repeat(np.arange(8), SIZES)
TEST = np.flatnonzero(LABELS >= 5)
PIXELS = np.random.default_rng(0).integers(0, 256, (len(LABELS), 2, 2, 3), dtype=np.uint8)


def make(**changes):
    fields = {
        "name": "toy",
        "images": ArrayImages(PIXELS),
        "labels": LABELS,
        "class_names": tuple("abcdefgh"),
        "train": np.flatnonzero(LABELS < 5),
        "query": TEST,
        "gallery": TEST,
        "protocol": "A toy.",
        "image_size": 2,
        "augmentation": "none",
    }
    return RetrievalDataset(**{**fields, **changes})


def test_leaves_itself_out_where_query_and_gallery_share_rows():
    assert make().leave_self_out
    assert make().test.leave_self_out
    apart = make(query=TEST[::2], gallery=TEST[1::2])
    assert not apart.leave_self_out
    assert not apart.test.leave_self_out


@pytest.mark.parametrize(("query", "gallery"), [(TEST, TEST), (TEST[::2], TEST[1::2]), (TEST[5:40], TEST[::-1])])
def test_counts_relevant_images_like_a_naive_loop(query, gallery):
    split = make(query=query, gallery=gallery).test
    naive = [sum(LABELS[g] == LABELS[q] and g != q for g in gallery) for q in query]
    assert split.counts()[0].tolist() == naive


def test_refuses_a_class_on_both_sides():
    with pytest.raises(DataError, match=r"class 'e' is in both the training and the test images: .* unseen classes"):
        make(query=np.arange(15, 120))
    with pytest.raises(DataError, match=r"classes 'a', 'b', 'c' and 2 more are in both"):
        make(gallery=np.arange(120))


@pytest.mark.parametrize("part", ["train", "query", "gallery"])
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "the {} part of the data set is empty"),
        ([0, 120], "{} rows must lie between 0 and 119, and they range from 0 to 120"),
        ([-1, 0], "{} rows must lie between 0 and 119, and they range from -1 to 0"),
        ([1, 2, 1], "some {} rows are listed twice"),
        ([0.0, 1.0], "{} rows must be a list of integers, and they are float64"),
    ],
)
def test_refuses_bad_rows(part, rows, message):
    if part == "train" and not rows:
        assert make(train=np.array([])).train.tolist() == []
        return
    with pytest.raises(DataError, match=message.format(part)):
        make(**{part: np.array(rows)})


def test_refuses_a_test_class_with_one_image():
    test = TEST[9:]  # One image of class 'f' is left.
    with pytest.raises(DataError, match=r"class 'f' has one image in the test, so its query has nothing to find"):
        make(query=test, gallery=test)


def test_refuses_a_query_class_that_the_gallery_lacks():
    with pytest.raises(DataError, match=r"class 'f' has query images and no image in the gallery: add one"):
        make(query=TEST[:20], gallery=TEST[20:])
    with pytest.raises(DataError, match=r"class 'h' has query images and no image in the gallery: add one"):
        make(query=TEST[30:], gallery=TEST[:30])


def test_a_training_class_with_one_image_is_refused_where_it_is_trained_on():
    make().check_trainable()
    with pytest.raises(DataError, match=r"training class 'a' has one image, and training needs at least two"):
        make(train=np.arange(3, 20)).check_trainable()
    firsts = np.unique(make().labels[:20], return_index=True)[1]
    assert len(firsts) == 5
    with pytest.raises(DataError, match=r"training classes 'a', 'b', 'c' and 2 more have one image each, and training"):
        make(train=firsts).check_trainable()
    with pytest.raises(
        DataError, match=r"the data set 'toy' has no training images, so it can be evaluated on and not"
    ):
        make(train=np.array([])).check_trainable()


def test_refuses_labels_that_do_not_fit():
    with pytest.raises(
        DataError, match=r"labels must be 120 integers, one per image, and they are int64 of shape \(119,\)"
    ):
        make(labels=LABELS[:-1])
    with pytest.raises(DataError, match=r"labels must be 120 integers, one per image, and they are float64"):
        make(labels=LABELS.astype(float))
    with pytest.raises(
        DataError, match=r"labels must lie between 0 and 6, .* 7 class names, and they range from 0 to 7"
    ):
        make(class_names=tuple("abcdefg"))
    with pytest.raises(DataError, match="they range from -1 to 6"):
        make(labels=LABELS - 1)


def test_a_split_refuses_a_query_with_nothing_to_find():
    with pytest.raises(DataError, match=r"query row 0 \(label 0\) has nothing to find in the gallery"):
        RetrievalSplit(ArrayImages(PIXELS), LABELS, np.array([0]), TEST)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"class_names": tuple("Abcdefgh")},
        {"labels": np.where(np.arange(120) == 0, 1, LABELS)},
        {"train": np.arange(2, 20)},
        {"query": TEST[1:]},
        {"gallery": TEST[1:]},
        {"images": ArrayImages(255 - PIXELS)},
        {"rules": SameClass(metrics=("recall_at_1",))},
        {"rules": Reidentification(np.arange(120) % 2)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_fingerprint_changes_with_everything_that_matters(change):
    assert make(**change).fingerprint() != make().fingerprint()


def test_the_protocol_follows_the_labels():
    other = dataclasses.replace(
        make(), labels=LABELS[::-1], train=np.arange(100, 120), query=np.arange(100), gallery=np.arange(100)
    )
    for part in (other, other.test, other.subset_queries(10, 0), other.split_validation(2, 0)[1]):
        np.testing.assert_array_equal(part.rules.labels, LABELS[::-1])


def test_fingerprint_is_the_same_for_equal_data():
    other = make(labels=LABELS.astype(np.int32), query=TEST.tolist(), images=ArrayImages(PIXELS.copy()))
    assert other.fingerprint() == make().fingerprint()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 10, 50, 99])
def test_subset_has_exactly_so_many_sorted_queries_and_the_whole_gallery(count):
    data = make()
    subset = data.subset_queries(count, seed=1)
    assert len(subset.query) == count
    assert np.isin(subset.query, data.query).all()
    assert (np.diff(subset.query) > 0).all()
    np.testing.assert_array_equal(subset.gallery, data.gallery)


@pytest.mark.parametrize(
    ("count", "per_class"),
    [(10, [1, 2, 7]), (50, [5, 10, 35]), (3, [1, 1, 1]), (4, [1, 1, 2]), (5, [1, 1, 3])],
)
def test_subset_is_in_proportion_and_keeps_every_class(count, per_class):
    for seed in range(5):
        subset = make().subset_queries(count, seed)
        assert np.bincount(LABELS[subset.query], minlength=8)[5:].tolist() == per_class


def test_subset_does_not_always_favour_the_first_of_equal_classes():
    labels = np.repeat(np.arange(5), 4)
    rows = np.arange(20)
    data = make(
        images=ArrayImages(PIXELS[:20]), labels=labels, train=rows[:8], query=rows[8:], gallery=rows[8:]
    )  # Three test classes of four images each.
    assert {int(labels[data.subset_queries(1, seed).query[0]]) for seed in range(30)} == {2, 3, 4}


def test_subset_depends_on_the_seed_alone():
    first, same, other = (make().subset_queries(30, seed).query for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("count", [None, 100, 1000])
def test_subset_of_all_queries_is_the_data_set(count):
    np.testing.assert_array_equal(make().subset_queries(count, seed=0).query, TEST)


@pytest.mark.parametrize("count", [0, -3])
def test_refuses_a_subset_without_queries(count):
    with pytest.raises(SpecError, match=f"the number of queries must be at least 1, and it is {count}"):
        make().subset_queries(count, seed=0)


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_validation_asks_for_held_out_classes_among_all_training_images(classes):
    data = make()
    remaining, validation = data.split_validation(classes, seed=0)
    assert validation is not None
    held_out = set(LABELS[validation.query])
    assert len(held_out) == classes
    assert held_out.isdisjoint(LABELS[remaining])
    assert sorted([*remaining, *validation.query]) == data.train.tolist()
    np.testing.assert_array_equal(validation.gallery, data.train)
    assert validation.leave_self_out
    np.testing.assert_array_equal(validation.counts()[0], np.array(SIZES)[LABELS[validation.query]] - 1)


def test_validation_searches_other_photos_than_those_that_ask():
    # Every second training image asks; only the others may be found.
    data = make()
    asks = data.train[::2]
    remaining, validation = dataclasses.replace(data, train_query=asks).split_validation(2, seed=0)
    assert validation is not None
    assert np.isin(validation.query, asks).all()
    np.testing.assert_array_equal(validation.gallery, np.setdiff1d(data.train, asks))
    assert not validation.leave_self_out
    assert set(LABELS[remaining]).isdisjoint(LABELS[validation.query])
    assert len(set(LABELS[validation.query])) == 2


def test_refuses_a_validation_query_that_is_not_trained_on():
    data = make()
    with pytest.raises(DataError, match="train_query rows are not training rows"):
        dataclasses.replace(data, train_query=data.query[:1])


def test_validation_depends_on_the_seed_alone():
    splits = [make().split_validation(2, seed)[0].tolist() for seed in (3, 3, *range(10))]
    assert splits[0] == splits[1]
    assert len({tuple(split) for split in splits}) > 1


def test_no_validation_without_held_out_classes():
    remaining, validation = make().split_validation(0, seed=0)
    assert validation is None
    np.testing.assert_array_equal(remaining, make().train)


@pytest.mark.parametrize("classes", [-1, 4, 5])
def test_refuses_to_hold_out_too_many_classes(classes):
    with pytest.raises(SpecError, match=f"cannot hold out {classes} of 5 training classes: .* between 0 and 3"):
        make().split_validation(classes, seed=0)


def test_of_two_classes_none_can_be_held_out():
    with pytest.raises(SpecError, match=r"cannot hold out 1 of 2 training classes: .* so hold out none"):
        make(train=np.arange(8)).split_validation(1, seed=0)


def test_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().name = "other"
