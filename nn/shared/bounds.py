"""The input range of a model that was trained on shares: interval bounds, computed on shares.

No party knows the weights, so no party can compute bounds of the layers' outputs in the clear. They
are computed on shares, for 16 input ranges [-r, r], where each r is half of the one before:
1. Of a layer with weights W and bias b, take the positive part of W, the positive part of -W, and
   |b|, rounded up to at most 12 fractional bits; m, the bounds of the layer's inputs, rounded up to
   at most 6. Both have fewer bits where products would wrap around otherwise.
2. Bounds of the outputs: m |W| + |b| if inputs can have both signs; m times the positive part, and m
   times the negative part, each plus |b|, if inputs come from a ReLU. Every bound is compared with the
   format's limit, every weight with 2^15, on all 64 bits of the word. ReLU and pooling keep a bound;
   sigmoid and tanh have the bound 1.
3. Open one number: for how many of the 16 ranges every layer stays below the limit.
Cost: about 25 rounds a layer, once a training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mpc import Session, SharedArray
from mpc.protocols import linear, truncation
from nn.fixed_point.audit import MARGIN
from nn.layers import Layer
from nn.layers.graph import inputs_of, run
from nn.shared.range import anywhere

__all__ = ["largest_inputs"]

_RANGES = 16
# Integer bits of weights, at most; fractional bits of weights and of input bounds, at most.
_WEIGHT_INT_BITS = 15
_WEIGHT_BITS, _INPUT_BITS = 12, 6


def largest_inputs(session: Session, layers: Sequence[Layer], features: int, most: float) -> float:
    """Return a bound r such that no layer leaves the fixed-point range for inputs in [-r, r].

    Parameters
    ----------
    session : Session
    layers : sequence of Layer
        With shared parameters, each below the format's limit.
    features : int
        Features of a row.
    most : float
        The largest r to try.

    Returns
    -------
    float
        The largest of ``most / 2**k``, k from 0 to 15, that holds; 0 if none does.
    """
    form = session.format
    # The widest sum of products of a magnitude and a weight stays below 2^61.
    widest = max(p[0].size // p[0].shape[-1] for p in (x.parameters for x in layers) if p)
    weight_int_bits = min(form.int_bits, _WEIGHT_INT_BITS)
    spare = 61 - form.int_bits - weight_int_bits - widest.bit_length()
    weight_bits = min(_WEIGHT_BITS, form.frac_bits, spare * 2 // 3)
    bits = min(_INPUT_BITS, form.frac_bits, spare - weight_bits)
    if bits < 1:
        return 0.0
    ends = most * 2.0 ** -np.arange(_RANGES)
    # One row for each range; x holds the bounds of the layer's inputs.
    x: Any = _magnitudes(session, np.repeat(ends[:, None], features, axis=1), bits)
    outside: SharedArray | None = None

    def beyond(x: SharedArray, limit: float) -> SharedArray:
        return ~(anywhere(linear.add_integer(x, -int(limit * 2.0**x.frac_bits))) < 0)

    # The choice of bits keeps products from wrapping around for weights below 2^weight_int_bits;
    # larger weights are counted as outside.
    wiring = inputs_of(layers)

    def count(x: SharedArray) -> None:
        nonlocal outside
        found = beyond(x, form.limit * MARGIN).reshape(_RANGES, -1).sum(axis=1)
        outside = found if outside is None else outside + found

    # Of each value its bounds, and whether it can have both signs.
    def step(index: int, layer: Layer, given: Any) -> tuple[SharedArray, bool]:
        nonlocal outside
        if layer.joins:
            several: Any = tuple(x for x, _ in given)
            reach = layer.reach(several)
            assert isinstance(reach, SharedArray)
            count(reach)
            return _coarse(reach, bits), True
        x, signed = given
        if not layer.parameters:
            reach = layer.reach(x)
            if isinstance(reach, SharedArray):
                return _coarse(reach, bits), signed and not layer.rectifies
            most_of = np.full((_RANGES, *layer.output_shape(x.shape[1:])), reach)
            return _magnitudes(session, most_of, bits), True
        *weights, bias = layer.parameters
        bias = _coarse(abs(bias), weight_bits)
        if not weights:  # a sum
            ends_of = [layer.with_parameters([bias])(x)]
            count(ends_of[0])
            return _coarse(ends_of[0], bits), True
        parts = [_coarse(part.relu(), weight_bits) for part in (weights[0], -weights[0])]
        if signed:
            parts = [parts[0] + parts[1]]
        ends_of = []
        for part in parts:
            heavy = beyond(part, 2.0**weight_int_bits).sum()
            ends_of.append(layer.with_parameters([part, bias])(x))
            count(ends_of[-1])
            assert outside is not None
            outside = outside + heavy
        # Behind a ReLU the upper bound counts alone.
        positive = _rectified(layers, wiring, index)
        reach = ends_of[0] if positive or len(parts) == 1 else np.maximum(*ends_of)
        return _coarse(reach, bits), not positive

    with session.protocol("range"), session.range_policy.vouched():
        run(layers, (x, True), step)
        assert outside is not None  # every network has a layer with parameters
        fitting = int((outside == 0).sum().reveal())
    if not session.here:  # a plan has no values
        return most
    return float(ends[_RANGES - fitting]) if fitting else 0.0


def _rectified(layers: Sequence[Layer], wiring: Sequence[tuple[int, ...]], index: int) -> bool:
    """Return whether all that depends on the sign of a layer's output are ReLUs behind it."""
    users = [k for k, taken in enumerate(wiring) if index + 1 in taken]
    return bool(users) and all(
        layers[k].rectifies
        or (layers[k].commutes_with_relu and not layers[k].joins and _rectified(layers, wiring, k))
        for k in users
    )


def _magnitudes(session: Session, values: Any, bits: int) -> SharedArray:
    """Return public bounds as a shared array, rounded up to `bits` fractional bits."""
    encoded = np.ceil(values * 2.0**bits) * 2.0**-bits
    return SharedArray.from_public(session, encoded, bits, int(encoded.max() * 2**bits))


def _coarse(x: SharedArray, bits: int) -> SharedArray:
    """Return x rounded up to `bits` fractional bits."""
    if x.frac_bits <= bits:
        return x
    return linear.add_integer(truncation.truncate(anywhere(x), x.frac_bits - bits), 2)
