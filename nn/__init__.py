"""Neural networks: training in plain NumPy, the data sets to train on, and models of others."""

from nn.comparison import compare
from nn.datasets import load_digits_8x8, load_idx, load_mnist, one_hot
from nn.files import load
from nn.mlp import MLP
from nn.sklearn_import import from_sklearn

__all__ = [
    "MLP",
    "compare",
    "from_sklearn",
    "load",
    "load_digits_8x8",
    "load_idx",
    "load_mnist",
    "one_hot",
]
