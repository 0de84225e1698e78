"""From a spec to an attack: the registry of attacks, and what is refused with a sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from robustdml.config import EFFORTS, Effort
from robustdml.errors import BudgetError, SpecError, UnknownNameError
from robustdml.importing import load_object
from robustdml.registry import Registry, parse_spec
from robustdml.results import AttackEntry
from robustdml.threat import ThreatModel, is_by_channel, parse_budget
from robustdml.values import BriefDict, plain_scalar

from .factory import DEFAULT_EPS, AttackFactory, goal_parameters
from .goals import GOALS
from .libraries.art import rows as art
from .libraries.torchattacks import rows as torchattacks
from .native import factories as native

if TYPE_CHECKING:
    from robustdml.contracts import Attack

    from .native.straight_through import StraightThrough
    from .native.transfer import Transfer

ATTACKS: Registry[AttackFactory] = Registry("attack")
for _source in (native, torchattacks, art):
    for _name, _factory in _source.FACTORIES.items():
        ATTACKS.add(_name, _factory)


def _transfer(attack: str, eps: float | ThreatModel, surrogate: str) -> Transfer:
    from .native.transfer import Transfer

    return Transfer(surrogate, build_attack(attack, eps))


ATTACKS.add(
    "transfer",
    AttackFactory(
        "another attack, computed on a surrogate model that is given",
        _transfer,
        {"surrogate": "", "attack": "margin"},
        knowledge="transfer",
        by_name_only="it needs a surrogate, as in transfer(surrogate='runs/other', attack=margin)",
    ),
)


def _straight(attack: str, eps: float | ThreatModel, around: bool) -> StraightThrough:
    from .native.straight_through import StraightThrough

    return StraightThrough(build_attack(attack, eps), around)


ATTACKS.add(
    "straight",
    AttackFactory(
        "another attack, by gradients that pass straight through rounding",
        _straight,
        {"attack": "margin", "around": False},
        by_name_only="it is for models without useful gradients, as in straight(attack=mi)",
    ),
)

#: Attacks of the libraries that are not offered, with the reason why.
NOT_OFFERED: dict[str, str] = BriefDict({**torchattacks.NOT_OFFERED, **art.NOT_OFFERED})


def build_attack(text: str, eps: float | str | ThreatModel, effort: Effort = "standard") -> Attack:
    """Build an attack from a spec such as ``"pgd(goal=margin, steps=50)"``.

    Args:
        text: a name of `ATTACKS`, or ``package.module:name`` of a class or function of your own, with parameters if
            wanted. ``eps=`` in the spec takes precedence over the argument; goals may be written with hyphens.
        eps: L-infinity budget in pixels of [0, 1]; 0 is allowed here and makes the attack the identity. It may be a
            threat model with a budget per channel, or text (`robustdml.threat.parse_budget`). Attacks in other norms
            take theirs from the spec, else `DEFAULT_EPS`; attacks that look for the smallest perturbation have none.
        effort: how hard it tries; parameters in the spec take precedence.

    Raises:
        UnknownNameError: no such attack or goal.
        SpecError: the attack has no such parameter, or the value is of the wrong type or out of range.
        BudgetError: eps outside [0, 1].
    """
    eps = plain_scalar(eps)
    threat = eps if isinstance(eps, ThreatModel) else parse_budget(eps) if isinstance(eps, str) else ThreatModel(eps)
    if effort not in EFFORTS:
        raise UnknownNameError("effort", effort, EFFORTS)
    if ":" in text.partition("(")[0]:
        return _with_budget(lambda size: _foreign(text, size), threat)
    spec = parse_spec(text)
    factory = ATTACKS[spec.name]
    # Goals are written with hyphens in the literature.
    goal = str(spec.params.get("goal", factory.goals[0])).replace("-", "_") if factory.goals else None
    if goal is not None and goal not in factory.goals:
        raise UnknownNameError(f"goal for {spec.name}", goal, factory.goals)
    known = factory.parameters(goal)
    for key, value in spec.params.items():
        if key not in {*known, "eps"}:
            raise SpecError(f"'{text}': {spec.name} has no parameter '{key}', it has: {', '.join(known) or 'none'}")
        if key not in {"goal", "eps"}:
            _check_type(text, key, value, known[key])
    params = {**factory.defaults, **factory.effort.get(effort, {}), **spec.params}
    budget = _budget(text, factory, params, threat)
    params = {key: value for key, value in params.items() if key not in {"goal", "eps"}}
    if goal is not None:
        own = {key: params.pop(key) for key in goal_parameters(goal) if key in params}
        params["goal"] = GOALS[goal](**own)
    if budget is None:
        return factory.make(**params)
    if "attack" in factory.defaults:  # around another attack, which is built with the budget
        return factory.make(**params, eps=budget)
    return _with_budget(lambda size: factory.make(**params, eps=size), budget)


def _with_budget(make: Callable[[float], Attack], threat: ThreatModel) -> Attack:
    """An attack with that budget, where what makes it knows one eps for all channels alone."""
    assert threat.eps is not None
    if threat.channels is None:
        return make(threat.eps)
    from .native.per_channel import per_channel  # torch is not needed to list attacks

    attack = make(min(threat.channels))
    if attack.threat != ThreatModel(min(threat.channels)):  # one with a budget of its own
        return attack
    return per_channel(attack, threat)


def _budget(text: str, factory: AttackFactory, params: Mapping[str, object], threat: ThreatModel) -> ThreatModel | None:
    norm = str(params.get("norm", factory.norms[0]))
    if norm not in factory.norms:
        raise UnknownNameError(f"norm in '{text}':", norm, factory.norms)
    given = params.get("eps")
    if factory.budget != "fixed":
        if given is not None:
            looks = "looks for the smallest perturbation" if factory.budget == "minimum" else "is bound by no norm"
            raise SpecError(f"'{text}': this attack {looks} and takes no eps: leave it out")
        return None
    if given is None:
        return threat if norm == "linf" else ThreatModel(DEFAULT_EPS[norm], norm)
    if isinstance(given, str) and norm == "linf" and is_by_channel(given):
        return parse_budget(given)
    if isinstance(given, bool) or not isinstance(given, int | float) or not given > 0:
        raise BudgetError(f"'{text}': eps={given!r} must be a number above 0, such as 8/255")
    return ThreatModel(float(given), norm)


#: No parameter is larger: so many steps or questions would take days for each query.
_LARGEST = 1_000_000
_WORDS: dict[type, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


def _check_type(text: str, key: str, value: object, default: object) -> None:
    """Refuse a value that the parameter cannot hold, before a library meets it deep inside."""
    if default is None:
        fits, wanted = value is None or _is_number(value), "a number or none"
    elif isinstance(default, float):
        fits, wanted = _is_number(value), _WORDS[float]
    else:
        fits, wanted = type(value) is type(default), _WORDS.get(type(default), f"a {type(default).__name__}")
    if not fits:
        raise SpecError(f"'{text}': {key}={value!r} must be {wanted}")
    if isinstance(value, int | float) and not -_LARGEST <= value <= _LARGEST:
        raise SpecError(f"'{text}': {key}={value!r} must be a number of at most {_LARGEST:,}")
    if isinstance(value, str) and "\0" in value:
        raise SpecError(f"'{text}': {key}={value!r} must be a word, without a zero")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _foreign(text: str, eps: float) -> Attack:
    """An attack of the user's own: ``package.module:name(x=1)``, called with its parameters and eps."""
    path, _, call = text.partition(":")
    spec = parse_spec(call)
    try:
        make = load_object(f"{path.strip()}:{spec.name}")
    except (Exception, SystemExit) as error:  # Foreign code may raise anything.
        raise SpecError(
            f"'{text}': cannot import '{spec.name}' from '{path.strip()}' ({_said(error)}): write "
            "package.module:Name(x=1) with a package that Python finds"
        ) from None
    try:
        attack: Attack = make(**{"eps": eps, **spec.params})
    except (Exception, SystemExit) as error:
        raise SpecError(f"'{text}': {_said(error)}: it must take eps and the parameters given") from None
    try:
        for part in ("threat", "entry", "target_rows", "__call__"):
            if not hasattr(attack, part):
                raise SpecError(f"'{text}' is no attack, it has no '{part}': see robustdml.contracts.Attack")
        entry, threat = attack.entry(), attack.threat
    except SpecError:
        raise
    except (Exception, SystemExit) as error:
        raise SpecError(f"'{text}' does not say what it is ({_said(error)}): see robustdml.contracts.Attack") from None
    if not isinstance(entry, AttackEntry) or not isinstance(threat, ThreatModel):
        raise SpecError(f"entry() of '{text}' must return a robustdml.results.AttackEntry, and threat a ThreatModel")
    return attack


def _said(error: BaseException) -> str:
    text = " ".join(str(error).split())[:160]
    return text if isinstance(error, ImportError | TypeError) else f"{type(error).__name__}: {text}"


def spec_name(text: str) -> str:
    """The name in a spec, without its parameters.

    Raises:
        SpecError: the text is no spec.
    """
    module, colon, call = text.partition(":")
    if colon and "(" not in module:
        return f"{module}:{parse_spec(call).name}"
    return parse_spec(text).name
