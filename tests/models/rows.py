"""Rows of the inputs of tests/models, the same wherever they are made."""

import numpy as np

ROWS = 256


def made_rows(shapes, rows=ROWS):
    """Return float32 rows of each shape: noise, smoothed along the last axis, about -2 to 2.

    Integers of a generator are the same in every version of NumPy.
    """
    found = []
    for seed, shape in enumerate(shapes):
        whole = np.random.Generator(np.random.PCG64(seed)).integers(-4096, 4097, (rows, *shape, 2))
        found.append((whole.sum(-1) / 4096).astype(np.float32))
    return found
