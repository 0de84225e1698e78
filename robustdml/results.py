"""The results of an evaluation: the product that every report renders.

``results.json`` in a run folder is `Results`, written by the evaluator and read by anyone; this module needs no torch.
All recalls and shares are fractions in [0, 1]; budgets and norms are in pixels of [0, 1] (L0: a number of pixels);
times are in seconds. What happened to each query stands in bit strings (`pack_hits`), in the order of `Queries`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, RootModel, ValidationError, model_validator

from robustdml.bits import pack_hits as pack_hits
from robustdml.bits import unpack_hits as unpack_hits
from robustdml.config import Precision, PrecisionChoice
from robustdml.consistency import contradictions, malformed
from robustdml.errors import BudgetError, RunFolderError, SpecError
from robustdml.files import sealed, strict_json, unsealed, write_text
from robustdml.importing import load_object
from robustdml.overview import Table, frame_of, html_of, text_of
from robustdml.preprocessing import PerChannel, Preprocessing
from robustdml.registry import parse_spec
from robustdml.threat import ThreatModel
from robustdml.values import brief, place

#: Raised by one when a field changes its meaning or goes; new optional fields do not raise it.
SCHEMA_VERSION = 3

RESULTS_FILE = "results.json"

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]
#: On a map: embeddings have length 1, and what is drawn elsewhere has no place on a screen.
_Coordinate = Annotated[float, Field(ge=-1e6, le=1e6)]
Scalar = bool | int | float | str | None
Norm = Literal["linf", "l2", "l1", "l0"]
#: What an attacker needs of the model.
Knowledge = Literal["gradients", "scores", "decisions", "transfer", "none"]
#: Fixed: the strongest image within eps. Minimum: the smallest perturbation that succeeds, without eps. Unrestricted: a
#: change that no norm bounds (a patch, a rotation), without eps.
BudgetKind = Literal["fixed", "minimum", "unrestricted"]
#: Which images an attacker changes. Only attacks on the query count in a worst case.
Side = Literal["query", "gallery", "both"]
#: Of flags, the gravest first (see `robustdml.flag_kinds.GRADES`).
Grade = Literal["invalid", "grave", "note"]


class _Record(BaseModel):
    # Fields that a newer robustdml added are passed over: those that change a meaning raise `SCHEMA_VERSION`.
    # NaN and infinity are refused: a number that cannot be shown as one must be absent, with a reason beside it.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    def __repr__(self) -> str:
        return brief(self)


def _moment(text: str) -> str:
    """A time that every program can show, wherever it is."""
    found = datetime.fromisoformat(text)
    if not 1970 < found.year < 9999:
        raise ValueError(f"the year {found.year} cannot be")
    return text


class MetricEntry(_Record):
    """What a metric is, in words: reports know metrics from here alone."""

    #: The name under which its values stand: ``recall_at_1``.
    name: str
    #: For tables: ``R@1``.
    title: str
    #: One sentence, without a full stop.
    description: str
    #: The key of the work that defines it.
    citation: str

    @property
    def spelling(self) -> str:
        """As a user writes it: ``recall@1``."""
        return self.name.replace("_at_", "@").replace("_", "-")


class MeasureEntry(_Record):
    """What is measured beside retrieval, in words; ``…_clean`` is the same before the attack."""

    #: The name under which its values stand in `Cell.measures`.
    name: str
    title: str
    #: One sentence, without a full stop.
    description: str


class Metrics(RootModel[dict[str, Share]]):
    """Means over the queries, by the name of each metric of `DatasetEntry.metrics`."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    def __getitem__(self, name: str) -> float:
        return self.root[name]

    @property
    def recall_at_1(self) -> float:
        """The share of queries whose first hit is relevant: what attacks are to lower, in every protocol."""
        return self.root["recall_at_1"]


class Score(_Record):
    """Metrics, and the 95 % interval of one of them, the headline.

    The interval is from a bootstrap over classes (queries of a class are not independent). Where all queries are right,
    or all wrong, it is the exact interval of as many independent trials.
    """

    metrics: Metrics
    headline: str
    low: Share
    high: Share

    @property
    def value(self) -> float:
        """The headline."""
        return self.metrics[self.headline]


class CountedFiles(_Record):
    """Images or files that share something; all names stand in ``left-out.csv`` of the run folder."""

    #: What they are, as a plural: ``hidden files``.
    what: str
    count: Annotated[int, Field(ge=0)]
    #: The first few, and what is wrong with each, where that is known.
    names: tuple[str, ...] = ()


class CopiesEntry(_Record):
    """How many images have a copy, by where it lies."""

    #: ``queries with a copy in the gallery``.
    place: str
    #: Equal pixel for pixel, and only nearly.
    equal: Annotated[int, Field(ge=0)]
    near: Annotated[int, Field(ge=0)]


class EmbeddingTwins(_Record):
    """Gallery images that a model does not tell from another one: embeddings of nearly the same direction."""

    #: From which on two are said to be the same.
    cosine: float
    images: Annotated[int, Field(ge=0)]
    #: Of these, those whose other one has another label.
    other_label: Annotated[int, Field(ge=0)]


class DatasetEntry(_Record):
    """What was retrieved from what."""

    name: str
    protocol: str
    #: The largest where each model has its own (see ``ModelEntry.preprocessing``).
    image_size: Count
    classes: Count
    queries: Count
    queries_available: Count
    gallery: Count
    leave_self_out: bool
    #: What is measured, in the order of tables, and the name of what is quoted first.
    metrics: tuple[MetricEntry, ...]
    headline: str
    #: Expected headline of a random ranking.
    chance: Share
    fingerprint: str

    #: Images that are used in any role; None in results from before this was kept.
    images: Annotated[int, Field(ge=0)] | None = None
    #: Files and queries that are no part of it.
    left_out: tuple[CountedFiles, ...] = ()
    #: Images to which something was done that a person would not expect.
    remarks: tuple[CountedFiles, ...] = ()
    copies: tuple[CopiesEntry, ...] = ()

    @property
    def headline_metric(self) -> MetricEntry:
        """The headline in words."""
        return next(metric for metric in self.metrics if metric.name == self.headline)


class Queries(_Record):
    """Who the queries are, in the order of every bit string."""

    ids: tuple[int, ...]
    #: Places in ``class_names``.
    classes: tuple[int, ...]
    class_names: tuple[str, ...]


class Health(_Record):
    """Whether the embedding space is alive: a collapsed one is hard to attack and useless."""

    effective_rank: float
    mean_cosine: float
    collapsed: bool


class ModelEntry(_Record):
    """One model that was evaluated."""

    name: str
    source: str
    #: SHA-256 over names, shapes and values of the weights and buffers.
    fingerprint: str
    architecture: str
    method: str | None
    embedding_dim: Count
    parameters: Count
    clean: Score
    #: Bits of the headline per query.
    clean_hits: str
    health: Health
    #: How the clean gallery lies by class, all of it whatever the sample of queries: see
    #: `robustdml.retrieval.clustering`. Where queries search each other it is the whole test set. None where it is
    #: undefined, and in results from before these were measured.
    nmi: Share | None = None
    #: Of how many classes, drawn, that is; None where it is of all (see `robustdml.retrieval.clustering`).
    nmi_classes: Count | None = None
    #: In results from when five starts of k-means were measured: their standard deviation, ``nmi`` being of the first.
    nmi_spread: Annotated[float, Field(ge=0)] | None = None
    pi_ratio: Annotated[float, Field(ge=0)] | None = None
    #: None in results from before this was kept.
    twins: EmbeddingTwins | None = None
    #: How its images were prepared; None in results from before this was kept.
    preprocessing: Preprocessing | None = None
    #: How it says that they must be; None where it says nothing.
    declared: Preprocessing | None = None
    #: In which attacks ran it; what they sent was judged in fp32.
    precision: Precision = "fp32"


class AttackEntry(_Record):
    """One attack that was run: its configuration in full, without the budget."""

    #: The spec that builds it again, and the key of its cells: ``pgd(goal=margin, steps=20, …)``.
    spec: str
    #: What ``spec`` says, as data: the name in the registry and the parameters (see `described`).
    kind: str = ""
    params: dict[str, Scalar | tuple[Scalar, ...]] = {}
    #: A short name for tables, unique within the run.
    name: str
    library: str
    goal: str
    #: What the goal means, in one sentence; empty where the attack does not say.
    goal_meaning: str = ""
    #: What is measured for the goal beside retrieval (see `robustdml.evaluation.measures`).
    measures: tuple[str, ...] = ()
    knowledge: Knowledge
    #: In which the budget is given, or, where there is none, in which perturbations are measured.
    norm: Norm
    budget: BudgetKind = "fixed"
    side: Side = "query"
    citations: tuple[str, ...]

    def described(self) -> AttackEntry:
        """The entry with ``kind`` and ``params`` filled from ``spec``; a spec that cannot be parsed is all kind."""
        try:
            spec = parse_spec(self.spec)
        except SpecError:
            return self.model_copy(update={"kind": self.spec})
        return self.model_copy(update={"kind": spec.name, "params": dict(spec.params)})


class StageEntry(_Record):
    """What one stage of a staged attack did, on the queries that the stages before it had left right."""

    #: The spec of what was run, and what it needs of the model.
    attack: str
    knowledge: Knowledge = "gradients"
    #: Queries that it was run on, those left out because the stages before it had come too little of the way to break
    #: them, and those answered wrongly since.
    entered: Count
    given_up: Count = 0
    broken: Count
    forward_images: Count
    gradient_images: Count
    seconds: Amount
    #: Why it gave no images, where it failed.
    reason: str | None = None


class Cell(_Record):
    """One model under one attack at one budget."""

    model: str
    #: The spec of the attack.
    attack: str
    #: The budget; its eps is None where the attack has none.
    threat: ThreatModel
    #: Failed: it raised, ran out of time or returned no image. Skipped: it was not tried, for a reason known before.
    status: Literal["ok", "failed", "skipped"]
    #: Why there is no score; None exactly when there is one.
    reason: str | None = None
    #: Whether it failed for what it did to the model, the data or the process, instead of to images.
    unsound: bool = False
    #: None exactly when the status is not ok.
    score: Score | None = None
    #: Bits of the headline per query; None exactly when the status is not ok.
    hits: str | None = None
    #: Adversarial over clean headline; None when the clean one is 0.
    relative_recall: Amount | None = None
    #: The largest norm of a perturbation as the attack returned it, and after the evaluator enforced the budget.
    largest_norm_returned: Amount | None = None
    largest_norm: Amount | None = None
    #: The median norm of the perturbations of the queries that it broke (right when clean); None where it broke none.
    median_norm_broken: Amount | None = None
    #: Queries that came back outside of the budget (and were projected), and that were right when clean and came back
    #: unchanged.
    queries_projected: Count = 0
    queries_unchanged: Count = 0
    #: Queries that it broke, and that are answered rightly again once their images are rounded to 8 bits.
    queries_undone: Count = 0
    #: Images that passed through the model while the attack ran, and how many of these a gradient went back through.
    forward_images: Count = 0
    gradient_images: Count = 0
    seconds: Amount = 0.0
    #: What the attack's own paper reports, by name (a mean rank percentile, a cosine), beside the recalls.
    measures: dict[str, float] = {}
    #: Of a staged attack, what each stage did.
    stages: tuple[StageEntry, ...] = ()

    @property
    def eps(self) -> float | None:
        """That of the budget."""
        return self.threat.eps

    @model_validator(mode="after")
    def _score_or_reason(self) -> Cell:
        judged = self.score is not None and self.hits is not None
        if (self.status == "ok") != judged or (self.status == "ok") == (self.reason is not None):
            raise ValueError("a cell has a score and hits when it is ok, and a reason when it is not")
        return self


class WorstCase(_Record):
    """One model at one budget, each query under whatever hurts it most of all images tried within that ball.

    Attacks with another budget (smaller, of another norm, or none) count for the queries whose image lies in the ball.
    """

    model: str
    #: The ball; its eps is never None.
    threat: ThreatModel
    score: Score
    #: Bits of the headline per query.
    hits: str
    relative_recall: Amount | None
    #: Attacks with this budget that were judged, and that failed (and so are not part of the worst case).
    attacks: Count
    attacks_failed: Count

    @property
    def eps(self) -> float | None:
        """That of the budget."""
        return self.threat.eps

    @property
    def norm(self) -> str:
        """That of the budget."""
        return self.threat.norm


class Ers(_Record):
    """The Empirical Robustness Score of one model (Zhou & Patel 2022), which never stands alone.

    It rewards collapse: embeddings that are all alike cannot be moved. A collapsed CUB model that finds nothing (R@1
    0.008) has ERS 29.7, about as much as a working defence. Clean recall and the mark of collapse stand beside it.
    """

    model: str
    #: The profile of attacks, such as ``robrank-224``.
    profile: str
    #: Whether GTM, LTM and ES follow RobRank's published code, faults included, instead of their definitions.
    compat: bool
    #: The ten measured terms as they are published: percentages in [0, 100], a cosine (``tma``), a distance (``es_d``).
    terms: dict[str, float]
    #: The terms on one scale, from 0 (broken) to 100; ERS is their mean.
    normalised: dict[str, float]
    value: float
    collapsed: bool
    clean_recall_at_1: Share


class Flag(_Record):
    """Something that a reader must know before believing the numbers."""

    slug: str
    message: str
    remedy: str
    model: str | None = None
    #: The spec of the attack.
    attack: str | None = None
    #: None in results from before flags had one.
    grade: Grade | None = None
    #: For headings; empty in results from before flags had one.
    title: str = ""


class Hit(_Record):
    """A gallery item in a ranked list or a target, with its picture relative to the run folder."""

    id: int
    class_name: str
    relevant: bool
    image: str
    #: What a person calls the image, such as its file; empty in results from before this was kept.
    name: str = ""
    #: Cosine similarity to the query, clean or attacked as the list is; None where the embedding was not kept.
    similarity: float | None = None


class Example(_Record):
    """One attacked query with its pictures and its ranked lists, for the gallery."""

    model: str
    #: The spec of the attack.
    attack: str
    threat: ThreatModel
    query_id: int
    class_name: str
    image: str
    adversarial_image: str
    #: The signed perturbation around mid-grey, multiplied so that eps becomes full contrast.
    perturbation_image: str
    amplification: Amount
    clean_top: tuple[Hit, ...]
    adversarial_top: tuple[Hit, ...]
    targets: tuple[Hit, ...] = ()


class MapPath(_Record):
    """A query in an embedding map: where it was, and where the attack took it."""

    query_id: int
    #: A place in ``Queries.class_names``.
    class_index: int
    clean: tuple[_Coordinate, _Coordinate]
    adversarial: tuple[_Coordinate, _Coordinate]
    #: Whether its first hit was relevant before, and after.
    clean_hit: bool
    adversarial_hit: bool


class EmbeddingMap(_Record):
    """A model's gallery and some attacked queries on the first two principal components of the gallery."""

    model: str
    #: The spec of the attack that took the queries away, and its budget.
    attack: str
    threat: ThreatModel
    #: Shares of the gallery's variance that the two axes hold.
    explained: tuple[Share, Share]
    #: A sample of the gallery: x, y, and a place in ``Queries.class_names``.
    gallery: tuple[tuple[_Coordinate, _Coordinate, Count], ...]
    paths: tuple[MapPath, ...]


class Certified(_Record):
    """One model *smoothed* by Gaussian noise, and how far from each query no image at all makes it err.

    It says nothing of the model without the noise (see `robustdml.evaluation.analyses.certify`).
    """

    #: That was smoothed.
    model: str
    #: Vote: the majority of the first hits of noisy copies. Embedding: the mean embedding of noisy copies ranks.
    certificate: Literal["vote", "embedding"]
    #: Standard deviation of the noise, in pixels of [0, 1].
    sigma: float
    #: Noisy copies of each query.
    samples: int
    #: With which probability the certificate of each query holds.
    confidence: float
    #: R@1 of the smoothed model without an attack, and its bits per query.
    recall_at_1: Share
    hits: str
    #: Of each query, the L2 radius within which the first hit is certified to be relevant, rounded down; 0 where
    #: nothing is certified.
    radii: tuple[Annotated[float, Field(ge=0)], ...]
    forward_images: int = 0
    seconds: float = 0.0
    citations: tuple[str, ...] = ()

    def recall(self, radius: float) -> float:
        """Certified R@1 under every change of an L2 length up to ``radius``, in [0, 1]."""
        return sum(own > radius for own in self.radii) / len(self.radii)


class NaturalChange(_Record):
    """One model under one change that no attacker made, at one severity."""

    model: str
    #: In `robustdml.evaluation.analyses.changes.CHANGES`.
    name: str
    #: For tables.
    title: str
    #: The common corruptions are of the first four.
    family: Literal["noise", "blur", "weather", "digital", "geometry"]
    #: From 1, the mildest.
    severity: Annotated[int, Field(ge=1)]
    #: The headline with its 95 % interval (see `Score`), and its bits per query.
    value: Share
    low: Share
    high: Share
    hits: str
    citations: tuple[str, ...] = ()


class CurvePoint(_Record):
    """R@1 at one eps of a curve, with its 95 % interval (see `Score`)."""

    eps: Amount
    recall: Share
    low: Share
    high: Share


class Optimality(_Record):
    """How near the curve of one attack comes to that of all attacks together (AttackBench's local optimality)."""

    #: The spec of the attack.
    attack: str
    #: 1: as good as all of them; 0: it breaks nothing (see `robustdml.evaluation.analyses.curves`).
    value: Share


class Curve(_Record):
    """One model over eps: for each query the smallest perturbation that any attack of the run found to break it.

    Each is an upper bound of the truly smallest. R@1 at an eps follows from them, and falls with eps by construction.
    """

    model: str
    norm: Norm
    #: The spec of the attack that searched for the smallest perturbation; the images of all others count, too.
    attack: str
    #: In the order of `Queries`: 0 where the query is wrong when clean, None where nothing broke it.
    smallest: tuple[Amount | None, ...]
    #: The smallest eps at which R@1 is at most one half; None where it stays above.
    median: Amount | None
    #: The smallest eps at which R@1 is at most half of the clean one, with its 95 % interval from a bootstrap over
    #: classes; None where it is beyond all that was found (or nothing is right when clean).
    half_distortion: Amount | None
    half_low: Amount | None
    half_high: Amount | None
    #: At the budgets of `robustdml.evaluation.analyses.curves.CURVE_BUDGETS`.
    points: tuple[CurvePoint, ...]
    #: Of the attacks that have a curve of their own, where there are two or more.
    optimality: tuple[Optimality, ...] = ()

    def recall(self, eps: float) -> float:
        """R@1 at a budget, in [0, 1]."""
        limit = ThreatModel(eps, self.norm).limit
        return sum(size is None or size > limit for size in self.smallest) / len(self.smallest)


class Environment(_Record):
    """Where it ran."""

    python: str
    platform: str
    device: str
    packages: dict[str, str]


class EvalSpec(_Record):
    """All that changes the numbers of an evaluation; its hash is the run's fingerprint."""

    dataset: str
    dataset_fingerprint: str
    image_size: int
    #: Name and weight fingerprint of each model.
    models: tuple[tuple[str, str], ...]
    #: Spec and eps of each attack; of a budget per channel the largest.
    attacks: tuple[tuple[str, float | None], ...]
    #: The budgets per channel of those attacks that have one.
    channels: tuple[PerChannel, ...] = ()
    max_queries: int | None
    seed: int
    shard_size: int
    version: str
    #: Spec of each attack whose images depend on code of others or on what its spec only names, with a hash of that.
    foreign: tuple[tuple[str, str], ...] = ()
    #: Versions of the packages that numbers depend on.
    packages: tuple[tuple[str, str], ...] = ()
    #: Name of each model, and how its images are prepared.
    preprocessing: tuple[tuple[str, Preprocessing], ...] = ()
    #: In which attacks were to run the models.
    precision: PrecisionChoice = "fp32"


class Results(_Record):
    """A whole evaluation."""

    schema_version: int = SCHEMA_VERSION
    robustdml_version: str
    #: When the run was assembled, ISO 8601 in UTC.
    created: Annotated[str, AfterValidator(_moment)]
    fingerprint: str
    spec: EvalSpec
    dataset: DatasetEntry
    queries: Queries
    models: tuple[ModelEntry, ...]
    attacks: tuple[AttackEntry, ...]
    cells: tuple[Cell, ...]
    #: What `Cell.measures` hold; one that is not described here is called by its name.
    measures: tuple[MeasureEntry, ...] = ()
    worst: tuple[WorstCase, ...]
    ers: tuple[Ers, ...] = ()
    flags: tuple[Flag, ...]
    examples: tuple[Example, ...]
    maps: tuple[EmbeddingMap, ...] = ()
    certified: tuple[Certified, ...] = ()
    natural: tuple[NaturalChange, ...] = ()
    curves: tuple[Curve, ...] = ()
    environment: Environment
    #: That asked for the evaluation; of several runs, a line each. Empty where it was asked for in Python.
    command: str = ""
    #: The same as a TOML file; of several runs empty.
    configuration: str = ""
    #: BibTeX by citation key, of everything that was used.
    citations: dict[str, str]
    #: Of the call that finished the run; each cell has its own.
    seconds: Amount

    @property
    def image_sides(self) -> tuple[int, int]:
        """Height and width of the images, of the largest where models have their own."""
        own = [model.preprocessing.sides for model in self.models if model.preprocessing]
        side = self.dataset.image_size
        return max(own, key=lambda sides: sides[0] * sides[1]) if own else (side, side)

    @property
    def warnings(self) -> tuple[Flag, ...]:
        """The flags, by the name that programs of before know."""
        return self.flags

    @model_validator(mode="after")
    def _consistent(self) -> Results:
        """Refuse numbers that contradict each other: a report must not print an edited file as if it were measured."""
        for found in malformed(self):
            raise ValueError(found)
        return self

    def __repr__(self) -> str:
        """What was measured, in a line: `model_dump` has all of it."""
        clean = ", ".join(f"{model.name} {model.clean.value:.3f}" for model in self.models[:4])
        more = ", ..." if len(self.models) > 4 else ""
        return (
            f"Results({len(self.models)} models ({clean}{more} clean), {len(self.attacks)} attacks, "
            f"{self.dataset.queries} queries of {self.dataset.name}, {len(self.flags)} flags)"
        )[:599]

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """For notebooks."""
        return html_of(self)

    def summary(self) -> str:
        """The headline of each model clean and in each worst case with its 95 % interval, and the grave flags: text."""
        return text_of(self)

    def to_pandas(self, table: Table = "scores") -> Any:
        """A `pandas.DataFrame`.

        Args:
            table: ``"scores"``: a row for each model clean, in each worst case (``condition`` is ``worst``) and under
                each attack at each budget, with every metric in [0, 1] and the interval (``low``, ``high``) of the
                headline; ``withheld`` where a flag says that the number under attack must not be quoted. ``"queries"``:
                a row for each query of these, with whether its first hit is right. ``"flags"``: a row for each flag.

        Raises:
            UnknownNameError: there is no such table.
            MissingPackageError: pandas is not installed.
        """
        return frame_of(self, table)

    def plot_over_eps(self) -> Any:
        """The worst-case headline of each model over the L-infinity budgets, a `plotly.graph_objects.Figure`.

        Raises:
            SpecError: fewer than two budgets were run.
            MissingPackageError: Plotly is not installed; so do the other plots.
        """
        return _figure(self, "over_eps")

    def plot_models(self) -> Any:
        """Bars of each model, clean and in each worst case, a `plotly.graph_objects.Figure`."""
        return _figure(self, "models")

    def plot_attacks(self) -> Any:
        """The headline under each attack at the budget that summaries quote, a `plotly.graph_objects.Figure`."""
        return _figure(self, "attacks")

    def plot_curves(self) -> Any:
        """R@1 over every eps, from a search such as ``attacks="bisection"``, a `plotly.graph_objects.Figure`.

        Raises:
            SpecError: no curve was measured.
        """
        return _figure(self, "curves")

    def invalid(self, model: str) -> Flag | None:
        """The first flag for which no headline is given of a model under attack; None where one is given."""
        return next((flag for flag in self.flags if flag.grade == "invalid" and flag.model == model), None)

    def without_pictures(self) -> Results:
        """The same without examples, whose pictures lie in a run folder."""
        return self.model_copy(update={"examples": ()})

    def save(self, folder: str | Path) -> Path:
        """Write ``results.json`` into ``folder`` in one step (a reader never sees half a file) and return its path."""
        return write_text(Path(folder) / RESULTS_FILE, sealed(self.model_dump(mode="json")))

    @classmethod
    def load(cls, folder: str | Path) -> Results:
        """Read the results of a run folder (or a path to its ``results.json``).

        Raises:
            RunFolderError: there are none, they are damaged, or a newer robustdml wrote them.
        """
        path = place("folder", folder)
        path = path if path.is_file() else path / RESULTS_FILE
        if not path.is_file():
            raise RunFolderError(
                f"no {RESULTS_FILE} in '{folder}': give the --out folder of a finished 'robustdml evaluate'"
            )
        try:
            content = strict_json(path.read_bytes())
            version = content["schema_version"]
            if version in _UPGRADES or version == SCHEMA_VERSION:
                found = cls.model_validate_json(json.dumps(_upgraded(content)))
                # The checksum last, so that a contradiction is told with its place. Schema 2 has none.
                if version == SCHEMA_VERSION:
                    for fault in contradictions(found):
                        raise ValueError(fault)
                    unsealed(content)
                return found
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            reason = f"{where}: {first['msg']}"
        except (ValueError, KeyError, TypeError, AttributeError, BudgetError, SpecError) as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        else:
            raise RunFolderError(
                f"'{path}' has schema version {version}, this robustdml reads {min(_UPGRADES)} to {SCHEMA_VERSION}: "
                "use the robustdml version that wrote it, or evaluate again"
            )
        raise RunFolderError(
            f"'{path}' is not a results file of schema {SCHEMA_VERSION} ({' '.join(reason.split())[:160]}): delete it, "
            "and 'robustdml report' makes it again from the records, or use the robustdml version that wrote it"
        )


def _figure(results: Results, name: str) -> Any:
    # By name: the charts of the page stand above the results.
    return load_object("robustdml.reports:figure_of")(results, name)


#: The metrics of schema 2, always the same: name, title, description, citation.
_METRICS_2 = (
    *(
        (f"recall_at_{rank}", f"R@{rank}", f"share of queries with a relevant item at rank {rank} or before", "")
        for rank in (1, 2, 4, 8)
    ),
    ("map_at_r", "MAP@R", "mean average precision at R, R being the number of relevant items", "musgrave2020reality"),
    ("r_precision", "R-precision", "share of relevant items among the first R", "musgrave2020reality"),
)


def _from_2(content: dict[str, Any]) -> None:
    """Schema 2 called flags warnings, wrote attacks as text alone, and budgets without the norm of their attack.

    Its metrics were six that no file described, and the headline was always R@1.
    """
    dataset = content["dataset"]
    dataset["headline"], dataset["chance"] = "recall_at_1", dataset.pop("chance_recall_at_1")
    dataset["metrics"] = [dict(zip(MetricEntry.model_fields, entry, strict=True)) for entry in _METRICS_2]
    judged = [part["score"] for part in (*content["cells"], *content["worst"]) if part.get("score") is not None]
    for score in (*judged, *(model["clean"] for model in content["models"])):
        score["headline"] = "recall_at_1"
        score["low"], score["high"] = score.pop("recall_at_1_low"), score.pop("recall_at_1_high")
    content["flags"] = content.pop("warnings")
    content["attacks"] = [AttackEntry(**attack).described().model_dump(mode="json") for attack in content["attacks"]]
    norms = {attack["spec"]: attack["norm"] for attack in content["attacks"]}
    for part in (*content["cells"], *content["examples"], *content.get("maps", ())):
        part["threat"] = {"eps": part.pop("eps"), "norm": norms[part["attack"]]}
    for worst in content["worst"]:
        worst["threat"] = {"eps": worst.pop("eps"), "norm": worst.pop("norm", "linf")}


#: What makes the next schema of one.
_UPGRADES: dict[int, Callable[[dict[str, Any]], None]] = {2: _from_2}


def _upgraded(content: dict[str, Any]) -> dict[str, Any]:
    while content["schema_version"] in _UPGRADES:
        _UPGRADES[content["schema_version"]](content)
        content["schema_version"] += 1
    return content
