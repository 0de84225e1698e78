"""Several runs in one report: what is merged, under which names, and what is refused."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from pictures import pixels

from robustdml.errors import RunFolderError
from robustdml.reports import merge_runs, write_report
from robustdml.reports.merging.merge import open_runs
from robustdml.reports.page.pictures import read_picture
from robustdml.results import Flag


@pytest.fixture
def run(sample, tmp_path):
    """A run of some models in a folder of its own, with a fingerprint of its own."""

    def build(folder, *models, **options):
        results = sample(tmp_path / folder, models=models, **{"examples": False, **options})
        return tmp_path / folder, results.model_copy(update={"fingerprint": f"run-{folder}"})

    return build


def changed(results, part, place, **update):
    """The results with one entry of one of their tuples changed."""
    entries = list(getattr(results, part))
    entries[place] = entries[place].model_copy(update=update)
    return results.model_copy(update={part: tuple(entries)})


def measured(results, model):
    """All that was measured of a model, whatever it is called."""
    own = [
        *(entry for entry in results.models if entry.name == model),
        *(entry for part in (results.cells, results.worst, results.maps) for entry in part if entry.model == model),
    ]
    return [entry.model_dump(exclude={"model", "name"}) for entry in own]


def test_every_number_is_that_of_its_run(run):
    first, second = run("a", "one", "two"), run("b", "three")
    merged = merge_runs([first, second])
    assert [model.name for model in merged.models] == ["one", "two", "three"]
    for name, (_, results) in {"one": first, "two": first, "three": second}.items():
        assert measured(merged, name) == measured(results, name)
        assert len(measured(merged, name)) == 1 + 3 * 4 + 3
    assert merged.attacks == first[1].attacks
    assert merged.fingerprint == "run-a + run-b"
    assert merged.seconds == pytest.approx(2 * first[1].seconds)
    assert [name for name, _ in merged.spec.models] == ["one", "two", "three"]


def test_the_latest_run_dates_the_report_and_what_they_ran_on_is_joined(run):
    (folder, first), second = run("a", "one"), run("b", "two")
    older = first.model_copy(
        update={
            "created": "2025-01-01T00:00:00+00:00",
            "environment": first.environment.model_copy(update={"python": "3.10.1", "packages": {"torch": "2.4.0"}}),
        }
    )
    merged = merge_runs([(folder, older), second])
    assert merged.created == "2026-03-04T05:06:07+00:00"
    assert merged.environment.python == "3.10.1 + 3.11.7"
    assert merged.environment.packages == {"torch": "2.4.0 + 2.9.0", "faiss-cpu": "1.13.0"}
    assert merged.environment.device == "cpu"


def test_pictures_of_one_name_are_those_of_their_run(run, parse, tmp_path):
    (one, first), (two, second) = run("a", "one", examples=True), run("b", "two", examples=True)
    for folder, results in ((one, first), (two, second)):
        results.save(folder)
    for path in (two / "images").iterdir():
        # Bytes behind the end of a PNG change nothing but the file.
        path.write_bytes(path.read_bytes() + b"second run")
    with open_runs([one, two]) as (merged, home):
        for folder, own, results in ((one, merged.examples[:4], first), (two, merged.examples[4:], second)):
            for example, original in zip(own, results.examples, strict=True):
                hits, originals = (
                    [*item.clean_top, *item.adversarial_top, *item.targets] for item in (example, original)
                )
                names = [example.image, example.adversarial_image, example.perturbation_image, *(h.image for h in hits)]
                files = [original.image, original.adversarial_image, original.perturbation_image]
                files += [hit.image for hit in originals]
                assert [read_picture(home, name)[0] for name in names] == [(folder / f).read_bytes() for f in files]
    assert not home.exists()
    sources = {
        image.attributes["src"] for image in parse(write_report([one, two], tmp_path / "r.html").read_text()).all("img")
    }
    shown = {pixels(base64.b64decode(source.partition(",")[2])) for source in sources}
    for folder in (one, two):
        assert pixels((folder / first.examples[0].image).read_bytes()) in shown


def test_one_folder_is_opened_as_it_is(run):
    folder, results = run("a", "one")
    results.save(folder)
    with open_runs([folder / "results.json"]) as opened:
        assert opened == (results, folder)


@pytest.mark.parametrize("name", ["../secret.png", "../b/images/query-0.png", "../2/images/query-0.png"])
def test_a_run_names_no_pictures_of_another(run, tmp_path, name):
    one, two = run("a", "one", examples=True), run("b", "two", examples=True)
    (tmp_path / "secret.png").write_bytes((one[0] / "images/query-0.png").read_bytes())
    one[1].save(one[0])
    changed(two[1], "examples", 0, image=name).save(two[0])
    with pytest.raises(RunFolderError, match="lies outside of"):
        write_report([one[0], two[0]], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_a_run_called_like_a_number_stays_in_its_place(run, tmp_path):
    """Its own folder is called 2, so the name leads back into it, but not into the pictures of the second run."""
    one, two = run("2", "one", examples=True), run("b", "two")
    changed(one[1], "examples", 0, image="../2/images/query-0.png").save(one[0])
    two[1].save(two[0])
    with pytest.raises(RunFolderError, match="lies outside of"):
        write_report([one[0], two[0]], tmp_path / "r.html")


def test_a_model_that_was_measured_twice_is_kept_once(run):
    first, (folder, second) = run("a", "one", "two", examples=True), run("b", "one", examples=True)
    slower = second.model_copy(
        update={"cells": tuple(cell.model_copy(update={"seconds": 99.0}) for cell in second.cells)}
    )
    merged = merge_runs([first, (folder, slower)])
    assert [model.name for model in merged.models] == ["one", "two"]
    assert measured(merged, "one") == measured(first[1], "one")
    assert len(merged.examples) == len(first[1].examples) == 8


@pytest.mark.parametrize("part", ["cells", "worst", "models"])
def test_one_model_with_two_outcomes_is_refused(run, part):
    first, (folder, second) = run("a", "one", eventful=False), run("b", "one", eventful=False)
    own = getattr(second, part)[1 if part != "models" else 0]
    if part == "models":
        other = changed(second, part, 0, clean_hits="0" * len(own.clean_hits))
    else:
        other = changed(second, part, 1, hits="0" * len(own.hits))
    with pytest.raises(RunFolderError, match=r"'one' has the same weights in .*a' and .*b', but not the same outcome"):
        merge_runs([first, (folder, other)])


def test_an_attack_that_failed_in_one_run_is_another_outcome(run):
    first, (folder, second) = run("a", "one", eventful=False), run("b", "one", eventful=False)
    failed = changed(second, "cells", 0, status="failed", reason="out of time", score=None, hits=None)
    pattern = r"not the same outcome under noise\(steps=20, restarts=2\) at 2/255"
    with pytest.raises(RunFolderError, match=pattern):
        merge_runs([first, (folder, failed)])
    skipped = changed(failed, "cells", 0, status="skipped", reason="too large an image")
    with pytest.raises(RunFolderError, match=pattern):
        merge_runs([(first[0], failed), (folder, skipped)])


def test_one_model_under_other_attacks_is_refused(run):
    with pytest.raises(RunFolderError, match=r"met other attacks in .*under square\(.*\) at 2/255.*all of them in one"):
        merge_runs([run("a", "one"), run("b", "one", attacks=("noise", "margin", "stax"))])
    with pytest.raises(RunFolderError, match="met other attacks"):
        merge_runs([run("c", "one", budgets=(8 / 255,)), run("d", "one")])


def test_one_name_with_other_weights_is_called_after_its_folder(run):
    first, (folder, second) = run("a", "one", "two", examples=True), run("b", "one", examples=True)
    merged = merge_runs([first, (folder, changed(second, "models", 0, fingerprint="retrained"))])
    assert [model.name for model in merged.models] == ["one (a)", "two", "one (b)"]
    assert measured(merged, "one (b)")[1:] == measured(second, "one")[1:]
    assert {example.model for example in merged.examples} == {"one (a)", "two", "one (b)"}
    assert merged.flags[0].model == "one (a)"


def test_folders_of_one_name_are_told_apart_by_their_parents(run):
    first, (folder, second) = run("monday/eval", "one"), run("friday/eval", "one")
    merged = merge_runs([first, (folder, changed(second, "models", 0, fingerprint="retrained"))])
    assert [model.name for model in merged.models] == ["one (monday/eval)", "one (friday/eval)"]


def test_a_name_that_is_taken_is_refused(run):
    first, (folder, second) = run("a", "one", "one (b)"), run("b", "one")
    with pytest.raises(RunFolderError, match=r"two models would be called 'one \(b\)': rename"):
        merge_runs([first, (folder, changed(second, "models", 0, fingerprint="retrained"))])


@pytest.mark.parametrize(
    ("part", "update", "pattern"),
    [
        ("dataset", {"name": "cars"}, r"the data set differs \(cub200 and cars\)"),
        ("dataset", {"fingerprint": "0"}, r"the content of the data set .* differs \(fedcba9876543210 and 0\)"),
        ("dataset", {"image_size": 32}, r"the image size differs \(64 and 32\)"),
        ("dataset", {"queries": 1999}, r"the number of queries differs \(2000 and 1999\)"),
        ("dataset", {"protocol": "closed set"}, "the queries or the protocol differ"),
        ("queries", {"ids": tuple(range(1, 2001))}, "the queries or the protocol differ"),
        ("spec", {"seed": 8}, r"the seed differs \(7 and 8\)"),
        ("spec", {"shard_size": 32}, r"the number of queries in a shard differs \(64 and 32\)"),
    ],
)
def test_runs_on_other_data_are_refused(run, part, update, pattern):
    first, (folder, second) = run("a", "one"), run("b", "two")
    other = second.model_copy(update={part: getattr(second, part).model_copy(update=update)})
    with pytest.raises(RunFolderError, match=rf"a' and .*b' cannot be in one report: {pattern}"):
        merge_runs([first, (folder, other)])


def test_the_same_folder_twice_is_refused(run):
    first = run("a", "one")
    with pytest.raises(RunFolderError, match="is given twice"):
        merge_runs([first, (first[0] / ".." / "a", first[1])])


def flags(results, slug):
    return [flag for flag in results.flags if flag.slug == slug]


def test_who_met_fewer_attacks_is_named(run):
    short, full = run("a", "one", attacks=("noise", "margin")), run("b", "two", attacks=("noise", "margin", "stax"))
    (flag,) = flags(merge_runs([short, full]), "different-attacks")
    assert flag.model == "one"
    assert "one has not met all attacks" in flag.message
    assert "(not stax at 2/255, stax at 8/255, stax at 16/255)" in flag.message
    assert not flags(merge_runs([run("c", "one"), run("d", "two")]), "different-attacks")


def test_many_missing_attacks_are_counted(run):
    merged = merge_runs([run("a", "one", attacks=()), run("b", "two")])
    (flag,) = flags(merged, "different-attacks")
    assert ", noise at 8/255 and 7 more)" in flag.message


def test_what_one_run_says_of_itself_is_said_of_its_models(run):
    (folder, first), second = run("a", "one", "two", eventful=False), run("b", "three", eventful=False)
    own = Flag(slug="one-goal", message="All pursue one goal.", remedy="Run more.")
    about = Flag(slug="collapse", message="It collapsed.", remedy="Train again.", model="two")
    merged = merge_runs([(folder, first.model_copy(update={"flags": (own, about)})), second])
    assert [(flag.slug, flag.model) for flag in merged.flags] == [
        ("one-goal", "one"),
        ("one-goal", "two"),
        ("collapse", "two"),
    ]


def test_what_all_runs_say_is_said_once(run):
    merged = merge_runs([run("a", "one"), run("b", "two")])
    assert [(flag.slug, flag.model) for flag in flags(merged, "few-queries")] == [("few-queries", None)]


def test_other_versions_are_a_caution(run):
    first, (folder, second) = run("a", "one"), run("b", "two")
    merged = merge_runs([first, (folder, second.model_copy(update={"robustdml_version": "0.2.0"}))])
    assert merged.robustdml_version == "0.1.0 + 0.2.0"
    assert merged.flags[0].slug == "different-versions"
    assert "0.1.0 and 0.2.0" in merged.flags[0].message


def test_attacks_that_share_a_short_name_are_called_by_their_spec(run):
    first, (folder, second) = run("a", "one", attacks=("noise",)), run("b", "two", attacks=("margin",))
    merged = merge_runs([first, (folder, changed(second, "attacks", 0, name="noise"))])
    assert [attack.name for attack in merged.attacks] == [
        "noise(steps=20, restarts=2)",
        "margin(steps=20, restarts=2)",
    ]


def test_an_attack_that_one_run_calls_by_its_spec_is_called_so(run):
    first, (folder, second) = run("a", "one"), run("b", "two")
    spec = second.attacks[1].spec
    assert merge_runs([first, (folder, changed(second, "attacks", 1, name=spec))]).attacks[1].name == spec


def test_one_spec_for_two_attacks_is_refused(run):
    first, (folder, second) = run("a", "one"), run("b", "two")
    with pytest.raises(RunFolderError, match=r"'margin\(.*\)' of .*b' is not the same .*evaluate again"):
        merge_runs([first, (folder, changed(second, "attacks", 1, goal="shift"))])


def test_several_runs_are_written_into_the_working_folder(run, tmp_path, monkeypatch):
    folders = [run("a", "one"), run("b", "two")]
    for folder, results in folders:
        results.save(folder)
    monkeypatch.chdir(tmp_path)
    assert write_report([folder for folder, _ in folders]) == Path("report.html")
    assert (tmp_path / "report.html").is_file()
    assert write_report(folders[0][0]) == folders[0][0] / "report.html"


def test_runs_of_one_model_each_merge_into_the_run_that_had_them_all(run):
    _, whole = run("whole", "one", "two", "three")
    apart = []
    for model in whole.models:
        own = {
            part: tuple(entry for entry in getattr(whole, part) if entry.model in {None, model.name})
            for part in ("cells", "worst", "flags")
        }
        apart.append((Path(model.name), whole.model_copy(update={"models": (model,), **own})))
    merged = merge_runs(apart)
    expected = {"seconds": merged.seconds, "spec": merged.spec}
    assert merged == whole.model_copy(update=expected)
    assert merged.spec.models == whole.spec.models
