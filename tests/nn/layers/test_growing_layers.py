"""Layers without parameters whose outputs grow: training on shares looks at them."""

import numpy as np
import pytest

import mpc
import nn
from nn.layers import LAYERS, Dense, Layer
from nn.shared.range import RangeWatch
from ring.errors import RangeError


class Amplified(Layer):
    """So many times its input; what `may_grow` says unless a layer says otherwise."""

    def __call__(self, x):
        return x * 2.0**16

    forward = __call__

    def backward(self, gradient, *, input_gradient=True):
        return gradient * 2.0**-16

    def bounds(self, low, high):
        return np.asarray(low) * 2**16, np.asarray(high) * 2**16

    def output_shape(self, input_shape):
        return input_shape


def fit(session):
    layers = [Dense.untrained(2, 3), Amplified(), Dense.untrained(3, 2)]
    rows = session.share(np.ones((4, 2)), owner="alice")
    targets = session.share(np.eye(2)[[0, 1, 0, 1]], owner="bob")
    return nn.Sequential(layers, 2, random_state=0).fit(rows, targets, epochs=1)


@pytest.fixture(autouse=True)
def amplified_is_known(monkeypatch):
    monkeypatch.setitem(LAYERS, "Amplified", Amplified)


def test_where_all_parties_live_the_layer_is_named():
    with (
        mpc.Session() as s,
        pytest.raises(
            RangeError, match=r"the output of layer 2, Amplified\(\) must stay below 32768"
        ),
    ):
        fit(s)


def test_its_output_is_watched_on_shares(monkeypatch):
    watched = []
    add_sums = RangeWatch.add_sums
    monkeypatch.setattr(
        RangeWatch,
        "add_sums",
        lambda self, x, *more: (watched.append(x.shape), add_sums(self, x, *more)),
    )
    monkeypatch.setattr(RangeWatch, "_below", staticmethod(lambda *ignored: None))
    for grows, found in ((True, 3), (False, 2)):
        watched.clear()
        monkeypatch.setattr(Amplified, "may_grow", grows)
        with mpc.Session() as s:
            fit(s)
        # Rows of activations; the gradients that are watched too are vectors.
        assert len([shape for shape in watched if len(shape) == 2]) == found
