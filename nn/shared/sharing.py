"""Sharing the layers of a plain model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mpc import Session
from nn.fixed_point.audit import check_fits
from nn.fixed_point.calibration import Bounds
from nn.fixed_point.inputs import InputScale
from nn.layers import Layer
from nn.layers.graph import rewired
from nn.layers.normalisation import folded

__all__ = ["share_layers"]


def share_layers(
    session: Session,
    layers: Sequence[Layer],
    owner: str,
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    inputs: InputScale | None = None,
    bounds: Bounds | None = None,
) -> Sequence[Layer]:
    """Check that no layer can leave the fixed-point range, then share every parameter.

    Batch normalisation is folded into the layer before it; dropout is left out.

    Parameters
    ----------
    session : Session
    layers : sequence of Layer
        Of the plain model; with `inputs`, its scale is folded into the first one already.
    owner : str
        The party that has the parameters.
    low, high : float64 array of shape (features,)
        Range of the rows as they are shared, so scaled if `inputs` is given.
    inputs : InputScale, optional
        The scale of the rows.
    bounds : Bounds, optional
        Limits that every evaluation checks on shares, in place of interval bounds.

    Returns
    -------
    sequence of Layer
        With shared arrays for parameters.

    Raises
    ------
    RangeError
        If a parameter is outside the format's range, or a layer's output can be for inputs in
        [low, high]; the message names the layer and a format that would hold it. Nothing is
        shared then.
    """
    session.number(owner, "owner")
    layers = folded(layers)
    check_fits(layers, low, high, session.format, inputs, bounds)
    shared = [
        layer.with_parameters(
            [
                session.share(p, owner, name=f"a parameter of layer {number}, {layer!r}")
                for p in layer.on_grid(session.format.frac_bits)
            ]
        )
        for number, layer in enumerate(layers, start=1)
    ]
    return rewired(layers, shared)
