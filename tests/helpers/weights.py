"""Weights for graphs, drawn from one generator, which begins anew with each file of tests."""

import numpy as np

random = np.random.default_rng(0)


def begin_anew():
    """Draw again what was drawn first: a file's weights do not depend on what has run before it."""
    random.bit_generator.state = np.random.default_rng(0).bit_generator.state


def normal(*shape):
    return (random.normal(size=shape) / 2).astype(np.float32)
