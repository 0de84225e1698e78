"""From a spec to an attack: the registry of attack factories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from robustdml.contracts import Attack
from robustdml.errors import SpecError, UnknownNameError
from robustdml.registry import Registry, parse_spec
from robustdml.threat import ThreatModel

from .art import ARTProjectedGradientDescent
from .goals import MTAX, STAX, Aim, Margin, Shift, Untargeted
from .gradient import PGD
from .noise import Noise
from .torchattacks import TorchattacksPGD

GOALS: dict[str, type[Aim]] = {
    "shift": Shift,
    "margin": Margin,
    "stax": STAX,
    "mtax": MTAX,
    "untargeted": Untargeted,
}


@dataclass(frozen=True)
class AttackFactory:
    """An entry of the registry.

    Args:
        summary: one line for listings.
        kind: the frozen dataclass that is the attack.
        goals: the goals that it serves, its default first; empty where it has no choice.
        preset: parameters that the name stands for.
    """

    summary: str
    kind: type[Any]
    goals: tuple[str, ...] = ()
    preset: Mapping[str, object] = field(default_factory=dict)

    def parameters(self, goal: str | None) -> list[str]:
        """The parameters that a spec with that goal may set."""
        return [part.name for part in fields(self.kind) if part.name != "eps"] + goal_parameters(goal)


def goal_parameters(goal: str | None) -> list[str]:
    """The parameters of a goal itself, such as the number of targets."""
    return [part.name for part in fields(GOALS[goal])] if goal else []  # type: ignore[arg-type]


ATTACKS: Registry[AttackFactory] = Registry("attack")
_NATIVE = ("shift", "margin", "stax", "mtax")
ATTACKS.add("noise", AttackFactory("uniform and corner noise, the worst of several draws", Noise))
ATTACKS.add(
    "fgsm",
    AttackFactory("one signed gradient step", PGD, _NATIVE, {"goal": "shift", "steps": 1, "step": 1.0, "start": 0.1}),
)
ATTACKS.add("pgd", AttackFactory("projected gradient ascent, best step per query", PGD, _NATIVE, {"goal": "margin"}))
for _goal in _NATIVE:
    ATTACKS.add(_goal, AttackFactory(f"short for pgd(goal={_goal})", PGD, (_goal,), {"goal": _goal}))
_CLASSIFIER_GOALS = ("untargeted", "stax", "mtax")
ATTACKS.add(
    "torchattacks.PGD",
    AttackFactory("torchattacks' PGD on a RetrievalClassifier", TorchattacksPGD, _CLASSIFIER_GOALS),
)
ATTACKS.add(
    "art.ProjectedGradientDescent",
    AttackFactory("ART's PGD on a RetrievalClassifier", ARTProjectedGradientDescent, _CLASSIFIER_GOALS),
)


def _check_type(text: str, key: str, value: object, kind: type[Any], goal: str | None) -> None:
    """Refuse a value that the parameter cannot hold, before a library meets it deep inside."""
    holders = [kind, *([GOALS[goal]] if goal else [])]
    parts = (part for holder in holders for part in fields(holder))
    annotation = next(part.type for part in parts if part.name == key)
    allowed: dict[object, tuple[type, ...]] = {
        "int": (int,),
        "float": (int, float),
        "bool": (bool,),
        "float | None": (int, float, type(None)),
    }
    if not isinstance(value, allowed[annotation]) or (isinstance(value, bool) and annotation != "bool"):
        words = {
            "int": "a whole number",
            "float": "a number",
            "bool": "true or false",
            "float | None": "a number or none",
        }
        raise SpecError(f"'{text}': {key}={value!r} must be {words[str(annotation)]}")


def build_attack(text: str, eps: float) -> Attack:
    """Build an attack from a spec such as ``"pgd(goal=margin, steps=50)"``.

    Args:
        text: a name of `ATTACKS`, with parameters if wanted.
        eps: budget in pixels of [0, 1]; 0 is allowed here and makes the attack the identity.

    Raises:
        UnknownNameError: no such attack or goal.
        SpecError: the attack has no such parameter, or the value is of the wrong type or out of range.
        BudgetError: eps outside [0, 1].
    """
    ThreatModel(eps)
    spec = parse_spec(text)
    factory = ATTACKS[spec.name]
    params = {**factory.preset, **spec.params}
    goal = str(params.get("goal", factory.goals[0])) if factory.goals else None
    if goal is not None and goal not in factory.goals:
        raise UnknownNameError(f"goal for {spec.name}", goal, factory.goals)
    known = factory.parameters(goal)
    for key, value in params.items():
        if key == "eps":
            raise SpecError(f"'{text}': the budget is not part of a spec, set it with --eps (or the argument eps)")
        if key not in known:
            raise SpecError(f"'{text}': {spec.name} has no parameter '{key}', it has: {', '.join(known) or 'none'}")
        if key != "goal":
            _check_type(text, key, value, factory.kind, goal)
    if goal is not None:
        params["goal"] = GOALS[goal](**{key: params.pop(key) for key in goal_parameters(goal) if key in params})
    try:
        attack: Attack = factory.kind(**params, eps=eps)
    except TypeError as error:
        raise SpecError(f"'{text}': {error}") from None
    return attack
