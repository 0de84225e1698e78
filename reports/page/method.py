"""How it was measured: in words, the attacks in full, where it ran, and whom to cite."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from robustdml.results import AttackEntry, Results
from robustdml.threat import NORMS

from .. import text
from ..index import ANY_SIZE, Index
from .sections import Section

KNOWLEDGE = {
    "gradients": "gradients (white-box)",
    "scores": "scores only",
    "decisions": "decisions only",
    "transfer": "another model (transfer)",
    "none": "nothing of the model",
}


@dataclass(frozen=True)
class AttackRow:
    """The full configuration of an attack."""

    name: str
    spec: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class MethodFacts:
    """What was done, the attacks, the machine and the citations.

    Args:
        norms: the norms in which budgets were given, as they are written.
        unbounded: whether attacks without a budget were run.
        gallery_attacks: whether attacks were run that change the gallery.
        goals: each goal that was pursued, and what it means.
        sampled: whether only a part of the queries was used.
    """

    protocol: str
    queries: str
    sampled: bool
    gallery: str
    leave_self_out: bool
    chance: str
    norms: tuple[str, ...]
    unbounded: bool
    gallery_attacks: bool
    goals: tuple[text.Fact, ...]
    attacks: tuple[AttackRow, ...]
    record: tuple[text.Fact, ...]
    #: Empty where it is not known.
    command: str
    configuration: str
    citations: str


def method_section(index: Index, folder: Path) -> Section:
    """How the run was measured."""
    results = index.results
    dataset = results.dataset
    data = MethodFacts(
        protocol=dataset.protocol,
        queries=text.counted(dataset.queries, "query", "queries"),
        sampled=dataset.queries < dataset.queries_available,
        gallery=text.counted(dataset.gallery, "image"),
        leave_self_out=dataset.leave_self_out,
        chance=text.fraction(dataset.chance),
        norms=tuple(dict.fromkeys(NORMS[budget.norm] for budget in index.budgets if budget != ANY_SIZE)),
        unbounded=ANY_SIZE in index.budgets,
        gallery_attacks=any(attack.side != "query" for attack in results.attacks),
        goals=goals(results.attacks),
        attacks=tuple(_attack(attack) for attack in results.attacks),
        record=_record(results),
        command=results.command,
        configuration=results.configuration,
        citations="\n\n".join(entry.strip() for entry in results.citations.values()),
    )
    return Section("method", "Method", "method.html.j2", data)


def goals(attacks: Iterable[AttackEntry]) -> tuple[text.Fact, ...]:
    """Each goal once, with what it means."""
    meanings = {attack.goal: attack.goal_meaning for attack in attacks}
    return tuple(
        text.Fact(goal, meaning or "The attack does not say: see its citation or its documentation.")
        for goal, meaning in meanings.items()
    )


def _attack(attack: AttackEntry) -> AttackRow:
    columns = (
        attack.library,
        attack.goal,
        KNOWLEDGE[attack.knowledge],
        NORMS[attack.norm],
        ", ".join(attack.citations) or text.ABSENT,
    )
    return AttackRow(attack.name, attack.spec, columns)


def _precision(results: Results) -> str:
    """In which attacks ran the models."""
    lower = [f"{model.name} in {model.precision}" for model in results.models if model.precision != "fp32"]
    return f"attacks ran {', '.join(lower)}; judged in fp32" if lower else "fp32"


def _record(results: Results) -> tuple[text.Fact, ...]:
    """What it takes to repeat the run, and what it cost."""
    environment = results.environment
    packages = ", ".join(f"{name} {version}" for name, version in sorted(environment.packages.items()))
    images = sum(cell.forward_images for cell in results.cells)
    gradients = sum(cell.gradient_images for cell in results.cells)
    seconds = sum(cell.seconds for cell in results.cells)
    return (
        text.Fact("robustdml", results.robustdml_version),
        text.Fact("Run", results.fingerprint),
        text.Fact("Data set", f"{results.dataset.name}, {results.dataset.fingerprint}"),
        text.Fact("Seed", str(results.spec.seed)),
        text.Fact("Python", environment.python),
        text.Fact("Platform", environment.platform),
        text.Fact("Device", environment.device),
        text.Fact("Precision", _precision(results)),
        text.Fact(
            "Cost of the attacks",
            f"{text.counted(images, 'image')} forward, {text.count(gradients)} backward, {text.duration(seconds)}",
        ),
        text.Fact("Packages", packages or text.ABSENT),
    )
