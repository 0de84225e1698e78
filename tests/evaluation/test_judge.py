"""The judge shares nothing with attacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from pretend_device import pretend_device
from squares import QUIET, SmallNet

from robustdml.attacks import build_attack, build_suite
from robustdml.evaluation import evaluate
from robustdml.results import AttackEntry
from robustdml.threat import ThreatModel

EPS = 8 / 255


@dataclass(frozen=True)
class Spoiler:
    """An attack that returns its images and changes what it was shown."""

    spoil: Callable[[Any, Any], None]
    threat = ThreatModel(EPS)

    def entry(self) -> AttackEntry:
        return AttackEntry(
            spec="spoiler",
            name="spoiler",
            library="mine",
            goal="margin",
            knowledge="gradients",
            norm="linf",
            citations=(),
        )

    def target_rows(self, references, *, seed):
        return None

    def __call__(self, model, images, references, *, seed):
        self.spoil(model, references)
        return images


SPOILERS = {
    "embeddings": lambda model, references: references.gallery.embeddings.zero_(),
    "embeddings past the version counter": lambda model, references: references.gallery.embeddings.data.mul_(-1),
    "embeddings through NumPy": lambda model, references: references.gallery.embeddings.numpy().fill(0.5),
    "labels": lambda model, references: references.gallery.labels.fill_(0),
    "ids": lambda model, references: references.gallery.ids.add_(1),
}


@pytest.mark.parametrize("spoil", SPOILERS.values(), ids=SPOILERS)
def test_an_attack_that_changes_the_gallery_has_failed_and_the_others_are_as_without_it(squares, tmp_path, spoil):
    margin = build_attack("margin", EPS)
    alone = evaluate({"net": SmallNet()}, squares, [margin], out=tmp_path / "alone", options=QUIET)
    both = evaluate({"net": SmallNet()}, squares, [Spoiler(spoil), margin], out=tmp_path / "both", options=QUIET)
    spoiled, judged = both.cells
    assert spoiled.status == "failed"
    assert spoiled.reason == "the attack changed the gallery or the queries that it was shown: it must leave them alone"
    assert judged.hits == alone.cells[0].hits
    assert both.models[0].clean == alone.models[0].clean


WEIGHTS = {
    "past the version counter": lambda model, references: model.module.head.weight.data.mul_(-1),
    "a hook left behind": lambda model, references: model.module.register_forward_hook(lambda *_: torch.ones(24, 8)),
    "a patched forward": lambda model, references: setattr(model.module, "forward", lambda x: torch.ones(len(x), 8)),
}


@pytest.mark.parametrize("spoil", WEIGHTS.values(), ids=WEIGHTS)
def test_what_an_attack_does_to_its_model_does_not_reach_the_judge(squares, tmp_path, spoil):
    """It returns its images as they are: R@1 under it is the clean one, and attacks after it meet the genuine model."""
    margin = build_attack("margin", EPS)
    alone = evaluate({"net": SmallNet()}, squares, [margin], out=tmp_path / "alone", options=QUIET)
    found = evaluate({"net": SmallNet()}, squares, [Spoiler(spoil), margin], out=tmp_path / "both", options=QUIET)
    assert found.cells[0].status == "failed" or found.cells[0].hits == found.models[0].clean_hits
    assert found.cells[1].model_copy(update={"seconds": 0}) == alone.cells[0].model_copy(update={"seconds": 0})


class Hooked(SmallNet):
    """It reads inside of itself by a hook that knows this very object, as feature extractors do."""

    def __init__(self):
        super().__init__()
        self.kept = {}
        self.norm.register_forward_hook(lambda module, given, output: self.kept.update(output=output))

    def forward(self, images):
        super().forward(images)
        return 7 * self.head(self.kept["output"].mean((2, 3)))


@pytest.mark.parametrize("called", [False, True])
def test_a_model_whose_copy_would_not_answer_as_it_does_is_judged_by_itself(squares, tmp_path, called):
    margin = build_attack("margin", EPS)
    plain = evaluate({"net": SmallNet()}, squares, [margin], out=tmp_path / "plain", options=QUIET)
    model = Hooked()
    if called:  # What it keeps since is stale in a copy.
        with torch.no_grad():
            model(torch.rand(len(squares.query), 3, 10, 10))
    found = evaluate({"net": model}, squares, [margin], out=tmp_path / "hooked", options=QUIET)
    assert plain.cells[0].hits != plain.models[0].clean_hits
    assert (found.cells[0].status, found.cells[0].hits) == ("ok", plain.cells[0].hits)


@pytest.mark.slow
def test_a_whole_evaluation_elsewhere_gives_the_same_records_and_waits_for_shards_not_for_steps(squares, tmp_path):
    """Judge, flags, attacks on queries and on the gallery, and analyses: no two devices meet."""

    def records(device, name, steps):
        suite = build_suite(f"cascade,margin(steps={steps}),both_sides,noise", EPS, "quick")
        parts = {"max_queries": 8, "shard_size": 4, "options": replace(QUIET, device=device)}
        evaluate({"net": SmallNet()}, squares, suite, out=tmp_path / name, **parts)
        return [pq.read_table(path).to_pylist() for path in sorted((tmp_path / name).rglob("*.parquet"))]

    waited = []
    for steps in (2, 4):
        with pretend_device() as elsewhere:
            found = records("meta", f"there{steps}", steps)
            waited.append(elsewhere.round_trips)
    here = records("cpu", "here", 4)
    assert len(here) == 1 + 4 * 2
    assert found == here
    assert waited[0] == waited[1]
