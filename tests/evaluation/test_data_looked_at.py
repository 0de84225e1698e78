"""Before the first attack every image is looked at: broken ones, copies, and what was done to others."""

import ast
import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import cli, refused
from PIL import Image, ImageEnhance, ImageFilter

from robustdml.data import ArrayImages, LeftOut, RetrievalDataset, load_dataset
from robustdml.errors import DataError
from robustdml.evaluation.checks.looked_at import looked_at
from robustdml.reports import render_report
from robustdml.results import Results

MODEL = "photo_model:small"


def look(data, **options):
    return looked_at(data, **{"skip_broken": False, "leave_out_copies": False, **options})


def photo(seed, side=48):
    """Smooth blobs, as photos have them, and some noise."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)).astype(float)
    return Image.fromarray((smooth + random.normal(0, 6, smooth.shape)).clip(0, 255).astype(np.uint8))


def dataset(pictures, labels, train=(), query=None, gallery=None):
    arrays = np.stack([np.asarray(picture.resize((48, 48))) for picture in pictures])
    test = np.setdiff1d(np.arange(len(labels)), train)
    return RetrievalDataset(
        name="toy",
        images=ArrayImages(arrays),
        labels=np.array(labels),
        class_names=tuple("abcdefgh"),
        train=np.array(train, int),
        query=test if query is None else np.array(query),
        gallery=test if gallery is None else np.array(gallery),
        protocol="A toy.",
        image_size=16,
        augmentation="none",
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two classes of three photos, a model beside them."""
    for number, name in enumerate(("a/0", "a/1", "a/2", "b/0", "b/1", "b/2")):
        path = tmp_path / "set" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(number).save(path)
    (tmp_path / "photo_model.py").write_text(
        "import torch\n"
        "def small():\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, 8))\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path / "set"


def run(folder, *more):
    return cli(
        "evaluate", MODEL, "--data", folder, "--attacks", "noise", "--out", folder.parent / "out", "--quiet", *more
    )


@pytest.mark.compatible("Photos", "photos that cannot be read", "all of them are named with what is wrong")
def test_all_broken_photos_are_named(folder):
    (folder / "a" / "0.png").write_bytes(b"")
    (folder / "a" / "3.jpg").write_text("<html>404</html>")
    (folder / "b" / "1.png").write_bytes((folder / "b" / "1.png").read_bytes()[:900])
    refused(
        run(folder),
        r"3 of 7 images cannot be read: a/0.png \(it is no image that Pillow knows\); a/3.jpg \(it is no image that "
        r"Pillow knows\); b/1.png \(.*truncated.*\): restore them, take them out, or go on without them "
        r"\(--skip-broken\)",
    )


@pytest.mark.compatible(
    "Photos", "the same with `--skip-broken`", "the run goes on; they are counted, and listed in a file"
)
def test_broken_photos_are_skipped_and_counted(folder):
    (folder / "a" / "3.jpg").write_text("<html>404</html>")
    (folder / "b" / "Thumbs.db").write_text("x")
    done = run(folder, "--skip-broken")
    assert done.exit_code == 0, done.output
    assert "Data: 6 images used; left out: files of the system (1), images that cannot be read (1); " in done.output
    results = Results.load(folder.parent / "out")
    assert (results.dataset.images, results.dataset.queries) == (6, 6)
    assert [(part.what, part.count, part.names) for part in results.dataset.left_out] == [
        ("files of the system", 1, ("b/Thumbs.db",)),
        ("images that cannot be read", 1, ("a/3.jpg (it is no image that Pillow knows)",)),
    ]
    with (folder.parent / "out" / "left-out.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["reason", "name", "detail"],
            ["files of the system", "b/Thumbs.db", ""],
            ["images that cannot be read", "a/3.jpg", "it is no image that Pillow knows"],
        ]
    page = render_report(results, folder.parent / "out")
    assert "left out: images that cannot be read" in page
    assert "a/3.jpg (it is no image that Pillow knows)" in page


def test_a_class_that_loses_its_second_photo_does_not_ask(folder):
    for number in (1, 2):
        (folder / "b" / f"{number}.png").write_bytes(b"")
    data = look(load_dataset(folder), skip_broken=True).dataset
    assert (len(data.query), len(data.gallery)) == (3, 4)
    assert [part.reason for part in data.left_out] == [
        "images that cannot be read",
        "queries with nothing to find, which are searched but do not ask",
    ]
    assert data.protocol.endswith(
        "; left out: images that cannot be read (2), queries with nothing to find, which are searched but do not "
        "ask (1)."
    )
    (folder / "a" / "0.png").write_bytes(b"")
    (folder / "a" / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match="none of the 2 queries has anything to find"):
        look(load_dataset(folder), skip_broken=True)


def test_broken_training_photos_do_not_stop_an_evaluation(tmp_path):
    for place in ("train/a", "train/b", "test/c", "test/d"):
        for number in range(2):
            path = tmp_path / place / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            photo(hash((place, number)) % 999).save(path)
    (tmp_path / "train" / "a" / "0.png").write_bytes(b"")
    data = look(load_dataset(tmp_path)).dataset
    assert (len(data.train), len(data.query)) == (3, 4)
    assert data.left_out[-1].names == ("train/a/0.png",)


@pytest.mark.compatible(
    "Photos", "photos of which something is unexpected (several pictures, bits)", "said in the results, too"
)
def test_what_was_done_to_photos_stands_in_the_results(folder):
    photo(8).save(folder / "a" / "x.gif", save_all=True, append_images=[photo(9)])
    Image.fromarray(np.asarray(photo(7).convert("L")).astype(np.uint16) * 16).save(folder / "b" / "y.png")
    assert "Data: of 1 images: the first of 2 pictures (a/x.gif)." in run(folder).output
    remarks = Results.load(folder.parent / "out").dataset.remarks
    assert [(part.what, part.names) for part in remarks] == [
        ("the first of 2 pictures", ("a/x.gif",)),
        ("12 of its 16 bits are used", ("b/y.png",)),
    ]


def again(picture, kind, tmp_path):
    if kind == "jpeg":
        picture.save(tmp_path / "x.jpg", quality=85)
        return Image.open(tmp_path / "x.jpg")
    return {
        "equal": picture,
        "small": picture.resize((24, 24)),
        "blurred": picture.filter(ImageFilter.GaussianBlur(1)),
        "brighter": ImageEnhance.Brightness(picture).enhance(1.08),
    }[kind]


@pytest.mark.compatible(
    "Duplicates", "a copy in the gallery: equal, JPEG, smaller, blurred, brighter", "counted and flagged"
)
@pytest.mark.parametrize("kind", ["equal", "jpeg", "small", "blurred", "brighter"])
def test_copies_in_the_gallery_are_counted(tmp_path, kind):
    pictures = [photo(number) for number in range(6)]
    data = dataset([*pictures, again(pictures[0], kind, tmp_path)], [0, 0, 0, 1, 1, 1, 0])
    copies = look(data).copies
    equal, near = (2, 0) if kind == "equal" else (0, 2)
    assert [(found.place, found.equal, found.near) for found in copies.entries()] == [
        ("gallery images with a copy in the gallery", equal, near),
        ("queries with a copy in the gallery", equal, near),
    ]
    assert [flag.slug for flag in copies.flags()] == ["copies-in-gallery"]
    assert copies.superfluous().tolist() == [6]


def test_pictures_that_only_resemble_each_other_are_no_copies():
    pictures = [photo(number) for number in range(6)]
    for number in (1, 2):  # a part of it is another
        changed = np.asarray(pictures[0]).copy()
        changed[8 * number : 8 * number + 16, 8:24] = np.asarray(photo(20 + number))[:16, :16]
        pictures[number] = Image.fromarray(changed)
    data = dataset(pictures, [0, 0, 0, 1, 1, 1])
    assert look(data).copies.entries() == ()
    flat = dataset(
        [Image.new("RGB", (48, 48), colour) for colour in ("red", "#f10000", "blue", "#0000f1")], [0, 0, 1, 1]
    )
    assert look(flat).copies.entries() == ()


@pytest.mark.compatible(
    "Duplicates", "a query's image in a gallery apart from the queries", "left out of the gallery on demand"
)
def test_across_query_and_gallery_the_query_is_kept():
    pictures = [photo(number) for number in range(4)]
    data = dataset([*pictures, pictures[0]], [0, 0, 1, 1, 0], query=[0, 2], gallery=[1, 3, 4])
    assert [(found.place, found.equal) for found in look(data).copies.entries()] == [
        ("queries with a copy in the gallery", 1)
    ]
    left = look(data, leave_out_copies=True)
    assert (left.dataset.query.tolist(), left.dataset.gallery.tolist()) == ([0, 2], [1, 3])
    assert left.copies.entries() == ()
    assert left.dataset.left_out[0].names == ("image 4",)


@pytest.mark.compatible("Duplicates", "a test image among the training images", "counted, flagged, left out on demand")
def test_across_training_and_test_the_test_image_goes():
    pictures = [photo(number) for number in range(6)]
    data = dataset([*pictures, pictures[0]], [0, 0, 1, 1, 2, 2, 2], train=[0, 1, 2, 3])
    found = look(data).copies
    assert [(entry.place, entry.equal) for entry in found.entries()] == [("test images with a copy in the training", 1)]
    assert [flag.message for flag in found.flags()] == [
        "1 of 3 test images have a copy among the training images (1 equal pixel for pixel, 0 nearly)."
    ]
    assert look(data, leave_out_copies=True).dataset.gallery.tolist() == [4, 5]


@pytest.mark.compatible("Duplicates", "one image under two labels", "counted and flagged; on demand both are left out")
def test_under_two_labels_both_go():
    pictures = [photo(number) for number in range(6)]
    data = dataset([*pictures, pictures[0]], [0, 0, 0, 1, 1, 1, 1])
    found = look(data).copies
    assert ("test images with a copy under another label", 2) in [
        (entry.place, entry.equal) for entry in found.entries()
    ]
    assert [flag.slug for flag in found.flags()] == ["copies-in-gallery", "copies-disagree"]
    assert found.superfluous().tolist() == [0, 6]


def test_the_ends_of_a_run_without_copies_are_another_run(folder):
    photo(0).save(folder / "a" / "copy.png")
    assert run(folder).exit_code == 0
    refused(run(folder, "--leave-out-copies"), "the images or the labels of the data set")
    before = Results.load(folder.parent / "out").dataset
    assert [entry.place for entry in before.copies] == [
        "gallery images with a copy in the gallery",
        "queries with a copy in the gallery",
    ]
    again = cli(
        "evaluate",
        MODEL,
        "--data",
        folder,
        "--attacks",
        "noise",
        "--out",
        folder.parent / "o",
        "--quiet",
        "--save-images",
        "--leave-out-copies",
    )
    assert "copies of other images (1)" in again.output
    after = Results.load(folder.parent / "o")
    assert (after.dataset.images, after.dataset.copies) == (before.images - 1, ())
    assert cli("verify", folder.parent / "o", "--model", MODEL, "--data", folder).exit_code == 0


@pytest.mark.compatible(
    "Duplicates", "gallery images with one embedding", "counted for each model, and those of other labels"
)
def test_embeddings_that_are_the_same_are_counted():
    from robustdml.evaluation.checks.copies import embedding_twins

    points = np.array([[1, 0], [1, 0.001], [0, 1], [0, 1], [0.6, 0.8]], np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    found = embedding_twins(points, np.array([0, 0, 1, 2, 1]))
    assert (found.images, found.other_label) == (4, 2)


def test_train_query_rows_go_with_their_images(squares):
    data = replace(squares, train_query=squares.train[:2])
    left = data.without(squares.train[:1], LeftOut("images", ("one",)))
    assert left.train_query.tolist() == squares.train[1:2].tolist()


@pytest.mark.compatible(
    "Photos",
    "60 files as phones and cameras leave them",
    "one command; used, left out and broken are what `find` finds",
)
def test_a_folder_as_phones_and_cameras_leave_it(folder, tmp_path):
    script = Path(__file__).parents[2] / "experiments" / "camera_folder.py"
    made = subprocess.run([sys.executable, script, tmp_path / "album"], capture_output=True, text=True, check=True)
    counts = ast.literal_eval(made.stdout)
    assert sum(counts.values()) == 60
    found = subprocess.run(["find", "-L", tmp_path / "album", "!", "-type", "d"], capture_output=True, check=True)
    assert len(found.stdout.splitlines()) == 60
    done = run(tmp_path / "album", "--skip-broken", "--allow-outside")
    assert done.exit_code == 0, done.output
    dataset = Results.load(tmp_path / "out").dataset
    left_out = {part.what: part.count for part in dataset.left_out}
    assert left_out.pop("queries with nothing to find, which are searched but do not ask") == 1
    assert (dataset.images, left_out.pop("images that cannot be read"), sum(left_out.values())) == (
        counts["used"],
        counts["broken"],
        counts["left out"],
    )
    assert dataset.queries == counts["used"] - 1
    assert "alone/only_one.jpg" in (tmp_path / "out" / "left-out.csv").read_text()
