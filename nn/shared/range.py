"""Whether a training on shares stays inside the ring and the fixed-point format.

Nothing that is computed on shares shows that it has left its range, so every step is looked at.
Numbers live modulo 2^64: products must stay below 2^62 in magnitude, what goes into a layer below
the format's limit L. Watched on shares, which reveals one bit an epoch:
1. For each layer with parameters its output, each number against L; the gradients, against what a
   step has room for. A block w of 512 activations, or 4096 gradients, is in range if 16 sums
   of it with public coins lie in [-L / 2, L / 2), modulo 2^64. A coin is 0, or, half as often, 1 or
   -1. The coins are drawn anew each epoch, from a seed that the parties open.
2. After every 16 steps these sums are compared: 8 rounds, with windows of all 64 bits, since a
   value that has wrapped around may lie anywhere. The bits are added up, secret.
3. After each epoch every weight is compared with L, and one bit is opened: whether all was in range.
A weight moves by less than 2^8 in a step, whatever the gradient is, so that it cannot wrap around
within an epoch. A number at L or beyond, modulo 2^64, is missed with probability at most 2^-16:
whatever the other coins are, of two sums that differ by it in its own coin one is outside. One that
has wrapped around looks as if it were in range with probability 2 L / 2^64 at its fractional bits,
2^-8 in the usual format, over where it happens to lie; a wrap of a gradient spoils a whole row of
weights, one of an activation a column. Values whose products are multiples of 2^64 to the bit, as powers
of two near L make them, wrap to zero, and no coin tells: somebody who chooses inputs and weights so is
not noticed on shares, but where values are looked at. A block whose Euclidean norm is below L / 12 is
taken for outside with probability below 2^-44 a sum.
Where all parties live in one process, the values are looked at too: each product's operands bound it,
by max |x| times the largest sum of |w| that meets it, which has no probability of failure. There
the sums are compared too, so that it costs what it does apart, but do not count.

Source of step 1: random projections modulo q as proofs of shortness (Gentry, Halevi, Lyubashevsky
2022, section 3.3).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import Session, SharedArray
from mpc.core.errors import RangeError
from mpc.core.ranges import LARGEST
from mpc.protocols import linear
from nn.layers import Layer, Weighted
from ring import Stream, matmul

__all__ = ["LONG_BLOCK", "RangeWatch", "anywhere"]

_SUMS = 16
# How many numbers are summed, of rows of activations and of gradients.
_BLOCK = 512
LONG_BLOCK = 4096


class RangeWatch:
    """What a training keeps of its steps until it is known whether all were in range.

    Parameters
    ----------
    session : Session
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._local = 0 < session.size == len(session.here)
        self._coins = np.zeros((LONG_BLOCK, _SUMS), np.uint64)
        # Sums whose limits are to be compared, as sum - limit and -limit - 1 - sum, both negative.
        self._sums: list[SharedArray] = []
        self._outside: SharedArray | None = None
        # Of this step's arrays, by identity: the arrays are kept so that it stays theirs.
        self._tops: dict[int, tuple[SharedArray, float]] = {}

    def twin(self, planned: Session) -> RangeWatch:
        """Return this watch in a plan's session."""
        twin = RangeWatch(planned)
        twin._sums = [planned.twin(x) for x in self._sums]
        twin._outside = None if self._outside is None else planned.twin(self._outside)
        return twin

    # On shares.

    def begin(self) -> None:
        """Draw the coins of an epoch: 1 round, 16 bytes."""
        session = self.session
        number = session.fresh_id()
        words = np.empty((len(session.here), 2), np.uint64)
        for row, party in zip(words, session.here, strict=True):
            session.streams[party].masks.fill(row, number)
        with session.protocol("range"):
            seed = session.open((words, "sum"))[0]
        if len(seed):
            drawn = np.empty(2 * LONG_BLOCK * _SUMS // 64, np.uint64)
            Stream(seed[0].tobytes()).fill(drawn, 0)
            bits = np.unpackbits(drawn.view(np.uint8)).reshape(2, LONG_BLOCK, _SUMS)
            self._coins = bits[0].astype(np.uint64) - bits[1].astype(np.uint64)

    def watch(self, x: SharedArray, limit: float, block: int = _BLOCK) -> None:
        """Note that every number of x must be below `limit` in magnitude."""
        count = -(-x.size // block)
        sums = np.zeros((len(self.session.here), count, _SUMS), np.uint64)
        for shares, out in zip(x.shares, sums, strict=True):
            flat = np.zeros(count * block, np.uint64)
            flat[: x.size] = shares.reshape(-1)
            out[...] = matmul(flat.reshape(count, block), self._coins[:block])
        total = x.derive(sums.reshape(len(sums), count * _SUMS), frac_bits=0, bound=LARGEST)
        half = int(min(limit * 2.0**x.frac_bits, LARGEST)) // 2
        for one in (total, linear.negative(linear.add_integer(total, 1))):
            # The whole window: what is wrong may lie anywhere modulo 2^64.
            self._sums.append(anywhere(linear.add_integer(one, -half)))

    def gather(self) -> None:
        """Add up, secret, how many of the sums are outside: 4 rounds."""
        if self._sums:
            with self.session.protocol("range"):
                outside = ~(linear.concatenate(self._sums) < 0)
            # Where values are looked at they decide: sums take some that are inside for outside.
            if not self._local:
                self._count(outside)
        self._sums = []

    def compare(self, x: SharedArray, limit: float, *, signed: bool = True) -> None:
        """Add, secret, how many numbers of x are at `limit` or beyond, one by one."""
        top = int(limit * 2.0**x.frac_bits)
        with self.session.protocol("range"):
            sides = (x, linear.negative(x)) if signed else (x,)
            for side in sides:
                self._count(~(anywhere(linear.add_integer(side, -top)) < 0))

    def _count(self, bits: SharedArray) -> None:
        found = bits.sum()
        self._outside = found if self._outside is None else self._outside + found

    def in_range(self) -> bool:
        """Open one bit: whether all that was watched since the last time was in range."""
        found, self._outside = self._outside, None
        # In a plan there is nothing to see.
        if found is None:
            return True
        with self.session.protocol("range"):
            return bool((found == 0).reveal()) or not self.session.here

    # On values, where all are here.

    def forward(self, name: str, layer: Layer, x: SharedArray, output: SharedArray) -> None:
        """Look at a layer's output for the rows x."""
        limit = 2.0**self.session.format.int_bits
        if self._local and isinstance(layer, Weighted):
            largest = max(self._top(layer.bias), self._top(layer.weights))
            self._below(largest, limit, f"the parameters of {name}")
            room = 2.0 ** (62 - output.frac_bits) - largest
            self._products(x, layer.weights, -1, room, f"the products of {name}")
            self._below(self._top(output), limit, f"the output of {name}")
        elif self._local and layer.may_grow:
            self._below(self._top(output), limit, f"the output of {name}")
        if layer.parameters or layer.may_grow:
            self.watch(output, limit)

    def backward(self, name: str, layer: Layer, x: SharedArray, gradient: SharedArray) -> None:
        """Look at the products on a layer's way back, for its rows x and the gradient behind it."""
        if self._local and isinstance(layer, Weighted):
            top = self._top(gradient)
            bits = x.frac_bits + self.session.format.frac_bits
            places = gradient.size // layer.bias.shape[0]
            reach = places * top * max(self._top(x), 1.0)
            self._below(reach, 2.0 ** (62 - bits), f"the gradients of {name}")
            bits = layer.weights.frac_bits + self.session.format.frac_bits
            room = 2.0 ** (62 - bits)
            self._products(gradient, layer.weights, -2, room, f"the gradient in front of {name}")

    def _products(
        self, x: SharedArray, weights: SharedArray, axis: int, room: float, what: str
    ) -> None:
        """Look at sums of products of x with weights, those of one index of `axis` a sum."""
        top = self._top(x)
        terms = weights.size // weights.shape[axis]
        # The coarse bound is cheap, and nearly always enough.
        if not top * self._top(weights) * terms < room:
            self._below(top * _largest_sum(weights, axis), room, what)

    def below(self, x: SharedArray, limit: float, what: str) -> None:
        """Look at every number of x."""
        if self._local:
            self._below(self._top(x), limit, what)

    def total_below(self, terms: Any, limit: float, what: str) -> None:
        """Look at a sum of arrays times public factors."""
        if self._local:
            self._tops.clear()  # the end of a step
            reach = sum(self._top(x) * abs(c.value) for x, c in terms if c.numerator)
            self._below(reach, limit, what)

    def ratio_below(self, m: SharedArray, x: SharedArray, least: float, limit: float) -> None:
        """Look at m / sqrt(x), where x counts as at least `least`."""
        if self._local:
            root = np.sqrt(np.maximum(_values(x), least))
            self._below(float((np.abs(_values(m)) / root).max()), limit, "Adam's step")

    def _top(self, x: SharedArray) -> float:
        # What was shared is within its bound, which its owner has checked.
        if x.plaintext is not None:
            return float(x.bound * 2.0**-x.frac_bits)
        if id(x) not in self._tops:
            words = _words(x)
            top = max(int(words.max(initial=0)), -int(words.min(initial=0)))
            self._tops[id(x)] = x, top * 2.0**-x.frac_bits
        return self._tops[id(x)][1]

    @staticmethod
    def _below(reach: float, limit: float, what: str) -> None:
        if not reach < limit:
            raise RangeError(
                f"{what} can leave the range that is right on shares, {limit:g} in magnitude"
            )


def anywhere(x: SharedArray) -> SharedArray:
    """Return x for comparisons that are right wherever it lies modulo 2^64."""
    return x.derive(x.shares, frac_bits=x.frac_bits, bound=LARGEST)


def _words(x: SharedArray) -> NDArray[np.int64]:
    """Return the encoded values, where all parties live here."""
    shares = x.shares
    words = shares[0] + shares[1]
    for share in shares[2:]:
        words += share
    return np.asarray(words).view(np.int64)


def _values(x: SharedArray) -> NDArray[np.float64]:
    return _words(x).astype(np.float64) * 2.0**-x.frac_bits


def _largest_sum(weights: SharedArray, axis: int) -> float:
    """Return the largest sum of |w| over all axes but one."""
    values = np.abs(_values(weights))
    others = tuple(k for k in range(values.ndim) if k != axis % values.ndim)
    return float(values.sum(axis=others).max())
