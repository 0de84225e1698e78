"""CUB200-2011, CARS196, Stanford Online Products and In-Shop, each from a small imitation of its layout."""

import numpy as np
import pytest
from pictures import paint
from scipy.io import savemat

from robustdml.data import FileImages, load_dataset
from robustdml.data.cars import load_cars
from robustdml.data.cub import load_cub
from robustdml.data.inshop import load_inshop
from robustdml.data.sop import load_sop
from robustdml.data.tensors import ImageTensors
from robustdml.errors import DataError
from robustdml.retrieval import METRICS

LOADERS = {"cub": load_cub, "cars": load_cars, "sop": load_sop, "inshop": load_inshop}
# The last class that is trained on and the first that is tested are on the edge of the split.
CUB_CLASSES = {1: 2, 100: 3, 101: 2, 200: 3}
CAR_CLASSES = {1: 2, 98: 3, 99: 2, 196: 3}
SOP_HEADER = "image_id class_id super_class_id path\n"


def make_cub(root):
    folder = root / "CUB_200_2011"
    images, classes = [], []
    for label, count in CUB_CLASSES.items():
        for number in range(count):
            path = f"{label:03d}.Bird/Bird_{number:04d}.jpg"
            paint(folder / "images" / path, number)
            images.append(f"{len(images) + 1} {path}\n")
            classes.append(f"{len(images)} {label}\n")
    (folder / "images.txt").write_text("".join(images))
    # In another order than the images, which must not matter.
    (folder / "image_class_labels.txt").write_text("".join(reversed(classes)))
    (folder / "classes.txt").write_text("".join(f"{label} {label:03d}.Bird of {label}\n" for label in range(1, 201)))
    return folder


def car_annotations(rows, file_field):
    kinds = [(file_field, object), ("bbox_x1", object), ("class", object), ("test", object)]
    return np.array([(file, 1, label, 0) for file, label in rows], kinds)


CAR_ROWS = [(number, label) for label, count in CAR_CLASSES.items() for number in range(count)]
CAR_NAMES = np.array([f"Car {label}" for label in range(1, 197)], object)


def make_cars(root):
    folder = root / "cars"
    rows = [(f"car_ims/{place:06d}.jpg", label) for place, (_, label) in enumerate(CAR_ROWS, start=1)]
    for path, label in rows:
        paint(folder / path, label)
    savemat(
        folder / "cars_annos.mat",
        {"annotations": car_annotations(rows, "relative_im_path"), "class_names": CAR_NAMES},
    )
    return folder


def make_devkit(folder, answers="cars_test_annos_withlabels.mat"):
    """The other layout: the first photo of each class is in cars_train/, the others in cars_test/."""
    devkit = folder / "devkit"
    devkit.mkdir(parents=True)
    for part, file in (("train", devkit / "cars_train_annos.mat"), ("test", folder / answers)):
        chosen = [label for number, label in CAR_ROWS if (number == 0) == (part == "train")]
        rows = [(f"{place:05d}.jpg", label) for place, label in enumerate(chosen, start=1)]
        for path, label in rows:
            paint(folder / f"cars_{part}" / path, label)
        savemat(file, {"annotations": car_annotations(rows, "fname")})
    savemat(devkit / "cars_meta.mat", {"class_names": CAR_NAMES})
    return folder


def make_sop(root):
    folder = root / "Stanford_Online_Products"
    number = 0
    for part, products in (("train", (1, 7)), ("test", (11319, 20000))):
        lines = [SOP_HEADER]
        for product in products:
            for _ in range(2):
                number += 1
                path = f"bicycle_final/{product}_{number}.JPG"
                paint(folder / path, number)
                lines.append(f"{number} {product} 1 {path}\n")
        (folder / f"Ebay_{part}.txt").write_text("".join(lines))
    return folder


INSHOP_ROWS = [("id_01", "train"), ("id_01", "train"), ("id_02", "train"), ("id_02", "train"), ("id_03", "train")]
INSHOP_ROWS += [
    ("id_04", "query"),
    ("id_04", "gallery"),
    ("id_05", "query"),
    ("id_05", "gallery"),
    ("id_05", "gallery"),
]


def make_inshop(root, rows=INSHOP_ROWS, lists="Eval", images="."):
    folder = root / "inshop"
    lines = [f"{len(rows)}\n", "image_name item_id evaluation_status\n"]
    for number, (item, status) in enumerate(rows):
        path = f"img/WOMEN/Dresses/{item}/{number:02d}_1_front.jpg"
        paint(folder / images / path, number)
        lines.append(f"{path:<70}{item:<12}{status}\n")
    (folder / lists).mkdir(exist_ok=True)
    (folder / lists / "list_eval_partition.txt").write_text("".join(lines))
    return folder


MAKERS = {"cub": make_cub, "cars": make_cars, "sop": make_sop, "inshop": make_inshop}


def names(data, rows):
    return [data.images.name(row) for row in rows]


def classes(data, rows):
    return sorted({data.class_names[label] for label in data.labels[rows]})


def test_cub_trains_on_the_first_hundred_classes(tmp_path):
    data = load_cub(make_cub(tmp_path), verify=False)
    assert classes(data, data.train) == ["001.Bird of 1", "100.Bird of 100"]
    assert classes(data, data.query) == ["101.Bird of 101", "200.Bird of 200"]
    assert (len(data.train), len(data.query), data.leave_self_out) == (5, 5, True)
    for row, label in enumerate(data.labels):
        assert data.images.name(row)[:3] == data.class_names[label][:3]
    assert data.protocol == (
        "Trained on the first 2 classes of CUB200-2011 and tested on the 2 unseen others, "
        "where each test image searches all the others."
    )


def test_cub_may_be_given_by_the_folder_around_it(tmp_path):
    folder = make_cub(tmp_path)
    assert load_cub(tmp_path, verify=False).fingerprint() == load_cub(folder, verify=False).fingerprint()


def test_cub_names_what_its_lists_lack(tmp_path):
    folder = make_cub(tmp_path)
    (folder / "classes.txt").write_text("1 001.Bird of 1\n")
    with pytest.raises(DataError, match=r"'classes\.txt' of CUB200-2011 has no line for number 100: get CUB200-2011"):
        load_cub(folder, verify=False)
    (folder / "image_class_labels.txt").write_text("1 1\n")
    with pytest.raises(DataError, match=r"'image_class_labels\.txt' of CUB200-2011 has no line for number 2: get"):
        load_cub(folder, verify=False)


@pytest.mark.parametrize("layout", ["one list", "devkit", "devkit with its test labels inside", "torchvision"])
def test_cars_trains_on_the_first_98_classes_in_every_layout(tmp_path, layout):
    folder = {
        "one list": lambda: make_cars(tmp_path),
        "devkit": lambda: make_devkit(tmp_path / "cars"),
        "devkit with its test labels inside": lambda: make_devkit(
            tmp_path / "cars", "devkit/cars_test_annos_withlabels.mat"
        ),
        "torchvision": lambda: make_devkit(tmp_path / "cars" / "stanford_cars").parent,
    }[layout]()
    data = load_cars(folder, verify=False)
    assert classes(data, data.train) == ["Car 1", "Car 98"]
    assert classes(data, data.query) == ["Car 196", "Car 99"]
    assert sorted(data.labels.tolist()) == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    assert (len(data.train), len(data.query), data.leave_self_out) == (5, 5, True)
    # Each photo was painted from its class, so its pixels say whether it got the right label.
    for row, label in enumerate(data.labels):
        painted = FileImages([paint(tmp_path / "same.jpg", int(data.class_names[label].split()[1]))])
        assert data.images.load(row).tobytes() == painted.load(0).tobytes()


def test_cars_needs_the_test_labels(tmp_path):
    folder = make_devkit(tmp_path / "cars")
    (folder / "cars_test_annos_withlabels.mat").rename(folder / "devkit" / "cars_test_annos.mat")
    with pytest.raises(
        DataError, match=r"CARS196 has no 'cars_test_annos_withlabels\.mat', expected at .*: get CARS196"
    ):
        load_cars(folder, verify=False)


def test_cars_names_a_damaged_list(tmp_path):
    folder = make_cars(tmp_path)
    path = folder / "cars_annos.mat"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cars_annos\.mat' is damaged, or has no 'annotations' \(.*\): get CARS196"):
        load_cars(folder, verify=False)
    savemat(path, {"annotations": np.array([("a.jpg", 1)], [("fname", object), ("kind", object)])})
    with pytest.raises(DataError, match=r"cars_annos\.mat' have no fields 'relative_im_path' and 'class': get CARS196"):
        load_cars(folder, verify=False)


def test_cars_names_a_class_that_has_no_name(tmp_path):
    folder = make_cars(tmp_path)
    rows = [("car_ims/000001.jpg", 1), ("car_ims/000002.jpg", 197)]
    annotations = car_annotations(rows, "relative_im_path")
    savemat(folder / "cars_annos.mat", {"annotations": annotations, "class_names": CAR_NAMES})
    with pytest.raises(DataError, match=r"a class id of CARS196 is not between 1 and 196, the number of names: get"):
        load_cars(folder, verify=False)


def test_sop_follows_its_two_lists(tmp_path):
    data = load_sop(make_sop(tmp_path), verify=False)
    assert classes(data, data.train) == ["product 1 (bicycle)", "product 7 (bicycle)"]
    assert classes(data, data.query) == ["product 11319 (bicycle)", "product 20000 (bicycle)"]
    assert names(data, data.train) == [f"{product}_{n}.JPG" for product, n in ((1, 1), (1, 2), (7, 3), (7, 4))]
    assert (len(data.query), data.leave_self_out) == (4, True)
    assert data.protocol.startswith(
        "Trained on the 2 products in Ebay_train.txt of Stanford Online Products and tested on the 2 unseen ones"
    )


def test_sop_and_inshop_are_measured_at_the_ranks_of_their_papers(tmp_path):
    found = [load(MAKERS[name](tmp_path), verify=False).rules for name, load in list(LOADERS.items())[2:]]
    assert [[metric.removeprefix("recall_at_") for metric in protocol.metrics] for protocol in found] == [
        ["1", "10", "100", "1000", "map_at_r", "r_precision"],
        ["1", "10", "20", "30", "map_at_r", "r_precision"],
    ]
    assert all(name in METRICS for protocol in found for name in protocol.metrics)


def test_sop_names_a_product_in_both_lists(tmp_path):
    folder = make_sop(tmp_path)
    test = folder / "Ebay_test.txt"
    test.write_text(test.read_text().replace(" 11319 1", " 7 1"))
    with pytest.raises(DataError, match=r"class 'product 7 \(bicycle\)' is in both the training and the test images"):
        load_sop(folder, verify=False)


@pytest.mark.parametrize(("lists", "images"), [("Eval", "."), (".", "."), ("Anno", "Img"), ("Eval", "Img")])
def test_inshop_keeps_query_and_gallery_apart(tmp_path, lists, images):
    data = load_inshop(make_inshop(tmp_path, lists=lists, images=images), verify=False)
    assert classes(data, data.train) == ["id_01", "id_02"]
    assert classes(data, data.query) == ["id_04", "id_05"]
    assert names(data, data.query) == ["id_04/05_1_front.jpg", "id_05/07_1_front.jpg"]
    assert names(data, data.gallery) == ["id_04/06_1_front.jpg", "id_05/08_1_front.jpg", "id_05/09_1_front.jpg"]
    assert not data.leave_self_out
    assert data.test.counts()[0].tolist() == [1, 2]


def test_inshop_says_that_it_leaves_out_items_with_one_photo(tmp_path):
    data = load_inshop(make_inshop(tmp_path / "a"), verify=False)
    assert "id_03" not in classes(data, data.train)
    assert data.protocol.startswith(
        "Trained on the 2 training items of In-Shop Clothes Retrieval (1 more have a single photo and are left out) "
        "and tested on the 2 unseen items, where the query images search the gallery images."
    )
    whole = load_inshop(make_inshop(tmp_path / "b", [row for row in INSHOP_ROWS if row[0] != "id_03"]), verify=False)
    assert "left out" not in whole.protocol


def test_inshop_names_a_query_with_nothing_to_find(tmp_path):
    folder = make_inshop(tmp_path, [row for row in INSHOP_ROWS if row != ("id_04", "gallery")])
    with pytest.raises(DataError, match=r"class 'id_04' has query images and no image in the gallery: add one"):
        load_inshop(folder, verify=False)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("cub", "has 5,864 training, 5,924 test images, and 5 training, 5 test were found"),
        ("cars", "has 8,054 training, 8,131 test images, and 5 training, 5 test were found"),
        ("sop", "has 59,551 training, 60,502 test images, and 4 training, 4 test were found"),
        ("inshop", "has 25,882 train, 14,218 query, 12,612 gallery images, and 5 train, 2 query, 3 gallery were found"),
    ],
)
def test_counts_must_be_those_of_the_published_data_set(tmp_path, name, counts):
    with pytest.raises(DataError, match=rf"{counts}: get .* from .*https://.* and give as root the folder that holds"):
        load_dataset(name, MAKERS[name](tmp_path))


def test_counts_that_are_right_are_accepted(tmp_path, monkeypatch):
    monkeypatch.setattr("robustdml.data.cub.COUNTS", {"training": 5, "test": 5})
    assert load_dataset("cub", make_cub(tmp_path)).name == "cub"
    monkeypatch.setattr("robustdml.data.cub.COUNTS", {"training": 5, "test": 6})
    with pytest.raises(DataError, match="5 training, 6 test images, and 5 training, 5 test were found"):
        load_dataset("cub", tmp_path)


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("cub", "images.txt"),
        ("cub", "image_class_labels.txt"),
        ("cub", "classes.txt"),
        ("cars", "cars_annos.mat"),
        ("sop", "Ebay_train.txt"),
        ("sop", "Ebay_test.txt"),
        ("inshop", "Eval/list_eval_partition.txt"),
    ],
)
def test_a_missing_list_says_what_to_download(tmp_path, name, lost):
    folder = MAKERS[name](tmp_path)
    (folder / lost).unlink()
    # Without its one list, CARS196 is looked for in its other layout.
    file = "cars_train_annos.mat" if name == "cars" else lost.split("/")[-1]
    with pytest.raises(DataError, match=rf"has no '{file}', expected at '.*{file}': get .* from .*https://.* and give"):
        LOADERS[name](folder, verify=False)


@pytest.mark.parametrize("name", list(MAKERS))
def test_an_empty_folder_says_what_to_download(tmp_path, name):
    with pytest.raises(DataError, match=r"has no '.*', expected at '.*': get .* and give as root the folder"):
        load_dataset(name, tmp_path)


@pytest.mark.parametrize("name", list(MAKERS))
def test_a_missing_image_is_named(tmp_path, name):
    folder = MAKERS[name](tmp_path)
    lost = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".jpg")[1]
    lost.unlink()
    with pytest.raises(DataError, match=rf"1 of \d+ images of .* are missing, the first is '.*{lost.name}': get"):
        LOADERS[name](folder, verify=False)


@pytest.mark.parametrize("name", list(MAKERS))
def test_a_damaged_image_is_named(tmp_path, name):
    data = LOADERS[name](MAKERS[name](tmp_path), verify=False)
    assert ImageTensors(data.images, data.image_size).batch(data.query[:2]).shape == (2, 3, 224, 224)
    hurt = next(path for path in tmp_path.rglob("*") if path.as_posix().endswith(data.images.name(data.query[0])))
    hurt.write_bytes(hurt.read_bytes()[:60])
    with pytest.raises(DataError, match=rf"cannot read the image '.*{hurt.name}' \(.*\): restore the file"):
        ImageTensors(data.images, data.image_size).batch(data.query[:1])


@pytest.mark.parametrize(
    ("name", "file", "line", "form"),
    [
        ("cub", "images.txt", "bird.jpg", "an image id and a path, with a space between"),
        ("cub", "image_class_labels.txt", "1 one", "an image id and a class id, with a space between"),
        ("sop", "Ebay_test.txt", "1 2 path", "an image id, a class id, a super-class id and a path"),
        ("inshop", "Eval/list_eval_partition.txt", "img/a.jpg id_9 val", "a path, an item id and one of train, query"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path, name, file, line, form):
    folder = MAKERS[name](tmp_path)
    path = folder / file
    number = len(path.read_text().splitlines()) + 2
    path.write_text(path.read_text() + f"\n{line}\n")
    with pytest.raises(DataError, match=rf"line {number} of '.*{path.name}' is '{line}': it must be {form}.*; get"):
        LOADERS[name](folder, verify=False)


def test_a_list_that_is_no_text_is_named(tmp_path):
    folder = make_sop(tmp_path)
    (folder / "Ebay_train.txt").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(DataError, match=r"Ebay_train\.txt' is damaged, as it is no text: get Stanford Online Products"):
        load_sop(folder, verify=False)


@pytest.mark.parametrize(
    ("name", "file", "lonely"),
    [("cub", "images.txt", "training class '001.Bird of 1' has one image"),
     ("sop", "Ebay_test.txt", r"class 'product 11319 \(bicycle\)' has one image in the test")],
)  # fmt: skip
def test_a_class_with_one_image_is_named(tmp_path, name, file, lonely):
    folder = MAKERS[name](tmp_path)
    lines = (folder / file).read_text().splitlines(keepends=True)
    del lines[1]
    (folder / file).write_text("".join(lines))
    with pytest.raises(DataError, match=lonely):
        LOADERS[name](folder, verify=False).check_trainable()


def test_cars_names_a_class_with_one_image(tmp_path):
    folder = make_cars(tmp_path)
    rows = [(f"car_ims/{place:06d}.jpg", label) for place, (_, label) in enumerate(CAR_ROWS, start=1)][1:]
    annotations = car_annotations(rows, "relative_im_path")
    savemat(folder / "cars_annos.mat", {"annotations": annotations, "class_names": CAR_NAMES})
    with pytest.raises(DataError, match="training class 'Car 1' has one image, and training needs at least two"):
        load_cars(folder, verify=False).check_trainable()


@pytest.mark.compatible("Layouts", "mirrors of CUB, CARS, SOP and In-Shop", "read as the published data set")
@pytest.mark.parametrize("above", [False, True])
@pytest.mark.parametrize("name", ["cub", "cars", "sop", "inshop"])
def test_mirrors_are_the_same_data_set(tmp_path, name, above):
    """As the readers of MDProp's authors and others take them: other folders, and lists left out or elsewhere."""
    original = LOADERS[name](MAKERS[name](tmp_path / "one"), verify=False)
    folder = MAKERS[name](tmp_path / "other")
    mirror = (
        tmp_path / "other" / {"cub": "cub200", "cars": "cars196", "sop": "online_products", "inshop": "in-shop"}[name]
    )
    folder.rename(mirror)
    if name == "cub":
        for path in mirror.glob("*.txt"):
            path.unlink()
    if name == "cars":
        for number, (_, label) in enumerate(CAR_ROWS, start=1):
            place = mirror / "images" / f"Car {label:03d}" / f"{number:06d}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            (mirror / "car_ims" / f"{number:06d}.jpg").rename(place)
        (mirror / "car_ims").rmdir()
        (mirror / "cars_annos.mat").unlink()
    if name == "sop":
        (mirror / "images").mkdir()
        (mirror / "bicycle_final").rename(mirror / "images" / "bicycle_final")
        (mirror / "Info_Files").mkdir()
        for path in mirror.glob("Ebay_*"):
            path.rename(mirror / "Info_Files" / path.name)
    if name == "inshop":
        (mirror / "Anno" / "segmentation").mkdir(parents=True)
        (mirror / "Eval" / "list_eval_partition.txt").rename(mirror / "Anno/segmentation/list_eval_partition.txt")
    data = LOADERS[name](mirror.parent if above else mirror, verify=False)
    assert (len(data.query), len(data.gallery), data.rules.metrics) == (
        len(original.query),
        len(original.gallery),
        original.rules.metrics,
    )
    assert len(np.unique(data.labels[data.query])) == len(np.unique(original.labels[original.query]))
    for row in data.query:
        assert data.images.load(row).size == (6, 6)
    if name in {"cub", "sop", "inshop"}:
        assert len(data.train) == len(original.train)
        assert sorted(names(data, data.query)) == sorted(names(original, original.query))


@pytest.mark.compatible("Layouts", "`cars_train/cars_train/` and `car_devkit/devkit/`, as Kaggle packs CARS196", "read")
def test_cars_may_be_nested(tmp_path):
    folder = make_devkit(tmp_path / "cars")
    for part in ("cars_train", "cars_test"):
        (folder / part).rename(folder / "moved")
        (folder / part).mkdir()
        (folder / "moved").rename(folder / part / part)
    (folder / "car_devkit").mkdir()
    (folder / "devkit").rename(folder / "car_devkit" / "devkit")
    data = load_cars(folder, verify=False)
    assert (len(data.train), len(data.query)) == (5, 5)


@pytest.mark.parametrize("name", ["cub", "cars", "sop", "inshop"])
def test_a_published_data_set_is_known_by_its_path(tmp_path, name):
    with pytest.raises(DataError, match=r"images, and .* were found: get"):
        load_dataset(MAKERS[name](tmp_path))


def test_a_cub_mirror_needs_numbers(tmp_path):
    paint(tmp_path / "cub200" / "images" / "Albatross" / "0.jpg")
    with pytest.raises(DataError, match=r"the class folder 'Albatross' in .* begins with no class number"):
        load_cub(tmp_path)
