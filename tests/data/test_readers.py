"""The readers: digits, a folder of one's own, and the Grocery Store Dataset (a small imitation of its layout)."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pictures import paint
from PIL import Image

import robustdml.data
from robustdml.data import DATASETS, load_dataset
from robustdml.data.augment import augmentation
from robustdml.data.finding import IMAGE_SUFFIXES
from robustdml.data.folder import load_folder
from robustdml.data.tensors import ImageTensors
from robustdml.errors import DataError, UnknownNameError
from robustdml.preprocessing import Preprocessing


@pytest.fixture
def tree(tmp_path):
    """Two training and two test classes of three images each."""
    for place in ("train/apple", "train/pear", "test/fig", "test/kiwi"):
        for number in range(3):
            paint(tmp_path / "mine" / place / f"{number}.png", number)
    return tmp_path / "mine"


@pytest.fixture
def grocery(tmp_path):
    """Five classes: two photos each in train, one in val, two in test; class 4 is spelt in two folders."""
    folder = tmp_path / "grocery" / "dataset"
    for part, count in (("train", 2), ("val", 1), ("test", 2)):
        lines = []
        for label in range(5):
            name = "Cap" if label == 4 and part == "test" else f"Class-{label}"
            for number in range(count):
                path = f"{part}/{name}/{number}.jpg"
                paint(folder / path)
                lines.append(f"{path}, {label}, 0\n")
        (folder / f"{part}.txt").write_text("".join(lines))
    # Not in the order of the ids, which alone may decide.
    rows = [f"Class-{label},{label},Coarse,0,x,y\n" for label in (1, 0, 2, 4, 3)]
    (folder / "classes.csv").write_text(
        "Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int),Iconic,Description\n"
        + "".join(rows)
    )
    return tmp_path / "grocery"


def test_public_names_are_sorted_and_exist():
    constants = [name for name in robustdml.data.__all__ if name.isupper()]
    classes = [name for name in robustdml.data.__all__ if name[0].isupper() and not name.isupper()]
    functions = [name for name in robustdml.data.__all__ if name.islower()]
    assert robustdml.data.__all__ == sorted(constants) + sorted(classes) + sorted(functions)
    assert all(getattr(robustdml.data, name) is not None for name in robustdml.data.__all__)


def test_every_reader_is_listed_under_its_name():
    published = ["digits", "folder", "flat", "manifest", "grocery", "cub", "cars", "sop", "inshop"]
    downloaded = [
        "cifar10", "cifar100", "mnist", "fashion-mnist", "kmnist", "svhn", "omniglot", "flowers102", "fgvc-aircraft",
        "oxford-pets", "food101", "dtd", "sun397",
    ]  # fmt: skip
    assert list(DATASETS) == published + downloaded
    for name, reader in DATASETS.items():
        assert (reader.name, reader.needs_root) == (name, name != "digits")
        assert reader.summary
        assert reader.summary.endswith("downloaded by torchvision") == (name in downloaded)


def test_listing_and_reading_import_no_torch(tree):
    program = (
        "import sys; from robustdml.data import DATASETS, load_dataset; names = list(DATASETS)\n"
        "load_dataset('digits'); load_dataset('folder', sys.argv[1])\n"
        "sys.exit(','.join(name for name in ('torch', 'torchvision') if name in sys.modules) or None)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tree)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "")


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(
        UnknownNameError, match=r"unknown data set 'digit': did you mean 'digits'\? (known: cars, cifar10|nearest of)"
    ):
        load_dataset("digit")


@pytest.mark.parametrize("name", ["folder", "grocery", "cub", "cars", "sop", "inshop", "cifar10", "omniglot"])
def test_asks_for_the_folder(name, tmp_path):
    with pytest.raises(DataError, match=f"data set '{name}' is read from a folder: say where it is"):
        load_dataset(name)
    with pytest.raises(DataError, match=f"nowhere' of data set '{name}' does not exist, or is a file"):
        load_dataset(name, tmp_path / "nowhere")


def test_a_folder_here_that_is_called_as_a_data_set_is_told_apart(tmp_path, monkeypatch):
    (tmp_path / "cars").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"\(root\); if you mean the folder 'cars' that is here, write \./cars$"):
        load_dataset("cars")


def test_a_manifest_may_be_a_folder_or_a_file(tmp_path):
    with pytest.raises(DataError, match="data set 'manifest' is read from a folder or a file: say where it is"):
        load_dataset("manifest")
    with pytest.raises(DataError, match=r"the folder or file '.*nowhere' of data set 'manifest' does not exist: check"):
        load_dataset("manifest", tmp_path / "nowhere")


def test_refuses_a_folder_that_is_not_wanted(tmp_path):
    with pytest.raises(DataError, match=r"data set 'digits' is built in and reads no folder: leave out '"):
        load_dataset("digits", tmp_path)


def test_digits_train_and_test_on_different_digits():
    data = load_dataset("digits")
    assert len(data.images) == 1797
    assert set(data.labels[data.train]) == {0, 1, 2, 3, 4}
    assert set(data.labels[data.query]) == {5, 6, 7, 8, 9}
    assert len(data.train) + len(data.query) == 1797
    assert data.leave_self_out
    assert data.class_names[7] == "digit 7"
    assert (data.image_size, data.augmentation) == (32, "shift")
    assert data.fingerprint() == load_dataset("digits").fingerprint()


def test_digits_use_the_whole_range_at_their_size():
    data = load_dataset("digits")
    batch = ImageTensors(data.images, data.image_size).batch(data.query[:50])
    assert batch.shape == (50, 3, 32, 32)
    assert (batch.amin(dim=(1, 2, 3)) == 0).all()
    assert batch.max() == 1
    assert (batch[:, 0] == batch[:, 2]).all()


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    data = load_dataset("digits")
    assert data.labels.tolist() == load_digits().target.tolist()
    batch = ImageTensors(data.images, data.image_size).batch(range(100))
    np.testing.assert_allclose(batch.mean(dim=(1, 2, 3)), load_digits().images[:100].mean(axis=(1, 2)) / 16, rtol=0.04)


def test_folder_reads_classes_by_name(tree):
    data = load_dataset("folder", str(tree))
    assert data.name == "folder"
    assert data.class_names == ("apple", "fig", "kiwi", "pear")
    assert [data.images.name(row) for row in data.train] == [
        f"train/{c}/{n}.png" for c in ("apple", "pear") for n in "012"
    ]
    assert [data.images.name(row) for row in data.query] == [
        f"test/{c}/{n}.png" for c in ("fig", "kiwi") for n in "012"
    ]
    for row, label in enumerate(data.labels):
        assert data.images.name(row).split("/")[1] == data.class_names[label]
    assert data.leave_self_out
    assert len(data.query) == len(data.gallery)
    assert data.protocol == (
        "Trained on the 2 classes in 'mine/train' and tested on the 2 unseen classes in 'mine/test', "
        "where each test image searches all the others."
    )


def test_folder_may_start_with_a_tilde(tree, monkeypatch):
    monkeypatch.setenv("HOME", str(tree.parent))
    monkeypatch.setenv("USERPROFILE", str(tree.parent))
    assert len(load_dataset("folder", "~/mine").images) == 12


def test_folder_skips_hidden_and_other_files_and_looks_into_subfolders(tree):
    (tree / "train" / "apple" / "notes.txt").write_text("not an image")
    (tree / "train" / "apple" / "._0.png").write_text("not an image")
    (tree / "train" / ".cache").mkdir()
    paint(tree / "train" / "apple" / "more" / "3.PNG")
    data = load_folder(tree)
    assert [data.images.name(row) for row in data.train if data.labels[row] == 0] == [
        "train/apple/0.png",
        "train/apple/1.png",
        "train/apple/2.png",
        "train/apple/more/3.PNG",
    ]


def test_fingerprint_of_a_folder_follows_its_files_and_not_its_place(tree):
    before = load_folder(tree).fingerprint()
    moved = tree.rename(tree.with_name("elsewhere"))
    assert load_folder(moved).fingerprint() == before
    Image.new("RGB", (50, 50)).save(moved / "test" / "fig" / "0.png")
    assert load_folder(moved).fingerprint() != before


def test_knows_the_extensions_that_torchvision_knows():
    from torchvision.datasets.folder import IMG_EXTENSIONS

    assert set(IMG_EXTENSIONS) < set(IMAGE_SUFFIXES)


def test_folder_names_what_is_missing(tree, tmp_path):
    with pytest.raises(DataError, match=r"the image folder '.*nowhere' does not exist, or is a file"):
        load_folder(tmp_path / "nowhere")
    (tree / "test").rename(tree / "old")
    with pytest.raises(DataError, match=r"mine' has no folder 'test': it needs test/<class>/ with images"):
        load_folder(tree)
    (tree / "test").mkdir()
    with pytest.raises(DataError, match=r"test' is empty: it needs a folder with images for each class"):
        load_folder(tree)


def test_folder_names_a_class_on_both_sides(tree):
    for number in range(2):
        paint(tree / "test" / "pear" / f"{number}.png")
    with pytest.raises(DataError, match="class 'pear' is in both the training and the test images"):
        load_folder(tree)


@pytest.mark.parametrize("inner", ["", "dataset"])
def test_grocery_trains_on_one_half_and_asks_with_test_photos(grocery, inner):
    data = load_dataset("grocery", grocery / inner)
    assert data.class_names == tuple(f"Class-{label}" for label in range(5))
    assert set(data.labels[data.train]) == {0, 1, 2}  # the first half of RandomState(0).permutation(5) = 2 0 1 3 4
    assert {data.images.name(row).split("/")[0] for row in data.train_query} == {"test"}
    assert len(data.train) == 3 * 5
    assert set(data.labels[data.query]) == set(data.labels[data.gallery]) == {3, 4}
    assert {data.images.name(row).split("/")[0] for row in data.query} == {"test"}
    assert sorted({data.images.name(row).split("/")[0] for row in data.gallery}) == ["train", "val"]
    assert not data.leave_self_out
    assert data.test.counts()[0].tolist() == [3, 3, 3, 3]
    assert data.protocol.startswith(
        "Trained on 3 of 5 fine classes, drawn at random once, and tested on the 2 unseen ones"
    )


def test_grocery_merges_a_class_in_two_folders_by_its_id(grocery):
    data = load_dataset("grocery", grocery)
    folders = {data.images.name(row).split("/")[1] for row in np.flatnonzero(data.labels == 4)}
    assert folders == {"Cap", "Class-4"}


@pytest.mark.parametrize("name", ["classes.csv", "train.txt", "val.txt", "test.txt"])
def test_grocery_names_a_missing_list(grocery, name):
    (grocery / "dataset" / name).unlink()
    with pytest.raises(
        DataError, match=rf"has no '{name}', expected at '.*{name}': get the Grocery Store Dataset from https://github"
    ):
        load_dataset("grocery", grocery)


def test_grocery_names_a_missing_photo(grocery):
    (grocery / "dataset" / "val" / "Class-1" / "0.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 25 images of .* are missing, the first is '.*0\.jpg': get .*github"):
        load_dataset("grocery", grocery)


@pytest.mark.parametrize("line", ["no commas", "a.jpg, x, 0", "a.jpg, 5, 0", "a.jpg, -1, 0"])
def test_grocery_names_a_line_that_cannot_be_read(grocery, line):
    path = grocery / "dataset" / "val.txt"
    path.write_text(path.read_text() + f"\n{line}\n")
    with pytest.raises(DataError, match=rf"line 7 of '.*val\.txt' is '{line}': it must be a path, a class id below 5"):
        load_dataset("grocery", grocery)


@pytest.mark.parametrize(
    "text",
    ["", "Name,Id\na,0\n", "Class Name (str),Class ID (int)\na,zero\n", "Class Name (str),Class ID (int)\na,0\nb,2\n"],
)
def test_grocery_refuses_a_class_table_that_cannot_be_read(grocery, text):
    (grocery / "dataset" / "classes.csv").write_text(text)
    with pytest.raises(DataError, match=r"classes\.csv' cannot be read: it needs the columns 'Class Name \(str\)'"):
        load_dataset("grocery", grocery)


@pytest.mark.parametrize("name", ["digits", "folder", "grocery"])
def test_every_data_set_says_how_to_use_it(name, tree, grocery):
    data = load_dataset(name, {"digits": None, "folder": tree, "grocery": grocery}[name])
    assert data.name == name
    assert data.protocol.endswith(".")
    assert callable(augmentation(data.augmentation, Preprocessing(data.image_size)))


def test_the_real_grocery_photos():
    root = os.environ.get("ROBUSTDML_GROCERY")
    if root is None:
        pytest.skip("set ROBUSTDML_GROCERY to the folder of the Grocery Store Dataset to read the real photos")
    data = load_dataset("grocery", Path(root))
    assert len(data.class_names) == len(np.unique(data.labels)) == 81
    assert (len(data.train), len(data.query), len(data.gallery)) == (2744, 1230, 1447)
    assert ImageTensors(data.images, data.image_size).batch(data.query[:4]).shape == (4, 3, 64, 64)
