"""torchvision's data sets: each opened by torchvision's own class from a small imitation of its files.

The imitations have other checksums than the published files, so torchvision's check of MD5 sums is replaced by one that
asks only whether the file exists; where the check itself is the subject, it stays.
"""

import importlib
import json
import pickle
import socket
import struct
from pathlib import Path

import numpy as np
import pytest
from pictures import paint
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from robustdml.data import load_dataset
from robustdml.data.torchvision_sets import PATIENCE, TORCHVISION_SETS
from robustdml.errors import DataError

RANDOM = np.random.default_rng(0)


@pytest.fixture
def trusting(monkeypatch):
    """Any file that exists passes torchvision's integrity check."""

    def exists(path, md5=None):
        return Path(path).is_file()

    for module in ("cifar", "flowers102", "mnist", "omniglot", "svhn"):
        monkeypatch.setattr(importlib.import_module(f"torchvision.datasets.{module}"), "check_integrity", exists)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """No test reaches the network, whatever the machine could."""

    def refuse(*_, **__):
        raise OSError("no network in tests")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


def dump(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value))


def pixels(count):
    return RANDOM.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


def make_cifar10(root):
    """Two images of each class: one in a training batch, one in the test batch."""
    folder = root / "cifar-10-batches-py"
    for number in range(1, 6):
        labels = [2 * number - 2, 2 * number - 1]
        dump(folder / f"data_batch_{number}", {"data": pixels(2).reshape(2, -1), "labels": labels})
    dump(folder / "test_batch", {"data": pixels(10).reshape(10, -1), "labels": list(range(10))})
    dump(folder / "batches.meta", {"label_names": [f"thing {label}" for label in range(10)]})
    return 10, 5


def make_cifar100(root):
    folder = root / "cifar-100-python"
    for part in ("train", "test"):
        dump(folder / part, {"data": pixels(100).reshape(100, -1), "fine_labels": list(range(100))})
    dump(folder / "meta", {"fine_label_names": [f"thing {label}" for label in range(100)]})
    return 100, 50


def make_idx(name):
    def make(root):
        folder = root / name / "raw"
        folder.mkdir(parents=True)
        for part in ("train", "t10k"):
            images = RANDOM.integers(0, 256, (10, 28, 28), dtype=np.uint8)
            head = struct.pack(">4B3I", 0, 0, 8, 3, *images.shape)
            (folder / f"{part}-images-idx3-ubyte").write_bytes(head + images.tobytes())
            head = struct.pack(">4BI", 0, 0, 8, 1, 10)
            (folder / f"{part}-labels-idx1-ubyte").write_bytes(head + bytes(range(10)))
        return 10, 5

    return make


def make_svhn(root):
    for part in ("train", "test"):
        # SVHN calls the digit 0 class 10, and has the pixels' number last.
        savemat(
            root / f"{part}_32x32.mat",
            {"X": pixels(10).transpose(2, 3, 1, 0), "y": np.arange(1, 11)[:, None].astype(np.uint8)},
        )
    return 10, 5


def make_omniglot(root):
    folder = root / "omniglot-py"
    for part, alphabets in (("images_background", ("Latin", "Greek")), ("images_evaluation", ("Tengwar",))):
        for alphabet in alphabets:
            for character in (2, 1):
                for number in (1, 2):
                    path = folder / part / alphabet / f"character{character:02d}" / f"0{character}_{number:02d}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels(1)[0, 0] > 127).save(path)  # black on white, as the originals
        (folder / f"{part}.zip").write_bytes(b"")
    return 6, 4


def make_flowers(root):
    folder = root / "flowers-102"
    labels = np.tile(np.arange(1, 103), 3)
    for number in range(1, len(labels) + 1):
        paint(folder / "jpg" / f"image_{number:05d}.jpg", number)
    savemat(folder / "imagelabels.mat", {"labels": labels})
    ids = np.arange(1, len(labels) + 1).reshape(3, 102)
    savemat(folder / "setid.mat", {"trnid": ids[0], "valid": ids[1], "tstid": ids[2]})
    return 102, 51


def make_aircraft(root):
    folder = root / "fgvc-aircraft-2013b" / "data"
    variants = ["707-320", "A310", "Cessna 172"]
    for part in ("trainval", "test"):
        lines = []
        for number, variant in enumerate(variants):
            paint(folder / "images" / f"{part}{number}.jpg", number)
            lines.append(f"{part}{number} {variant}\n")
        (folder / f"images_variant_{part}.txt").write_text("".join(lines))
    (folder / "variants.txt").write_text("\n".join(variants))
    return 3, 2


def make_pets(root):
    folder = root / "oxford-iiit-pet"
    (folder / "annotations").mkdir(parents=True)
    for part, first in (("trainval", 1), ("test", 7)):
        lines = []
        for label, breed in enumerate(("Abyssinian", "Bengal", "Sphynx"), start=1):
            paint(folder / "images" / f"{breed}_{first}.jpg", first + label)
            lines.append(f"{breed}_{first} {label} 1 1\n")
        (folder / "annotations" / f"{part}.txt").write_text("".join(lines))
    return 3, 2


def make_food(root):
    folder = root / "food-101"
    (folder / "meta").mkdir(parents=True)
    for number, part in enumerate(("train", "test")):
        listed = {dish: [f"{dish}/{number}"] for dish in ("tacos", "pho", "sushi", "waffles")}
        for (path,) in listed.values():
            paint(folder / "images" / f"{path}.jpg", number)
        (folder / "meta" / f"{part}.json").write_text(json.dumps(listed))
    return 4, 2


def make_textures(root):
    folder = root / "dtd" / "dtd"
    (folder / "labels").mkdir(parents=True)
    for part in ("train", "val", "test"):
        paths = [f"{texture}/{texture}_{part}.jpg" for texture in ("banded", "dotted", "woven")]
        for path in paths:
            paint(folder / "images" / path)
        (folder / "labels" / f"{part}1.txt").write_text("\n".join(paths))
    return 3, 2


def make_scenes(root):
    folder = root / "SUN397"
    scenes = ["/a/abbey", "/b/bazaar/indoor", "/b/bazaar/outdoor"]
    for scene in scenes:
        for number in range(2):
            paint(folder / scene[1:] / f"sun_{scene[1]}{number}{len(scene)}.jpg", number)
    (folder / "ClassName.txt").write_text("\n".join(scenes))
    return 3, 2


MAKERS = {
    "cifar10": make_cifar10,
    "cifar100": make_cifar100,
    "mnist": make_idx("MNIST"),
    "fashion-mnist": make_idx("FashionMNIST"),
    "kmnist": make_idx("KMNIST"),
    "svhn": make_svhn,
    "omniglot": make_omniglot,
    "flowers102": make_flowers,
    "fgvc-aircraft": make_aircraft,
    "oxford-pets": make_pets,
    "food101": make_food,
    "dtd": make_textures,
    "sun397": make_scenes,
}
NAMES = [entry.name for entry in TORCHVISION_SETS]


def classes(data, rows):
    return sorted({data.class_names[label] for label in data.labels[rows]})


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("name", NAMES)
def test_the_first_half_of_the_classes_trains_and_the_second_is_tested(name, tmp_path):
    total, trained = MAKERS[name](tmp_path)
    data = load_dataset(name, tmp_path)
    assert data.name == name
    assert len(data.class_names) == len(set(data.class_names)) == total
    assert set(data.labels[data.train]) == set(range(trained))
    assert set(data.labels[data.query]) == set(range(trained, total))
    # Every image of every split is used, each once.
    assert sorted([*data.train, *data.query]) == list(range(len(data.images)))
    assert data.leave_self_out
    assert f"{trained} classes" in data.protocol
    assert f"the {total - trained} unseen others" in data.protocol
    assert data.images.load(0).mode == "RGB"
    assert data.fingerprint() == load_dataset(name, tmp_path).fingerprint()


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("name", NAMES)
def test_images_and_labels_are_those_that_torchvision_gives(name, tmp_path):
    MAKERS[name](tmp_path)
    data = load_dataset(name, tmp_path)
    entry = next(entry for entry in TORCHVISION_SETS if entry.name == name)
    ours = sorted((data.class_names[label], data.images.load(row).tobytes()) for row, label in enumerate(data.labels))
    theirs = []
    for options in entry.parts:
        original = getattr(datasets, entry.dataset)(str(tmp_path), **options)
        known = {"omniglot": getattr(original, "_characters", None), "svhn": [f"digit {digit}" for digit in range(10)]}
        named = known.get(name) or original.classes
        theirs += [(named[int(label)], image.convert("RGB").tobytes()) for image, label in original]
    assert ours == sorted(theirs)


@pytest.mark.usefixtures("trusting")
def test_omniglot_keeps_the_authors_alphabets_apart_in_an_order_of_its_own(tmp_path):
    make_omniglot(tmp_path)
    data = load_dataset("omniglot", tmp_path)
    assert data.class_names == (
        "Greek/character01", "Greek/character02", "Latin/character01", "Latin/character02",
        "Tengwar/character01", "Tengwar/character02",
    )  # fmt: skip
    assert classes(data, data.query) == ["Tengwar/character01", "Tengwar/character02"]
    assert data.protocol.startswith("All images of Omniglot, trained on the 4 classes of its training split and tested")
    for row, label in enumerate(data.labels):
        assert data.class_names[label] in data.images.name(row)


@pytest.mark.usefixtures("trusting")
def test_the_order_of_the_file_system_does_not_matter(tmp_path, monkeypatch):
    make_omniglot(tmp_path)
    before = load_dataset("omniglot", tmp_path).fingerprint()
    for lister in ("list_dir", "list_files"):
        found = getattr(importlib.import_module("torchvision.datasets.omniglot"), lister)
        monkeypatch.setattr(
            f"torchvision.datasets.omniglot.{lister}", lambda *names, found=found: sorted(found(*names), reverse=True)
        )
    first = datasets.Omniglot(str(tmp_path))._characters
    assert first == sorted(first, reverse=True)
    assert load_dataset("omniglot", tmp_path).fingerprint() == before


@pytest.mark.usefixtures("trusting")
def test_flowers_have_numbers_where_torchvision_knows_no_names(tmp_path, monkeypatch):
    make_flowers(tmp_path)
    assert load_dataset("flowers102", tmp_path).class_names[0] == "pink primrose"
    monkeypatch.delattr(datasets.Flowers102, "classes")
    assert load_dataset("flowers102", tmp_path).class_names[::101] == ("flower 1", "flower 102")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_missing_and_cannot_be_downloaded_says_where_it_goes(name, tmp_path):
    with pytest.raises(
        DataError,
        match=r"is missing or incomplete in '.*', and downloading it failed \(.*\): get .* from https?://.*, and give "
        "as root the folder that holds .",
    ):
        load_dataset(name, tmp_path)


def test_what_is_missing_is_downloaded(tmp_path, monkeypatch):
    asked = []

    def fetch(url, root, filename, md5):
        asked.append((url, socket.getdefaulttimeout()))
        make_cifar10(tmp_path)
        print("unpacking")

    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: bool(asked))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", fetch)
    before = socket.getdefaulttimeout()
    assert len(load_dataset("cifar10", tmp_path).images) == 20
    assert asked == [("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", PATIENCE)]
    assert socket.getdefaulttimeout() == before


def test_a_download_prints_nothing_among_results(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", lambda *_, **__: print("unpacking"))
    with pytest.raises(DataError):
        load_dataset("cifar10", tmp_path)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "unpacking" in captured.err


def test_files_that_are_not_the_published_ones_are_refused(tmp_path):
    # torchvision reads CIFAR-10 by pickle, so a file of someone else's must not be opened: checksums come first.
    make_cifar10(tmp_path)
    with pytest.raises(DataError, match=r"CIFAR-10 is missing or incomplete in .* failed \(.*no network in tests.*\)"):
        load_dataset("cifar10", tmp_path)


def test_a_missing_list_is_named(tmp_path):
    make_aircraft(tmp_path)
    (tmp_path / "fgvc-aircraft-2013b" / "data" / "variants.txt").unlink()
    with pytest.raises(DataError, match=r"FGVC-Aircraft is missing or incomplete in .* failed \(.*variants\.txt'\)"):
        load_dataset("fgvc-aircraft", tmp_path)


def test_a_missing_image_is_named(tmp_path):
    make_pets(tmp_path)
    (tmp_path / "oxford-iiit-pet" / "images" / "Bengal_7.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 6 images of Oxford-IIIT Pet are missing, .*Bengal_7\.jpg': get Oxford"):
        load_dataset("oxford-pets", tmp_path)


def test_a_damaged_image_is_named(tmp_path):
    make_pets(tmp_path)
    (tmp_path / "oxford-iiit-pet" / "images" / "Bengal_7.jpg").write_bytes(b"no image")
    data = load_dataset("oxford-pets", tmp_path)
    with pytest.raises(
        DataError, match=r"cannot read the image '.*Bengal_7\.jpg' \(it is no image that Pillow knows\)"
    ):
        [data.images.load(row) for row in range(6)]


def test_a_class_with_one_image_is_named(tmp_path):
    make_food(tmp_path)
    path = tmp_path / "food-101" / "meta" / "test.json"
    listed = json.loads(path.read_text())
    listed["waffles"] = []
    path.write_text(json.dumps(listed))
    with pytest.raises(DataError, match="class 'waffles' has one image in the test, so its query has nothing to find"):
        load_dataset("food101", tmp_path)
