"""An evaluation in one call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from robustdml.api.given import Budgets, Model, attacks_of, dataset_of, options_of, panels_of, subjects_of
from robustdml.api.torch_data import TorchData
from robustdml.config import BRANCH_CHOICES, BranchChoice, Effort, PrecisionChoice, RunOptions
from robustdml.contracts import Attack
from robustdml.data import RetrievalDataset
from robustdml.errors import SpecError
from robustdml.evaluation import evaluate as run
from robustdml.evaluation.analyses.panel import Panel
from robustdml.preprocessing import Sides
from robustdml.results import Results
from robustdml.values import brief, place


def evaluate(
    models: Model | Mapping[str, Model] | Iterable[Model],
    data: RetrievalDataset | str | Path | Any,
    attacks: str | Attack | Iterable[str | Attack] | None = None,
    *,
    out: str | Path | None = None,
    eps: Budgets | None = None,
    effort: Effort = "standard",
    root: str | Path | None = None,
    allow_outside: bool = False,
    branches: BranchChoice = "deployed",
    panels: str | Panel | Iterable[str | Panel] = (),
    max_queries: int | None = None,
    image_size: Sides | None = None,
    seed: int = 0,
    shard_size: int = 64,
    attack_time_limit: float | None = None,
    precision: PrecisionChoice = "fp32",
    skip_broken: bool = False,
    leave_out_copies: bool = False,
    device: str = "auto",
    progress: bool = True,
    save_images: bool = False,
    nmi: bool = True,
    options: RunOptions | None = None,
) -> Results:
    """Evaluate models clean and under attack: ``robustdml.evaluate({"mine": model}, "digits", "quick")``.

    What ``robustdml evaluate`` does, with names or objects for everything. A model maps images ``(N, 3, H, W)`` in
    [0, 1] to embeddings ``(N, D)``, its normalisation inside; retrieval is by cosine similarity, exact, over the whole
    gallery; the evaluator enforces the budget of every attack and judges it by true retrieval (see
    `robustdml.evaluation.evaluate`).

    Args:
        models: modules, sources (``"timm:resnet50"``, ``"runs/mdprop"``, ``"file.py:build"``; see
            `robustdml.load_model`, which takes what a source does not say itself), checkpoints; one, several, or by
            name.
        data: the name of a data set (``"digits"``, with ``root`` where it lies in a folder), the path of a folder or a
            table, a table of pandas, polars or pyarrow, or a `robustdml.RetrievalDataset`. Or a data set of PyTorch
            that gives images and labels, as those of pytorch-metric-learning and torchvision: every image searches all
            others; of a pair the first searches the second. What its ``transform`` does to images (resize, centre crop,
            normalisation) is then done for models that say nothing of it themselves: they get images as in training.
        attacks: suites and specs such as ``"quick"`` or ``"margin,pgd(steps=50)"``, attacks that were built, one or
            several of both. None: the suite ``standard``, or ``blackbox`` where a model gives no gradients. Attacks
            that are named and are not ours (``"package.module:Attack"``) run in a process of their own where one can be
            made.
        out: the run folder, which holds the records and the pictures of the report; the same call again resumes a run
            that was stopped, or returns at once. None keeps nothing: the results alone come back, without pictures.
        eps: L-infinity budgets of attacks that are named, in pixels of [0, 1]: ``8/255``, ``"2/255,8/255"``, several;
            None takes 8/255.
        effort: of attacks that are named: ``"quick"``, ``"standard"`` or ``"thorough"``.
        root: the folder of a data set that is named; of a table, that of its images.
        allow_outside: let a table or a link of the data lead to images outside of its folder.
        branches: of a run with several BatchNorm branches, evaluate the ``"deployed"`` one, or ``"all"``.
        panels: what is measured beside the attacks: ``"natural"``, ``"certify(sigma=0.25)"``.
        max_queries: attack (and score) a class-stratified sample of this size, at least 1; None takes all queries.
        image_size: side of the images in pixels, or height and width, for all models; None takes what each was made
            for, else the data set's.
        seed: of the sample, the attacks and the bootstrap, at least 0.
        shard_size: queries per record file and per attack call, at least 1.
        attack_time_limit: seconds that one attack at one budget may take on one model.
        precision: in which attacks run the models: ``"fp32"``, ``"bf16"``, ``"fp16"``, or ``"auto"`` for what is faster
            here and as strong. They are judged in fp32.
        skip_broken: go on without images that cannot be read; they are counted.
        leave_out_copies: go on without images that the data set holds twice.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, …
        progress: show a bar with the time left.
        save_images: keep the attacked images of all queries in ``out``.
        nmi: cluster the gallery of each model, which takes about as long as to rank it.
        options: instead of device, progress, save_images and nmi: all of them, and an engine of several processes.

    Raises:
        UnknownNameError: there is no attack, data set or model of a name.
        SpecError: an argument that cannot be; the message names it.
        BudgetError: eps outside (0, 1].
        DataError: the data set cannot be read or evaluated.
        CheckpointError: a source is no model, or a model gives no finite embeddings.
        RunFolderError: ``out`` holds another run.
        MissingPackageError: the library of a source is not installed.
    """
    options = options_of(options, device=device, progress=progress, save_images=save_images, nmi=nmi)
    if options.save_images and out is None:
        raise SpecError("save_images keeps the images in the run folder: give out='runs/mine' too")
    if branches not in BRANCH_CHOICES:
        raise SpecError(f"branches={brief(branches)} must be one of: {', '.join(BRANCH_CHOICES)}")
    home = None if out is None else place("out", out)
    asked = panels_of(panels)
    # What is quick to refuse is refused before anything is loaded.
    dataset = dataset_of(data, root, skip_broken=skip_broken, allow_outside=allow_outside)
    subjects = subjects_of(models, branches)
    if isinstance(dataset, TorchData):
        subjects, dataset = [dataset.seen_by(subject) for subject in subjects], dataset.dataset
    chosen = attacks_of(attacks, eps, effort, subjects, options.device)
    with ExitStack() as stack:
        folder = home or Path(stack.enter_context(TemporaryDirectory(prefix="robustdml-")))
        results = run(
            subjects,
            dataset,
            chosen,
            out=folder,
            panels=asked,
            max_queries=max_queries,
            image_size=image_size,
            seed=seed,
            shard_size=shard_size,
            attack_time_limit=attack_time_limit,
            precision=precision,
            skip_broken=skip_broken,
            leave_out_copies=leave_out_copies,
            options=options,
        )
    return results if out is not None else results.without_pictures()
