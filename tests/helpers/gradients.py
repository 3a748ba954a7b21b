"""Gradients by finite differences."""

import numpy as np


def finite_differences(function, array, step=1e-6):
    """Return the gradient of a scalar function of `array`, which is changed and restored."""
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):
        before = array[index]
        array[index] = before + step
        above = function()
        array[index] = before - step
        gradient[index] = (above - function()) / (2 * step)
        array[index] = before
    return gradient
