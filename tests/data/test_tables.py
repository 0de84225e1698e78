"""Tables as spreadsheets, pandas, polars and other systems write them."""

import bz2
import csv
import gzip
import lzma
import os
import unicodedata

import numpy as np
import pyarrow
import pytest
from pictures import paint
from PIL import Image
from pyarrow import parquet

from robustdml.data import Reidentification, load_dataset
from robustdml.data.manifest import load_manifest
from robustdml.errors import DataError

HEADER = ["path", "label", "split", "is_query", "is_gallery"]
ROWS = [
    ["img/a/0.png", "a", "train", "", ""],
    ["img/a/1.png", "a", "train", "", ""],
    ["img/c/0.png", "c", "validation", "True", "False"],
    ["img/c/1.png", "c", "validation", "False", "True"],
    ["img/d/0.png", "d", "validation", "True", "True"],
    ["img/d/1.png", "d", "validation", "True", "True"],
]


@pytest.fixture
def folder(tmp_path):
    for seed, row in enumerate(ROWS):
        paint(tmp_path / "set" / row[0], seed, width=8, height=6)
    return tmp_path / "set"


def text(delimiter=",", header=HEADER, rows=ROWS, end="\n"):
    return "".join(delimiter.join(line) + end for line in (header, *rows))


def plain(folder):
    (folder / "plain.csv").write_text(text())
    return load_manifest(folder / "plain.csv").fingerprint()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(
            text(";"), marks=pytest.mark.compatible("Tables", "semicolons, tabs or bars between columns", "read")
        ),
        text("\t"),
        text("|"),
        pytest.param(
            "sep=;\n" + text(";"),
            marks=pytest.mark.compatible("Tables", "a first line `sep=;`, as Excel writes", "read"),
        ),
        pytest.param(
            "\ufeff" + text(),
            marks=pytest.mark.compatible("Tables", "a byte order mark, UTF-16, Windows' line ends", "read"),
        ),
        text(end="\r\n"),
        text(end="\r"),
        pytest.param(
            text(" , ", rows=[[f" {cell} " for cell in row] for row in ROWS]),
            marks=pytest.mark.compatible("Tables", "spaces in the header and around values", "left out"),
        ),
        text(header=["Path", "LABEL", "Split", "is_query ", "Is_Gallery"]),
        pytest.param(
            text(rows=[[f'"{cell}"' for cell in row] for row in ROWS], header=[f'"{name}"' for name in HEADER]),
            marks=pytest.mark.compatible("Tables", "quotes around every value", "read"),
        ),
        pytest.param(
            text() + ",,,,\n\n  \n",
            marks=pytest.mark.compatible(
                "Tables",
                "empty rows at the end, as spreadsheets write, between others and above the header",
                "passed over",
            ),
        ),
        "\n  \n" + text(),
        "\nsep=;\n" + text(";"),
        text().replace("img/c/0", "\n\nimg/c/0"),
        text(rows=[[f"{row[0]}", *row[1:], ""] for row in ROWS], header=[*HEADER, ""]),
        pytest.param(
            text(
                rows=[
                    [*row[:2], row[2].replace("validation", "Val").replace("train", " Training"), *row[3:]]
                    for row in ROWS
                ]
            ),
            marks=pytest.mark.compatible(
                "Tables", "`Train`, `val`, `testing` and the like as splits", "read as what is meant"
            ),
        ),
        text(rows=[[row[0].replace("/", "\\"), *row[1:]] for row in ROWS]),
    ],
)
def test_a_table_is_read_however_it_is_written(folder, content):
    path = folder / "table.csv"
    path.write_bytes(content.encode())
    assert load_manifest(path).fingerprint() == plain(folder)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_other_codes_are_known_by_their_mark(folder, encoding):
    (folder / "table.csv").write_bytes(text("\t").encode(encoding))
    assert load_manifest(folder / "table.csv").fingerprint() == plain(folder)


@pytest.mark.compatible("Tables", "yes and no, y and n, t and f, 1 and 0", "read as True and False")
@pytest.mark.parametrize(
    ("yes", "no"), [("yes", "no"), ("Y", "N"), ("t", "f"), (" TRUE ", "False"), ("1", "0"), ("1.0", "0.0")]
)
def test_yes_and_no_in_every_spelling(folder, yes, no):
    spell = {"True": yes, "False": no, "": ""}
    rows = [[*row[:3], spell[row[3]], spell[row[4]]] for row in ROWS]
    (folder / "table.csv").write_text(text(rows=rows))
    assert load_manifest(folder / "table.csv").fingerprint() == plain(folder)


@pytest.mark.compatible("Tables", "classes called None, null, nan or NA", "are classes")
@pytest.mark.parametrize("name", ["None", "null", "nan", "NaN", "NA", "0", "true"])
def test_words_of_programs_are_classes(folder, name):
    rows = [[row[0], name if row[1] == "c" else row[1], *row[2:]] for row in ROWS]
    (folder / "table.csv").write_text(text(rows=rows))
    assert name in load_manifest(folder / "table.csv").class_names


def test_a_label_that_is_not_there_is_named(folder):
    columns = {name: [row[place] for row in ROWS] for place, name in enumerate(HEADER)}
    columns["label"][3] = None
    parquet.write_table(pyarrow.table(columns), folder / "table.parquet")
    with pytest.raises(DataError, match=r"row 4 of '.*', column 'label' is empty: it must be a class number or name"):
        load_manifest(folder / "table.parquet")


@pytest.mark.compatible("Tables", "`.gz`, `.bz2`, `.xz`", "unpacked")
@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
def test_packed_tables_are_unpacked(folder, suffix, pack):
    (folder / f"table.csv.{suffix}").write_bytes(pack(text().encode()))
    assert load_manifest(folder / f"table.csv.{suffix}").fingerprint() == plain(folder)
    (folder / f"table.csv.{suffix}").write_bytes(pack(text().encode())[:-12])
    with pytest.raises(DataError, match=rf"table\.csv\.{suffix}' cannot be read"):
        load_manifest(folder / f"table.csv.{suffix}")


@pytest.mark.compatible("Tables", "Parquet with dictionary or categorical columns, booleans and gaps", "read")
def test_parquet_with_dictionaries(folder):
    columns = {name: [row[place] for row in ROWS] for place, name in enumerate(HEADER)}
    flags = {"True": True, "False": False, "": None}
    table = pyarrow.table(
        {
            **{name: pyarrow.array(columns[name]).dictionary_encode() for name in ("path", "label", "split")},
            **{name: [flags[value] for value in columns[name]] for name in ("is_query", "is_gallery")},
        }
    )
    parquet.write_table(table, folder / "table.parquet")
    assert load_manifest(folder / "table.parquet").fingerprint() == plain(folder)


@pytest.mark.compatible(
    "Tables", "frames of pandas (also categorical, with NA), polars (also lazy) and pyarrow", "taken as they are"
)
@pytest.mark.parametrize("kind", ["pandas", "categories", "nullable", "polars", "lazy", "pyarrow"])
def test_frames_are_tables(folder, kind):
    columns = {name: [row[place] for row in ROWS] for place, name in enumerate(HEADER)}
    flags = {"True": True, "False": False, "": None}
    columns |= {name: [flags[value] for value in columns[name]] for name in ("is_query", "is_gallery")}
    if kind == "pyarrow":
        frame = pyarrow.table(columns)
    elif kind in {"polars", "lazy"}:
        polars = pytest.importorskip("polars")
        frame = polars.DataFrame(columns).with_columns(polars.col("label").cast(polars.Categorical))
        frame = frame.lazy() if kind == "lazy" else frame
    else:
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(columns, index=range(10, 16))
        if kind == "categories":
            frame = frame.astype({"label": "category", "split": "category"})
        if kind == "nullable":
            frame = frame.astype({"is_query": "boolean", "is_gallery": "boolean", "path": "string"})
    data = load_dataset(frame, folder)
    assert data.fingerprint() == plain(folder)
    assert data.protocol.startswith("Trained on the 1 training classes of 'the frame'")


@pytest.mark.compatible("Tables", "text stored as bytes, as some writers of Parquet do", "read as text")
def test_bytes_are_text(folder):
    columns = {name: [row[place].encode() for row in ROWS] for place, name in enumerate(HEADER)}
    columns["picture"] = [b"\0\xff"] * 6
    parquet.write_table(pyarrow.table(columns), folder / "table.parquet")
    assert load_manifest(folder / "table.parquet").fingerprint() == plain(folder)


@pytest.mark.compatible("Tables", "lists or structures as labels or paths, a column twice, no row", "one sentence")
@pytest.mark.parametrize("value", [["a"], ["a", "b"], {"name": "a"}])
def test_several_values_in_one_cell_are_no_label_and_no_path(folder, value):
    columns = {name: [row[place] for row in ROWS] for place, name in enumerate(HEADER)}
    parquet.write_table(pyarrow.table(columns | {"label": [value] * 6}), folder / "table.parquet")
    with pytest.raises(DataError, match=r"row 1 of '.*', column 'label' is .*: it must be a class number or name"):
        load_manifest(folder / "table.parquet")
    parquet.write_table(pyarrow.table(columns | {"path": [value] * 6}), folder / "table.parquet")
    with pytest.raises(DataError, match=r"row 1 of '.*', column 'path' is .*: it must be the path of an image"):
        load_manifest(folder / "table.parquet")


def test_frames_that_cannot_be_are_named(folder):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(ROWS, columns=HEADER)
    with pytest.raises(DataError, match=r"the frame has the column 'label' twice: leave one out"):
        load_manifest(pandas.concat([frame, frame[["label"]]], axis=1), folder)
    with pytest.raises(DataError, match=r"the frame has columns and no row: list an image in each"):
        load_manifest(frame[:0], folder)
    (folder / "table.csv").write_text(text(rows=[]))
    with pytest.raises(DataError, match=r"the table '.*table\.csv' has columns and no row"):
        load_manifest(folder / "table.csv")


def test_numbers_of_frames_are_labels(folder):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"path": [row[0] for row in ROWS], "label": np.array([3, 3, 7, 7, 9, 9], np.int8)})
    assert load_manifest(frame, folder).class_names == ("3", "7", "9")
    frame["label"] = [3.0, 3.0, 7.0, 7.0, 9.0, float("nan")]
    with pytest.raises(DataError, match="row 6 of the frame, column 'label' is empty"):
        load_manifest(frame, folder)
    with pytest.raises(
        DataError, match="a table is a file, or a frame of pandas, polars or pyarrow, and this is int: give"
    ):
        load_dataset(3)


@pytest.mark.compatible("Tables", "`path` and `label` alone", "all rows are tested, each against all others")
def test_two_columns_are_enough_for_a_test(folder):
    (folder / "table.csv").write_text(text(header=HEADER[:2], rows=[row[:2] for row in ROWS]))
    data = load_manifest(folder / "table.csv")
    assert data.query.tolist() == data.gallery.tolist() == list(range(6))
    assert data.protocol == "Tested on the 3 classes of 'table.csv', where 6 query images search 6 gallery images."


@pytest.mark.compatible("Layouts", "a table with test rows alone", "is evaluated")
def test_a_table_needs_no_training_rows(folder):
    (folder / "table.csv").write_text(text(rows=ROWS[2:]))
    data = load_manifest(folder / "table.csv")
    assert (len(data.train), len(data.query), len(data.gallery)) == (0, 3, 3)
    assert data.protocol.startswith("Tested on the 2 classes of 'table.csv', where 3 query images")


def test_a_query_with_nothing_to_find_is_left_out(folder):
    (folder / "table.csv").write_text(text(rows=[row for row in ROWS if row[0] != "img/c/1.png"]))
    data = load_manifest(folder / "table.csv")
    assert [data.images.name(row) for row in data.query] == ["d/0.png", "d/1.png"]
    assert [(part.reason, part.names) for part in data.left_out] == [("queries with nothing to find", ("c/0.png",))]


@pytest.mark.compatible("Tables", "relative and absolute paths mixed, from a relative folder", "read")
def test_relative_and_absolute_paths_may_be_mixed(folder, monkeypatch):
    expected = plain(folder)
    monkeypatch.chdir(folder.parent)
    rows = [[str(folder / row[0]) if number % 2 else row[0], *row[1:]] for number, row in enumerate(ROWS)]
    (folder / "table.csv").write_text(text(rows=rows))
    assert load_dataset("set/table.csv").fingerprint() == expected
    (folder.parent / "table.csv").write_text(text(rows=rows))
    assert load_dataset("table.csv", "set").fingerprint() == expected


@pytest.mark.compatible(
    "Tables", "other capitals, accents or separators than the file has", "the one file that is meant is found"
)
def test_paths_are_found_as_they_are_meant(folder):
    composed, apart = (unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD"))
    (folder / "img/c/0.png").rename(folder / "img/c" / apart)
    rows = [list(row) for row in ROWS]
    rows[2][0] = f"img/c/{composed}"
    rows[3][0] = "IMG\\C\\1.PNG"
    (folder / "table.csv").write_text(text(rows=rows))
    data = load_manifest(folder / "table.csv")
    assert [data.images.name(row) for row in (2, 3)] == [f"c/{apart}", "c/1.png"]


@pytest.mark.compatible(
    "Tables", "one file twice: through `..`, a link, a hard link, other capitals", "refused by both rows"
)
@pytest.mark.parametrize("kind", ["up", "link", "folder", "hard", "capitals"])
@pytest.mark.parametrize("label", ["c", "d"])
def test_one_file_twice_is_named(folder, kind, label):
    other = {"up": "img/c/../c/0.png", "link": "img/c/link.png", "folder": "img/e/0.png", "hard": "img/c/h.png"}
    other["capitals"] = "img/C/0.PNG"
    if kind == "link":
        (folder / other[kind]).symlink_to("0.png")
    if kind == "folder":
        (folder / "img" / "e").symlink_to("c")
    if kind == "hard":
        os.link(folder / "img/c/0.png", folder / other[kind])
    rows = [*ROWS, [other[kind], label, *ROWS[5][2:]]]
    (folder / "table.csv").write_text(text(rows=rows))
    with pytest.raises(
        DataError, match=r"line 8 of '.*', column 'path' names '.*', as line 4 of '.*' does: a copy would"
    ):
        load_manifest(folder / "table.csv")


@pytest.mark.compatible(
    "Tables", "images that are not there", "all rows are named; `--skip-broken` leaves them out and counts them"
)
def test_missing_images_are_named_together(folder):
    for name in ("a/1", "d/0"):
        (folder / f"img/{name}.png").unlink()
    (folder / "table.csv").write_text(text())
    with pytest.raises(
        DataError, match=r"line 3 of .* which does not exist \(and 1 more rows do: line 6\): restore the image"
    ):
        load_manifest(folder / "table.csv")
    (folder / "img/d/1.png").unlink()
    data = load_dataset(folder / "table.csv", skip_missing=True)
    assert [(part.reason, part.names) for part in data.left_out] == [
        ("rows whose image is not there", ("img/a/1.png", "img/d/0.png", "img/d/1.png"))
    ]
    assert len(data.images) == 3


@pytest.mark.compatible(
    "Tables", "`bbox`, as a list or as text, and boxes counted in `width` and `height`", "cut out of the image"
)
@pytest.mark.parametrize("kind", ["list", "text", "json", "size"])
def test_boxes_in_one_column_and_in_other_sizes(folder, kind):
    box = [2, 1, 6, 5]
    columns = {name: [row[place] for row in ROWS] for place, name in enumerate(HEADER)}
    if kind == "size":
        columns |= {name: [2 * value] * 6 for name, value in zip(("x_1", "y_1", "x_2", "y_2"), box, strict=True)}
        columns |= {"width": [16] * 6, "height": [12] * 6}
    else:
        columns["bbox"] = {"list": [box] * 6, "text": ["2 1 6 5"] * 6, "json": ["[2, 1.0, 6, 5]"] * 6}[kind]
    parquet.write_table(pyarrow.table(columns), folder / "table.parquet")
    data = load_manifest(folder / "table.parquet")
    with Image.open(folder / ROWS[4][0]) as image:
        assert data.images.load(4).tobytes() == image.crop(box).tobytes()


def test_boxes_that_cannot_be_are_named(folder):
    def table(**more):
        columns = {name: [row[place] for row in ROWS] for place, name in enumerate(HEADER)}
        parquet.write_table(
            pyarrow.table({**columns, **{name: [value] * 6 for name, value in more.items()}}), folder / "t.parquet"
        )
        return folder / "t.parquet"

    with pytest.raises(
        DataError, match=r"row 1 of .*, column 'bbox' is .*: it must be left, top, right and bottom, as in"
    ):
        load_manifest(table(bbox="1 2 3"))
    with pytest.raises(DataError, match=r"column 'width' and 'height' are 4 by 4, which is less than the box to 6, 5"):
        load_manifest(table(bbox=[2, 1, 6, 5], width=4, height=4))
    with pytest.raises(DataError, match=r"has boxes in 'bbox' and in x_1, y_1, x_2, y_2: leave one out"):
        load_manifest(table(bbox="1 2 3 4", x_1=1, y_1=1, x_2=2, y_2=2))
    turned = load_manifest(table(bbox=[2, 1, 5, 6], width=6, height=8))
    with pytest.raises(DataError, match=r"its box is counted in 6 by 8 pixels, and upright it has the other sides"):
        turned.images.load(0)


@pytest.mark.compatible("Tables", "`camera`", "makes it re-identification")
def test_cameras_make_it_re_identification(folder):
    rows = [[*row, camera] for row, camera in zip(ROWS, ("1", "2", "1", "2", "None", "2"), strict=True)]
    (folder / "table.csv").write_text(text(header=[*HEADER, "Camera"], rows=rows))
    data = load_manifest(folder / "table.csv")
    assert isinstance(data.rules, Reidentification)
    assert data.test.counts()[0].tolist() == [1, 1, 1]


def test_what_cannot_be_a_table_is_named(folder):
    (folder / "table.csv").write_text(text().replace("img/c/0.png", "img/c,0.png"))
    with pytest.raises(
        DataError, match=r"line 4 of '.*' has more cells than the 5 columns that the first line names: put"
    ):
        load_manifest(folder / "table.csv")
    (folder / "table.csv").write_text(text(header=["path", "label", "split", "is_query", "Label"]))
    with pytest.raises(DataError, match=r"has the column 'label' twice: leave one out"):
        load_manifest(folder / "table.csv")
    (folder / "table.csv").write_text(text(header=["file", "label", "split", "is_query", "is_gallery"]))
    with pytest.raises(
        DataError, match=r"has no column 'path': it needs path, .*, and it has 'file', 'label', 'split'"
    ):
        load_manifest(folder / "table.csv")
    (folder / "table.csv").write_text(text(rows=ROWS[:2]))
    with pytest.raises(DataError, match=r"has no query row: a test needs both"):
        load_manifest(folder / "table.csv")


def test_names_that_are_not_utf8_may_stand_in_a_table(folder):
    os.rename(folder / "img/c/0.png", os.fsencode(folder) + b"/img/c/\xe9.png")  # noqa: PTH104 -- the name is bytes
    (folder / "table.csv").write_bytes(text().encode().replace(b"img/c/0.png", b"img/c/\xe9.png"))
    data = load_manifest(folder / "table.csv")
    assert data.images.name(2) == "c/\\xe9.png"
    assert data.images.load(2).size == (8, 6)


def test_quoted_text_may_hold_the_mark_between_columns(folder):
    (folder / "img/c/0.png").rename(folder / "img/c/0, left.png")
    with (folder / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *([row[0].replace("c/0", "c/0, left"), *row[1:]] for row in ROWS)])
    assert load_manifest(folder / "table.csv").images.name(2) == "c/0, left.png"
