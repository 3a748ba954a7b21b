"""ReLU, fused with truncation by s bits.

1. c = open(z + 2^62 + r), and <msb>, the sign of y - 1 for the truncated y, that is [y < 1]: see
   :mod:`mpc.protocols.sign`. 2 rounds. [y < 1] serves as well as [y < 0], since relu(0) = 0.
2. Provider, with r: a random bit beta, <beta>, [beta], [r >> s], [r >> 63], [beta (r >> s)],
   [beta (r >> 63)].
3. delta = open(<msb> ^ <beta>): one bit, 1 round.
4. With A = (c >> s) - 2^(62 - s) and kappa = (1 - (c >> 63)) 2^(64 - s), locally
   [y] = A - [r >> s] + kappa [r >> 63],
   [y beta] = A [beta] - [beta (r >> s)] + kappa [beta (r >> 63)],
   [relu(y)] = [y] - delta [y] - (1 - 2 delta) [y beta].
The derivative is 1 - msb = (1 ^ delta) ^ beta, a masked bit at no further cost; it is 0 at 0, as in plain
training.
Over a slow network ReLU without its derivative takes 2 rounds, where all parties know that it pays: see
:mod:`mpc.protocols.sign_products`, which also says when. Where bytes count for more than rounds, the
products of :mod:`mpc.protocols.sign` take one round more, and less is dealt: 4 rounds.
With an upper limit B on y, <y < B + 1> is read from the same opening: :mod:`mpc.protocols.limits`.
Cost at L = 32: 3 rounds, about 9.4 (n - 1) bytes an element; correction about 66 bytes. 4 rounds:
10 (n - 1) bytes; correction about 49 bytes. Numbers that are multiplied by kappa need s bits only, 2 bytes
for s <= 16. With s = 0, [r >> s] is the mask [r] itself and kappa vanishes, which saves 12 bytes of
correction.

Source: the truncation of Escudero et al. 2020 and Dalskov et al. 2020; the product with a masked
bit as in ABY2.0's bit injection (Patra, Schneider, Suresh, Yalame 2021, section 4).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import MaskRef
from mpc.core.cost import Spent
from mpc.core.known import MaskedBit, SecretBit, SharedBit
from mpc.core.secret_value import Secret
from mpc.protocols import sign, sign_products, truncation
from mpc.two_party import relu as own_shares
from ring.bits import count_words, fold_of, lane
from ring.compile import kernel
from ring.threads import run

__all__ = [
    "cost",
    "of_positive",
    "relu",
    "relu_below",
    "relu_in_four_rounds",
    "relu_in_two_rounds",
    "relu_with_derivative",
]

Words = NDArray[np.uint64]


@kernel
def _finish(
    start: int, stop: int,
    c: Words, delta: Words, r: Words, rings: Words, tops: Words, shift: int, fold: int, first: bool,
    out: Words,
) -> None:  # fmt: skip
    """Step 4. Rows of rings and tops as in mpc.protocols.sign.Dealt; r is used for a shift of 0 alone."""
    offset = np.uint64(1) << np.uint64(62 - shift)
    one, zero = np.uint64(1), np.uint64(0)
    for e in range(start, stop):
        i = np.uint64(e)
        negative = delta[i >> np.uint64(6)] >> (i & np.uint64(63)) & one
        a = (c[i] >> np.uint64(shift)) - offset
        y = a if first else zero
        y_beta = a * rings[0, i] - rings[1, i]
        if shift:
            kappa = (one - (c[i] >> np.uint64(63))) << np.uint64(64 - shift)
            y += kappa * lane(tops[0], i, fold) - rings[2, i]
            y_beta += kappa * lane(tops[1], i, fold)
        else:
            y -= r[i]
        out[i] = y_beta if negative else y - y_beta


def cost(
    parties: int, size: int, shift: int, window: int, thresholds: int = 1, ands: int = 1
) -> Spent:
    """Declare the cost for `size` elements; with an upper limit there are two thresholds.

    `ands` is 2 for four rounds.
    """
    delta = Spent(1, 8 * (parties - 1) * count_words(size), 0)
    return sign.cost(parties, size, shift, window, True, "relu", thresholds, ands) + delta


def of_positive(
    opened: sign.Opened | sign_products.Chosen, delta: Words, shift: int, first: int | None
) -> Words:
    """Step 4: shares (p, size) of y where the bit delta ^ beta is 0, and of 0 elsewhere."""
    out: Words = np.empty_like(opened.r)
    for i in range(len(out)):
        run(
            _finish, out.shape[1], 12,
            opened.c[0], delta[0], opened.r[i], opened.rings[i], opened.tops[i],
            shift, fold_of(shift), i == first, out[i],
        )  # fmt: skip
    return out


def relu_with_derivative(x: Secret, *, truncate: bool = True) -> tuple[Secret, SecretBit]:
    """Return max(x, 0) and the bit [max(x, 0) > 0]; by default truncated to the session's format."""
    x, shift = _started(x, truncate)
    y, bit, _ = _relu(x, shift, (1,), _rounds(x, shift, derivative=True) - 2)
    return y, bit


def _started(x: Secret, truncate: bool) -> tuple[Secret, int]:
    """Return what ReLU takes, x or what it was truncated to before, and by how many bits to truncate."""
    if not truncate:
        return x, 0
    x = truncation.kept(x)
    return x, max(0, x.frac_bits - x.session.format.frac_bits)


def _rounds(x: Secret, shift: int, *, derivative: bool) -> int:
    """Return in how many rounds to take ReLU, and book why: see :mod:`mpc.protocols.sign_products`."""
    session = x.session
    if session.pair is not None:
        return 3
    hidden: set[int | None] = set()
    if session.size == 2 and x.cross_term is not None:
        hidden = {
            ref.without if ref.owner is None else 1 - ref.owner
            for ref in vars(x.cross_term).values()
            if isinstance(ref, MaskRef)
        }
    rounds, said = sign_products.fastest(
        x.size,
        shift,
        sign.window_of(-(-x.bound >> shift), shift, (1,)),
        session.network,
        one_is_behind=hidden == {0, 1},
        derivative=derivative,
        memory=session.memory_limit,
    )
    if session.network is not None or rounds != 3:
        session.book_form(said)
    return rounds


def relu_below(x: Secret, limit: int) -> tuple[Secret, Words]:
    """Return max(y, 0), truncated to the format, and XOR shares of [y <= limit] for the same y.

    `limit` is an encoded value, at least 0. The bits are read from the opening that ReLU makes anyway;
    the window holds every y that the bound of x allows. Bits behind the last have no meaning.
    """
    x, shift = _started(x, True)
    y, _, planes = _relu(x, shift, (1, limit + 1))
    return y, planes[:, 1]


def _relu(
    x: Secret, shift: int, thresholds: tuple[int, ...], ands: int = 1
) -> tuple[Secret, SecretBit, Words]:
    """Return max(y, 0), its derivative, and [y < t], (p, thresholds, words); the first t is 1."""
    session = x.session
    bound = -(-x.bound >> shift)
    pair = session.pair
    with session.protocol("relu"):
        if pair is not None:
            z = sign.own_words(x, shift)
            bits = sign.window_of(bound, shift, thresholds)
            words, planes, lower, whole = own_shares.relu_and_bits(
                pair, z, bits, shift, thresholds[1:]
            )
            truncation.keep(x, whole[:, : x.size], shift)
            y = x.derive(
                words.reshape(len(words), *x.shape), frac_bits=x.frac_bits - shift, bound=bound
            )
            return y, SharedBit(planes, x.size, session.first_row), lower
        opened = sign.open_sign(x, shift, "relu", thresholds, ands)
        assert opened.beta is not None and opened.ref is not None
        lower = opened.bit.reshape(len(opened.bit), len(thresholds), count_words(x.size))
        delta = session.open((lower[:, 0] ^ opened.beta, "xor"))[0]
        out = of_positive(opened, delta, shift, session.first_row)
        _keep(x, shift, opened)
    y = x.derive(out.reshape(len(out), *x.shape), frac_bits=x.frac_bits - shift, bound=bound)
    return y, MaskedBit(opened.ref, opened.rings[:, 0], delta).negate(), lower


def _keep(x: Secret, shift: int, opened: sign.Opened | sign_products.Chosen) -> None:
    """Keep y with x: the shares of R and T are those of step 4."""
    if shift:
        truncation.keep_opened(x, shift, opened.c, opened.rings[:, 2], opened.tops)


def relu(x: Secret, *, truncate: bool = True) -> Secret:
    """Return max(x, 0); by default with at most the session's fractional bits."""
    x, shift = _started(x, truncate)
    rounds = _rounds(x, shift, derivative=False)
    if rounds == 2:
        return _in_two_rounds(x, shift)
    return _relu(x, shift, (1,), rounds - 2)[0]


def relu_in_four_rounds(x: Secret, *, truncate: bool = True) -> tuple[Secret, SecretBit]:
    """Return :func:`relu_with_derivative` with two rounds of products, whatever the network."""
    y, bit, _ = _relu(*_started(x, truncate), (1,), 2)
    return y, bit


def relu_in_two_rounds(x: Secret, *, truncate: bool = True) -> Secret:
    """Return :func:`relu` by :mod:`mpc.protocols.sign_products`, whatever the network."""
    return _in_two_rounds(*_started(x, truncate))


def _in_two_rounds(x: Secret, shift: int) -> Secret:
    session = x.session
    with session.protocol("relu"):
        opened = sign_products.open_sign(x, shift)
        out = of_positive(opened, opened.delta, shift, session.first_row)
        _keep(x, shift, opened)
    return x.derive(
        out.reshape(len(out), *x.shape), frac_bits=x.frac_bits - shift, bound=-(-x.bound >> shift)
    )
