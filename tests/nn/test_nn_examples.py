"""The examples in the docstrings of nn."""

import doctest
import pkgutil
from importlib import import_module

import pytest

import nn

NAMES = ["nn", *(found.name for found in pkgutil.walk_packages(nn.__path__, "nn."))]
WITH_EXAMPLES = {"nn.metrics", "nn.mlp", "nn.networks", "nn.trainable"}


@pytest.mark.parametrize("name", NAMES)
def test_examples(name):
    result = doctest.testmod(import_module(name))
    assert result.failed == 0
    assert result.attempted or name not in WITH_EXAMPLES


def test_public_names_exist_and_are_described():
    for name in nn.__all__:
        assert getattr(nn, name).__doc__.strip()
