"""What makes the training images of a branch, and what a batch must hold for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from robustdml.branches import WITH_TARGETS, Branch
from robustdml.config import TrainConfig
from robustdml.contracts import GoalClasses
from robustdml.errors import SpecError
from robustdml.models import EmbeddingModel
from robustdml.training.pixel_examples import TrainingExamples
from robustdml.training.processes import ALONE, Processes
from robustdml.training.published_examples import PublishedExamples
from robustdml.training.schedule import batch_layout
from robustdml.training.step import ExampleMaker


def example_maker(
    branch: Branch,
    config: TrainConfig,
    model: EmbeddingModel,
    goals: GoalClasses,
    processes: Processes = ALONE,
) -> ExampleMaker:
    """What makes the images of a branch.

    Raises:
        SpecError: the published arithmetic knows no such branch, or has fewer images than processes.
    """
    targets = branch.targets or (config.targets if branch.kind == "mtax" else 1)
    steps = branch.steps or config.attack_steps
    eps = branch.budget(config.eps)
    rows = branch.rows(config.batch_size)
    if config.arithmetic == "pixels":
        goal = goals[branch.kind](**({"targets": targets} if branch.kind in WITH_TARGETS else {}))
        return TrainingExamples(goal, eps, steps, processes, rows.start)
    if branch.kind not in {"stax", "mtax"}:
        raise SpecError(f"arithmetic 'published' knows STAX and MTAX, and no branch '{branch.kind}'")
    if rows.stop - rows.start < processes.count:
        # It clips to the range of the whole part, to which every process must have something to say.
        raise SpecError(
            f"arithmetic 'published' cannot share the {rows.stop - rows.start} images of branch '{branch.kind}' among "
            f"{processes.count} processes: start fewer, or raise --batch-size"
        )
    mean, std = (tuple(values.flatten().tolist()) for values in (model.mean, model.std))
    return PublishedExamples(targets, eps, steps, mean, std, processes, rows.start)


def check_parts(config: TrainConfig, branches: Sequence[Branch]) -> None:
    """Refuse a part of the batch that lacks what its branch aims at, before the first step does.

    An unadversarial or margin image that is alone in its class is let pass where others are not: parts such as thirds
    cut through a class, and such an image stays as it is, or is pushed towards the other classes only.

    Args:
        config: with its ``m_per_class`` chosen.

    Raises:
        SpecError: a part has fewer than two images, one class where the branch aims at others (fewer images of others
            than targets for MTAX), or no two images of one class where it needs them.
    """
    assert config.m_per_class is not None
    layout = batch_layout(config.batch_size, config.m_per_class)
    for branch in branches:
        if branch.kind == "clean":
            continue
        part = layout[branch.rows(config.batch_size)]
        shares = ", ".join(f"{share:.3g}" for share in branch.part)
        where = f"branch '{branch.kind}': its part [{shares}] of a batch of {config.batch_size} images"
        if len(part) < 2:
            raise SpecError(f"{where} holds {len(part)}, and it needs two: widen the part or raise --batch-size")
        largest = max(Counter(part).values())
        foreign = len(part) - largest
        targets = branch.targets or config.targets
        if branch.kind in {"stax", "mtax", "margin"} and not foreign:
            raise SpecError(
                f"{where} holds one class only, and its images are pushed towards other classes: widen the part or "
                "lower --m-per-class"
            )
        if branch.kind == "mtax" and targets > foreign:
            own = "the branch's targets" if branch.targets else "--targets"
            raise SpecError(
                f"targets={targets}: the MTAX part of a batch of {config.batch_size} has {foreign} images of other "
                f"classes to aim at: lower {own} or raise --batch-size"
            )
        if branch.kind in {"unadversarial", "margin"} and largest < 2:
            raise SpecError(
                f"{where} holds no two of one class, and each needs another of its own: widen the part or raise "
                "--m-per-class"
            )
