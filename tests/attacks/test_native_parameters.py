"""The parameters of the project's own attacks, which the registry holds as data, against the attacks themselves."""

from __future__ import annotations

from importlib import import_module

import pytest

from robustdml.attacks.factory import dataclass_defaults
from robustdml.attacks.native.factories import PARAMETERS


@pytest.mark.parametrize("path", PARAMETERS)
def test_they_are_the_defaults_of_the_class_in_its_order(path):
    module, _, name = path.rpartition(".")
    found = dataclass_defaults(getattr(import_module(f".{module}", "robustdml.attacks.native"), name))
    assert list(found.items()) == list(PARAMETERS[path].items())
