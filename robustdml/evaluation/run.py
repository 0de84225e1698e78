"""The evaluation of models under attack: clean retrieval, every attack at every budget, the results."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel
from torch import nn

from robustdml._version import __version__
from robustdml.config import DEFAULT_OPTIONS, PRECISION_CHOICES, Precision, PrecisionChoice, RunOptions
from robustdml.contracts import AdaptableAttack, Attack, Doubts, GalleryAttack
from robustdml.data import RetrievalDataset
from robustdml.data.finding import write_left_out
from robustdml.data.tensors import ImageTensors
from robustdml.devices import choose_device
from robustdml.errors import (
    RunFolderError,
    SpecError,
    StorageError,
)
from robustdml.evaluation.analyses.examples import pictured_queries, shown_attacks
from robustdml.evaluation.analyses.maps import mapped_queries
from robustdml.evaluation.analyses.model_run import ModelRun
from robustdml.evaluation.analyses.panel import Panel, PanelRun
from robustdml.evaluation.analyses.shown import ANALYSES
from robustdml.evaluation.assemble import assemble, hits, model_cells
from robustdml.evaluation.attacking.queries import reason_of
from robustdml.evaluation.cells import Cells
from robustdml.evaluation.checks.copies import embedding_twins
from robustdml.evaluation.checks.detectors import IMAGES, examine, probe
from robustdml.evaluation.checks.doubts import answered, doubts_of
from robustdml.evaluation.checks.looked_at import LookedAt, looked_at
from robustdml.evaluation.engines import check_engine, engine
from robustdml.evaluation.entries import attack_entries, checked_attacks, describe, environment, query_entry
from robustdml.evaluation.identity import answers, identities, package_versions
from robustdml.evaluation.judge import Judge
from robustdml.evaluation.kept_images import KeptImages
from robustdml.evaluation.plan import Plan
from robustdml.evaluation.records import Records
from robustdml.evaluation.store import CellKey, Store
from robustdml.evaluation.subjects import Subject, preparations, subjects_from_modules
from robustdml.evaluation.victim import QUERIES, fastest, victim
from robustdml.evaluation.work import Work
from robustdml.files import fingerprint
from robustdml.flag_kinds import FLAG_KINDS
from robustdml.models import (
    KeptWeights,
    copied,
    evaluation_mode,
    kept_randomness,
    seed_globally,
    single_precision,
    weights_fingerprint,
)
from robustdml.preprocessing import Preprocessing, Sides, whole_sides
from robustdml.progress import Advance, progress
from robustdml.results import EvalSpec, Flag, ModelEntry, Results
from robustdml.retrieval.clustering import clustered_rows, nmi, pi_ratio
from robustdml.retrieval.collapse import health
from robustdml.retrieval.embed import Embedder
from robustdml.retrieval.metrics import score
from robustdml.run_folders import claimed
from robustdml.seeding import derive_seed
from robustdml.stopping import Asked, stopping
from robustdml.threat import ThreatModel
from robustdml.values import brief, plain_scalar, truth, whole

Integers = npt.NDArray[np.int64]


def evaluate(
    models: Mapping[str, nn.Module] | Sequence[Subject],
    dataset: RetrievalDataset,
    attacks: Sequence[Attack],
    *,
    out: str | Path,
    panels: Sequence[Panel] = (),
    max_queries: int | None = None,
    image_size: Sides | None = None,
    seed: int = 0,
    shard_size: int = 64,
    attack_time_limit: float | None = None,
    precision: PrecisionChoice = "fp32",
    skip_broken: bool = False,
    leave_out_copies: bool = False,
    options: RunOptions = DEFAULT_OPTIONS,
) -> Results:
    """Evaluate models clean and under attack, and write ``results.json`` and per-query records into ``out``.

    Any module that maps images ``(N, 3, H, W)`` in [0, 1] to ``(N, D)`` can be evaluated; its normalisation must be
    inside. Each gets images as it says that they must be prepared (see `robustdml.preprocessing.declared`): one that
    `robustdml train` made does, and any other may. Outputs are put on the unit sphere: retrieval is by cosine
    similarity, exact, over the whole gallery. The gallery is clean and the queries are attacked, unless an attack is
    one on the gallery or on both. A query never finds itself. An attack that fails is recorded with its reason and
    never stops the rest. The same call again resumes a run that was stopped.

    Args:
        models: modules by name, or subjects.
        dataset: its queries are matched against its gallery.
        attacks: each with its budget, from `robustdml.attacks.build_suite` or of your own making.
        out: the run folder.
        panels: what is measured beside the attacks, from `robustdml.evaluation.build_panel`; a repeated call may add
            some to a finished run.
        max_queries: attack (and score) a class-stratified sample of this size; None takes all queries.
        image_size: side of the images for all models, or height and width; None takes what each was made for, else
            the data set's.
        seed: of the sample, the attacks and the bootstrap.
        shard_size: queries per record file and per attack call.
        attack_time_limit: seconds that one attack at one budget may take on one model; a slower one has failed. The
            clock is read whenever the model is called, and it counts what a stopped run had spent.
        precision: in which attacks run the models: ``"fp32"`` as they are; ``"bf16"`` or ``"fp16"`` under autocast,
            BatchNorm folded; ``"auto"`` tries on a few queries of each model and takes what is faster and as strong.
            What is sent is judged by the model itself, in fp32.
        skip_broken: go on without images of the test that cannot be read; they are counted in the results.
        leave_out_copies: go on without images that the test, or the training, holds a second time (see
            `robustdml.evaluation.checks.copies.Copies.superfluous`).

    Raises:
        DataError: images cannot be read, and ``skip_broken`` is not set; or too little is left of the data set.
        SpecError: no model, equal names, a model without gradients under an attack that needs them,
            a panel twice, models of different sizes under a budget that grows with the
            size, or something that is no attack.
        RunFolderError: ``out`` holds another run.
        CheckpointError: a model gives no finite embeddings.
    """
    check_engine(options.engine, options.workers)
    subjects = subjects_from_modules(models)
    attacks = checked_attacks(attacks)
    for subject in subjects:
        needing = next((attack for attack in attacks if attack.entry().knowledge == "gradients"), None)
        if subject.black_box and needing is not None:
            raise SpecError(
                f"'{subject.name}' gives no gradients ({subject.black_box}), and '{needing.entry().name}' needs them: "
                "give --attacks blackbox, or others that ask for scores or hits alone"
            )
    if not isinstance(dataset, RetrievalDataset):
        raise SpecError(
            f"dataset={brief(dataset)} must be a whole RetrievalDataset: load one with robustdml.data.load_dataset "
            "(not its part .test)"
        )
    seed, max_queries, attack_time_limit = checked_numbers(seed, max_queries, attack_time_limit)
    shard_size = whole("shard_size", shard_size, least=1)
    image_size = None if image_size is None else whole_sides(image_size)
    skip_broken, leave_out_copies = truth("skip_broken", skip_broken), truth("leave_out_copies", leave_out_copies)
    if precision not in PRECISION_CHOICES:
        raise SpecError(f"precision={brief(precision)} must be one of: {', '.join(PRECISION_CHOICES)}")
    if len({panel.spec for panel in panels}) < len(panels):
        raise SpecError(f"a panel is given twice: {', '.join(panel.spec for panel in panels)}")
    prepared = preparations(subjects, attacks, image_size=image_size, usual=dataset.image_size)
    data = looked_at(dataset, skip_broken=skip_broken, leave_out_copies=leave_out_copies)
    run = _Evaluation(
        subjects,
        data,
        list(attacks),
        panels,
        Path(out),
        max_queries,
        prepared,
        seed,
        shard_size,
        attack_time_limit,
        precision,
        options,
    )
    # A caller may be inside of torch.no_grad() or torch.inference_mode(), in which nothing has a gradient.
    with torch.inference_mode(False), torch.enable_grad(), single_precision():
        return run.go()


def checked_numbers(
    seed: int, max_queries: int | None, attack_time_limit: float | None
) -> tuple[int, int | None, float | None]:
    """These arguments of `evaluate` as Python's numbers.

    Raises:
        SpecError: one is no such number, or out of its range.
    """
    seed, limit = whole("seed", seed), plain_scalar(attack_time_limit)
    max_queries = None if max_queries is None else whole("max_queries", max_queries, least=1)
    if limit is not None and not (isinstance(limit, int | float) and limit > 0):
        raise SpecError(f"attack_time_limit={brief(limit)} must be above 0 seconds")
    return seed, max_queries, limit


class _Evaluation:
    """One call of `evaluate`: its parts, and the order in which they are used."""

    def __init__(
        self,
        subjects: list[Subject],
        data: LookedAt,
        attacks: list[Attack],
        panels: Sequence[Panel],
        out: Path,
        max_queries: int | None,
        prepared: Mapping[str, Preprocessing],
        seed: int,
        shard_size: int,
        time_limit: float | None,
        precision: PrecisionChoice,
        options: RunOptions,
    ) -> None:
        self.subjects, self.attacks, self.out, self.prepared = subjects, attacks, out, prepared
        #: Not part of the run's identity: they change no other number.
        self.panels = panels
        dataset = data.dataset
        self.available = len(dataset.query)
        self.dataset = dataset.subset_queries(max_queries, seed)
        self.asked = Asked()
        self.options, self.device = options, choose_device(options.device)
        #: Not part of the run's identity: a repeated call with more time may finish what failed.
        self.time_limit = time_limit
        keys = [(attack.entry().spec, attack.threat) for attack in attacks]
        if len(set(keys)) < len(keys):
            repeated = next(key for key in keys if keys.count(key) > 1)
            size = "" if repeated[1].eps is None else f" at eps {repeated[1].text}"
            raise SpecError(f"the attack '{repeated[0]}' is given twice{size}: leave one out")
        largest = max(max(found.sides) for found in prepared.values())
        self.spec = EvalSpec(
            dataset=dataset.name,
            dataset_fingerprint=dataset.fingerprint(),
            image_size=largest,
            preprocessing=tuple(prepared.items()),
            models=tuple((subject.name, weights_fingerprint(subject.module)) for subject in subjects),
            attacks=tuple((spec, threat.eps) for spec, threat in keys),
            channels=tuple(threat.channels for _, threat in keys if threat.channels),
            max_queries=max_queries,
            seed=seed,
            shard_size=shard_size,
            version=__version__,
            foreign=identities(attacks),
            packages=package_versions(),
            precision=precision,
        )
        self.identity = {"kind": "evaluate", **self.spec.model_dump(mode="json")}
        self.fingerprint = fingerprint(self.identity)
        self.store = Store(out, self.fingerprint)
        self.kept = KeptImages(out, self.store)
        self.data, self.images = data, data.images
        self.pictured = pictured_queries(self.dataset, largest, seed)
        self.mapped = mapped_queries(self.dataset, seed)
        self.plan = Plan(
            fingerprint=self.fingerprint,
            spec=self.spec,
            dataset=describe(self.dataset, self.spec, self.available, data),
            queries=query_entry(self.dataset),
            attacks=tuple(attack_entries(attack.entry() for attack in attacks)),
            budgets=tuple(keys),
            environment=environment(self.device),
            command=options.command,
            configuration=options.configuration,
            flags=tuple(data.copies.flags()),
        )
        count = len(self.dataset.query)
        #: The queries of each shard, as places in ``dataset.query``.
        self.shards = np.split(np.arange(count), range(shard_size, count, shard_size))

    def go(self) -> Results:
        with (
            claimed(self.out, self.identity),
            stopping(at_once=True) as self.asked,
            engine(self.options.engine, self.options.workers, self.device) as self.engine,
        ):
            return self._go()

    def _go(self) -> Results:
        started = time.monotonic()
        write_left_out(self.data.dataset.left_out, self.out)
        self.plan.save(self.out)
        unique = len(np.union1d(self.dataset.query, self.dataset.gallery))
        total = len(self.subjects) * (unique + (len(self.attacks) + len(self.panels)) * len(self.dataset.query))
        with progress("evaluate", total, enabled=self.options.progress) as advance:
            for subject in self.subjects:
                self._model(subject, advance)
        self._check_whole()
        results = assemble(self.out, seconds=time.monotonic() - started)
        results.save(self.out)
        return results

    def _check_whole(self) -> None:
        """Each attack has its records or a reason; else files were removed since they were written."""
        for subject in self.subjects:
            lost = [] if self.store.read_model(subject.name) else [subject.name]
            for attack, key in zip(self.attacks, self.plan.cells(subject.name), strict=True):
                wanted = 1 if isinstance(attack, GalleryAttack) else len(self.shards)
                if self.store.read_failure(key) is None and len(self.store.shards(key)) < wanted:
                    lost.append(key.attack)
            if lost:
                raise StorageError(
                    f"files of '{self.out}' were removed while it was written into (of '{subject.name}' under "
                    f"{lost[0]}, for one): repeat the command to make them again"
                )

    def _model(self, subject: Subject, advance: Advance) -> None:
        """Run everything on one model and keep it in the store."""
        home = next((parameter.device for parameter in subject.module.parameters()), self.device)
        module = subject.module.to(self.device)
        # Made within inference mode, which nothing can be differentiated through.
        if any(tensor.is_inference() for tensor in (*module.parameters(), *module.buffers())):
            module = copied(module)
        weights = KeptWeights(module)
        model = Embedder(module)
        name = subject.name
        tensors = self.images.prepared(self.prepared[name])
        with kept_randomness(model), evaluation_mode(model):
            seed_globally(derive_seed(self.spec.seed, "model"))  # of a model that draws at random
            advance(0, f"{name}: clean")
            judge = Judge(model, self.dataset.test, tensors, self.device, name=name, advance=advance)
            clean = judge.clean()
            answered = answers(model, tensors, self.dataset.query, self.device)
            self.store.check_answers(name, answered)
            examined, doubts = self._examine(subject, judge, tensors)
            self._lower(judge, subject, clean, doubts, tensors, advance)
            self.store.write_flags(name, examined)
            kept = {"pictured": self.pictured, "mapped": self.mapped}
            work = Work(
                *(judge, self.attacks, doubts, tensors, self.dataset.query, self.shards, self.spec.seed, kept),
                images=self.options.save_images,
                answers=answered,
                objects=[self, self.store],
                folder=self.out,
            )
            images = self.kept if self.options.save_images else None
            cells = Cells(
                *(name, self.attacks, doubts, self.shards, self.store, images, self.time_limit),
                *(self.asked, advance, weights.restore),
            )
            with closing(work):
                self.engine.run(work, cells)
            looked, failed = self._look(PanelRun(name, judge, tensors, clean, self.spec.seed), advance)
            self.store.write_flags(name, [*examined, *failed])
        weights.restore()  # of what the model counts by itself, too: the same call again meets the same model
        module.to(home)  # one model at a time on the device, and each back where its owner had it
        self._show(name, judge, clean, tensors, looked)

    def _examine(self, subject: Subject, judge: Judge, tensors: ImageTensors) -> tuple[list[Flag], Doubts | None]:
        """What is wrong with the model before any attack, and what attacks are to make of it."""
        dataset, name = self.dataset, subject.name
        part = np.unique(np.linspace(0, len(dataset.query) - 1, IMAGES).astype(np.int64))
        images = tensors.batch(dataset.query[part]).to(self.device)
        classes = frozenset({len(np.unique(dataset.labels[dataset.train])), len(dataset.class_names)})
        asked = probe(judge, images, part, name=name, classes=classes, chance=self.plan.dataset.chance)
        flags = examine(asked)
        others = [other for other in self.subjects if self.prepared[other.name].sides == self.prepared[name].sides]
        surrogates = [(other.name, other.module) for other in others if other.module is not subject.module]
        doubts = doubts_of(asked, flags, surrogates)
        adaptable = any(isinstance(attack, AdaptableAttack) for attack in self.attacks)
        return answered(flags, doubts) if doubts and adaptable else flags, doubts

    def _lower(
        self,
        judge: Judge,
        subject: Subject,
        clean: Records,
        doubts: Doubts | None,
        tensors: ImageTensors,
        advance: Advance,
    ) -> None:
        """Hand attacks the model in the precision that was asked for, or was found before; write its entry."""
        part = np.unique(np.linspace(0, len(self.dataset.query) - 1, QUERIES).astype(np.int64))
        images, kept = tensors.batch(self.dataset.query[part]).to(self.device), self.store.read_model(subject.name)
        asked = self.spec.precision
        if kept is not None:
            found: Precision = kept[0].precision
        elif asked != "auto":
            found = asked
        else:  # Where gradients are in doubt, nothing is saved on them.
            found = "fp32" if doubts or subject.black_box else fastest(judge, images, part)
        if found != "fp32":
            try:
                judge.victim = victim(judge, found, images)
            except SpecError as error:
                raise SpecError(f"'{subject.name}': {error}: give --precision fp32, or auto") from error
        entry = self._entry(subject, judge, clean, found) if kept is None else kept[0]
        if self.options.nmi and entry.nmi is None:
            advance(0, f"{subject.name}: NMI")
            entry = entry.model_copy(update=self._clustered(judge))
        if kept is None or entry != kept[0]:
            self.store.write_model(entry, clean)

    def _clustered(self, judge: Judge) -> dict[str, float | int | None]:
        """How well clusters of the gallery are its classes: computed once, and kept with the model's entry."""
        embeddings, classes = judge.gallery_embeddings, self.dataset.labels[self.dataset.gallery]
        drawn = clustered_rows(classes)
        if drawn is None:
            return {"nmi": nmi(embeddings, classes)}
        return {"nmi": nmi(embeddings[drawn], classes[drawn]), "nmi_classes": len(np.unique(classes[drawn]))}

    def _entry(self, subject: Subject, judge: Judge, clean: Records, precision: Precision) -> ModelEntry:
        embeddings, classes = judge.gallery_embeddings, self.dataset.labels[self.dataset.gallery]
        headline = self.dataset.rules.headline
        return ModelEntry(
            name=subject.name,
            source=subject.source,
            fingerprint=dict(self.spec.models)[subject.name],
            architecture=subject.architecture,
            method=subject.method,
            preprocessing=self.prepared[subject.name],
            declared=subject.published,
            precision=precision,
            embedding_dim=embeddings.shape[1],
            parameters=sum(parameter.numel() for parameter in subject.module.parameters()),
            clean=score(clean.values, clean.labels, headline=headline, seed=self.spec.seed),
            clean_hits=hits(clean.values[headline]),
            health=health(embeddings),
            pi_ratio=pi_ratio(embeddings, classes),
            twins=embedding_twins(embeddings, classes),
        )

    def _look(self, run: PanelRun, advance: Advance) -> tuple[dict[str, list[BaseModel]], list[Flag]]:
        """What each panel finds of a model, by the field of the results, and why those failed that did."""
        found: dict[str, list[BaseModel]] = {}
        failed = []
        for panel in self.panels:
            advance(0, f"{run.model}: {panel.spec}")
            try:
                for shard, rows in enumerate(self.shards):
                    if self.store.read_panel(run.model, panel.spec, shard) is None:
                        self.store.write_panel(run.model, panel.spec, shard, panel.shard(run, rows, advance))
                shards = [
                    self.store.read_panel(run.model, panel.spec, shard) or {} for shard in range(len(self.shards))
                ]
                found.setdefault(panel.field, []).extend(panel.entries(run, shards))
            except RunFolderError:
                raise
            except Exception as error:  # A model may raise anything on images that it was not made for.
                failed.append(
                    FLAG_KINDS["panel-failed"].flag(
                        f"{panel.spec} failed on {run.model}: {reason_of(error)}", model=run.model
                    )
                )
        return found, failed

    def _show(
        self, name: str, judge: Judge, clean: Records, tensors: ImageTensors, looked: Mapping[str, Sequence[BaseModel]]
    ) -> None:
        """Keep what the report shows of a finished model run beside its recalls."""
        cells = model_cells(self.plan, self.store, name, clean)[0]
        shown = shown_attacks([c for c in cells if self.plan.attack_of(c.attack).side == "query"], self.plan.attacks)
        attacked: dict[tuple[str, ThreatModel], Records] = {}
        for entry, threat in shown:
            records = self.store.read_all(CellKey(name, entry.spec, threat))
            assert records is not None  # only what was judged is shown
            attacked[entry.spec, threat] = records
        queries, seed = self.plan.queries, self.spec.seed
        run = ModelRun(name, self.out, self.dataset, tensors, judge, queries, clean, shown, attacked, seed)
        self.store.write_shown(name, {**looked, **{field: analysis(run) for field, analysis in ANALYSES.items()}})
