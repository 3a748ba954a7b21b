"""The examples in the docstrings."""

import doctest
import pkgutil
from importlib import import_module

import pytest

import mpc
import nn
import ring

PACKAGES = (ring, mpc, nn)
NAMES = [
    name
    for package in PACKAGES
    for name in (
        package.__name__,
        *(found.name for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")),
    )
]
# Where a reader looks for one.
WITH_EXAMPLES = {
    "mpc.session", "mpc.array.shared_array", "mpc.split",
    "nn.core.labels", "nn.data.datasets", "nn.layers", "nn.metrics", "nn.models.mlp",
    "nn.models.sequential", "nn.models.trainable",
    "nn.networks.images", "nn.networks.papers", "nn.networks.transformers",
    "ring.bits", "ring.fixed_point", "ring.matmul", "ring.streams",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_examples(name):
    result = doctest.testmod(import_module(name))
    assert result.failed == 0
    assert result.attempted or name not in WITH_EXAMPLES


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_public_names_exist_and_are_described(package):
    for name in package.__all__:
        assert getattr(package, name).__doc__.strip()


@pytest.mark.parametrize("module", [nn, nn.layers, nn.losses, nn.networks, nn.plots, nn.metrics])
def test_public_functions_and_classes_have_an_example_and_say_what_they_raise(module):
    raises_nothing = {"ReLU", "Sigmoid", "Tanh", "Flatten", "A", "B", "C", "D", "NamedElsewhere"}
    raises_nothing |= {
        "Abs",
        "Cos",
        "Erf",
        "Exp",
        "HardSigmoid",
        "HardSwish",
        "Log",
        "Mish",
        "Reciprocal",
        "Sin",
    }
    raises_nothing |= {"SELU", "SiLU", "Softplus", "Sqrt", "PReLU", "Shift"}
    raises_nothing |= {"Add", "MatMul", "Maximum", "Mean", "Minimum", "Multiply", "Subtract"}
    raises_nothing |= {"MobileNetV2", "ResNet18", "ResNet20", "TransformerEncoder"}
    # An interface, whose methods say what they raise.
    raises_nothing |= {"Layer"}
    found = [getattr(module, name) for name in module.__all__ if callable(getattr(module, name))]
    assert found
    for each in found:
        assert ">>> " in each.__doc__, each
        assert "Raises\n" in each.__doc__ or each.__name__ in raises_nothing, each


def test_all_have_been_found():
    assert set(NAMES) >= WITH_EXAMPLES
