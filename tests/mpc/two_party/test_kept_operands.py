"""Operands that stay encrypted: what is taken for the same one is the same one."""

import numpy as np

import mpc


def test_long_indices_that_look_alike_are_told_apart():
    rng = np.random.default_rng(0)
    weights = np.round(rng.normal(size=(3000, 2)) * 256) / 256
    row = np.round(rng.normal(size=(1, 1500)) * 256) / 256
    first = np.arange(1500)
    first[700] = 2500
    second = np.arange(1500)
    second[800] = 2600
    # NumPy shows both by the same few numbers at their ends.
    assert str(first) == str(second)
    with mpc.Session(provider=None) as s:
        w, x = s.share(weights, owner="bob"), s.share(row, owner="alice")
        for index in (first, second, first):
            assert np.abs((x @ w[index]).reveal() - row @ weights[index]).max() < 2**-15
