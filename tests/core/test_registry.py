"""Specs and registries."""

import pytest

from robustdml.errors import SpecError, UnknownNameError
from robustdml.registry import Registry, Spec, parse_spec, split_specs


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("pgd", Spec("pgd")),
        ("  pgd ", Spec("pgd")),
        ("resnet-small", Spec("resnet-small")),
        ("my-data/2024", Spec("my-data/2024")),
        ("torchattacks.PGD", Spec("torchattacks.PGD")),
        ("pgd()", Spec("pgd")),
        ("pgd(goal=margin, steps=50)", Spec("pgd", {"goal": "margin", "steps": 50})),
        ("torchattacks.PGD(goal=stax)", Spec("torchattacks.PGD", {"goal": "stax"})),
        ("a(x=8/255)", Spec("a", {"x": 8 / 255})),
        ("a(x=-0.5, y=-3)", Spec("a", {"x": -0.5, "y": -3})),
        ("a(x=True, y=false, z=None, w=none)", Spec("a", {"x": True, "y": False, "z": None, "w": None})),
        ("a(x=nearest-negative, y=a-b-c)", Spec("a", {"x": "nearest-negative", "y": "a-b-c"})),
        ("a(x='two words', y=[1, 2])", Spec("a", {"x": "two words", "y": [1, 2]})),
    ],
)
def test_parse_spec_reads_names_and_parameters(text, spec):
    assert parse_spec(text) == spec


def test_parse_spec_keeps_the_types_of_values():
    params = parse_spec("a(i=2, f=2.0, b=true, s=word)").params
    assert [type(value) for value in params.values()] == [int, float, bool, str]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "pgd(",
        "pgd)",
        "pgd(steps=5",
        "pgd(5)",
        "pgd(**all)",
        "pgd(steps=1, steps=2)",
        "pgd(steps=5)(steps=6)",
        "steps=5",
        "(pgd)",
        "a, b",
        "a == b",
        "pgd steps=5",
    ],
)
def test_parse_spec_refuses_other_forms_and_shows_the_right_one(text):
    with pytest.raises(SpecError, match=r"write a name, or a name with parameters such as pgd\(goal=margin") as caught:
        parse_spec(text)
    assert f"cannot read '{text}'" in str(caught.value)


@pytest.mark.parametrize("value", ["1 / 0", "f(2)", "1 + x", "x / 2", "a.b", "2 * 3", "x - 1", "-x"])
def test_parse_spec_refuses_values_that_it_cannot_read(value):
    with pytest.raises(SpecError, match="cannot read the value") as caught:
        parse_spec(f"pgd(step={value})")
    assert f"'{value}' in 'pgd(step={value})'" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("s2sd(dims=512-1024)", "or quote it: '512-1024'"),
        ("s2sd(base=arcface(scale=32))", r"or quote it: 'arcface\(scale=32\)'"),
        ("a(x=raise)", "is a word of Python, needs quotes, as in"),
        ("a(x=two words)", "is no number and no word, .* needs quotes, as in"),
    ],
)
def test_a_value_that_needs_quotes_is_told_so(text, fix):
    with pytest.raises(SpecError, match=fix):
        parse_spec(text)
    key, _, value = text.partition("(")[2][:-1].partition("=")
    assert parse_spec(f"{text.partition('(')[0]}({key}='{value}')").params == {key: value}


@pytest.mark.parametrize(
    "value",
    [0, 5, -3, 0.5, 1 / 3, 8 / 255, 1e-9, -2.5e30, 123456789.125, True, False, None, "word", "two words", "a-b", "1.5"],
)
def test_a_written_value_reads_back_exactly(value):
    spec = Spec("pgd", {"x": value})
    assert parse_spec(str(spec)) == spec
    assert type(parse_spec(str(spec)).params["x"]) is type(value)


@pytest.mark.parametrize("value", ["true", "None", "FALSE", "lambda", "if", ""])
def test_a_word_that_means_something_else_keeps_its_quotes(value):
    spec = Spec("pgd", {"x": value})
    assert parse_spec(str(spec)) == spec


@pytest.mark.parametrize("text", ["pgd", "pgd(goal=margin, steps=50)", "a(x=0.5, y=1, z=none)", "a(x=2.0)"])
def test_writing_a_parsed_spec_is_stable(text):
    once = str(parse_spec(text))
    assert str(parse_spec(once)) == once


def test_a_spec_is_written_like_a_call():
    assert str(Spec("pgd", {"goal": "margin", "steps": 50, "step": 0.5, "start": 1.0})) == (
        "pgd(goal=margin, steps=50, step=0.5, start=1)"
    )
    assert str(Spec("pgd")) == "pgd"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        (" , ,", []),
        ("all", ["all"]),
        ("quick, pgd(goal=margin, steps=5) ,noise", ["quick", "pgd(goal=margin, steps=5)", "noise"]),
        ("a(x=(1, 2), y=3),b", ["a(x=(1, 2), y=3)", "b"]),
    ],
)
def test_split_specs_at_commas_outside_of_parentheses(text, parts):
    assert split_specs(text) == parts


@pytest.fixture
def registry():
    found = Registry("attack")
    for number, name in enumerate(["pgd", "noise", "torchattacks.PGD"]):
        found.add(name, number)
    return found


def test_registry_is_an_ordered_table(registry):
    assert registry["noise"] == 1
    assert "noise" in registry
    assert "none" not in registry
    assert len(registry) == 3
    assert list(registry) == ["pgd", "noise", "torchattacks.PGD"]
    assert dict(registry.items()) == {"pgd": 0, "noise": 1, "torchattacks.PGD": 2}
    assert registry.add("last", 7) == 7


@pytest.mark.parametrize(
    ("wrong", "nearest"), [("nose", "noise"), ("NOISE", "noise"), ("TorchAttacks.pgd", "torchattacks.PGD")]
)
def test_registry_names_the_nearest_entry(registry, wrong, nearest):
    with pytest.raises(UnknownNameError, match=f"unknown attack '{wrong}': did you mean '{nearest}'") as caught:
        registry[wrong]
    assert str(caught.value).endswith("known: noise, pgd, torchattacks.PGD")


def test_registry_suggests_nothing_where_nothing_is_near(registry):
    with pytest.raises(UnknownNameError, match=r"^unknown attack 'xyzzyx': known: noise, pgd, torchattacks\.PGD$"):
        registry["xyzzyx"]


def test_entries_that_are_slow_to_make_are_made_when_they_are_missed():
    made = []

    def later():
        made.append(True)
        yield "b", 2

    def fresh():
        made.clear()
        registry = Registry("backbone", later)
        registry.add("a", 1)
        return registry

    assert (fresh()["a"], "a" in fresh(), made) == (1, True, [])
    for use in (lambda r: r["b"] == 2, lambda r: "b" in r, lambda r: len(r) == 2, lambda r: list(r) == ["a", "b"]):
        registry = fresh()
        assert use(registry)
        assert use(registry)
        assert made == [True]
    assert dict(fresh().items()) == {"a": 1, "b": 2}
    with pytest.raises(UnknownNameError, match="unknown backbone 'c': known: a, b"):
        fresh()["c"]


def test_registry_refuses_a_name_twice_and_keeps_the_first(registry):
    with pytest.raises(SpecError, match="attack 'noise' is registered twice"):
        registry.add("noise", 9)
    assert registry["noise"] == 1


def test_of_many_names_only_the_nearest_are_listed():
    names = [f"attack-{number}" for number in range(100)]
    text = str(UnknownNameError("attack", "attak-7", names))
    assert text.startswith("unknown attack 'attak-7': did you mean 'attack-7")
    assert "nearest of 100 known: " in text
    assert text.count(",") == 7
