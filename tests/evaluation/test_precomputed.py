"""Embeddings that were computed elsewhere: every kind of file, the numbers, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from few_digits import few_digits
from torch import nn

import robustdml
from robustdml.cli import main
from robustdml.config import RunOptions
from robustdml.data.embeddings import NoImages, embedded, read_embeddings
from robustdml.errors import DataError, RobustDMLError, RunFolderError, SpecError
from robustdml.evaluation import evaluate, evaluate_embeddings
from robustdml.results import unpack_hits
from robustdml.values import brief


def some(classes=4, each=5, dimensions=6, seed=0):
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    centres = random.normal(size=(classes, dimensions))
    return centres[labels] + random.normal(size=(len(labels), dimensions)), labels


VECTORS, LABELS = some()


def scored(given, out, **options):
    return evaluate_embeddings(given, out=out, **options)


def recall_by_hand(queries, gallery, asked, classes, same=False):
    """R@1 by a plain loop, for vectors without ties."""
    right = []
    for number, query in enumerate(queries):
        similarity = [float(query @ item / np.linalg.norm(query) / np.linalg.norm(item)) for item in gallery]
        if same:
            similarity[number] = -2
        right.append(bool(classes[int(np.argmax(similarity))] == asked[number]))
    return right


def test_recall_is_that_of_a_plain_loop(tmp_path):
    results = scored({"embeddings": VECTORS, "labels": LABELS}, tmp_path)
    expected = recall_by_hand(VECTORS, VECTORS, LABELS, LABELS, same=True)
    assert unpack_hits(results.models[0].clean_hits, 20) == expected
    assert 0.3 < results.models[0].clean.value < 1
    assert results.models[0].health.effective_rank > 2
    assert results.models[0].nmi is not None
    assert [flag.slug for flag in results.flags] == ["embeddings-alone"]
    assert not results.cells


def test_queries_and_gallery_apart_in_both_forms(tmp_path):
    asking, asked = some(seed=1)
    apart = {
        "query_embeddings": torch.tensor(asking),
        "query_labels": asked.tolist(),
        "gallery_embeddings": VECTORS,
        "gallery_labels": LABELS,
    }
    roles = np.repeat([True, False], 20)
    joined = {
        "embedding": np.concatenate([asking, VECTORS]),
        "label": np.concatenate([asked, LABELS]),
        "is_query": roles,
        "is_gallery": ~roles,
    }
    expected = recall_by_hand(asking, VECTORS, asked, LABELS)
    for number, given in enumerate((apart, joined)):
        results = scored(given, tmp_path / str(number))
        assert unpack_hits(results.models[0].clean_hits, 20) == expected
        assert (results.dataset.queries, results.dataset.gallery, results.dataset.leave_self_out) == (20, 20, False)


def written(folder, kind):
    words = np.array([f"class {label}" for label in LABELS])
    path = folder / f"mine.{kind}"
    if kind == "npz":
        np.savez(path, embeddings=VECTORS.astype(np.float16), labels=words)
    elif kind == "pt":
        tensors = {"embeddings": torch.tensor(VECTORS).half(), "labels": torch.tensor(LABELS)}
        torch.save(tensors, path)
    else:
        frame = pd.DataFrame({"embedding": list(VECTORS.astype(np.float16).astype(np.float32)), "label": words})
        frame.to_parquet(path)
    return path


@pytest.mark.parametrize("kind", ["npz", "pt", "parquet"])
def test_every_kind_of_file_says_the_same(kind, tmp_path):
    results = scored(written(tmp_path, kind), tmp_path / "out")
    expected = scored({"embeddings": VECTORS.astype(np.float16), "labels": LABELS}, tmp_path / "memory")
    assert results.models[0].clean_hits == expected.models[0].clean_hits
    assert results.models[0].name == "mine"


def test_a_matrix_alone_takes_the_labels_of_a_data_set_and_says_what_its_model_would(tmp_path):
    torch.manual_seed(0)
    model, digits = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8)), few_digits(8)
    options = RunOptions(device="cpu", progress=False)
    expected = evaluate({"m": model}, digits, [], out=tmp_path / "model", options=options)
    from robustdml.data.tensors import ImageTensors

    rows = np.union1d(digits.query, digits.gallery)
    with torch.no_grad():
        vectors = model(ImageTensors(digits.images, 32).batch(rows))
    np.save(tmp_path / "mine.npy", vectors.numpy())
    found = scored(tmp_path / "mine.npy", tmp_path / "out", data=digits)
    assert found.models[0].clean_hits == expected.models[0].clean_hits
    assert found.models[0].clean.metrics.root == pytest.approx(expected.models[0].clean.metrics.root, abs=1e-4)
    assert found.dataset.fingerprint == expected.dataset.fingerprint
    whole = np.zeros((len(digits.images), 8)) + 1.0
    whole[rows] = vectors
    again = scored({"embeddings": whole}, tmp_path / "whole", data=digits)
    assert again.models[0].clean == found.models[0].clean


def test_cameras_make_it_re_identification(tmp_path):
    cameras = np.arange(20) % 2
    results = scored({"embeddings": VECTORS, "labels": LABELS, "camera": cameras}, tmp_path)
    right = []
    for number in range(20):
        similarity = VECTORS @ VECTORS[number] / np.linalg.norm(VECTORS, axis=1)
        similarity[(LABELS[number] == LABELS) & (cameras == cameras[number])] = -np.inf
        right.append(bool(LABELS[similarity.argmax()] == LABELS[number]))
    assert unpack_hits(results.models[0].clean_hits, 20) == right


def test_collapsed_and_lonely_ones_are_flagged_and_said(tmp_path):
    alike = np.ones((20, 6)) + 1e-4 * VECTORS
    assert "collapse" in [flag.slug for flag in scored({"embeddings": alike, "labels": LABELS}, tmp_path / "a").flags]
    lonely = scored({"embeddings": VECTORS, "labels": [*LABELS[:-1], 99]}, tmp_path / "b")
    assert lonely.dataset.queries == 19
    assert "1 that have nothing to find do not ask" in lonely.dataset.protocol


class Code:
    def __reduce__(self):
        return print, ("run",)


def damaged(folder, kind):
    path = folder / f"x.{kind}"
    if kind == "pickle.pt":
        torch.save({"embeddings": Code()}, path)
    elif kind == "object.npz":
        np.savez(path, embeddings=np.array([Code()], dtype=object))
    else:
        path.write_bytes(b"\x00broken")
    return path


@pytest.mark.parametrize("kind", ["npz", "npy", "pt", "parquet", "pickle.pt", "object.npz"])
def test_a_file_that_is_damaged_or_holds_code_is_one_sentence(kind, tmp_path, capsys):
    with pytest.raises(DataError, match="cannot read the embeddings") as caught:
        read_embeddings(damaged(tmp_path, kind))
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


REFUSED = {
    "nothing": ({}, "holds nothing, and it must hold embeddings"),
    "other names": ({"x": VECTORS}, "holds x, and it must hold embeddings"),
    "no labels": ({"embeddings": VECTORS}, "holds no labels.*or give the data set"),
    "one vector": ({"embeddings": VECTORS[0], "labels": LABELS}, r"of shape \(6,\), and must be \(N, D\)"),
    "words": ({"embeddings": [["a"]], "labels": [0]}, r"must be \(N, D\)"),
    "NaN": ({"embeddings": np.where(VECTORS > 2, np.nan, VECTORS), "labels": LABELS}, "not all finite: row"),
    "zero": ({"embeddings": VECTORS * (LABELS > 0)[:, None], "labels": LABELS}, "zero, which has no direction.*row 0"),
    "few labels": ({"embeddings": VECTORS, "labels": LABELS[:3]}, r"of shape \(3,\), and there must be one for each"),
    "labels of floats": ({"embeddings": VECTORS, "labels": LABELS + 0.5}, "whole numbers or text"),
    "roles": (
        {"embeddings": VECTORS, "labels": LABELS, "is_query": LABELS},
        "is_query of 'embeddings' must be true or false",
    ),
    "no query": (
        {"embeddings": VECTORS, "labels": LABELS, "is_query": LABELS < 0},
        "has 0 queries and 20 gallery items",
    ),
    "nothing to find": (
        {"embeddings": VECTORS, "labels": np.arange(20)},
        "none of the 20 queries has anything to find",
    ),
    "two lengths": (
        {
            "query_embeddings": VECTORS,
            "query_labels": LABELS,
            "gallery_embeddings": VECTORS[:, :3],
            "gallery_labels": LABELS,
        },
        "do not fit",
    ),
}


@pytest.mark.compatible("Tables", "embeddings with parts missing, of other shapes, zero or NaN", "one sentence")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_one_sentence(name):
    given, sentence = REFUSED[name]
    with pytest.raises(DataError, match=sentence) as caught:
        embedded(given, "embeddings")
    assert "\n" not in str(caught.value)


def test_a_data_set_of_another_size_is_one_sentence():
    with pytest.raises(DataError, match=r"holds 20 embeddings, and 'digits' has .* test images and .* in all"):
        embedded({"embeddings": VECTORS}, "e", few_digits(8))


def test_there_are_no_images():
    images = NoImages("x", ("a", "b"))
    assert (len(images), images.name(1), images.digest()) == (2, "b", "x")
    with pytest.raises(DataError, match="of 'a' the embedding alone is known"):
        images.load(0)
    assert len(brief(embedded({"embeddings": VECTORS, "labels": LABELS}, "e"))) < 600


def command(*words):
    return CliRunner().invoke(main, ["evaluate", *map(str, words)])


def test_the_command_scores_reports_verifies_and_compares(tmp_path):
    file, out = written(tmp_path, "npz"), tmp_path / "out"
    done = command("--embeddings", file, "--out", out, "--max-queries", 8, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["exit_code"] == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "embeddings alone" in page
    assert "0 \N{MULTIPLICATION SIGN} 0" not in page
    assert CliRunner().invoke(main, ["verify", str(out)]).exit_code == 0
    assert command("--embeddings", file, "--out", out, "--max-queries", 8).exit_code == 0
    assert command("--embeddings", file, "--out", out, "--max-queries", 9).exit_code == 2
    below = command("--embeddings", file, "--out", tmp_path / "b", "--fail-under", "clean:recall@1=1")
    assert below.exit_code == 3, below.output
    assert robustdml.compare(out, out).models[0].same_weights


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--attacks", "margin"], "--attacks needs the model: an attack changes an image"),
        (["--curve", "linf"], "--curve needs the model"),
        (["--eps", "8/255"], "--eps needs the model"),
        (["--natural"], "--natural needs the model"),
        (["--dry-run"], "--dry-run needs the model"),
        (["timm:resnet18"], "--embeddings stands in place of models: leave 'timm:resnet18' out"),
        (["--data", "digits"], "holds 20 embeddings, and 'digits' has"),
        (["--max-queries", "0"], "max_queries=0 must be at least 1"),
    ],
)
def test_what_needs_a_model_is_refused_with_the_reason(words, sentence, tmp_path):
    done = command(*words, "--embeddings", written(tmp_path, "npz"), "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert sentence in " ".join(done.output.split())
    assert not (tmp_path / "out").exists()


def test_without_embeddings_model_and_data_are_asked_for_as_before(tmp_path):
    assert "Missing argument 'MODEL...'" in command("--data", "digits", "--out", tmp_path / "out").output
    assert "Missing option '--data'" in command("timm:resnet18", "--out", tmp_path / "out").output
    assert "there is no file" in command("--embeddings", "x.npz", "--out", tmp_path / "out").output
    assert "is no file of embeddings" in command("--embeddings", "x.txt", "--out", tmp_path / "out").output


def test_arguments_from_python(tmp_path):
    given = {"embeddings": VECTORS, "labels": LABELS}
    assert scored(given, tmp_path / "a", name="mine", seed=np.int64(1)).models[0].name == "mine"
    with pytest.raises(SpecError, match="seed=-1"):
        scored(given, tmp_path / "b", seed=-1)
    with pytest.raises(RunFolderError, match="holds another run"):
        scored(given, tmp_path / "a", name="other")
    with pytest.raises(RobustDMLError):
        scored({"embeddings": VECTORS}, tmp_path / "c")
