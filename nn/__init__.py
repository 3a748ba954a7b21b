"""Neural networks: training in plain NumPy, evaluation on shares, and data sets to train on."""

from nn import networks
from nn.client import Client
from nn.datasets import load_digits_8x8, load_idx, load_mnist, one_hot
from nn.mlp import MLP
from nn.saved_shares import load_shares, save_shares
from nn.sequential import Sequential

__all__ = [
    "MLP",
    "Client",
    "Sequential",
    "load_digits_8x8",
    "load_idx",
    "load_mnist",
    "load_shares",
    "networks",
    "one_hot",
    "save_shares",
]
