"""Folders of one's own as people have them: flat, in parts, unpacked twice, with classes of one image."""

import os
import unicodedata

import numpy as np
import pytest
from command_line import cli, refused, write_images
from pictures import paint

from robustdml.data import load_dataset
from robustdml.data.folder import load_flat, load_folder
from robustdml.errors import DataError, UnknownNameError


def put(root, **classes):
    """``test_a=3`` is three images in ``test/a/``."""
    for seed, (place, count) in enumerate(classes.items()):
        for number in range(count):
            paint(root / place.replace("__", "/") / f"{number}.png", 100 * seed + number)
    return root


def reasons(data):
    return {part.reason: part.names for part in data.left_out}


@pytest.mark.compatible("Layouts", "a folder for each class and nothing else", "every class is tested, leave-self-out")
def test_a_flat_folder_is_tested_as_it_is(tmp_path):
    data = load_folder(put(tmp_path / "birds", owl=3, wren=2))
    assert data.class_names == ("owl", "wren")
    assert data.query.tolist() == data.gallery.tolist() == [0, 1, 2, 3, 4]
    assert (len(data.train), data.leave_self_out, data.title, data.left_out) == (0, True, "birds", ())
    assert data.protocol == "Tested on the 2 classes in 'birds', where each image searches all the others."


@pytest.mark.compatible("Layouts", "`query/` and `gallery/`, also within `test/`", "the first searches the second")
@pytest.mark.parametrize("inside", ["", "test__"])
@pytest.mark.parametrize("trained", [False, True])
def test_query_and_gallery_folders_are_kept_apart(tmp_path, inside, trained):
    put(tmp_path / "x", **{f"{inside}query__a": 2, f"{inside}gallery__a": 1, f"{inside}gallery__b": 2})
    if trained:
        put(tmp_path / "x", train__c=2)
    data = load_folder(tmp_path / "x")
    assert [data.images.name(row)[-9:] for row in data.query] == ["y/a/0.png", "y/a/1.png"]
    assert [data.images.name(row)[-9:] for row in data.gallery] == ["y/a/0.png", "y/b/0.png", "y/b/1.png"]
    assert data.test.counts()[0].tolist() == [1, 1]
    place = inside.replace("__", "/")
    start = "Trained on the 1 classes in 'x/train' and tested on the 2 unseen" if trained else "Tested on the 2"
    assert data.protocol == (
        f"{start} classes in 'x/{place}query' and 'x/{place}gallery', where each image of the first searches those of "
        "the second."
    )


@pytest.mark.compatible(
    "Layouts", "`test/` without `train/`", "is evaluated; `train` says that there is nothing to train on"
)
def test_a_test_folder_needs_no_training_images(tmp_path):
    data = load_folder(put(tmp_path / "x", test__a=2, test__b=3))
    assert (len(data.train), len(data.query)) == (0, 5)
    assert data.protocol == "Tested on the 2 classes in 'x/test', where each test image searches all the others."
    refused(cli("train", "--data", tmp_path / "x", "--out", tmp_path / "run"), "data set 'x' has no training images")


@pytest.mark.compatible("Layouts", "`val/` in place of `test/`, or capitals", "is the test")
@pytest.mark.parametrize("name", ["val", "Validation", "TEST"])
def test_the_test_may_be_called_otherwise(tmp_path, name):
    data = load_folder(put(tmp_path / "x", **{"Train__a": 2, f"{name}__b": 2, f"{name}__c": 2}))
    assert (len(data.train), len(data.query)) == (2, 4)
    assert f"'x/{name}'" in data.protocol
    assert "'x/Train'" in data.protocol


@pytest.mark.compatible(
    "Layouts", "`train/`, `val/` and `test/`", "`val/` is not used, and its files are counted as left out"
)
def test_a_part_that_is_not_used_is_counted(tmp_path):
    data = load_folder(put(tmp_path / "x", train__a=2, val__b=2, test__c=2))
    assert reasons(data) == {"files outside of the folders that are used": ("val/b/0.png", "val/b/1.png")}
    assert data.protocol.endswith("; left out: files outside of the folders that are used (2).")


@pytest.mark.compatible("Layouts", "a class with one image", "is searched and does not ask, and is counted")
def test_a_class_with_one_image_does_not_ask(tmp_path):
    data = load_folder(put(tmp_path / "x", a=2, b=1, c=1))
    assert (len(data.query), len(data.gallery)) == (2, 4)
    assert reasons(data) == {"queries with nothing to find, which are searched but do not ask": ("b/0.png", "c/0.png")}
    apart = load_folder(put(tmp_path / "y", query__a=1, query__b=1, gallery__a=1))
    assert [apart.images.name(row) for row in apart.query] == ["query/a/0.png"]
    assert reasons(apart) == {"queries with nothing to find": ("query/b/0.png",)}
    single = load_folder(put(tmp_path / "z", train__a=1, test__b=2, test__c=2))
    with pytest.raises(DataError, match="training class 'a' has one image"):
        single.check_trainable()


def test_where_no_class_has_two_images_nothing_can_be_found(tmp_path):
    with pytest.raises(DataError, match="none of the 2 queries has anything to find: each class needs two images"):
        load_folder(put(tmp_path / "x", a=1, b=1))


@pytest.mark.compatible(
    "Layouts", "an archive unpacked into a folder of its own name", "the inner folder is the data set"
)
def test_a_folder_in_a_folder_is_unwrapped(tmp_path):
    put(tmp_path / "birds" / "birds", owl=3, wren=2)
    (tmp_path / "birds" / ".DS_Store").write_text("")
    assert load_folder(tmp_path / "birds").class_names == ("owl", "wren")
    put(tmp_path / "cars" / "data", train__a=2, test__b=2)
    assert len(load_folder(tmp_path / "cars").train) == 2


@pytest.mark.compatible(
    "Layouts", "classes called train, test and query", "are classes where they hold images themselves"
)
def test_a_class_may_be_called_train(tmp_path):
    data = load_folder(put(tmp_path / "toys", train=2, car=2, test=2))
    assert data.class_names == ("car", "test", "train")
    assert load_flat(put(tmp_path / "deep", train__red=2, test__blue=2)).class_names == ("test", "train")


@pytest.mark.compatible("Layouts", "photos in no class folder", "one sentence says how to sort them")
def test_photos_without_classes_are_named(tmp_path):
    for number in range(3):
        paint(tmp_path / "x" / f"{number}.png")
    with pytest.raises(
        DataError, match=r"x' has 3 images and no class folders: retrieval is judged by classes, so put"
    ):
        load_folder(tmp_path / "x")
    put(tmp_path / "x", a=2)
    assert reasons(load_folder(tmp_path / "x")) == {"images in no class folder": ("0.png", "1.png", "2.png")}


@pytest.mark.compatible(
    "Layouts", "parts with photos in no class folder, as of Kaggle and Market-1501", "one sentence; no part is a class"
)
@pytest.mark.parametrize(
    ("classes", "named"),
    [
        ({"train": 2, "test": 2}, "test"),
        ({"query": 2, "gallery": 3}, "query"),
        ({"bounding_box_train": 2, "bounding_box_test": 3, "query": 2}, "query"),
        ({"train__a": 2, "train__b": 2, "test": 3}, "test"),
        ({"test__query": 2, "test__gallery": 2}, "test/query"),
    ],
)
def test_parts_without_classes_are_no_classes(tmp_path, classes, named):
    root = put(tmp_path / "x", **classes)
    (root / ".git").mkdir()
    with pytest.raises(DataError, match=rf"x/{named}' has [23] images and no class folders.* \(--data flat\)$"):
        load_folder(root)
    assert len(load_flat(root).class_names) >= 1


def test_the_folders_of_market_1501_are_parts(tmp_path):
    root = put(tmp_path / "x", bounding_box_train__a=2, bounding_box_test__b=2, query__b=1)
    data = load_folder(root)
    assert (len(data.train), len(data.query), len(data.gallery)) == (2, 1, 2)


@pytest.mark.compatible("Layouts", "an empty class folder", "is left out and named")
def test_an_empty_class_is_counted(tmp_path):
    root = put(tmp_path / "x", a=2)
    (root / "nothing").mkdir()
    data = load_folder(root)
    assert reasons(data) == {"empty class folders": ("nothing",)}
    assert not any(part.files for part in data.left_out)


def test_a_class_on_both_sides_says_what_can_be_done(tmp_path):
    root = put(tmp_path / "x", train__a=2, test__a=2)
    with pytest.raises(DataError, match=r"class 'a' is in both .* or evaluate with the test images alone"):
        load_folder(root)
    assert len(load_dataset(root / "test").query) == 2


@pytest.mark.compatible("Photos", "a folder that is a link", "is followed")
@pytest.mark.compatible(
    "Photos", "links to nothing, links in a circle, a second link to an image", "left out and counted"
)
def test_links_are_followed_and_counted(tmp_path):
    root = put(tmp_path / "x", a=2, b=2)
    put(tmp_path / "elsewhere", more=2)
    (root / "b" / "more").symlink_to(tmp_path / "elsewhere" / "more")
    (root / "c").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "gone.png").symlink_to(tmp_path / "gone.png")
    (root / "a" / "round").symlink_to(root)
    (root / "a" / "self.png").symlink_to("self.png")
    (root / "a" / "00.png").symlink_to("0.png")
    data = load_folder(root)
    assert [data.images.name(row) for row in np.flatnonzero(data.labels == 1)] == [
        "b/0.png",
        "b/1.png",
        "b/more/0.png",
        "b/more/1.png",
    ]
    assert data.class_names == ("a", "b", "c")
    assert reasons(data) == {
        "links to nothing": ("a/gone.png", "a/self.png"),
        "links in a circle": ("a/round",),
        "further links to an image of the class": ("a/00.png",),
    }


@pytest.mark.compatible("Photos", "hidden files and those of Windows, macOS and NAS boxes", "left out and counted")
def test_files_of_the_system_are_counted(tmp_path):
    root = put(tmp_path / "x", a=2, b=2)
    for name in ("a/.DS_Store", "a/._0.png", "b/Thumbs.db", "b/desktop.ini", "__MACOSX/a/0.png", ".git/x.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    paint(root / "b" / "@eaDir" / "0.png")
    assert {reason: sorted(names) for reason, names in reasons(load_folder(root)).items()} == {
        "hidden files": [".git/x.png", "a/.DS_Store", "a/._0.png"],
        "files of the system": ["__MACOSX/a/0.png", "b/@eaDir/0.png", "b/Thumbs.db", "b/desktop.ini"],
    }


@pytest.mark.compatible("Photos", "videos, notes, raw files of cameras", "left out and counted, raw files apart")
def test_what_is_no_photo_is_counted(tmp_path):
    root = put(tmp_path / "x", a=2, b=2)
    for name in ("a/notes.txt", "a/live.mov", "a/IMG.NEF", "b/x.dng"):
        (root / name).write_bytes(b"II*\0" if name.endswith(("NEF", "dng")) else b"text")
    os.mkfifo(root / "a" / "pipe.png")
    assert reasons(load_folder(root)) == {
        "raw files of cameras": ("a/IMG.NEF", "b/x.dng"),
        "files that are no images": ("a/live.mov", "a/notes.txt"),
        "pipes, sockets and devices": ("a/pipe.png",),
    }


@pytest.mark.compatible("Photos", "a JPEG called .jfif, .jpe or nothing at all", "is an image by its first bytes")
def test_images_are_known_by_their_content_too(tmp_path):
    root = put(tmp_path / "x", a=2)
    for name, source in (("a/x.jfif", "jpg"), ("a/y", "jpg"), ("a/z.part", "png"), ("a/w.download", "webp")):
        paint(tmp_path / f"made.{source}").rename(root / name)
    data = load_folder(root)
    assert (len(data.query), data.left_out) == (6, ())
    assert [data.images.load(row).size for row in data.query] == [(6, 6)] * 6


@pytest.mark.compatible(
    "Photos", "names in both spellings of Unicode (NFC and NFD)", "one class; equal files are counted once"
)
def test_two_spellings_of_one_name_are_one_class(tmp_path):
    composed, apart = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    root = put(tmp_path / "x", a=2)
    paint(root / composed / "0.png", 1)
    paint(root / apart / "1.png", 2)
    paint(root / "a" / f"{composed}.png", 3)
    paint(root / "a" / f"{apart}.png", 3)
    data = load_folder(root)
    assert data.class_names == ("a", composed)
    assert np.bincount(data.labels).tolist() == [3, 2]
    assert list(reasons(data)) == ["equal files under one name in two spellings of Unicode"]
    paint(root / "a" / f"{apart}.png", 4)
    assert np.bincount(load_folder(root).labels).tolist() == [4, 2]


@pytest.mark.compatible("Photos", "names that are not UTF-8", "are read, and shown with `\\xff` for such bytes")
def test_names_that_are_not_utf8(tmp_path):
    root = put(tmp_path / "x", a=2)
    folder = os.fsencode(root) + b"/caf\xe9"
    os.mkdir(folder)  # noqa: PTH102 -- the name is bytes
    for number in range(2):
        paint(tmp_path / "made.png", number)
        os.rename(tmp_path / "made.png", folder + b"/\xff%d.png" % number)  # noqa: PTH104
    data = load_folder(root)
    assert data.class_names == ("a", "caf\\xe9")
    assert data.images.name(3) == "caf\\xe9/\\xff1.png"
    assert data.images.load(3).size == (6, 6)
    assert len(data.fingerprint()) == 16


@pytest.mark.compatible("Paths and terminals", "`--root .`", "the data set has the name of the folder")
def test_the_working_folder_has_a_name(tmp_path, monkeypatch):
    put(tmp_path / "mine", train__a=2, test__b=2)
    monkeypatch.chdir(tmp_path / "mine")
    data = load_dataset("folder", ".")
    assert data.title == "mine"
    assert data.protocol.startswith("Trained on the 1 classes in 'mine/train' and tested on the 1 unseen classes in 'm")


@pytest.mark.compatible("Layouts", "`--data PATH`", "finds out whether it is a folder or a table, and says so")
def test_a_path_is_read_for_what_it_is(tmp_path, monkeypatch):
    root = put(tmp_path / "birds", owl=2, wren=2)
    assert load_dataset(root).title == "birds"
    monkeypatch.chdir(tmp_path)
    assert load_dataset("birds").title == load_dataset("./birds/").title == "birds"
    table = tmp_path / "list.csv"
    table.write_text("path,label\nbirds/owl/0.png,1\nbirds/owl/1.png,1\n")
    assert load_dataset(str(table)).name == "manifest"
    table.rename(root / "list.csv")
    assert load_dataset(root, tmp_path).name == "manifest"
    (root / "list.csv").write_text("wing,beak\n1,2\n")
    assert load_dataset(root).name == "folder"
    assert reasons(load_dataset(root)) == {"files that are no images": ("list.csv",)}
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_dataset("~/birds").title == "birds"


def test_a_path_that_leads_nowhere_is_named(tmp_path):
    with pytest.raises(DataError, match=r"there is no folder or file '.*/nowhere', and no data set of that name"):
        load_dataset(str(tmp_path / "nowhere"))
    with pytest.raises(UnknownNameError, match="unknown data set 'birdz'"):
        load_dataset("birdz")
    with pytest.raises(UnknownNameError, match="unknown data set ''"):
        load_dataset("")
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(DataError, match=r"x\.txt' is a file and no table: give a folder of images, or a table"):
        load_dataset(tmp_path / "x.txt")


def test_the_command_says_what_a_path_was_taken_for(tmp_path):
    write_images(tmp_path / "birds", {"owl": 3, "wren": 3})
    done = cli("check", "robustdml.models.small:SmallNet", "--data", tmp_path / "birds")
    assert "Data: birds, read as 'folder'. Tested on the 2 classes in 'birds', where each image" in done.output
