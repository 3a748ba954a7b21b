"""For which rows a model that was trained on shares is right: interval bounds, on shares.

The weights are nobody's to know, so that nobody can work out what a layer can reach. It is computed
on shares, for ranges [-r, r] of 16 magnitudes r, each half of the one before:
1. The positive part of W, that of -W, and |b| of each layer, and the magnitudes m of its inputs, with
   as few fractional bits as keep their products from wrapping around, 12 and 6 at most, and rounded up.
2. For inputs of both signs m |W| + |b|, for inputs behind a ReLU what m and either part give, are
   compared with the format's limit, number by number, with windows of all 64 bits; W with 2^15.
   ReLU and pooling let nothing grow; sigmoid and tanh give at most 1.
3. One number is opened: for how many of the ranges every layer stays below the limit.
Cost: about 25 rounds a layer, once a training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mpc import Session, SharedArray
from mpc.protocols import linear, truncation
from nn.fixed_point.audit import MARGIN
from nn.layers import Layer, Weighted
from nn.shared.range import anywhere

__all__ = ["largest_inputs"]

_RANGES = 16
# Integer bits of weights; fractional bits of them and of magnitudes.
_WEIGHTS = 15
_BITS = (12, 6)


def largest_inputs(session: Session, layers: Sequence[Layer], features: int, most: float) -> float:
    """Return a bound on the inputs for which no layer leaves the fixed-point range.

    Parameters
    ----------
    session : Session
    layers : sequence of Layer
        With shared parameters, each below the format's limit.
    features : int
    most : float
        The largest bound that is asked for.

    Returns
    -------
    float
        `most`, or as many halves of it as it takes; 0 if the last is too large too.
    """
    form = session.format
    # The widest sum of products of a magnitude and a weight stays below 2^61.
    widest = max(p[0].size // p[0].shape[-1] for p in (x.parameters for x in layers) if p)
    heaviest = min(form.int_bits, _WEIGHTS)
    room = 61 - form.int_bits - heaviest - widest.bit_length()
    weight_bits = min(_BITS[0], form.frac_bits, room * 2 // 3)
    bits = min(_BITS[1], form.frac_bits, room - weight_bits)
    if bits < 1:
        return 0.0
    ends = most * 2.0 ** -np.arange(_RANGES)
    x: Any = _magnitudes(session, np.repeat(ends[:, None], features, axis=1), bits)
    outside: SharedArray | None = None

    def beyond(x: SharedArray, limit: float) -> SharedArray:
        return ~(anywhere(linear.add_integer(x, -int(limit * 2.0**x.frac_bits))) < 0)

    # That nothing wraps around follows from the choice of bits, or is what is found out.
    with session.protocol("range"), session.range_policy.vouched():
        signed = True
        for number, layer in enumerate(layers):
            if not isinstance(layer, Weighted):
                reach = layer.reach(x)
                if isinstance(reach, SharedArray):
                    x = _coarse(reach, bits)
                else:
                    most_of = np.full((_RANGES, *layer.output_shape(x.shape[1:])), reach)
                    x, signed = _magnitudes(session, most_of, bits), True
                continue
            weights, bias = layer.parameters
            bias = _coarse(abs(bias), weight_bits)
            parts = [_coarse(part.relu(), weight_bits) for part in (weights, -weights)]
            if signed:
                parts = [parts[0] + parts[1]]
            ends_of = []
            for part in parts:
                # Of a weight as large as that, no range is known.
                heavy = beyond(part, 2.0**heaviest).sum()
                ends_of.append(layer.with_parameters([part, bias])(x))
                found = beyond(ends_of[-1], form.limit * MARGIN).reshape(_RANGES, -1).sum(axis=1)
                found = found + heavy
                outside = found if outside is None else outside + found
            signed = not _rectified(layers[number + 1 :])
            # The greatest values alone pass a ReLU.
            reach = ends_of[0] if not signed or len(parts) == 1 else np.maximum(*ends_of)
            x = _coarse(reach, bits)
        assert outside is not None  # every network has a layer with parameters
        fitting = int((outside == 0).sum().reveal())
    if not session.here:  # a plan, in which there is nothing to see
        return most
    return float(ends[_RANGES - fitting]) if fitting else 0.0


def _rectified(following: Sequence[Layer]) -> bool:
    """Whether a ReLU comes before anything else that looks at the sign."""
    for layer in following:
        if layer.rectifies:
            return True
        if not layer.commutes_with_relu:
            return False
    return False


def _magnitudes(session: Session, values: Any, bits: int) -> SharedArray:
    encoded = np.ceil(values * 2.0**bits) * 2.0**-bits
    return SharedArray.from_public(session, encoded, bits, int(encoded.max() * 2**bits))


def _coarse(x: SharedArray, bits: int) -> SharedArray:
    """Return x with so many fractional bits, not less than it is."""
    if x.frac_bits <= bits:
        return x
    return linear.add_integer(truncation.truncate(anywhere(x), x.frac_bits - bits), 2)
