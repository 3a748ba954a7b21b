"""Neural networks: training in plain NumPy, the data sets to train on, and models of others."""

from nn.comparison import compare
from nn.datasets import load_digits_8x8, load_idx, load_mnist, one_hot
from nn.mlp import MLP

__all__ = ["MLP", "compare", "load_digits_8x8", "load_idx", "load_mnist", "one_hot"]
