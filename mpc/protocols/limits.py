"""Proof that the values of a whole evaluation stayed within public limits: one opened bit for all.

Where interval bounds are hopeless, as in deep networks, limits come from typical rows, and values could
leave them. A value y, rounded as :mod:`mpc.protocols.truncation` does it, is checked where it is opened
under a mask anyway:
1. By ReLU with a limit B: <y > B> from the opening that decides the sign. Its result is in [0, B]
   then; what is negative becomes 0, so there is no limit below. By truncation: <y < -B> and <y > B>.
   One opening is read at any number of thresholds, see :mod:`mpc.protocols.sign`. The window of each
   reading holds every y that the bound of z allows, which must be true: a y outside of a window would
   come back inside, and pass.
2. After all openings, the parties open a random seed, which expands to 40 public coins for each of the N
   bits of step 1. Of the bits whose coin is 1, each of the 40 XORs is local.
3. B2A of these 40 bits, and a sum: 1 round. Whether it is zero is the one bit that is opened:
   :mod:`mpc.protocols.range_check`. In a failing case nothing else is: neither which values left their
   limits nor how many.
If one of the N bits is 1, the 40 XORs are independent fair coins, so all of them are 0 with probability
2^-40: that is the soundness error, for any number of values. The bits were fixed before the seed was
known. Values within their limits never fail.

A limit proves the next step: if the inputs x of a product with weights w are within limits that were
checked, |z| is at most the limit times the largest sum of |w|, and if that is below 2^62 for the weights
that there are, which their owner works out, z has not wrapped around. Then the reading of z is right, and
checks the next inputs, and so on from the first layer to the last.
Cost: for each limit of an element at L = 32, 10 bits sent (n - 1) times, and 83 bits of correction, no
round; steps 2 and 3 once: 4 rounds, 40 (n - 1) bytes, correction 336 bytes.

Source: random linear combinations as a batched check of zeros, as in the MAC checks of SPDZ (Damgard,
Keller, Larraia, Pastro, Scholl, Smart 2013, section 3.2), here over GF(2); that limits prove the next
product is this library's own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mpc.core.cost import Spent
from mpc.core.runtime import Runtime
from mpc.core.secret_value import Secret
from mpc.protocols import b2a, range_check, relu, sign, truncation
from ring import Stream, fresh_key
from ring.bits import WORD_BITS

__all__ = [
    "COMBINATIONS",
    "Excess",
    "combined",
    "cost",
    "failures",
    "open_seed",
    "relu_within",
    "seed_of",
    "seed_words",
    "truncate_within",
    "words_within",
]

Words = NDArray[np.uint64]

COMBINATIONS = 40
"""How many random XORs are opened together: the soundness error is 2^-40."""
# Words of coins that are expanded at once.
_PIECE = 1 << 16


class Excess:
    """Bits of step 1 of one evaluation: XOR shares, each 0 where a value is within its limits.

    Parameters
    ----------
    session : Session
    """

    def __init__(self, session: Runtime) -> None:
        self.session = session
        self.planes: list[Words] = []

    def add(self, planes: Words, size: int, *, inside: bool) -> None:
        """Take XOR shares (p, words) of `size` bits; `inside` says that they are 1 within the limit."""
        planes = np.ascontiguousarray(planes)
        first = self.session.first_row
        if inside and first is not None:
            planes = planes.copy()
            planes[first] ^= ~np.uint64(0)
        if size % WORD_BITS:
            # Bits behind the last element have no meaning.
            last = np.uint64((1 << size % WORD_BITS) - 1)
            planes = np.concatenate([planes[:, :-1], planes[:, -1:] & last], axis=1)
        self.planes.append(planes)


def relu_within(x: Secret, limit: int, excess: Excess) -> Secret:
    """Return max(y, 0), with the bound `limit`, for x truncated to y; `excess` gets [y > limit]."""
    y, planes = relu.relu_below(x, limit)
    excess.add(planes, x.size, inside=True)
    return y.with_integer_bound(limit)


def truncate_within(x: Secret, limit: int, excess: Excess) -> Secret:
    """Return x truncated to the format, y; `excess` gets [y < -limit] and [y > limit]."""
    x = truncation.kept(x)
    shift = max(0, x.frac_bits - x.session.format.frac_bits)
    with x.session.protocol("limits"):
        planes, words = sign.signs_and_value(x, shift, (-limit, limit + 1))
        truncation.keep(x, words, shift)
    excess.add(planes[:, 0], x.size, inside=False)
    excess.add(planes[:, 1], x.size, inside=True)
    bound = min(limit, -(-x.bound >> shift))
    return x.derive(words.reshape(len(words), *x.shape), frac_bits=x.frac_bits - shift, bound=bound)


def words_within(x: Secret, limit: int, excess: Excess) -> None:
    """Check any words, whatever the bound of x says; `excess` gets [x < -limit] and [x > limit].

    For values that nobody here has bounded. It takes an opening of its own, with L = 64.
    """
    with x.session.protocol("limits"):
        offsets = [np.full(x.size, t % 2**64, np.uint64) for t in (limit + 1, -limit)]
        planes = sign.open_top_bits(x, offsets)
    excess.add(planes[:, 0], x.size, inside=True)
    excess.add(planes[:, 1], x.size, inside=False)


def cost(parties: int) -> Spent:
    """Declare the cost of steps 2 and 3."""
    return (
        Spent(1, 16 * (parties - 1), 0)
        + b2a.cost(parties, 1, COMBINATIONS)
        + range_check.cost_of_none(parties, COMBINATIONS)
    )


def failures(like: Secret, excess: Excess) -> Secret:
    """Steps 2 and 3 but for the opening: how many of the XORs are 1, a whole number of no axes."""
    session = excess.session
    with session.protocol("limits"):
        seed = open_seed(session)
        planes = combined(excess.planes, seed, len(session.here))
        bits = b2a.convert(session, planes, COMBINATIONS)
    total = bits.sum(axis=(1, 2), dtype=np.uint64)
    return like.derive(total, frac_bits=0, bound=COMBINATIONS)


def seed_words(session: Runtime) -> Words:
    """Return shares (p, 2), to be opened by "sum", of 16 random bytes that no party knows alone."""
    # Not from a stream: the provider has the keys of masks, and would know the coins ahead. But watched
    # parties send nothing that their watchers cannot compute.
    words = np.empty((len(session.here), 2), np.uint64)
    number = None if session.watch is None else session.fresh_id()
    for row, party in zip(words, session.here, strict=True):
        if number is None:
            row[:] = np.frombuffer(fresh_key(), np.uint64)
        else:
            session.streams[party].masks.fill(row, number)
    return words


def seed_of(opened: Words) -> bytes | None:
    """Return the seed that was opened; None in a plan."""
    return opened[0].tobytes() if len(opened) else None


def open_seed(session: Runtime) -> bytes | None:
    """Open a seed: 1 round; None in a plan."""
    return seed_of(session.open((seed_words(session), "sum"))[0])


def combined(planes: Sequence[Words], seed: bytes | None, rows: int) -> Words:
    """Return XOR shares of the 40 XORs of planes (p, words), one in each bit of a word: (p, 1, 1)."""
    out = np.zeros((rows, 1, 1), np.uint64)
    if seed is None or not planes:
        return out
    stream, place = Stream(seed), 0
    parity = np.zeros((rows, COMBINATIONS), np.uint64)
    step = max(1, _PIECE // COMBINATIONS)
    for some in planes:
        for start in range(0, some.shape[1], step):
            piece = some[:, start : start + step]
            coins = np.empty((COMBINATIONS, piece.shape[1]), np.uint64)
            stream.fill(coins.reshape(-1), place)
            place += 1
            for row, words in zip(parity, piece, strict=True):
                row ^= np.bitwise_xor.reduce(coins & words, axis=1)
    odd = np.bitwise_count(parity) & np.uint8(1)
    weights = np.uint64(1) << np.arange(COMBINATIONS, dtype=np.uint64)
    out[:, 0, 0] = (odd * weights).sum(axis=1, dtype=np.uint64)
    return out
