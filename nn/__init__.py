"""Neural networks: training in plain NumPy, and the data sets to train on."""

from nn.datasets import load_digits_8x8, load_idx, load_mnist, one_hot
from nn.mlp import MLP

__all__ = ["MLP", "load_digits_8x8", "load_idx", "load_mnist", "one_hot"]
