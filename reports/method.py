"""How it was measured: the attacks in full, where it ran, and whom to cite."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from robustdml.results import AttackEntry, Results
from robustdml.threat import NORMS

from . import text
from .index import Index
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
class Method:
    """The attacks, the machine and the citations."""

    attacks: tuple[AttackRow, ...]
    environment: tuple[text.Fact, ...]
    citations: str


def method_section(index: Index, folder: Path) -> Section:
    """How the run was measured."""
    results = index.results
    data = Method(
        attacks=tuple(_attack(attack) for attack in results.attacks),
        environment=_environment(results),
        citations="\n\n".join(entry.strip() for entry in results.citations.values()),
    )
    return Section("method", "Method", "method.html.j2", data)


def _attack(attack: AttackEntry) -> AttackRow:
    columns = (
        attack.library,
        attack.goal,
        KNOWLEDGE[attack.knowledge],
        NORMS[attack.norm],
        ", ".join(attack.citations) or text.ABSENT,
    )
    return AttackRow(attack.name, attack.spec, columns)


def _environment(results: Results) -> tuple[text.Fact, ...]:
    environment = results.environment
    packages = ", ".join(f"{name} {version}" for name, version in sorted(environment.packages.items()))
    return (
        text.Fact("Python", environment.python),
        text.Fact("Platform", environment.platform),
        text.Fact("Device", environment.device),
        text.Fact("Packages", packages or text.ABSENT),
        text.Fact("Seed", str(results.spec.seed)),
    )
