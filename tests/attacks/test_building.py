"""From specs to attacks and back."""

import itertools

import numpy as np
import pytest

from robustdml.attacks import (
    ATTACKS,
    GOALS,
    MTAX,
    PGD,
    STAX,
    SUITES,
    Margin,
    Noise,
    Shift,
    build_attack,
    build_suite,
)
from robustdml.citations import BIBTEX
from robustdml.errors import BudgetError, SpecError, UnknownNameError
from robustdml.registry import Spec, parse_spec

EPS = 8 / 255
PAIRS = [(name, goal) for name, factory in ATTACKS.items() for goal in factory.goals or (None,)]


def spec_of(name, goal):
    if name == "transfer":
        return "transfer(surrogate='squares:SmallNet')"
    return f"{name}(goal={goal})" if goal else name


@pytest.mark.parametrize(
    ("spec", "attack"),
    [
        ("noise", Noise(EPS)),
        ("noise(trials=3)", Noise(EPS, trials=3)),
        ("pgd", PGD(Margin(), EPS)),
        ("margin", PGD(Margin(), EPS)),
        ("pgd(goal=mtax, targets=2, steps=7)", PGD(MTAX(2), EPS, steps=7)),
        ("stax(step=1/4, restarts=3, best=false)", PGD(STAX(), EPS, step=0.25, restarts=3, best=False)),
        ("shift(step=none)", PGD(Shift(), EPS)),
        ("fgsm", PGD(Shift(), EPS, steps=1, step=1.0, start=0.1)),
        ("fgsm(goal=margin, start=0)", PGD(Margin(), EPS, steps=1, step=1.0, start=0)),
    ],
)
def test_a_spec_builds_its_attack(spec, attack):
    assert build_attack(spec, EPS) == attack
    assert build_attack(spec, EPS).threat.eps == EPS


@pytest.mark.parametrize(("name", "goal"), PAIRS)
def test_every_attack_and_goal_builds_and_its_entry_builds_it_again(name, goal):
    factory, attack = ATTACKS[name], build_attack(spec_of(name, goal), EPS)
    entry = attack.entry()
    assert build_attack(entry.spec, EPS) == attack
    assert build_attack(entry.spec, EPS).entry() == entry
    assert goal in (entry.goal, None)
    assert (entry.library, entry.knowledge, entry.budget) == (factory.library, factory.knowledge, factory.budget)
    assert entry.norm == attack.threat.norm == factory.norms[0]
    assert (attack.threat.eps is None) == (factory.budget != "fixed")
    assert entry.citations
    assert set(entry.citations) <= set(BIBTEX)
    if goal != "unadversarial":
        assert ("singh2023mdprop" in entry.citations) == (goal in ("stax", "mtax"))
    assert "eps" not in parse_spec(entry.spec).params


def other_value(factory, key, value):
    """Another value that the parameter may have; None where that takes knowledge of it."""
    if key == "norm":
        return next((norm for norm in factory.norms if norm != value), None)
    if key == "version":
        return None
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 2
    return value / 2 if isinstance(value, float) and value else None


@pytest.mark.parametrize(("name", "goal"), [pair for pair in PAIRS if ATTACKS[pair[0]].library == "robustdml"])
def test_every_parameter_survives_the_way_through_the_entry(name, goal):
    factory, spec = ATTACKS[name], parse_spec(spec_of(name, goal))
    attack = build_attack(str(spec), EPS)
    for key, value in factory.parameters(goal).items():
        other = other_value(factory, key, value)
        if key == "predict" and goal != "item_margin":
            continue  # it chooses among items
        if key != "goal" and other is not None:
            changed = build_attack(str(Spec(spec.name, {**spec.params, key: other})), EPS)
            assert changed != attack, key
            assert changed.entry().spec != attack.entry().spec, key
            assert build_attack(changed.entry().spec, EPS) == changed, key


@pytest.mark.parametrize(
    ("spec", "goal"),
    [
        ("mtax(targets=3, choose=nearest)", MTAX(3, "nearest")),
        ("mtax(choose=given, items=(4, 7))", MTAX(choose="given", items=(4, 7))),
        ("stax(choose=hardest)", STAX("hardest")),
        ("stax(choose=given, item=4)", STAX("given", 4)),
    ],
)
def test_targets_are_chosen_in_the_spec(spec, goal):
    attack = build_attack(spec, EPS)
    assert attack == PGD(goal, EPS)
    assert build_attack(attack.entry().spec, EPS) == attack


@pytest.mark.parametrize(("name", "goal"), PAIRS)
def test_equal_attacks_have_equal_hashes(name, goal):
    one, other = build_attack(spec_of(name, goal), EPS), build_attack(spec_of(name, goal), EPS)
    assert one is not other
    assert {one, other} == {one}
    # A budget is part of an attack where it takes one from outside.
    takes = ATTACKS[name].budget == "fixed" and ATTACKS[name].norms[0] == "linf"
    assert (build_attack(spec_of(name, goal), EPS / 2) != one) == takes


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("pgdd", "unknown attack 'pgdd': did you mean 'pgd'? nearest of "),
        ("torchattack.pgd", "unknown attack 'torchattack.pgd': did you mean 'torchattacks.PGD'? nearest of "),
        ("zzz(steps=5)", "unknown attack 'zzz': nearest of "),
        (
            "pgd(goal=margn)",
            "unknown goal for pgd 'margn': did you mean 'margin'? known: margin, mtax, nearest_negative, ",
        ),
        ("pgd(goal=untargeted)", "unknown goal for pgd 'untargeted': "),
        ("pgd(goal=5)", "unknown goal for pgd '5': "),
        ("stax(goal=margin)", "unknown goal for stax 'margin': known: stax"),
        ("torchattacks.PGD(goal=margin)", "unknown goal for torchattacks.PGD 'margin': "),
    ],
)
def test_an_unknown_attack_or_goal_names_the_known_ones(spec, sentence):
    with pytest.raises(UnknownNameError) as caught:
        build_attack(spec, EPS)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("noise(steps=5)", "'noise(steps=5)': noise has no parameter 'steps', it has: trials"),
        ("noise(goal=margin)", "'noise(goal=margin)': noise has no parameter 'goal', it has: trials"),
        (
            "pgd(setps=5)",
            "'pgd(setps=5)': pgd has no parameter 'setps', it has: goal, steps, step, start, restarts, best, norm, "
            "momentum, samples",
        ),
        (
            "mtax(target=5)",
            "'mtax(target=5)': mtax has no parameter 'target', it has: "
            "goal, steps, step, start, restarts, best, norm, momentum, samples, targets, choose, items",
        ),
        (
            "stax(targets=5)",
            "'stax(targets=5)': stax has no parameter 'targets', it has: goal, steps, step, start, restarts, best, "
            "norm, momentum, samples, choose, item",
        ),
        (
            "torchattacks.PGD(restarts=2)",
            "'torchattacks.PGD(restarts=2)': torchattacks.PGD has no parameter 'restarts'"
            ", it has: goal, steps, random_start, step",
        ),
        ("pgd(steps=many)", "'pgd(steps=many)': steps='many' must be a whole number"),
        ("pgd(steps=2.5)", "'pgd(steps=2.5)': steps=2.5 must be a whole number"),
        ("pgd(steps=true)", "'pgd(steps=true)': steps=True must be a whole number"),
        ("pgd(steps=none)", "'pgd(steps=none)': steps=None must be a whole number"),
        ("pgd(steps='5')", "'pgd(steps='5')': steps='5' must be a whole number"),
        ("pgd(start=none)", "'pgd(start=none)': start=None must be a number"),
        ("pgd(start=false)", "'pgd(start=false)': start=False must be a number"),
        ("pgd(step=big)", "'pgd(step=big)': step='big' must be a number or none"),
        ("pgd(step=true)", "'pgd(step=true)': step=True must be a number or none"),
        ("pgd(best=1)", "'pgd(best=1)': best=1 must be true or false"),
        ("mtax(targets=2.0)", "'mtax(targets=2.0)': targets=2.0 must be a whole number"),
        (
            "art.ProjectedGradientDescent(max_iter=x)",
            "'art.ProjectedGradientDescent(max_iter=x)': max_iter='x' must be a whole number",
        ),
        ("pgd(steps=0)", "steps=0 and restarts=1 must both be at least 1"),
        ("pgd(restarts=0)", "steps=20 and restarts=0 must both be at least 1"),
        ("pgd(start=1.5)", "start=1.5 must be in [0, 1] and step=None above 0: both are shares of eps"),
        ("pgd(start=-0.1)", "start=-0.1 must be in [0, 1]"),
        ("pgd(step=0)", "start=1.0 must be in [0, 1] and step=0 above 0"),
        ("shift(start=0)", "goal 'shift' has no gradient at the clean image: choose start above 0"),
        ("mtax(targets=0)", "targets=0: an attack needs at least one target"),
        ("noise(trials=0)", "trials=0 must be at least 1"),
        ("torchattacks.PGD(steps=0)", "torchattacks.PGD: steps=0 must be above 0"),
        ("art.ProjectedGradientDescent(max_iter=0)", "art.ProjectedGradientDescent: max_iter=0 must be above 0"),
        (
            "art.ProjectedGradientDescent(num_random_init=-1)",
            "art.ProjectedGradientDescent: num_random_init=-1 must not be below 0",
        ),
        ("art.ProjectedGradientDescent(step=-1)", "art.ProjectedGradientDescent: step=-1 must be above 0"),
        ("pgd(", "cannot read 'pgd(': write a name"),
        ("pgd(20)", "cannot read 'pgd(20)': write a name"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_sentence(spec, sentence):
    with pytest.raises(SpecError) as caught:
        build_attack(spec, EPS)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["noise", "pgd", "torchattacks.PGD", "art.ProjectedGradientDescent"])
def test_a_budget_outside_of_the_range_is_refused(spec):
    for eps in (-0.1, 8, float("nan")):
        with pytest.raises(BudgetError, match=r"outside \[0, 1\]"):
            build_attack(spec, eps)
    assert build_attack(spec, 0).threat.eps == 0


def test_a_budget_in_the_spec_goes_before_the_one_outside():
    assert build_attack("margin(eps=4/255)", EPS) == build_attack("margin", 4 / 255)
    assert build_suite("noise(eps=0.5),margin", "2/255,8/255") == [
        Noise(0.5),
        PGD(Margin(), 2 / 255),
        PGD(Margin(), 8 / 255),
    ]
    with pytest.raises(BudgetError, match="eps='big' must be a number above 0"):
        build_attack("margin(eps=big)", EPS)
    with pytest.raises(BudgetError, match=r"outside \[0, 1\]"):
        build_attack("margin(eps=8)", EPS)


@pytest.mark.parametrize("effort", ["quick", "standard", "thorough"])
def test_the_standard_suite_is_the_cascade_in_its_version(effort):
    (cascade,) = build_suite("standard", EPS, effort)
    assert cascade.entry().name == f"{effort}.v1"
    assert cascade.entry().spec == f"cascade(strength={effort}, norm=linf, version=1)"
    with pytest.raises(SpecError, match="version=2 of the cascade is not known: this robustdml has 1"):
        build_attack("cascade(version=2)", EPS)


def test_all_has_the_published_attacks_of_every_library_and_goal():
    entries = [attack.entry() for attack in build_suite("all", EPS)]
    assert len({entry.spec for entry in entries}) == len(entries)
    assert {(entry.library, entry.goal) for entry in entries} > {
        *itertools.product(["robustdml"], ["margin", "shift", "stax", "mtax", "nearest_negative"]),
        *itertools.product(["torchattacks", "art"], ["untargeted", "stax", "mtax"]),
    }


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_is_its_specs_in_order(suite):
    assert build_suite(suite, EPS) == [build_attack(spec, EPS) for spec in SUITES[suite]]


def test_the_quick_suite_is_a_part_of_all():
    assert build_suite("all,quick", EPS) == build_suite("all", EPS)
    assert build_suite("quick, all", EPS)[: len(SUITES["quick"])] == build_suite("quick", EPS)
    assert len(build_suite("quick, all", EPS)) == len(SUITES["all"])


@pytest.mark.parametrize("names", ["margin", "margin,margin", "pgd, pgd(goal=margin), margin(steps=20, start=1)"])
def test_repeats_count_once(names):
    assert build_suite(names, EPS) == [PGD(Margin(), EPS)]


def test_every_attack_runs_at_every_budget():
    attacks = build_suite("noise,stax(steps=3)", "8/255, 2/255")
    assert attacks == [
        Noise(2 / 255),
        Noise(8 / 255),
        PGD(STAX(), 2 / 255, steps=3),
        PGD(STAX(), 8 / 255, steps=3),
    ]


@pytest.mark.parametrize(
    ("eps", "budgets"),
    [
        ("8/255", [8 / 255]),
        ("0.5,8/255,0.5", [8 / 255, 0.5]),
        (8 / 255, [8 / 255]),
        (1, [1.0]),
        ([0.5, 8 / 255, 0.5], [8 / 255, 0.5]),
        ((0.1,), [0.1]),
        pytest.param((value for value in (0.2, 0.1)), [0.1, 0.2], id="a generator"),
        (np.float64(8 / 255), [8 / 255]),
        (np.array([0.5, 0.25]), [0.25, 0.5]),
        (1 / 3, [1 / 3]),
    ],
    ids=repr,
)
def test_budgets_in_every_form(eps, budgets):
    assert [attack.threat.eps for attack in build_suite("noise", eps)] == budgets


@pytest.mark.parametrize("eps", ["0", "8", "abc", "", 0, 0.0, 8, -0.1, [], [0.1, 0], float("nan")])
def test_budgets_that_cannot_be(eps):
    with pytest.raises(BudgetError):
        build_suite("noise", eps)


@pytest.mark.parametrize("names", ["", " , "])
def test_an_empty_list_is_refused(names):
    with pytest.raises(SpecError, match="no attack given: write a suite or names, such as --attacks all"):
        build_suite(names, EPS)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ("quik", "unknown attack or suite 'quik': did you mean 'quick'? nearest of "),
        ("noise,margn(steps=5)", "unknown attack or suite 'margn': did you mean 'margin'? nearest of "),
        ("all(steps=5)", "unknown attack or suite 'all'"),
    ],
)
def test_an_unknown_attack_or_suite_suggests_either(names, sentence):
    with pytest.raises(UnknownNameError) as caught:
        build_suite(names, EPS)
    assert str(caught.value).startswith(sentence)
    assert len(str(caught.value)) < 300


def test_all_runs_every_attack_of_the_registry():
    run = {parse_spec(spec).name for spec in SUITES["all"]}
    by_name = {name for name, factory in ATTACKS.items() if factory.by_name_only}
    assert run == set(ATTACKS) - {"pgd"} - by_name  # pgd: its goals stand for it
    assert "unadversarial" in by_name


def test_patterns_and_what_is_left_out():
    assert build_suite("[pn]*,!noise,!nes,!patch*", EPS) == build_suite("pgd", EPS)
    assert build_suite("quick,!fgsm,!mt*", EPS) == build_suite("noise,shift,margin", EPS)
    with pytest.raises(SpecError, match=r"the pattern 'foolbox.\*' fits no attack"):
        build_suite("foolbox.*", EPS)
    with pytest.raises(SpecError, match="'!mtax' leaves nothing out"):
        build_suite("noise,!mtax", EPS)
    with pytest.raises(SpecError, match="no attack given"):
        build_suite("noise,!noise", EPS)


def test_effort_changes_what_the_spec_leaves_open():
    assert build_attack("margin", EPS, "quick") == PGD(Margin(), EPS, steps=10)
    assert build_attack("margin", EPS, "thorough") == PGD(Margin(), EPS, steps=100, restarts=3)
    assert build_attack("margin(steps=7)", EPS, "thorough") == PGD(Margin(), EPS, steps=7, restarts=3)
    with pytest.raises(UnknownNameError, match="unknown effort 'thorugh': did you mean 'thorough'"):
        build_attack("margin", EPS, "thorugh")


def test_an_attack_of_ones_own_is_imported():
    built = build_attack("squares:FakeAttack(change=7, name=mine)", EPS)
    assert (built.change, built.name, built.threat.eps) == (7, "mine", EPS)
    for spec, sentence in {
        "no_such_module:Attack": "cannot import 'Attack' from 'no_such_module'",
        "squares:Absent": "cannot import 'Absent' from 'squares'",
        "squares:FakeAttack(color=7)": "unexpected keyword argument 'color'",
        "collections:OrderedDict": "is no attack, it has no 'threat': see robustdml.contracts.Attack",
        "squares:NamelessAttack": r"entry\(\) of 'squares:NamelessAttack' must return a robustdml.results.AttackEntry",
    }.items():
        with pytest.raises(SpecError, match=sentence):
            build_attack(spec, EPS)


def test_a_goal_may_be_written_with_hyphens():
    assert build_attack("pgd(goal=nearest-negative, steps=5)", 0.1) == build_attack(
        "pgd(goal=nearest_negative, steps=5)", 0.1
    )
    with pytest.raises(UnknownNameError, match="did you mean 'nearest_negative'"):
        build_attack("pgd(goal=nearest-negativ)", 0.1)


@pytest.mark.parametrize("name", ["art.GeoDA", "torchattacks.LGV(epochs=1)"])
def test_an_attack_that_is_not_offered_says_why(name):
    with pytest.raises(SpecError, match=r"is not offered \(.+\): see 'robustdml list attacks'"):
        build_suite(name, EPS)


@pytest.mark.parametrize("name", GOALS)
def test_a_goal_says_everything_of_itself(name):
    goal = GOALS[name]()
    assert goal.name == name
    assert goal.title
    assert goal.meaning.endswith(".")
    assert {goal.citation} - {""} <= set(BIBTEX)
    goals = {word for factory in dict(ATTACKS.items()).values() for word in factory.goals}
    assert name in goals


def test_no_attack_has_a_goal_that_is_unknown():
    assert {word for factory in dict(ATTACKS.items()).values() for word in factory.goals} == set(GOALS)
