"""What is fuzzed: the readers of files and texts, each with good inputs to begin with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from malformed_world import make_world as make_world

from robustdml.attacks import build_attack
from robustdml.data import load_dataset
from robustdml.errors import RobustDMLError
from robustdml.evaluation import assemble
from robustdml.evaluation.plan import Plan
from robustdml.evaluation.store import read_shard
from robustdml.files import checksum, sealed, strict_json
from robustdml.models import load_checkpoint
from robustdml.registry import parse_spec, split_specs
from robustdml.reports import parse_threshold, write_outputs
from robustdml.results import Results
from robustdml.threat import parse_budgets
from robustdml.training import build_loss, read_recipe

_RECIPE = b'summary = "x"\n[train]\nepochs = 1\n[[branch]]\nkind = "mtax"\npart = [0.0, 0.5]\n'


def resealed(data: bytes) -> bytes:
    """JSON with the checksum that belongs to it, where it can have one: else no change of it is ever read."""
    try:
        content = strict_json(data)
        if "identity" in content and "content" in content:
            about = {name: content[name] for name in ("identity", "content")}
            return json.dumps({**about, "checksum": checksum(about)}).encode()
        content.pop("checksum", None)
        return sealed(content).encode()
    except (ValueError, TypeError, AttributeError, RecursionError):
        return data


class Readers:
    """What is read, by name, each with good inputs.

    Args:
        world: of `malformed_world.make_world`.
        place: an empty folder.
    """

    #: The errors with which a reader may refuse.
    refused = RobustDMLError

    def __init__(self, world: Path, place: Path) -> None:
        self.world, self.place = world, place
        self.run, self.model = place / "run", place / "model"
        for source, target in (("eval", self.run), ("run", self.model)):
            target.mkdir()
            for path in (world / source).rglob("*"):
                if path.is_file():
                    (target / path.relative_to(world / source)).parent.mkdir(parents=True, exist_ok=True)
                    (target / path.relative_to(world / source)).write_bytes(path.read_bytes())
        self.record = next(path for path in sorted(self.run.rglob("*.parquet")) if "clean" not in str(path))
        self.described = next(self.run.rglob("model.json"))
        self.all: list[tuple[str, Callable[[bytes], object], list[bytes]]] = [
            ("results", self.results, [(world / "eval" / "results.json").read_bytes()]),
            ("record", self.records, [self.record.read_bytes()]),
            ("plan", self.plan, [(world / "eval" / "plan.json").read_bytes()]),
            ("described model", self.described_model, [self.described.read_bytes()]),
            ("checkpoint", self.checkpoint, [(world / "run" / "model.json").read_bytes()]),
            ("weights", self.weights, [(world / "run" / "model.safetensors").read_bytes()[:3000]]),
            ("manifest", self.manifest, [b"path,label\ntree/test/cyan/0.png,a\ntree/test/cyan/1.png,a\n"]),
            (
                "recipe",
                self.recipe,
                [_RECIPE],
            ),
            ("spec", self.spec, [b"pgd(goal=margin, steps=5), apgd", b"noise(trials=3),square(share=8/255)"]),
            ("loss", self.loss, [b"triplet(margin=0.1)", b"arcface(scale=4)", b"s2sd(base=arcface, dims=8)"]),
            (
                "threshold",
                self.threshold,
                [b"worst:recall@1=0.30", b"pgd@8/255:map@r=0.1", b"clean:R@1=1"],
            ),
            ("budget", self.budget, [b"2/255,8/255", b"0.01/normalised", b"1/255:2/255:2/255"]),
        ]

    def results(self, data: bytes) -> object:
        (self.run / "results.json").write_bytes(data)
        Results.load(self.run)
        (self.run / "results.json").write_bytes(resealed(data))
        names = ("page", "markdown", "junit", "cards")
        return write_outputs([self.run], **{name: self.place / name for name in names})

    def records(self, data: bytes) -> object:
        self.record.write_bytes(data)
        return read_shard(self.record), assemble(self.run)

    def plan(self, data: bytes) -> object:
        (self.run / "plan.json").write_bytes(resealed(data))
        Plan.load(self.run)
        return assemble(self.run)

    def described_model(self, data: bytes) -> object:
        self.described.write_bytes(resealed(data))
        return assemble(self.run)

    def checkpoint(self, data: bytes) -> object:
        (self.model / "model.json").write_bytes(resealed(data))
        return load_checkpoint(self.model)

    def weights(self, data: bytes) -> object:
        (self.model / "model.safetensors").write_bytes(data)
        about = strict_json((self.world / "run" / "model.json").read_bytes())
        about.pop("checksum")
        (self.model / "model.json").write_text(json.dumps(about | {"weights_sha256": ""}))
        return load_checkpoint(self.model)

    def manifest(self, data: bytes) -> object:
        path = self.world / "fuzzed.csv"
        path.write_bytes(data)
        return load_dataset(path, self.world, skip_missing=True)

    def recipe(self, data: bytes) -> object:
        (self.place / "r.toml").write_bytes(data)
        return read_recipe(self.place / "r.toml")

    def spec(self, data: bytes) -> object:
        texts = split_specs(data.decode("utf-8", "surrogateescape"))
        # A colon names code, which is the user's own.
        return [str(parse_spec(text)) for text in texts], [build_attack(text, 0.1) for text in texts if ":" not in text]

    def loss(self, data: bytes) -> object:
        return build_loss(data.decode("utf-8", "surrogateescape"), None, classes=4, embedding_dim=8)

    def threshold(self, data: bytes) -> object:
        return parse_threshold(data.decode("utf-8", "surrogateescape"))

    def budget(self, data: bytes) -> object:
        return parse_budgets(data.decode("utf-8", "surrogateescape"))

    def restored(self, name: str) -> None:
        """Put the good file back that a reader overwrote, as others read it too."""
        good = {name: inputs for name, _, inputs in self.all}
        files = {"record": self.record, "plan": self.run / "plan.json", "described model": self.described}
        if name in files:
            files[name].write_bytes(good[name][0])
