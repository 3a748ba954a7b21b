"""Training without a provider: as in the clear, whichever layers, losses and optimizers."""

import numpy as np
import pytest

import mpc
import nn

RANDOM = np.random.default_rng(4)
IMAGES = np.round(RANDOM.random((24, 8, 8, 1)), 3)
LABELS = np.arange(24) % 3


@pytest.fixture(scope="module")
def alone():
    with mpc.Session(provider=None) as s:
        yield s


def dense(loss=None):
    layers = [nn.layers.Dense(64, 6, random_state=1), nn.layers.ReLU()]
    layers.append(nn.layers.Dense(6, 3, random_state=2))
    return nn.Sequential(layers, **({} if loss is None else {"loss": loss}))
