"""The examples in the docstrings of ring."""

import doctest
import pkgutil
from importlib import import_module

import pytest

import ring

NAMES = ["ring", *(f"ring.{found.name}" for found in pkgutil.iter_modules(ring.__path__))]
# Rooms behind the public face, whose docstrings have no examples.
WITHOUT = {"ring", "ring.compile", "ring.errors", "ring.nibbles", "ring.threads", "ring.vectorised"}


@pytest.mark.parametrize("name", NAMES)
def test_examples(name):
    result = doctest.testmod(import_module(name))
    assert result.failed == 0
    assert result.attempted or name in WITHOUT


def test_public_names_exist_and_are_described():
    assert ring.__all__ == sorted(ring.__all__)
    for name in ring.__all__:
        assert getattr(ring, name).__doc__.strip()
