"""Neural networks: training in plain NumPy, and the data sets to train on."""

from nn import networks
from nn.datasets import load_digits_8x8, load_idx, load_mnist, one_hot
from nn.mlp import MLP
from nn.sequential import Sequential

__all__ = [
    "MLP",
    "Sequential",
    "load_digits_8x8",
    "load_idx",
    "load_mnist",
    "networks",
    "one_hot",
]
