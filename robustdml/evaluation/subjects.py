"""The models of an evaluation: what they are called, where they came from, and how they are described."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from torch import nn

from robustdml.config import BRANCH_CHOICES, BranchChoice
from robustdml.contracts import Attack
from robustdml.errors import SpecError
from robustdml.files import is_there
from robustdml.models import (
    Checkpoint,
    EmbeddingModel,
    SourcedModel,
    SourceOptions,
    branch_names,
    check_image_size,
    check_present,
    fold,
    folder_kind,
    load_checkpoint,
    load_model,
    parse_source,
)
from robustdml.preprocessing import IMAGENET_STD, Preprocessing, Sides, declared, in_pixels
from robustdml.printable import plain, shown
from robustdml.threat import NORMS
from robustdml.values import ByValue, brief

_DEFAULT = SourceOptions()


@dataclass(frozen=True, eq=False, repr=False)
class Subject(ByValue):
    """A model under evaluation.

    Args:
        name: in tables, unique in the evaluation.
        module: maps images ``(N, 3, H, W)`` in [0, 1] to ``(N, D)``; normalisation inside.
        source: where it came from, for the report.
        method: how it was trained, if known.
    """

    name: str
    module: nn.Module
    source: str
    method: str | None = None

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How images are to be prepared for it; None where it does not say (see `robustdml.preprocessing.declared`)."""
        return declared(self.module)

    @property
    def published(self) -> Preprocessing | None:
        """The same before the user said otherwise."""
        return self.module.published if isinstance(self.module, SourcedModel) else self.preprocessing

    @property
    def black_box(self) -> str:
        """Why no gradient leads through it; empty where one may."""
        return self.module.black_box if isinstance(self.module, SourcedModel) else ""

    @property
    def architecture(self) -> str:
        """The backbone's name, or the class of a foreign module."""
        if isinstance(self.module, EmbeddingModel):
            return self.module.config.backbone
        return self.module.architecture if isinstance(self.module, SourcedModel) else type(self.module).__name__


def subjects_from_modules(models: Mapping[str, nn.Module] | Sequence[Subject]) -> list[Subject]:
    """Subjects from plain modules by name; a list of subjects is checked and returned.

    Raises:
        SpecError: there is no model, or two have one name.
    """
    if isinstance(models, nn.Module | Checkpoint):
        raise SpecError("give models by name, as in evaluate({'mine': model}, ...); a checkpoint's is .deployed()")
    if isinstance(models, Mapping):
        found = []
        for name, module in models.items():
            if not isinstance(module, nn.Module):
                raise SpecError(
                    f"'{name}' is {type(module).__name__}, not a torch module (a checkpoint's is .deployed())"
                )
            found.append(Subject(name, module, "a module in memory"))
    elif not isinstance(models, Iterable):
        raise SpecError(f"models={brief(models)} must be modules by name, as in evaluate({{'mine': model}}, ...)")
    else:
        found = list(models)
        odd = next((one for one in found if not isinstance(one, Subject)), None)
        if odd is not None:
            raise SpecError(
                f"a list of models holds {type(odd).__name__}, and it has no names: give {{'mine': model}}, or Subjects"
            )
    if not found:
        raise SpecError("no model to evaluate: give at least one")
    repeated = [name for name, count in Counter(subject.name for subject in found).items() if count > 1]
    for subject in found:
        if len(subject.name.splitlines()) != 1 or not subject.name.strip():
            raise SpecError(f"the name {subject.name!r} of a model must be one line, and not empty")
    if repeated:
        raise SpecError(f"two models have the name '{repeated[0]}': rename one")
    for subject in found:
        check_present(subject.module, f"model '{subject.name}'")
    return found


def load_subjects(
    sources: Sequence[str], *, branches: BranchChoice = "deployed", options: SourceOptions = _DEFAULT
) -> list[Subject]:
    """Load models named on the command line (see `robustdml.models.load_model`); ``NAME=`` before a source calls it so.

    A run folder without a name is called by its last part, or by as many parts as tell it from the others.

    Args:
        branches: of a model with several BatchNorm branches, take the deployed one, or every one as a subject of its
            own: an ordinary model, so that attacks and retrieval go through that branch alone. The deployed one keeps
            the plain name, the others are called ``mdprop[stax]``; the source says which branch it is.
        options: what the sources do not say themselves; they hold for all but run folders.

    Raises:
        CheckpointError: a source is no model.
        SpecError: the same source twice, another word for ``branches``, or what `load_model` raises.
    """
    if branches not in BRANCH_CHOICES:
        raise SpecError(f"branches='{branches}' must be one of: {', '.join(BRANCH_CHOICES)}")
    named = [_split_name(source) for source in sources]
    paths = [Path(source) for _, source in named]
    subjects = []
    for (name, source), path in zip(named, paths, strict=True):
        parsed = parse_source(source)
        if parsed.kind == "run" and not folder_kind(path):
            checkpoint = load_checkpoint(path, trust_code=options.trust_code)
            module, model = cast(nn.Module, checkpoint.model), checkpoint.deployed()
            deployed = Subject(name or _short_name(path, paths), model, source, checkpoint.training.get("method"))
        else:
            module = load_model(source, options)
            deployed = Subject(name or parsed.short, module, source)
        subjects += _through_each_branch(deployed, module) if branches == "all" else [deployed]
    # Where the terminal's language is none that holds them, names come as bytes in disguise.
    subjects = [replace(found, name=plain(shown(found.name)), source=plain(shown(found.source))) for found in subjects]
    return subjects_from_modules(subjects)


def preparations(
    subjects: Sequence[Subject], attacks: Sequence[Attack], *, image_size: Sides | None, usual: int
) -> dict[str, Preprocessing]:
    """How images are prepared for each model, by its name: as it declares.

    A model that declares nothing gets the plain view, of the size that the others agree on.

    Args:
        image_size: S, or height and width, for all models, in place of what they declare; the rest of that is kept.
        usual: S where nothing else says it.

    Raises:
        SpecError: a size that cannot be; models of different sizes under a budget that depends on the size; or models
            of another normalisation than ImageNet's under a budget after that.
    """
    if image_size is not None:
        check_image_size(image_size)
    declared_by = {subject.name: subject.preprocessing for subject in subjects}
    sizes = {name: found.sides for name, found in declared_by.items() if found}
    if image_size is None and len(set(sizes.values())) > 1:
        bounded = [attack for attack in attacks if attack.entry().budget != "unrestricted"]
        dependent = next((attack for attack in bounded if attack.threat.norm != "linf"), None)
        if dependent is not None:
            named = ", ".join(f"{name} of {in_pixels(size)}" for name, size in sizes.items())
            raise SpecError(
                f"the models take images of different sizes ({named} pixels), and what '{dependent.entry().spec}' may "
                f"change is counted in {NORMS[dependent.threat.norm]}, which grows with the size: leave such attacks "
                "out, give one --image-size for all, or evaluate the models in runs of their own"
            )
    normalised = next((attack.threat for attack in attacks if attack.threat.normalised is not None), None)
    for name, own in declared_by.items():
        if normalised is not None and own and own.std and own.std != IMAGENET_STD:
            raise SpecError(
                f"the budget {normalised.text} is one after ImageNet's normalisation, and '{name}' divides by "
                f"{' / '.join(f'{std:g}' for std in own.std)}: write it in the pixels of each channel, as "
                + ":".join(f"{(normalised.normalised or 0.0) * std:.6g}" for std in own.std)
            )
    shared: Sides = next(iter(sizes.values())) if len(set(sizes.values())) == 1 else usual
    check_image_size(image_size or shared)
    found = {name: own or Preprocessing.plain(image_size or shared) for name, own in declared_by.items()}
    return found if image_size is None else {name: own.at(image_size) for name, own in found.items()}


def _through_each_branch(deployed: Subject, module: nn.Module) -> list[Subject]:
    """The deployed subject and one for each other BatchNorm branch of ``module``; itself where there are none."""
    names = branch_names(module)
    if not names:
        return [deployed]
    source = f"{deployed.source}, BatchNorm branch"
    return [
        replace(deployed, source=f"{source} {names[0]} (deployed)"),
        *(
            replace(deployed, name=f"{deployed.name}[{name}]", module=fold(module, name), source=f"{source} {name}")
            for name in names[1:]
        ),
    ]


def _split_name(source: str) -> tuple[str, str]:
    """``("mine", "runs/a")`` of ``mine=runs/a``; no name where there is none, or where the ``=`` is another's."""
    name, equals, rest = source.partition("=")
    named = equals and rest and not set("/:?") & set(name) and not is_there(Path(source))
    return (name, rest) if named else ("", source)


def _short_name(path: Path, others: Sequence[Path]) -> str:
    parts = path.resolve().parts
    for length in range(1, len(parts)):
        name = "/".join(parts[-length:])
        if sum("/".join(other.resolve().parts[-length:]) == name for other in others) == 1:
            return name
    return path.name
