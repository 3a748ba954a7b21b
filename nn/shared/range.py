"""The range watch: whether a training on shares stays inside the ring and the fixed-point format.

A share does not show that the value has left its range, so every step is checked. Values are words
modulo 2^64: products must stay below 2^62 in magnitude, the inputs of a layer below the format's
limit L. The check on shares reveals one bit an epoch:
1. Sum at random. The outputs of each layer with parameters, limit L, are cut into blocks of 512
   numbers; the gradients, limit L the largest that a step can take, into blocks of 4096.
   Each block has 16 sums of its numbers times public coins, which are 0 with probability 1/2, 1 and
   -1 with probability 1/4 each. A block is in range if all 16 sums lie in [-L / 2, L / 2) modulo 2^64. The
   coins are drawn anew each epoch, from a seed that the parties open.
2. After every 16 steps compare these sums with the limits: 3 rounds, on all 64 bits, since a value
   that has wrapped around may be any word. The number of sums outside stays secret.
   Adam has its second moment compared with its limit in every step (3 rounds), and if beta_2 is below
   0.996 the gradient, too, so that the second moment cannot have wrapped around unseen.
3. After each epoch compare every weight with the format's limit (3 rounds), and open one bit: whether
   the number of weights and sums outside is 0 (4 rounds).
What is missed:
- A number at L or beyond, modulo 2^64, is missed with probability at most 2^-16: with all other coins
  fixed, two values of its own coin give sums that differ by the number, and one of them is outside.
- A number that has wrapped around is a word in [-L, L) with probability 2 L / 2^64 (L in units of its
  fractional bits; 2^-8 in the usual format), if it is uniform. One gradient that wraps around spoils
  a whole row of weights, one activation a whole column.
- Products that are multiples of 2^64, such as those of powers of two near L, wrap around to exactly 0.
  The sums do not show it, so somebody may choose inputs and weights to that end.
- A weight cannot wrap around within an epoch: it moves by less than 2^8 in a step.
A block in range whose Euclidean norm is below L / 12 is taken for outside with probability below
2^-44 a sum.

Where all parties live in one process, the values themselves are checked, and decide: a product is
bounded by max |x| times the largest sum of |w| over its terms, which cannot fail. The sums are
computed and compared as well, so that the session counts the cost of separate processes.

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
from nn.layers import BatchNorm, Layer, MatMul, Scale, Weighted
from ring import Stream, matmul

__all__ = ["LONG_BLOCK", "RangeWatch", "anywhere"]

_SUMS = 16
# Numbers of a block: of layers' outputs, and of gradients.
_BLOCK = 512
LONG_BLOCK = 4096


class RangeWatch:
    """The random sums of a training's steps, and how many were found outside so far.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    sees_values : bool
        Whether all parties live here, so that values are checked and decide in place of the sums.
    coins : uint64 array of shape (4096, 16)
        The coins of this epoch: 0, 1 and -1 modulo 2^64.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.sees_values = 0 < session.size == len(session.here)
        self.coins = np.zeros((LONG_BLOCK, _SUMS), np.uint64)
        # Sums that are still to be compared, as sum - L / 2 and -L / 2 - 1 - sum: both are negative
        # if the sum is in range.
        self._sums: list[SharedArray] = []
        # How many sums and weights were outside.
        self._outside: SharedArray | None = None
        # Largest magnitudes of this step's arrays, by the id of the array; the array is kept with
        # it, so that no other array gets the same id.
        self._tops: dict[int, tuple[SharedArray, float]] = {}

    def twin(self, planned: Session) -> RangeWatch:
        """Return this watch in a plan's session, see :meth:`mpc.Session.prepare`."""
        twin = RangeWatch(planned)
        twin._sums = [planned.twin(x) for x in self._sums]
        twin._outside = None if self._outside is None else planned.twin(self._outside)
        return twin

    # The check on shares.

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
            self.coins = bits[0].astype(np.uint64) - bits[1].astype(np.uint64)

    def add_sums(self, x: SharedArray, limit: float, block: int = _BLOCK) -> None:
        """Add the random sums of x, whose numbers must be below `limit` in magnitude: step 1."""
        count = -(-x.size // block)
        sums = np.zeros((len(self.session.here), count, _SUMS), np.uint64)
        for shares, out in zip(x.shares, sums, strict=True):
            flat = np.zeros(count * block, np.uint64)
            flat[: x.size] = shares.reshape(-1)
            out[...] = matmul(flat.reshape(count, block), self.coins[:block])
        total = x.derive(sums.reshape(len(sums), count * _SUMS), frac_bits=0, bound=LARGEST)
        half = int(min(limit * 2.0**x.frac_bits, LARGEST)) // 2
        for one in (total, linear.negative(linear.add_integer(total, 1))):
            self._sums.append(anywhere(linear.add_integer(one, -half)))

    def gather(self) -> None:
        """Compare the sums since the last call, and count those outside, on shares: step 2."""
        if self._sums:
            with self.session.protocol("range"):
                outside = ~(linear.concatenate(self._sums) < 0)
            if not self.sees_values:
                self._count(outside)
        self._sums = []

    def compare(self, x: SharedArray, limit: float, *, least: float | None = None) -> None:
        """Count the numbers of x at `limit` or beyond, and those below `least`, on shares.

        `least` is by default the number that follows -limit.
        """
        top = int(limit * 2.0**x.frac_bits)
        low = 1 - top if least is None else int(least * 2.0**x.frac_bits)
        with self.session.protocol("range"):
            above = anywhere(linear.add_integer(x, -top))
            below = anywhere(linear.add_integer(linear.negative(x), low - 1))
            self._count(~(linear.concatenate([above, below]) < 0))

    def _count(self, bits: SharedArray) -> None:
        found = bits.sum()
        self._outside = found if self._outside is None else self._outside + found

    def in_range(self) -> bool:
        """Open one bit: whether nothing was counted outside since the last call: step 3."""
        found, self._outside = self._outside, None
        if found is None:
            return True
        with self.session.protocol("range"):
            return bool((found == 0).reveal()) or not self.session.here  # a plan has no values

    # The check of the values, where all parties live here.

    def forward(self, name: str, layer: Layer, x: Any, output: SharedArray) -> None:
        """Check a layer's output for the rows x: its values, if they are here, and on shares."""
        limit = 2.0**self.session.format.int_bits
        if self.sees_values and isinstance(layer, Weighted):
            largest = max(self._top(layer.bias), self._top(layer.weights))
            self._below(largest, limit, f"the parameters of {name}")
            room = 2.0 ** (62 - output.frac_bits) - largest
            self._products(x, layer.weights, -1, room, f"the products of {name}")
            self._below(self._top(output), limit, f"the output of {name}")
        elif self.sees_values and isinstance(layer, MatMul):
            a, b = x
            room = 2.0 ** (62 - output.frac_bits)
            self._below(self._top(a) * self._top(b) * a.shape[-1], room, f"the products of {name}")
            self._below(self._top(output), limit, f"the output of {name}")
        elif self.sees_values and layer.may_grow:
            if isinstance(layer, (BatchNorm, Scale)):
                self._single(*_terms(layer, x), f"the products of {name}")
            self._below(self._top(output), limit, f"the output of {name}")
        if layer.parameters or layer.may_grow:
            self.add_sums(output, limit)

    def backward(self, name: str, layer: Layer, x: SharedArray, gradient: SharedArray) -> None:
        """Check the products of a layer's backward pass, of its input x and the output's gradient."""
        if self.sees_values and isinstance(layer, Weighted):
            top = self._top(gradient)
            form = self.session.format
            # What has more places than a product takes is truncated first.
            kept = x.frac_bits <= form.frac_bits + form.guard_bits
            bits = (x.frac_bits if kept else form.frac_bits) + form.frac_bits
            places = gradient.size // layer.bias.shape[0]
            reach = places * top * max(self._top(x), 1.0)
            self._below(reach, 2.0 ** (62 - bits), f"the gradients of {name}")
            bits = layer.weights.frac_bits + form.frac_bits
            room = 2.0 ** (62 - bits)
            self._products(
                gradient, layer.weights, -2, room, f"the gradient at the input of {name}"
            )
        elif self.sees_values and isinstance(layer, (BatchNorm, Scale)):
            rows, factor = _terms(layer, x)
            form, size = self.session.format, gradient.size // factor.size
            top = self._top(gradient)
            if isinstance(layer, BatchNorm):
                # The way back subtracts the gradient's mean, and the rows times the mean of both's
                # products; the mean magnitude of normalised rows is at most 1.
                top *= 2 + self._top(rows)
                reach = self._top(factor) * self._top(layer.inverse)
            else:
                reach = self._top(factor)
            room = 2.0 ** (62 - form.guard_bits - 2 * form.frac_bits)
            self._below(reach * max(1.0, top), room, f"the gradient at the input of {name}")
            room = 2.0 ** (62 - 2 * form.frac_bits)
            reach = size * self._top(gradient) * max(1.0, self._top(rows))
            self._below(reach, room, f"the gradients of {name}")

    def normalisation(self, layer: BatchNorm, factor: SharedArray, summand: SharedArray) -> None:
        """Check the factor and summand that a batch normalisation ends as."""
        limit = 2.0**self.session.format.int_bits
        if self.sees_values:
            self._single(layer.mean, factor, f"the running statistics of {layer!r}")
        for x in (factor, summand):
            self.below(x, limit, f"what running statistics of {layer!r} multiply or add")
            self.compare(x, limit)

    def _single(self, x: SharedArray, factor: SharedArray, what: str) -> None:
        """Check products of single elements, one of them with guard bits."""
        form = self.session.format
        room = 2.0 ** (62 - 2 * form.frac_bits - form.guard_bits)
        self._below(self._top(x) * self._top(factor), room, what)

    def _products(
        self, x: SharedArray, weights: SharedArray, axis: int, room: float, what: str
    ) -> None:
        """Check the sums of products of x and weights; a sum has one index along `axis`."""
        top = self._top(x)
        terms = weights.size // weights.shape[axis]
        # The first bound is cheap and nearly always enough.
        if not top * self._top(weights) * terms < room:
            self._below(top * _largest_sum(weights, axis), room, what)

    def below(self, x: SharedArray, limit: float, what: str) -> None:
        """Check that every number of x is below `limit` in magnitude, if values are here."""
        if self.sees_values:
            self._below(self._top(x), limit, what)

    def total_below(self, terms: Any, limit: float, what: str) -> None:
        """Check that a sum of arrays times public factors is below `limit`, if values are here."""
        if self.sees_values:
            self._tops.clear()  # the end of a step
            reach = sum(self._top(x) * abs(c.value) for x, c in terms if c.numerator)
            self._below(reach, limit, what)

    def ratio_below(self, m: SharedArray, x: SharedArray, least: float, limit: float) -> None:
        """Check that m / sqrt(max(x, least)) is below `limit`, if values are here."""
        if self.sees_values:
            root = np.sqrt(np.maximum(_values(x), least))
            self._below(float((np.abs(_values(m)) / root).max()), limit, "Adam's step")

    def _top(self, x: SharedArray) -> float:
        """Return a bound on the magnitude of the numbers in x."""
        # The owner of a shared input has checked it against its bound.
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
                f"{what} must stay below {limit:g} in magnitude on shares, but can be larger"
            )


def _terms(layer: BatchNorm | Scale, x: SharedArray) -> tuple[SharedArray, SharedArray]:
    """Return what a layer multiplies element by element, for its input x."""
    return layer.terms if isinstance(layer, BatchNorm) else (x, layer.factor)


def anywhere(x: SharedArray) -> SharedArray:
    """Return x with the bound of any word, so that comparisons look at all 64 bits."""
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
    """Return the largest sum of |w| over all axes but `axis`."""
    values = np.abs(_values(weights))
    others = tuple(k for k in range(values.ndim) if k != axis % values.ndim)
    return float(values.sum(axis=others).max())
