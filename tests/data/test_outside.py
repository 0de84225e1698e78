"""Images lie below the folder of their data set, whatever its tables say and wherever its links lead."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import cli, refused, write_images
from PIL import Image, UnidentifiedImageError

from robustdml.data import load_dataset
from robustdml.data.decoding import read_image
from robustdml.errors import DataError
from robustdml.places import special

OUTSIDE = r"leads to '.*', outside of the data's folder .*--allow-outside"


@pytest.fixture
def tree(tmp_path) -> Path:
    write_images(tmp_path / "tree", {"test/cyan": 3, "test/pink": 3})
    write_images(tmp_path / "elsewhere", {"cyan": 3, "private": 3})
    return tmp_path / "tree"


def table(folder: Path, images: list[tuple[str, str]]) -> Path:
    path = folder / "table.csv"
    path.write_text("\n".join(["path,label", *(f"{image},{label}" for image, label in images)]))
    return path


def own(tree: Path) -> list[tuple[str, str]]:
    return [(str(path.relative_to(tree)), path.parent.name) for path in sorted(tree.rglob("*.png"))]


@pytest.mark.parametrize(
    "write", ["../elsewhere/private/0.png", "test/../../elsewhere/private/0.png", "{absolute}", "~/0.png"]
)
def test_a_table_leads_to_no_image_outside(tree, tmp_path, write, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "elsewhere" / "private"))
    written = write.format(absolute=tmp_path / "elsewhere" / "private" / "0.png")
    path = table(tree, [*own(tree), (written, "cyan")])
    with pytest.raises(DataError, match=OUTSIDE):
        load_dataset(path)
    with pytest.raises(DataError, match=OUTSIDE):
        load_dataset("manifest", tree)
    assert len(load_dataset(path, allow_outside=True).images) == 7


def test_absolute_paths_and_dots_within_the_folder_are_as_good_as_others(tree):
    images = own(tree)
    images[0] = (f"test/../{images[0][0]}", images[0][1])
    images[1] = (str(tree / images[1][0]), images[1][1])
    assert len(load_dataset(table(tree, images)).images) == 6


def test_root_says_where_the_images_of_a_table_are(tree, tmp_path):
    path = table(tmp_path, own(tree))
    assert len(load_dataset(path, tree).images) == 6
    with pytest.raises(DataError, match=OUTSIDE):
        load_dataset(table(tmp_path, [*own(tree), ("../elsewhere/private/0.png", "cyan")]), tree)


@pytest.mark.parametrize("of", ["a file", "a folder", "a link to a link"])
def test_a_link_leads_to_no_image_outside(tree, tmp_path, of):
    private = tmp_path / "elsewhere" / "private"
    if of == "a file":
        (tree / "test" / "cyan" / "3.png").symlink_to(private / "0.png")
    elif of == "a folder":
        (tree / "test" / "private").symlink_to(private)
    else:
        (tree / "hop").symlink_to(private)
        (tree / "test" / "cyan" / "3.png").symlink_to(tree / "hop" / "0.png")
    with pytest.raises(DataError, match=OUTSIDE):
        load_dataset("folder", tree)
    assert len(load_dataset("folder", tree, allow_outside=True).images) == (9 if of == "a folder" else 7)


def test_links_within_the_folder_and_to_the_whole_of_it_are_followed(tree, tmp_path):
    (tmp_path / "link").symlink_to(tree)
    assert len(load_dataset("folder", tmp_path / "link").images) == 6
    (tree / "all").mkdir()
    (tree / "test" / "cyan").rename(tree / "all" / "cyan")
    (tree / "test" / "cyan").symlink_to(tree / "all" / "cyan")
    assert len(load_dataset("flat", tree / "test", allow_outside=True).images) == 6
    with pytest.raises(DataError, match=OUTSIDE):
        load_dataset("flat", tree / "test")


def test_devices_and_processes_are_no_images_even_where_all_is_allowed(tree):
    path = table(tree, [*own(tree), ("/proc/self/environ", "cyan")])
    with pytest.raises(DataError, match="is no image but the system's own"):
        load_dataset(path, allow_outside=True)
    (tree / "test" / "cyan" / "4.png").symlink_to("/proc/self/environ")
    with pytest.raises(DataError, match="is no image but the system's own"):
        load_dataset("folder", tree, allow_outside=True)
    assert all(map(special, map(Path, ("/dev/zero", "/proc/1/mem", "/sys/kernel", "/dev/shm/../zero"))))
    assert not any(map(special, map(Path, ("/dev/shm/x", "/devices", "/tmp/proc/x", "dev/zero"))))


def test_the_command_line_takes_the_option(tree, tmp_path):
    path = table(tree, [*own(tree), ("../elsewhere/private/0.png", "cyan")])
    command = ("train", "--data", path, "--method", "st", "--out", tmp_path / "run", "--quiet", "--epochs", "1")
    refused(cli(*command), OUTSIDE)
    refused(cli(*command, "--allow-outside"), "no training")


def test_postscript_is_not_run(tmp_path):
    """Pillow hands it to Ghostscript, a program that runs what the file says."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(UnidentifiedImageError):
        read_image(tmp_path / "a.png")


def test_an_image_of_too_many_pixels_is_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr("robustdml.data.decoding._MOST_PIXELS", 64)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0].size == (8, 8)
    Image.new("RGB", (8, 9)).save(tmp_path / "b.png")
    with pytest.raises(Image.DecompressionBombError):
        read_image(tmp_path / "b.png")
