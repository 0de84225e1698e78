"""The examples: which pictures are embedded, and what happens to those that cannot be."""

from __future__ import annotations

import base64

import pytest

from robustdml.errors import RunFolderError
from robustdml.reports import render_report
from robustdml.reports.gallery import build_gallery
from robustdml.reports.index import Index


def exhibits(page):
    return [article for article in page.all("article") if article.attributes.get("class") == "exhibit"]


def test_every_example_shows_its_pictures_and_lists(results, tmp_path, parse):
    found = exhibits(parse(render_report(results, tmp_path)))
    assert len(found) == len(results.examples) == 12
    for article, example in zip(found, results.examples, strict=True):
        hits = (*example.clean_top, *example.adversarial_top, *example.targets)
        paths = [example.image, example.perturbation_image, example.adversarial_image, *(hit.image for hit in hits)]
        shown = [base64.b64decode(image.attributes["src"].partition(",")[2]) for image in article.all("img")]
        assert shown == [(tmp_path / path).read_bytes() for path in paths]
        assert all(image.attributes["alt"] for image in article.all("img"))
        words = [item.text for item in article.all("li")]
        assert words == [
            *(f"{'✓ right' if hit.relevant else '✗ wrong'} {hit.class_name}" for hit in hits[:10]),
            *(target.class_name for target in example.targets),
        ]
        assert f"query {example.query_id} of class {example.class_name}" in article.text
        assert f"perturbation × {example.amplification:.3g}" in article.text  # noqa: RUF001
        assert ("Targets of the attack" in article.text) == bool(example.targets)


def test_a_missing_picture_is_an_error(results, tmp_path):
    (tmp_path / results.examples[3].adversarial_image).unlink()
    with pytest.raises(
        RunFolderError, match=r"'images/adversarial-3\.png' of the results cannot be read.*copy the whole"
    ):
        render_report(results, tmp_path)


def test_a_file_that_is_no_picture_is_an_error(results, tmp_path):
    (tmp_path / results.examples[0].image).write_text("<svg onload=alert(1)>")
    with pytest.raises(RunFolderError, match="is no PNG or JPEG"):
        render_report(results, tmp_path)


@pytest.mark.parametrize("name", ["../secret.png", "images/../../secret.png", "link.png", "{absolute}"])
def test_a_picture_outside_of_the_run_folder_is_refused(sample, tmp_path, name):
    folder = tmp_path / "run"
    results = sample(folder)
    secret = tmp_path / "secret.png"
    secret.write_bytes((folder / results.examples[0].image).read_bytes())
    (folder / "link.png").symlink_to(secret)
    example = results.examples[0].model_copy(update={"image": name.format(absolute=secret)})
    with pytest.raises(RunFolderError, match="lies outside of"):
        render_report(results.model_copy(update={"examples": (example,)}), folder)


@pytest.mark.parametrize("name", ["", "images", "no\0name", "x" * 5000])
def test_a_picture_name_that_cannot_be_read_is_an_error(results, tmp_path, name):
    example = results.examples[0].model_copy(update={"image": name})
    with pytest.raises(RunFolderError, match="cannot be read"):
        render_report(results.model_copy(update={"examples": (example,)}), tmp_path)


def test_the_byte_budget_is_shared_between_models_and_attacks(results, tmp_path):
    doubled = results.model_copy(update={"examples": tuple(example for example in results.examples for _ in range(2))})
    index = Index.of(doubled)
    size = sum(len(uri) for uri in _uris(build_gallery(index, tmp_path)))
    gallery = build_gallery(index, tmp_path, budget=size // 2 + 100)
    assert sum(len(uri) for uri in _uris(gallery)) <= size // 2 + 100
    assert gallery.left_out == "12 examples"
    assert [(room.model, len(room.exhibits)) for room in gallery.rooms] == [(model.name, 4) for model in results.models]
    assert len({exhibit.query for room in gallery.rooms for exhibit in room.exhibits}) == 12


def _uris(gallery):
    for room in gallery.rooms:
        for exhibit in room.exhibits:
            yield from (exhibit.image, exhibit.perturbation, exhibit.adversarial)
            yield from (hit.uri for hit in (*exhibit.clean_top, *exhibit.adversarial_top, *exhibit.targets))
