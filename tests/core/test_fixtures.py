"""What earlier versions wrote is read for ever: a results file and a checkpoint as they were, kept in tests/fixtures.

Neither is made anew when the code changes; a newer form gets a fixture of its own.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from robustdml.models import load_checkpoint
from robustdml.preprocessing import Preprocessing
from robustdml.registry import Spec
from robustdml.results import SCHEMA_VERSION, Results

FIXTURES = Path(__file__).parents[1] / "fixtures"
RESULTS = FIXTURES / "results-2.json"


def scores(data):
    judged = [part["score"] for part in (*data["cells"], *data["worst"]) if part["score"]]
    return [*judged, *(model["clean"] for model in data["models"])]


def without_news(found, written):
    """What is found, less the fields that were added since; these are empty, whatever they are."""
    if isinstance(found, dict) and isinstance(written, dict):
        return {name: without_news(found[name], written.get(name)) for name in found if name in written or found[name]}
    if isinstance(found, list) and isinstance(written, list) and len(found) == len(written):
        return [without_news(now, then) for now, then in zip(found, written, strict=True)]
    return found


def test_results_of_schema_2_are_read_and_say_what_was_written():
    results, written = Results.load(RESULTS), json.loads(RESULTS.read_text())
    found = results.model_dump(mode="json")
    assert (found.pop("schema_version"), written.pop("schema_version")) == (SCHEMA_VERSION, 2)
    assert all((flag.pop("grade"), flag.pop("title")) == (None, "") for flag in found["flags"])
    assert found.pop("flags") == written.pop("warnings")
    assert all(attack.spec == str(Spec(attack.kind, attack.params)) for attack in results.attacks)
    for attack in found["attacks"]:
        assert attack.pop("kind")
        assert (attack.pop("goal_meaning"), attack.pop("measures")) == ("", [])
        assert attack.pop("params") or "(" not in attack["spec"]
    assert not any(cell.pop("stages") for cell in found["cells"])
    norms = {attack["spec"]: attack["norm"] for attack in written["attacks"]}
    for part in ("cells", "worst", "examples", "maps"):
        for now, then in zip(found[part], written[part], strict=True):
            norm = then.pop("norm") if part == "worst" else norms[then["attack"]]
            threat = {name: value for name, value in now.pop("threat").items() if value is not None or name == "eps"}
            assert threat == {"eps": then.pop("eps"), "norm": norm}
    described = {metric["name"]: metric for metric in found["dataset"].pop("metrics")}
    assert found["dataset"].pop("headline") == "recall_at_1"
    assert found["dataset"].pop("chance") == written["dataset"].pop("chance_recall_at_1")
    for now, then in zip(scores(found), scores(written), strict=True):
        assert now.pop("headline") == "recall_at_1"
        assert (now.pop("low"), now.pop("high")) == (then.pop("recall_at_1_low"), then.pop("recall_at_1_high"))
        assert list(now["metrics"]) == list(described)
    assert all(metric["title"] and metric["description"] for metric in described.values())
    # All was attacked in fp32 then.
    assert {part.pop("precision") for part in (found["spec"], *found["models"])} == {"fp32"}
    assert without_news(found, written) == written
    assert {cell.status for cell in results.cells} == {"ok", "failed"}
    assert results.worst
    assert results.maps


def test_the_checkpoint_of_version_1_embeds_as_it_did():
    model = load_checkpoint(FIXTURES / "checkpoint-1", trust_code=True).deployed()
    images = torch.linspace(0, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16)
    expected = [
        [0.16556644, 0.62779111, 0.73542243, 0.12192830, 0.15084207],
        [-0.18196563, 0.40304074, -0.88344091, 0.09921797, 0.11888897],
    ]
    torch.testing.assert_close(model(images).detach(), torch.tensor(expected))


def test_the_checkpoint_of_version_2_embeds_and_is_prepared_for_as_it_was():
    model = load_checkpoint(FIXTURES / "checkpoint-2", trust_code=True).deployed()
    assert model.preprocessing == Preprocessing(
        16, 20, squash=True, interpolation="bicubic", mean=(0.5, 0.4, 0.3), std=(0.25, 0.5, 0.125)
    )
    images = torch.linspace(0, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16)
    expected = [
        [0.72509652, -0.47067937, 0.35699815, -0.33082819, 0.12570274],
        [0.29307213, -0.25483504, -0.33110413, -0.23876673, 0.82615268],
    ]
    torch.testing.assert_close(model(images).detach(), torch.tensor(expected))


@pytest.mark.parametrize("place", [(), ("models", 0), ("cells", 0), ("attacks", 0), ("queries",), ("spec",)])
def test_fields_of_a_newer_version_are_passed_over(tmp_path, place):
    content = json.loads(RESULTS.read_text())
    part = content
    for step in place:
        part = part[step]
    part["of_a_newer_version"] = {"anything": [1, None]}
    (tmp_path / "results.json").write_text(json.dumps(content))
    assert Results.load(tmp_path) == Results.load(RESULTS)
