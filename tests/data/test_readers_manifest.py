"""A table of images: CSV and Parquet, roles, boxes, and errors that name row and column."""

import csv

import numpy as np
import pyarrow
import pytest
from pictures import paint
from PIL import Image
from pyarrow import parquet

from robustdml.data import FileImages, load_dataset
from robustdml.data.manifest import load_manifest
from robustdml.data.protocol import Reidentification
from robustdml.errors import DataError

HEADER = ["path", "label", "split", "is_query", "is_gallery"]
ROWS = [
    ["a/0.png", 3, "train", None, None],
    ["a/1.png", 3, "train", None, None],
    ["b/0.png", 10, "train", None, None],
    ["b/1.png", 10, "train", None, None],
    ["c/0.png", 7, "validation", True, False],
    ["c/1.png", 7, "validation", False, True],
    ["d/0.png", 5, "validation", True, True],
    ["d/1.png", 5, "validation", True, True],
]
BOXES = ["x_1", "x_2", "y_1", "y_2"]  # open-metric-learning's order: left, right, top, bottom


@pytest.fixture
def folder(tmp_path):
    for seed, row in enumerate(ROWS):
        paint(tmp_path / "set" / row[0], seed, width=8, height=6)
    return tmp_path / "set"


def write(folder, rows=ROWS, header=HEADER, name="table.csv"):
    path = folder / name
    if path.suffix == ".parquet":
        columns = {column: [row[place] for row in rows] for place, column in enumerate(header)}
        parquet.write_table(pyarrow.table(columns), path)
    else:
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
    return path


def changed(number, column, value):
    rows = [list(row) for row in ROWS]
    rows[number][HEADER.index(column)] = value
    return rows


def names(data, rows):
    return [data.images.name(row) for row in rows]


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_reads_who_trains_who_asks_and_who_is_found(folder, name):
    data = load_dataset("manifest", write(folder, name=name))
    assert names(data, data.train) == ["a/0.png", "a/1.png", "b/0.png", "b/1.png"]
    assert names(data, data.query) == ["c/0.png", "d/0.png", "d/1.png"]
    assert names(data, data.gallery) == ["c/1.png", "d/0.png", "d/1.png"]
    assert [data.class_names[label] for label in data.labels] == ["3", "3", "10", "10", "7", "7", "5", "5"]
    assert data.test.counts()[0].tolist() == [1, 1, 1]  # an image of d finds the other, not itself
    assert data.protocol == (
        f"Trained on the 2 training classes of '{name}' and tested on its 2 unseen ones, "
        "where 3 query images search 3 gallery images."
    )


def test_csv_and_parquet_are_the_same_data_set(folder):
    text, binary = write(folder), write(folder, name="table.parquet")
    assert load_manifest(text).fingerprint() == load_manifest(binary).fingerprint()


def test_a_folder_with_one_table_stands_for_it(folder):
    path = write(folder)
    assert load_dataset("manifest", folder).fingerprint() == load_manifest(path).fingerprint()
    write(folder, name="other.parquet")
    with pytest.raises(DataError, match=r"must hold one table .*, and it holds other\.parquet, table\.csv: name the"):
        load_dataset("manifest", folder)
    with pytest.raises(DataError, match=r"must hold one table .*, and it holds none: name the file"):
        load_dataset("manifest", folder / "a")


def test_paths_start_from_the_images_folder_where_one_is_given(folder, tmp_path):
    path = write(tmp_path)
    assert names(load_manifest(path, images=folder), [0]) == ["a/0.png"]
    with pytest.raises(DataError, match=r"line 2 of '.*table\.csv', column 'path' names '.*0\.png', which does not"):
        load_manifest(path)


def test_paths_may_be_absolute(folder, tmp_path):
    rows = [[str(folder / row[0]), *row[1:]] for row in ROWS]
    assert load_manifest(write(tmp_path, rows)).fingerprint() == load_manifest(write(folder)).fingerprint()


@pytest.mark.parametrize(("yes", "no"), [(True, False), (1, 0), ("1.0", "0.0"), ("true", "FALSE")])
@pytest.mark.parametrize("empty", ["", "None", "nan", "False"])
def test_roles_may_be_spelt_as_tables_spell_them(folder, yes, no, empty):
    spell = {True: yes, False: no, None: empty}
    rows = [[*row[:3], spell[row[3]], spell[row[4]]] for row in ROWS]
    assert load_manifest(write(folder, rows)).fingerprint() == load_manifest(write(folder)).fingerprint()


def test_parquet_roles_may_be_floats_with_gaps(folder):
    rows = [[row[0], float(row[1]), row[2], *(np.nan if v is None else float(v) for v in row[3:])] for row in ROWS]
    data = load_manifest(write(folder, rows, name="table.parquet"))
    assert data.class_names == ("3", "10", "7", "5")
    assert names(data, data.query) == ["c/0.png", "d/0.png", "d/1.png"]


def test_labels_may_be_words_and_the_test_split_may_be_called_test(folder):
    rows = [[row[0], f"class {row[1]}", row[2].replace("validation", "test"), *row[3:]] for row in ROWS]
    assert load_manifest(write(folder, rows)).class_names == ("class 3", "class 10", "class 7", "class 5")


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_a_column_of_cameras_makes_it_re_identification(folder, name):
    cameras = ["left", "right", "left", "right", "left", "right", "left", "right"]
    rows = [[*row, camera] for row, camera in zip(ROWS, cameras, strict=True)]
    data = load_dataset("manifest", write(folder, rows, [*HEADER, "camera"], name))
    assert isinstance(data.rules, Reidentification)
    assert data.rules.cameras.tolist() == [0, 1, 0, 1, 0, 1, 0, 1]
    assert data.rules.metrics == ("recall_at_1", "recall_at_5", "recall_at_10", "mean_average_precision")
    assert [count.tolist() for count in data.test.counts()] == [[1, 1, 1], [3, 2, 2]]
    assert data.protocol.endswith("gallery images, each but those of its own camera that show its identity.")
    empty = [[*row, None] for row in ROWS]
    plain = load_dataset("manifest", write(folder, empty, [*HEADER, "camera"], name))
    assert plain.fingerprint() == load_dataset("manifest", write(folder, name=name)).fingerprint()


def test_a_camera_that_is_missing_in_one_row_is_named(folder):
    rows = [[*row, None if number == 5 else 1] for number, row in enumerate(ROWS)]
    with pytest.raises(DataError, match=r"line 7 of '.*table\.csv', column 'camera' is empty: it must be a camera"):
        load_manifest(write(folder, rows, [*HEADER, "camera"]))


def test_other_columns_are_ignored(folder):
    rows = [[number, *row, "red"] for number, row in enumerate(ROWS)]
    path = write(folder, rows, ["Unnamed: 0", *HEADER, "category"])
    assert load_manifest(path).class_names == ("3", "10", "7", "5")


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_boxes_are_cut_out(folder, name):
    box = (2, 1, 7, 5)
    rows = [[*row, None, None, None, None] for row in ROWS]
    rows[6][5:] = box[0], box[2], box[1], box[3]
    data = load_manifest(write(folder, rows, [*HEADER, *BOXES], name))
    with Image.open(folder / "d/0.png") as image:
        assert data.images.load(6).tobytes() == image.crop(box).tobytes()
    assert data.images.load(7).size == (8, 6)
    assert data.fingerprint() != load_manifest(write(folder, name=f"plain-{name}")).fingerprint()


def test_a_box_larger_than_its_image_is_named(folder):
    rows = [[*row, 0, 9, 0, 6] for row in ROWS]
    data = load_manifest(write(folder, rows, [*HEADER, *BOXES]))
    with pytest.raises(
        DataError, match=r"0\.png' \(its box \(0, 0, 9, 6\) is larger than its 8 by 6 pixels\): restore"
    ):
        data.images.load(0)


def test_as_many_boxes_as_images():
    with pytest.raises(ValueError, match="1 boxes for 2 images"):
        FileImages(["a", "b"], [None])


@pytest.mark.parametrize(
    ("box", "problem"),
    [
        ((3, 3, 0, 2), "column 'x_1' is 3 and x_2 is 3: they must be 0 <= x_1 < x_2"),
        ((-1, 3, 0, 2), "column 'x_1' is -1 and x_2 is 3"),
        ((0, 3, 2, 1), "column 'y_1' is 2 and y_2 is 1: they must be 0 <= y_1 < y_2"),
        ((0, "wide", 2, 1), "column 'x_2' is 'wide': it must be a number of pixels"),
        ((0, None, 0, 1), "column 'x_2' is empty: it must be a number of pixels"),
    ],
)
def test_a_box_that_cannot_be_is_named(folder, box, problem):
    rows = [[*row, *box] for row in ROWS]
    with pytest.raises(DataError, match=rf"line 2 of '.*table\.csv', {problem}"):
        load_manifest(write(folder, rows, [*HEADER, *BOXES]))


def test_half_of_the_box_columns_is_not_enough(folder):
    with pytest.raises(DataError, match=r"has 'x_1', and boxes need all of x_1, y_1, x_2, y_2"):
        load_manifest(write(folder, [[*row, 0] for row in ROWS], [*HEADER, "x_1"]))


@pytest.mark.parametrize("column", HEADER)
@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_a_missing_column_is_named(folder, name, column):
    place = HEADER.index(column)
    rows = [row[:place] + row[place + 1 :] for row in ROWS]
    path = write(folder, rows, HEADER[:place] + HEADER[place + 1 :], name)
    with pytest.raises(
        DataError, match=rf"{name}' has no column '{column}': it needs path, label, split, is_query, is"
    ):
        load_manifest(path)


@pytest.mark.parametrize(
    ("number", "column", "value", "problem"),
    [
        (2, "path", "b/9.png", "names '.*9.png', which does not exist: restore the image, or delete the row"),
        (2, "path", "", "is empty: it must be the path of an image"),
        (2, "path", "a/1.png", "names '.*1.png', as line 3 of '.*' does: a copy would find itself, so delete one"),
        (2, "label", "", "is empty: it must be a class number or name"),
        (2, "split", "dev", "is 'dev': it must be train, validation or test"),
        (5, "is_query", "maybe", r"is 'maybe': it must be True or False \(or 1 or 0\), as this row is tested"),
        (5, "is_gallery", "", "is empty: it must be True or False"),
        (5, "is_gallery", False, "and column 'is_query' are both no: a test image must be a query or searched"),
        (2, "is_query", True, "says yes: a row is either trained on or tested"),
        (2, "is_gallery", "maybe", "is 'maybe': it must be empty, as this row is trained on"),
    ],
)
def test_a_wrong_value_is_named_by_row_and_column(folder, number, column, value, problem):
    with pytest.raises(DataError, match=rf"line {number + 2} of '.*table\.csv', column '{column}' {problem}"):
        load_manifest(write(folder, changed(number, column, value)))


def test_rows_of_parquet_count_from_one(folder):
    with pytest.raises(DataError, match=r"row 3 of '.*table\.parquet', column 'split' is 'dev': it must be train"):
        load_manifest(write(folder, changed(2, "split", "dev"), name="table.parquet"))


def test_a_class_on_both_sides_is_named(folder):
    rows = changed(4, "label", 3)
    rows[5][1] = 3
    with pytest.raises(DataError, match="class '3' is in both the training and the test images"):
        load_manifest(write(folder, rows))


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_a_table_that_cannot_be_read_is_named(folder, name):
    (folder / name).write_bytes(b"\x80\xff\x00")
    with pytest.raises(DataError, match=rf"the table '.*{name}' cannot be read \(.*\): write it again as CSV or"):
        load_manifest(folder / name)


def test_a_table_is_known_by_its_extension(folder):
    path = write(folder).rename(folder / "table.txt")
    with pytest.raises(
        DataError, match=r"the table '.*table\.txt' must be \.csv, \.tsv or \.parquet, by its extension"
    ):
        load_manifest(path)


def test_an_empty_table_has_no_images(folder):
    with pytest.raises(DataError, match="has columns and no row: list an image in each"):
        load_manifest(write(folder, []))
