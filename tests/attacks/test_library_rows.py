"""The tables of the libraries' attacks, which are data, against the libraries themselves."""

from __future__ import annotations

import importlib
import inspect

import pytest
import torchattacks
from art.attacks import evasion

from robustdml.attacks import ATTACKS
from robustdml.attacks.libraries.art.rows import ROWS as ART
from robustdml.attacks.libraries.torchattacks import drivers
from robustdml.attacks.libraries.torchattacks.rows import ROWS as TORCHATTACKS
from robustdml.citations import BIBTEX

#: Arguments that the adapters set.
OURS = {"model", "estimator", "classifier", "norm", "n_classes", "seed", "targeted", "batch_size", "verbose"}
OURS |= {"summary_writer"}
#: Parameters of our own.
OWN = {"hardest", "target_classes", "attacker_steps", "scale", "queries"}
#: How hard an attack tries: chosen by us, whatever the library's default is.
EFFORT = {"steps", "nb_iter", "num_iter_set", "n_queries", "max_iter", "num_random_init", "nb_random_init"}
EFFORT |= {"binary_search_steps", "nb_steps", "query_limit", "num_trial", "num_translations", "num_rotations"}
EFFORT |= {"conjugate_sinkhorn_max_iter", "projected_sinkhorn_max_iter", "samples"}
#: Every other default that is not the library's; the rows say why.
CHANGED = {
    "torchattacks.JSMA": {"gamma"},
    "torchattacks.PGDRS": {"noise_sd"},
    "torchattacks.PGDRSL2": {"noise_sd"},
    "art.AdversarialPatchNumpy": {"scale_min", "scale_max"},
    "art.AdversarialPatchPyTorch": {"scale_min", "scale_max", "learning_rate"},
    "art.AutoConjugateGradient": {"loss_type"},
    "art.AutoProjectedGradientDescent": {"loss_type"},
    "art.BoundaryAttack": {"delta", "epsilon"},
    "art.CarliniL0Method": {"initial_const"},
    "art.CarliniL2Method": {"initial_const"},
    "art.CarliniLInfMethod": {"initial_const", "learning_rate"},
    "art.ElasticNet": {"initial_const", "decision_rule"},
    "art.FeatureAdversariesPyTorch": {"random_start"},
    "art.RescalingAutoConjugateGradient": {"loss_type"},
    "art.SaliencyMapMethod": {"theta", "gamma"},
    "art.ShadowAttack": {"sigma"},
    "art.SimBA": {"step"},
    "art.SpatialTransformation": {"max_translation", "max_rotation"},
    "art.VirtualAdversarialMethod": {"finite_diff"},
    "art.Wasserstein": {"radius"},
    "art.ZooAttack": {"learning_rate", "initial_const", "use_resize", "use_importance", "variable_h"},
}
ROWS = {
    **{f"torchattacks.{kind}": row for kind, row in TORCHATTACKS.items()},
    **{f"art.{kind}": row for kind, row in ART.items() if f"art.{kind}" in ATTACKS},
}
EVERY_ROW = pytest.mark.parametrize("name", ROWS)


def signature(name):
    library, _, kind = name.partition(".")
    made = getattr(ROWS[name], "make", None)
    home = evasion if library == "art" else torchattacks
    return inspect.signature(getattr(drivers, made) if made else getattr(home, kind)).parameters


def arguments_of(row):
    """The library's arguments that spec parameters stand for, by the parameter."""
    renamed = getattr(row, "renamed", {})
    own = {*getattr(row, "own", ()), "hardest", "target_classes"} | ({"step"} if row.step_name else set())
    return {name: renamed.get(name, name) for name in row.params if name not in own}


@EVERY_ROW
def test_a_row_says_of_every_argument_what_becomes_of_it(name):
    row = ROWS[name]
    known = set(arguments_of(row).values()) | set(row.hidden) | set(getattr(row, "fixed", ())) | OURS
    known |= {row.step_name} | ({row.eps_name} if row.budget == "fixed" else set())
    assert set(signature(name)) <= known
    assert set(arguments_of(row).values()) | set(row.hidden) <= set(signature(name))
    assert set(row.params) - set(arguments_of(row)) <= OWN | {"step"} | EFFORT


@EVERY_ROW
def test_a_default_is_the_librarys_or_named_here_as_changed(name):
    row, there = ROWS[name], signature(name)
    differ = {p for p, argument in arguments_of(row).items() if there[argument].default != row.params[p]}
    assert differ - EFFORT == CHANGED.get(name, set())


@EVERY_ROW
def test_presets_and_goals_fit(name):
    row = ROWS[name]
    assert {key for preset in row.effort.values() for key in preset} <= set(row.defaults)
    assert row.citation in BIBTEX
    assert (row.rivals is None) == (not {"stax", "mtax"} & set(row.goals))
    assert (row.step_name is None) or "step" in row.params


@pytest.mark.parametrize("row", ART.values(), ids=list(ART))
def test_what_runs_an_attack_of_art_is_there(row):
    module, _, name = row.call.partition(".")
    assert callable(getattr(importlib.import_module(f"robustdml.attacks.libraries.art.{module}"), name))


@pytest.mark.parametrize("row", TORCHATTACKS.values(), ids=list(TORCHATTACKS))
def test_what_runs_an_attack_of_torchattacks_is_there(row):
    assert callable(getattr(drivers, row.run))
