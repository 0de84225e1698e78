"""What makes the training images of a branch, and what a batch must hold for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from robustdml.branches import Branch
from robustdml.config import TrainConfig
from robustdml.contracts import AttackBuilder
from robustdml.errors import SpecError
from robustdml.models import EmbeddingModel
from robustdml.training.processes import Processes
from robustdml.training.published import PublishedExamples
from robustdml.training.schedule import batch_layout
from robustdml.training.step import ExampleMaker


def example_maker(
    branch: Branch, config: TrainConfig, model: EmbeddingModel, build_attack: AttackBuilder, processes: Processes
) -> ExampleMaker:
    """The attack of a branch: as published, it starts close by and returns its last step.

    Raises:
        SpecError: the published arithmetic knows no such branch, or has fewer images than processes.
    """
    targets = branch.targets or (config.targets if branch.kind == "mtax" else 1)
    steps = branch.steps or config.attack_steps
    eps = config.eps if branch.eps is None else branch.eps
    if config.arithmetic == "pixels":
        own = f"targets={targets}, " if branch.kind in {"mtax", "unadversarial"} else ""
        return build_attack(f"{branch.kind}({own}steps={steps}, step={1 / steps}, start=0.05, best=false)", eps)
    if branch.kind not in {"stax", "mtax"}:
        raise SpecError(f"arithmetic 'published' knows STAX and MTAX, and no branch '{branch.kind}'")
    rows = branch.rows(config.batch_size)
    if rows.stop - rows.start < processes.count:
        # It clips to the range of the whole part, to which every process must have something to say.
        raise SpecError(
            f"arithmetic 'published' cannot share the {rows.stop - rows.start} images of branch '{branch.kind}' among "
            f"{processes.count} processes: start fewer, or raise --batch-size"
        )
    mean, std = (tuple(values.flatten().tolist()) for values in (model.mean, model.std))
    return PublishedExamples(targets, eps, steps, mean, std, processes)


def check_targets(config: TrainConfig, branches: Sequence[Branch]) -> None:
    """Refuse more targets than a part of the batch has images of other classes, before the first step does.

    Args:
        config: with its ``m_per_class`` chosen.

    Raises:
        SpecError: a MTAX branch has too few images to aim at.
    """
    assert config.m_per_class is not None
    layout = batch_layout(config.batch_size, config.m_per_class)
    for branch in branches:
        part = layout[branch.rows(config.batch_size)]
        foreign = len(part) - max(Counter(part).values(), default=0)
        targets = branch.targets or config.targets
        if branch.kind == "mtax" and targets > foreign:
            raise SpecError(
                f"targets={targets}: the MTAX part of a batch of {config.batch_size} has {foreign} images of other "
                "classes to aim at: lower --targets or raise --batch-size"
            )
