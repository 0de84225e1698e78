"""A made-up run with distinct numbers everywhere, so that a report which mixes two of them up is caught."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from described import METRICS
from PIL import Image

from robustdml.results import (
    AttackEntry,
    Cell,
    DatasetEntry,
    Environment,
    EvalSpec,
    Example,
    Flag,
    Health,
    Hit,
    Metrics,
    ModelEntry,
    Queries,
    Results,
    Score,
    WorstCase,
    pack_hits,
)
from robustdml.threat import ThreatModel

MODELS = ("plain-r50", "mdprop-r50", "collapsed-r50")
ATTACKS = ("noise", "margin", "stax", "square")
BUDGETS = (2 / 255, 8 / 255, 16 / 255)
QUERIES = 2000
CLASSES = ("cactus wren", "indigo bunting", "horned lark")
FAILURE = "AttackError: the attack returned images of shape (8, 3, 64), expected (8, 3, 64, 64)"


def score(recall: float, *, slack: float = 0.03) -> Score:
    """A score of which every number follows from R@1 and is unlike the others."""
    recall = round(recall * QUERIES) / QUERIES
    metrics = Metrics(
        {
            "recall_at_1": recall,
            "recall_at_2": recall + 0.0411,
            "recall_at_4": recall + 0.0722,
            "recall_at_8": recall + 0.0933,
            "map_at_r": recall / 1.7,
            "r_precision": recall / 1.3,
        }
    )
    return Score(metrics=metrics, headline="recall_at_1", low=max(0.0, recall - slack), high=recall + slack + 0.002)


def hits(recall: float) -> str:
    """Bits of R@1 whose mean is the recall of `score`: the first queries are right."""
    right = round(recall * QUERIES)
    return pack_hits(place < right for place in range(QUERIES))


def model_entry(name: str, recall: float, *, collapsed: bool = False) -> ModelEntry:
    return ModelEntry(
        name=name,
        source=f"checkpoints/{name}",
        fingerprint=f"sha256-of-{name}",
        architecture="resnet50",
        method="mdprop" if "mdprop" in name else None,
        embedding_dim=512,
        parameters=24_557_120,
        clean=score(recall),
        clean_hits=hits(recall),
        health=Health(
            effective_rank=1.3 if collapsed else 141.2, mean_cosine=0.998 if collapsed else 0.112, collapsed=collapsed
        ),
        nmi=recall * 0.837,
        # A collapsed space may have none.
        pi_ratio=None if collapsed else 1.9 - recall,
    )


def attack_entry(name: str) -> AttackEntry:
    return AttackEntry(
        spec=f"{name}(steps=20, restarts=2)",
        name=name,
        library="robustdml",
        goal="margin",
        goal_meaning="An item of another class is brought nearer.",
        knowledge="scores" if name == "square" else "gradients",
        norm="linf",
        citations=("madry2018",),
    )


def cell(model: int, attack: int, budget: int, entries: tuple[str, str, float], clean: float) -> Cell:
    """The cell of three positions; no two cells share a number."""
    recall = clean * 0.93 * 0.71**budget * 0.93**attack * (1 - 0.013 * model)
    name, spec, eps = entries
    return Cell(
        model=name,
        attack=spec,
        threat=ThreatModel(eps),
        status="ok",
        score=score(recall),
        hits=hits(recall),
        relative_recall=score(recall).value / clean,
        largest_norm_returned=eps * (1.01 + 0.01 * attack),
        largest_norm=eps,
        median_norm_broken=eps * (0.9 - 0.01 * attack),
        queries_projected=10 * attack + budget,
        queries_unchanged=model,
        forward_images=100_000 * (attack + 1) + 1000 * budget + model,
        gradient_images=70_000 * (attack + 1) + 1000 * budget + model,
        seconds=10.5 * (attack + 1) + model,
    )


def save_picture(path: Path, shade: int, *, size: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", (size, size))
    for across in range(size):
        for down in range(size):
            tone = (shade * 37 + across * 9 + down * 5) % 256
            picture.putpixel((across, down), (tone, (tone * 3) % 256, 255 - tone))
    picture.save(path)


def example(folder: Path, number: int, model: str, attack: str, eps: float, *, targets: int = 0) -> Example:
    """An example whose pictures are written to ``folder``."""

    def hit(place: int, relevant: bool) -> Hit:
        name = f"images/hit-{number}-{place}.png"
        save_picture(folder / name, 50 + place * 3 + number)
        return Hit(id=1000 + place, class_name=CLASSES[0 if relevant else 1 + place % 2], relevant=relevant, image=name)

    for part, shade in (("query", 1), ("adversarial", 2), ("perturbation", 3)):
        save_picture(folder / f"images/{part}-{number}.png", shade + number)
    return Example(
        model=model,
        attack=attack,
        threat=ThreatModel(eps),
        query_id=400 + number,
        class_name=CLASSES[0],
        image=f"images/query-{number}.png",
        adversarial_image=f"images/adversarial-{number}.png",
        perturbation_image=f"images/perturbation-{number}.png",
        amplification=0.5 / eps,
        clean_top=tuple(hit(place, place != 3) for place in range(5)),
        adversarial_top=tuple(hit(place + 5, place == 4) for place in range(5)),
        targets=tuple(hit(place + 10, False) for place in range(targets)),
    )


def sample_results(
    folder: Path,
    *,
    models: tuple[str, ...] = MODELS,
    attacks: tuple[str, ...] = ATTACKS,
    budgets: tuple[float, ...] = BUDGETS,
    examples: bool = True,
    eventful: bool = True,
) -> Results:
    """A run over the named models, attacks and budgets, with its pictures in ``folder``.

    An eventful run has flags, a failed attack and a collapsed model (the third).
    """
    entries = tuple(
        model_entry(name, 0.8137 - 0.0719 * place, collapsed=eventful and place == 2)
        for place, name in enumerate(models)
    )
    plans = tuple(attack_entry(name) for name in attacks)
    cells, worst = [], []
    for place, entry in enumerate(entries):
        clean = entry.clean.metrics.recall_at_1
        for step, eps in enumerate(budgets):
            row = [cell(place, number, step, (entry.name, plan.spec, eps), clean) for number, plan in enumerate(plans)]
            failed = int(eventful and place == 1 and step == 1 and len(row) > 1)
            if failed:
                row[1] = Cell(
                    model=entry.name, attack=plans[1].spec, threat=ThreatModel(eps), status="failed", reason=FAILURE
                )
            cells += row
            if row:
                lowest = score(min(found.score.value for found in row if found.score), slack=0.02)
                worst.append(
                    WorstCase(
                        model=entry.name,
                        threat=ThreatModel(eps),
                        score=lowest,
                        hits=hits(lowest.value),
                        relative_recall=lowest.value / clean,
                        attacks=len(row) - failed,
                        attacks_failed=failed,
                    )
                )
    shown = [
        example(
            folder, 10 * place + number, entry.name, plan.spec, budgets[-1], targets=3 if plan.name == "stax" else 0
        )
        for place, entry in enumerate(entries)
        for number, plan in enumerate(plans)
        if examples and budgets
    ]
    flags = (
        Flag(
            slug="gradient-masking",
            message="A black-box attack beats the white-box ones on this model.",
            remedy="Run the attacks with more steps and restarts.",
            model=models[0],
            attack=plans[-1].spec if plans else None,
        ),
        Flag(slug="few-queries", message="Only 2000 queries were attacked.", remedy="Raise --max-queries."),
    )
    return Results(
        robustdml_version="0.1.0",
        created="2026-03-04T05:06:07+00:00",
        fingerprint="0123456789abcdef",
        spec=EvalSpec(
            dataset="cub200",
            dataset_fingerprint="fedcba9876543210",
            image_size=64,
            models=tuple((entry.name, entry.fingerprint) for entry in entries),
            attacks=tuple((plan.spec, eps) for plan in plans for eps in budgets),
            max_queries=QUERIES,
            seed=7,
            shard_size=64,
            version="1",
        ),
        dataset=DatasetEntry(
            name="cub200",
            protocol="zero-shot: test classes are not seen in training, all test images are the gallery",
            image_size=64,
            classes=100,
            queries=QUERIES,
            queries_available=5924,
            gallery=5924,
            leave_self_out=True,
            metrics=METRICS,
            headline="recall_at_1",
            chance=0.0101,
            fingerprint="fedcba9876543210",
        ),
        queries=Queries(
            ids=tuple(range(QUERIES)),
            classes=tuple(item % len(CLASSES) for item in range(QUERIES)),
            class_names=CLASSES,
        ),
        models=entries,
        attacks=plans,
        cells=tuple(cells),
        worst=tuple(worst),
        flags=flags if eventful else (),
        examples=tuple(shown),
        environment=Environment(
            python="3.11.7", platform="Linux", device="cpu", packages={"torch": "2.9.0", "faiss-cpu": "1.13.0"}
        ),
        citations={"madry2018": "@inproceedings{madry2018,\n  title = {Towards Deep Learning Models …},\n}"},
        seconds=3725.4,
    )


class Element:
    """An element of a parsed page."""

    def __init__(self, tag: str, attributes: dict[str, str]) -> None:
        self.tag = tag
        self.attributes = attributes
        self.children: list[Element] = []
        self.texts: list[str] = []

    @property
    def text(self) -> str:
        """All text within, as a reader sees it."""
        return " ".join("".join(self.texts).split())

    def all(self, tag: str) -> list[Element]:
        """The elements of a kind within, in the order of the page."""
        return [found for child in self.children for found in ([child] if child.tag == tag else []) + child.all(tag)]

    def one(self, identity: str) -> Element:
        """The element within that has an id."""
        (found,) = (element for element in self.every() if element.attributes.get("id") == identity)
        return found

    def every(self) -> list[Element]:
        """All elements within."""
        return [found for child in self.children for found in (child, *child.every())]


class Page(HTMLParser):
    """A tree of the elements of a page; a mismatched tag is an error, as it means broken or injected markup."""

    VOID = frozenset({"meta", "img", "link", "input", "br"})

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("document", {})
        self._open = [self.root]
        self.feed(html)
        self.close()
        assert [element.tag for element in self._open] == ["document"]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self._open[-1].children.append(element)
        if tag not in self.VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open[-1].children.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.texts.append(data)


@pytest.fixture
def parse() -> Callable[[str], Element]:
    """Parse a page into its root element."""
    return lambda html: Page(html).root


@pytest.fixture
def sample() -> Callable[..., Results]:
    """`sample_results`, for tests that need a run of another shape."""
    return sample_results


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """Three models, four attacks and three budgets, eventful, with pictures in ``tmp_path``."""
    return sample_results(tmp_path)
