"""The examples: which pictures are embedded, and what happens to those that cannot be."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from described import with_recall
from pictures import pixels
from PIL import Image

from robustdml.errors import RunFolderError
from robustdml.reports import render_report
from robustdml.reports.index import Index
from robustdml.reports.page.examples import build_examples, examples_section
from robustdml.reports.page.pictures import page_picture
from robustdml.results import Results, pack_hits


def exhibits(page):
    return [article for article in page.all("article") if article.attributes.get("class") == "exhibit"]


def by_query(page):
    """The exhibits by the query, the attack and the budget that their heads name."""
    return {article.all("h3")[0].text.partition(" query ")[2]: article for article in exhibits(page)}


def test_every_example_shows_its_pictures_and_lists(results, tmp_path, parse):
    found = by_query(parse(render_report(results, tmp_path)))
    assert len(found) == len(results.examples) == 12
    names = {attack.spec: attack.name for attack in results.attacks}
    for example in results.examples:
        head = f"{example.query_id} of class {example.class_name} {names[example.attack]} at eps 16/255"
        (article,) = (article for title, article in found.items() if title.startswith(head))
        hits = (*example.clean_top, *example.adversarial_top, *example.targets)
        paths = [example.image, example.perturbation_image, example.adversarial_image, *(hit.image for hit in hits)]
        shown = [base64.b64decode(image.attributes["src"].partition(",")[2]) for image in article.all("img")]
        assert [pixels(data) for data in shown] == [pixels((tmp_path / path).read_bytes()) for path in paths]
        assert all(image.attributes["alt"] for image in article.all("img"))
        words = [item.text for item in article.all("li")]
        assert words == [
            *(f"{'✓ right' if hit.relevant else '✗ wrong'} {hit.class_name}" for hit in hits[:10]),
            *(target.class_name for target in example.targets),
        ]
        assert f"perturbation × {example.amplification:.3g}" in article.text  # noqa: RUF001
        assert ("Targets of the attack" in article.text) == bool(example.targets)


def test_a_target_that_was_reached_is_marked(results, tmp_path, parse):
    example = next(example for example in results.examples if example.targets)
    top = (example.targets[0], *example.adversarial_top[1:])
    changed = example.model_copy(update={"adversarial_top": top})
    page = parse(render_report(results.model_copy(update={"examples": (changed,)}), tmp_path))
    marked = [item.text for item in exhibits(page)[0].all("li") if "◎ target" in item.text]
    assert marked == [f"✗ wrong ◎ target {example.targets[0].class_name}"]


@pytest.fixture
def pool(results, sample, tmp_path):
    """A run of one model and four attacks in which 11 queries of known fate are pictured under one attack."""
    run = sample(tmp_path, models=("only",), budgets=(8 / 255,), eventful=False)
    template = run.examples[1]
    right, wrong = template.clean_top[0], template.adversarial_top[0]
    fates = {
        **{number: ("broken", number + 1) for number in range(3)},
        3: ("broken", 1),
        4: ("broken", 4),
        **{number: ("held", number - 5) for number in range(5, 8)},
        8: ("wrong already", 4),
        9: ("held", 0),
        10: ("held", 1),
    }
    ones = ["1" if place not in fates or fates[place][0] != "wrong already" else "0" for place in range(2000)]
    examples, cells = [], []
    for number, (fate, _) in fates.items():
        examples.append(
            template.model_copy(
                update={
                    "query_id": run.queries.ids[number],
                    "clean_top": (wrong if fate == "wrong already" else right,),
                    "adversarial_top": (right if fate == "held" else wrong,),
                }
            )
        )
    for turn, cell in enumerate(run.cells):
        # The pictured attack is the second; a query that k attacks break is broken by it first, if it is broken at all.
        rank = (turn - 1) % 4
        hits = list(ones)
        for number, (fate, count) in fates.items():
            if fate != "wrong already" and (rank < count if fate == "broken" else 4 - rank <= count):
                hits[number] = "0"
        packed = pack_hits(bit == "1" for bit in hits)
        metrics = with_recall(cell.score.metrics, hits.count("1") / 2000)
        cells.append(
            cell.model_copy(update={"hits": packed, "score": cell.score.model_copy(update={"metrics": metrics})})
        )
    return Results.model_validate(
        run.model_copy(update={"examples": tuple(examples), "cells": tuple(cells)}).model_dump()
    )


def test_the_easiest_prey_comes_first_then_the_hardest(pool, tmp_path):
    built = build_examples(Index.of(pool), tmp_path)
    ((exhibits),) = (room.exhibits for room in built.rooms)
    # Of five broken and five held ones the least telling of each is left out.
    assert [(exhibit.outcome, exhibit.query) for exhibit in exhibits] == [
        ("broken", "4"),
        ("broken", "2"),
        ("broken", "1"),
        ("broken", "0"),
        ("held", "5"),
        ("held", "9"),
        ("held", "6"),
        ("held", "10"),
        ("wrong already", "8"),
    ]
    assert [exhibit.toll for exhibit in exhibits[:5]] == [
        "4 of 4 attacks at this budget",
        "3 of 4 attacks at this budget",
        "2 of 4 attacks at this budget",
        "1 of 4 attacks at this budget",
        "0 of 4 attacks at this budget",
    ]
    assert (built.pool, built.left_out) == ("11 queries", "2 examples")


def test_exhibits_carry_what_they_are_filtered_by(pool, tmp_path, parse):
    page = parse(render_report(pool, tmp_path))
    found = [
        (item.attributes["data-outcome"], item.attributes["data-class"], item.attributes["data-attack"])
        for item in exhibits(page)
    ]
    name = pool.examples[0].class_name
    assert found == [
        *[("broken", name, "margin")] * 4,
        *[("held", name, "margin")] * 4,
        ("wrong already", name, "margin"),
    ]
    assert len({item.attributes["data-key"] for item in exhibits(page)}) == 9
    assert "11 queries were drawn before any result was known" in page.text


def test_a_query_that_the_run_does_not_list_has_no_toll(results, tmp_path):
    example = results.examples[0].model_copy(update={"query_id": 99_999})
    built = build_examples(Index.of(results.model_copy(update={"examples": (example,)})), tmp_path)
    assert built.rooms[0].exhibits[0].toll == ""


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
    size = sum(len(uri) for uri in _uris(build_examples(index, tmp_path)))
    built = build_examples(index, tmp_path, budget=size // 2 + 100)
    assert sum(len(uri) for uri in _uris(built)) <= size // 2 + 100
    assert built.left_out == "12 examples"
    assert [(room.model, len(room.exhibits)) for room in built.rooms] == [(model.name, 4) for model in results.models]
    assert len({exhibit.query for room in built.rooms for exhibit in room.exhibits}) == 12


def test_a_large_run_has_less_room_for_pictures(results, tmp_path):
    copies = tuple(cell for cell in results.cells for _ in range(30))
    small = examples_section(Index.of(results), tmp_path).data
    large = examples_section(Index.of(results.model_copy(update={"cells": copies})), tmp_path).data
    assert (small.budget, large.budget) == ("1.8 MB", "0.5 MB")


@pytest.mark.parametrize(("models", "most"), [(("one",), 2_000_000), (("a", "b", "c"), 4_000_000)])
def test_the_page_stays_small_whatever_the_pictures(sample, tmp_path, models, most):
    run = sample(tmp_path, models=models)
    noise = np.random.default_rng(0)
    for path in (tmp_path / "images").iterdir():
        # A grainy photo; its perturbation is noise.
        soft = np.kron(noise.integers(0, 256, (28, 28, 3)), np.ones((8, 8, 1)))
        grain = noise.normal(0, 80 if "perturbation" in path.name else 8, soft.shape)
        photo = Image.fromarray((soft + grain).clip(0, 255).astype(np.uint8))
        photo.resize((96, 96) if "hit" in path.name else (224, 224)).save(path)
    html = render_report(run, tmp_path)
    assert len(html.encode()) < most
    shown = examples_section(Index.of(run), tmp_path).data
    assert {room.model for room in shown.rooms} == set(models)


def test_a_photo_is_packed_and_a_small_picture_is_exact(tmp_path):
    smooth = np.linspace(0, 255, 224, dtype=np.uint8)[None, :, None].repeat(224, 0).repeat(3, 2)
    smooth[60:160, 60:160, 0] = 200
    for size in (64, 224):
        Image.fromarray(smooth[:size, :size]).save(tmp_path / f"{size}.png")
        data, media_type = page_picture(tmp_path, f"{size}.png")
        assert media_type == "image/webp"
        before = (tmp_path / f"{size}.png").read_bytes()
        assert len(data) < len(before)
        found, exact = (np.frombuffer(pixels(each), np.uint8).astype(int) for each in (data, before))
        assert np.abs(found - exact).mean() < (4 if size > 64 else 1e-9)
    (tmp_path / "cut.png").write_bytes(before[:200])
    with pytest.raises(RunFolderError, match="damaged"):
        page_picture(tmp_path, "cut.png")


def _uris(built):
    for room in built.rooms:
        for exhibit in room.exhibits:
            yield from (exhibit.image, exhibit.perturbation, exhibit.adversarial)
            yield from (hit.uri for hit in (*exhibit.clean_top, *exhibit.adversarial_top, *exhibit.targets))


def test_hits_have_the_name_of_their_photo_and_their_similarity(results, tmp_path, parse):
    example = results.examples[0]
    named = example.clean_top[0].model_copy(update={"name": "photos/tram <7>.jpg", "similarity": 0.8764})
    changed = example.model_copy(update={"clean_top": (named, *example.clean_top[1:])})
    page = parse(render_report(results.model_copy(update={"examples": (changed,)}), tmp_path))
    first, second, *_ = exhibits(page)[0].all("li")
    assert first.text == f"✓ right {named.class_name} 0.876 photos/tram <7>.jpg"
    assert second.text == f"✓ right {example.clean_top[1].class_name}"
