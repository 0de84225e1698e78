"""Certificates: below the exact truth, never contradicted by an attack on the smoothed model, equal however sharded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from command_line import cli, refused
from scipy.stats import binomtest, norm
from squares import QUIET, FakeAttack, SmallNet

from robustdml.data import ArrayImages, RetrievalSplit
from robustdml.data.tensors import ImageTensors
from robustdml.errors import RunFolderError, SpecError, UnknownNameError
from robustdml.evaluation import build_panel, evaluate
from robustdml.evaluation.analyses.certify import Certify, lead
from robustdml.evaluation.analyses.panel import PanelRun
from robustdml.evaluation.checks.calibration import LinearEmbedding, LinearSetting
from robustdml.evaluation.judge import Judge
from robustdml.reports import render_report
from robustdml.reports.merging.merge import open_runs
from robustdml.retrieval.embed import Embedder
from robustdml.threat import ThreatModel

SIZE = 4


def run_of(judge: Judge, tensors: ImageTensors, seed: int = 0) -> PanelRun:
    return PanelRun("net", judge, tensors, judge.clean(), seed)


def certified(panel: Certify, run: PanelRun):
    part = np.arange(len(run.judge.split.query))
    return {found.certificate: found for found in panel.entries(run, [panel.shard(run, part, lambda *_: None)])}


def linear_setting(seed: int, classes: int, per_class: int) -> LinearSetting:
    """Grey images of small contrast, mapped by a matrix with orthonormal rows, far from black and white.

    Then noise is no nearer to one side of the plane between two items than to the other, and the mean embedding has
    every first hit of the plain one; with a single relative, where a query is right is convex, and no vote reaches
    further than the plain model either.
    """
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), per_class)
    colours = random.integers(105, 151, (classes, SIZE, SIZE, 3))[labels]
    images = (colours + random.integers(-5, 6, colours.shape)).astype(np.uint8)
    rows = np.linalg.qr(random.standard_normal((3 * SIZE * SIZE, 4)))[0].T
    pixels = images.transpose(0, 3, 1, 2).reshape(len(labels), -1) / 255
    model = LinearEmbedding(10 * rows, -10 * rows @ pixels.mean(0))
    every = np.arange(len(labels))
    split = RetrievalSplit(ArrayImages(images), labels, every, every)
    return LinearSetting(model, split, ThreatModel(0.01, "l2"), SIZE)


@pytest.mark.parametrize(("classes", "per_class", "certificate"), [(2, 2, "vote"), (8, 2, "vote"), (5, 4, "embedding")])
def test_no_certificate_is_above_the_exact_truth(classes, per_class, certificate, drawn_seed):
    above = 0
    for seed in range(drawn_seed, drawn_seed + 4):  # of one draw in fifty every query is too near to certify
        setting = linear_setting(seed, classes, per_class)
        run = run_of(setting.judge(), ImageTensors(setting.split.images, SIZE), seed)
        found = certified(Certify(sigma=0.05, samples=400, confidence=0.99999), run)[certificate]
        radii = np.array(found.radii)
        for eps in np.linspace(0.005, 0.1, 20):
            truth = LinearSetting(setting.model, setting.split, ThreatModel(eps, "l2"), SIZE).truth()
            assert not (truth.broken & (radii > eps)).any()
            assert found.recall(eps) == (radii > eps).mean() <= truth.recall
            above += (radii > eps).sum()
    assert above, "nothing was certified: the comparison says nothing"


def test_a_vote_between_two_items_certifies_nearly_the_distance_to_the_plane_between_them():
    panel = Certify(sigma=0.5, samples=100_000)
    distances = np.array([0.1, 0.5, 1.0])
    votes = np.random.default_rng(0).binomial(panel.samples, norm.cdf(distances / panel.sigma))
    radii = panel.vote_radius(votes)
    assert (radii <= distances).all()
    assert radii == pytest.approx(distances, rel=0.1)


def test_the_share_of_votes_is_bounded_by_clopper_and_pearson():
    panel = Certify(sigma=1.0, samples=200, confidence=0.975)
    for votes in (0, 1, 90, 120, 199, 200):
        low = binomtest(votes, 200).proportion_ci(0.95, "exact").low
        assert panel.vote_radius(np.array([votes])) == pytest.approx([norm.ppf(max(low, 0.5))])


def test_the_mean_of_samples_is_as_near_as_the_bound_says():
    panel = Certify(samples=50, confidence=0.9)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (2000, 50))  # unit embeddings that could not vary more
    assert (abs(signs.mean(1)) > panel.sampling_error).mean() < 0.1


def test_a_better_lead_is_found_than_that_of_the_nearest_relevant_item_alone(squares):
    tensors = ImageTensors(squares.images, 10)
    judge = Judge(Embedder(SmallNet()).eval(), squares.test, tensors, torch.device("cpu"), name="net")
    for place in range(0, len(squares.query), 5):
        mean = judge.query_embeddings[place].astype(np.float64)
        pairs = []
        for item in range(len(squares.gallery)):
            if squares.gallery[item] == squares.query[place]:
                continue
            own = squares.labels[squares.gallery[item]] == squares.labels[squares.query[place]]
            pairs.append((own, judge.gallery_embeddings[item].astype(np.float64)))
        by_definition = max(
            min((p - n) @ mean / np.linalg.norm(p - n) for foreign, n in pairs if not foreign)
            for own, p in pairs
            if own
        )
        assert lead(judge, place, mean) == pytest.approx(by_definition)


def attacked(model, image, direction_of, radius, sigma, steps=10):
    """Ascent on what ``direction_of`` gives of noisy embeddings, within an L2 ball: an attack on the smoothed model."""
    generator = torch.Generator().manual_seed(1)
    change = torch.zeros_like(image)
    for _ in range(steps):
        change.requires_grad_()
        noise = sigma * torch.randn((64, *image.shape), generator=generator)
        embeddings = model((image + change + noise).clamp(0, 1))
        (gradient,) = torch.autograd.grad(direction_of(embeddings), change)
        change = change.detach() + radius / 3 * gradient / gradient.norm().clamp_min(1e-12)
        change = change * min(1.0, radius / float(change.norm()))
    return (image + change).clamp(0, 1).detach()


def test_no_attack_on_the_smoothed_model_contradicts_its_certificate(squares):
    panel, tensors = Certify(sigma=0.2, samples=1000), ImageTensors(squares.images, 10)
    judge = Judge(Embedder(SmallNet()).eval(), squares.test, tensors, torch.device("cpu"), name="net")
    run = run_of(judge, tensors)
    found = certified(panel, run)
    gallery = torch.from_numpy(judge.gallery_embeddings)
    fresh, broken_beyond = np.random.default_rng(7), 0
    for place in range(0, len(squares.query), 3):
        same = torch.from_numpy(squares.labels[squares.gallery] == squares.labels[squares.query[place]])
        image = run.images(np.array([place]))[0]

        def lost(embeddings, same=same):
            similarity = embeddings @ gallery.T
            return (similarity[:, ~same].max(1).values - similarity[:, same].max(1).values).mean()

        for certificate, entry in found.items():
            for factor in (0.999, 6):
                radius = factor * entry.radii[place]
                if not radius:
                    continue
                moved = attacked(judge.model, image, lost, radius, panel.sigma)
                noise = torch.from_numpy(fresh.standard_normal((1000, *image.shape), dtype=np.float32))
                embeddings = judge.embed((moved + panel.sigma * noise).clamp(0, 1))
                votes = int(judge.first_hits(np.full(1000, place), embeddings).sum())
                ahead = lead(judge, place, embeddings.mean(0, dtype=np.float64))
                if factor > 1:
                    broken_beyond += votes < 500 or ahead < 0
                elif certificate == "vote":
                    assert binomtest(votes, 1000, 0.5, "less").pvalue > 1e-6
                else:
                    assert ahead > -panel.sampling_error
    assert broken_beyond, "the attack breaks nothing beyond the radius either: it proves nothing"


def test_certificates_are_equal_however_sharded_resumed_or_added_later(squares, tmp_path):
    attack = FakeAttack(lambda _, images: images)
    panel = build_panel("certify", "sigma=0.1, samples=60")
    whole = evaluate({"net": SmallNet()}, squares, [attack], out=tmp_path / "a", options=QUIET, panels=[panel])
    parts = tmp_path / "b"
    without = evaluate({"net": SmallNet()}, squares, [attack], out=parts, options=QUIET, shard_size=5)
    assert without.certified == ()
    attack.calls.clear()
    arguments = {"out": parts, "options": QUIET, "panels": [panel], "shard_size": 5}
    later = evaluate({"net": SmallNet()}, squares, [attack], **arguments)
    assert attack.calls == []

    def numbers(results):
        return [(found.certificate, found.hits, found.radii, found.forward_images) for found in results.certified]

    assert numbers(later) == numbers(whole)
    assert whole.certified[0].forward_images == 60 * len(squares.query)
    assert {"cohen2019certified", "pautov2022smoothed", "kakizaki2025deterministic"} <= whole.citations.keys()
    file = next(parts.glob("records/*/certify*/00002.json"))
    before = file.read_text()
    file.unlink()
    assert numbers(evaluate({"net": SmallNet()}, squares, [attack], **arguments)) == numbers(whole)
    file.write_text(before.replace('"votes": [', '"votes": [1,'))
    with pytest.raises(RunFolderError, match="damaged"):
        evaluate({"net": SmallNet()}, squares, [attack], **arguments)


def test_the_page_says_of_what_model_it_is_and_merging_keeps_it(squares, tmp_path):
    panels = [Certify(0.1, 60), Certify(0.2, 60)]
    for name in ("one", "two"):
        net = {name: SmallNet()}
        evaluate(net, squares, [], out=tmp_path / name, options=QUIET, panels=panels if name == "one" else panels[:1])
    with open_runs([tmp_path / "one", tmp_path / "two"]) as (merged, folder):
        assert [found.model for found in merged.certified] == ["one"] * 4 + ["two"] * 2
        page = render_report(merged, folder)
    assert "Certified R@1" in page
    assert "not of the bare model" in page


@dataclass(frozen=True)
class Failing:
    """A panel that a model cannot serve."""

    spec: str = "failing"
    field: ClassVar[str] = "certified"

    def shard(self, run, part, advance):
        raise ValueError("these images are not mine")

    def entries(self, run, shards):
        return []


def test_a_panel_that_fails_is_said_and_stops_nothing(squares, tmp_path):
    panels = [Failing(), Certify(0.1, 20)]
    results = evaluate({"net": SmallNet()}, squares, [], out=tmp_path, options=QUIET, panels=panels)
    assert len(results.certified) == 2
    (flag,) = [flag for flag in results.flags if flag.slug == "panel-failed"]
    assert "these images are not mine" in flag.message
    assert flag.model == "net"


@pytest.mark.parametrize(
    ("text", "error", "sentence"),
    [
        ("sigma=0", SpecError, "sigma=0.0 .* above 0"),
        ("sigma=11", SpecError, "at most 10"),
        ("samples=9", SpecError, "at least 10"),
        ("samples=100.5", SpecError, "a whole number"),
        ("sigma=much", SpecError, "a number"),
        ("confidence=1", SpecError, "between 0.5 and 1"),
        ("noise=3", UnknownNameError, "sigma"),
        ("sigma", SpecError, "cannot read"),
    ],
)
def test_a_wrong_request_is_one_sentence(text, error, sentence):
    with pytest.raises(error, match=sentence):
        build_panel("certify", text)


def test_the_same_request_twice_is_refused(squares, tmp_path):
    with pytest.raises(SpecError, match="twice"):
        evaluate({"net": SmallNet()}, squares, [], out=tmp_path, options=QUIET, panels=[Certify(), Certify()])


def test_the_option_asks_for_it_and_the_console_says_what_was_found(tmp_path):
    call = ["evaluate", "squares:SmallNet", "--data", "digits", "--attacks", "noise", "--max-queries", 6, "--quiet"]
    refused(cli(*call, "--out", tmp_path / "no", "--certify", "sigma=0.1,sample=20"), "samples")
    assert not (tmp_path / "no").exists()
    done = cli(*call, "--out", tmp_path / "run", "--certify", "sigma=0.25,samples=20")
    assert done.exit_code == 0, done.output
    assert "smoothed by noise of sigma 0.25, by votes of 20 copies" in " ".join(done.output.split())
