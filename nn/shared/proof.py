"""The proof, within one evaluation of a model on shares, that no value left its limit.

Which layers are checked, and why that is enough: :mod:`nn.fixed_point.calibration`. How, and what is
opened: :mod:`mpc.protocols.limits`. The bound that a layer's output gets is its reach, which the model's
owner has worked out from the weights; the limits follow from the check alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mpc import Session, SharedArray
from mpc.core.errors import RangeError
from mpc.core.ranges import LARGEST
from mpc.protocols import limits, linear, range_check
from nn.fixed_point.calibration import Bounds, follows, is_linear
from nn.layers import Layer, ReLU

__all__ = ["RangeProof", "split_failures", "verdict", "with_failures"]


class RangeProof:
    """The checks of one evaluation, of one batch of rows.

    Parameters
    ----------
    session : Session
    layers : sequence of Layer
    bounds : Bounds
    """

    def __init__(self, session: Session, layers: Sequence[Layer], bounds: Bounds) -> None:
        self._layers, self._bounds = layers, bounds
        self._excess = limits.Excess(session)
        # Parties that were given other bounds are noticed here.
        session.note("bounds", bounds.limits, bounds.reaches)

    def begin(self, x: SharedArray, most: int) -> None:
        """Check that the rows are within `most` in magnitude, an encoded value.

        A party's rows are checked by that party alone, whose bit joins the others. Those of a client are
        shares that nobody has seen.
        """
        session, plaintext = x.session, x.plaintext
        session.note("rows", most)
        if plaintext is None:
            with session.layer("limits"):
                limits.words_within(x, most, self._excess)
            return
        bits = np.zeros((len(session.here), 1), np.uint64)
        if plaintext.owner in session.here:
            words = np.asarray(plaintext.encoded).view(np.int64)
            bits[session.here.index(plaintext.owner)] = bool(
                ((words > most) | (words < -most)).any()
            )
        self._excess.add(bits, 1, inside=False)

    def through(
        self, number: int, x: Any, layer_of: Callable[[int, Any], SharedArray]
    ) -> SharedArray:
        """Return the output of layer `number` for its input `x`, checked if it has a limit.

        ``layer_of(number, x)`` computes it without a check. `x` is a tuple for a layer that joins.
        """
        layer, limit = self._layers[number], self._bounds.limits[number]
        form = self._excess.session.format
        if type(layer) is ReLU and limit is not None:
            frac_bits = min(x.frac_bits, form.frac_bits)
            return limits.relu_within(x, _encoded(limit, frac_bits, form.int_bits), self._excess)
        y = layer_of(number, x)
        reach = self._bounds.reaches[number]
        if not is_linear(layer) or reach is None:
            return y if follows(layer) else y.with_integer_bound(_in_format(y))
        most = math.ceil(reach * 2.0**y.frac_bits)
        if most > LARGEST:
            raise RangeError(
                f"layer {number + 1}, {layer!r}: values up to {reach:g} do not fit the ring with"
                f" {y.frac_bits} bits behind the point"
            )
        y = y.with_integer_bound(most)
        if limit is None:
            return y
        frac_bits = min(y.frac_bits, form.frac_bits)
        return limits.truncate_within(y, _encoded(limit, frac_bits, form.int_bits), self._excess)

    def finish(self, x: SharedArray, unopened: list[SharedArray] | None) -> None:
        """Raise RangeError at all parties if a limit was left; `x` are the scores.

        With a list `unopened` nothing is opened: it gets how many random combinations say so.
        """
        with x.session.layer("limits"):
            count = limits.failures(x, self._excess)
        if unopened is None:
            verdict([count])
        else:
            unopened.append(count)


def _in_format(x: SharedArray) -> int:
    """Return the bound of an encoded value that the format holds."""
    form = x.session.format
    return min(LARGEST, form.bound << max(0, x.frac_bits - form.frac_bits))


def _encoded(limit: float, frac_bits: int, int_bits: int) -> int:
    """Return a limit as an encoded value that the format holds."""
    return min(int(limit * 2.0**frac_bits), (1 << int_bits + frac_bits) - 1)


def verdict(counts: Sequence[SharedArray]) -> None:
    """Open whether all counts of failures are zero; raise RangeError at all parties if not."""
    for count in counts:
        with count.session.layer("limits"), count.session.protocol("limits"):
            inside = range_check.is_none(count)
        if not inside:
            count.session.drop_prepared()
            raise RangeError(
                "a value of the network left its limit for some row, so there is no answer: rows must"
                " be like those that the model was calibrated with; its owner may calibrate it with a"
                " larger margin, or with more rows"
            )


def with_failures(answer: SharedArray, counts: Sequence[SharedArray]) -> SharedArray:
    """Return answers for rows with a column more, the counts of failures; nothing is opened."""
    shares = sum(count.shares for count in counts)
    rows = len(answer)
    words = np.broadcast_to(np.reshape(shares, (-1, 1, 1)), (len(answer.shares), rows, 1)).copy()
    column = answer.derive(
        words, frac_bits=answer.frac_bits, bound=limits.COMBINATIONS * len(counts)
    )
    return linear.concatenate([answer.reshape(rows, answer.size // max(1, rows)), column], axis=1)


def split_failures(found: SharedArray, shape: tuple[int, ...]) -> SharedArray:
    """Undo :func:`with_failures` for answers of `shape`, after the verdict on all rows."""
    column = found[:, -1]
    total = column.derive(
        column.shares.sum(axis=1, dtype=np.uint64),
        frac_bits=0,
        bound=min(LARGEST, column.bound * len(column)),
    )
    verdict([total])
    return found[:, :-1].reshape(shape)
