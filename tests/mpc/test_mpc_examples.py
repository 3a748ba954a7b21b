"""The examples in the docstrings of mpc."""

import doctest
import pkgutil
from importlib import import_module

import pytest

import mpc

NAMES = ["mpc", *(found.name for found in pkgutil.walk_packages(mpc.__path__, "mpc."))]
WITH_EXAMPLES = {"mpc.session", "mpc.shared_array", "mpc.split"}


@pytest.mark.parametrize("name", NAMES)
def test_examples(name):
    result = doctest.testmod(import_module(name))
    assert result.failed == 0
    assert result.attempted or name not in WITH_EXAMPLES


def test_public_names_exist_and_are_described():
    assert mpc.__all__ == sorted(mpc.__all__)
    for name in mpc.__all__:
        assert getattr(mpc, name).__doc__.strip()
