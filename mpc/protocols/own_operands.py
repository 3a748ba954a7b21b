"""Operands of products in a session without a provider, and the ways to make what they share.

x w = x_0 w_0 + x_1 w_1 + x_0 w_1 + x_1 w_0. The first two terms are local, each of the others is a product
of what one party knows with what the other knows: a cross term. If x is an input of party j, it is j's
alone: x w = x w_j + x w_i, one local term and one cross term; likewise for w.
Cross terms are made by ring-LWE (:mod:`mpc.two_party.rlwe_products`): one party encrypts its operand, the
other multiplies and answers, by the way that takes fewest bytes and least work. A right operand that is
an input, such as a model's weights, may stay encrypted at the other party.

Source: cross terms of additive shares, Gilboa 1999; by encryption, see the files named.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpc.core.errors import SessionError
from mpc.core.runtime import Runtime
from mpc.core.secret_value import SecretValue
from mpc.two_party.mask_products import FEW_ROWS, Factor, Masks, factors_of, multiply_masked
from mpc.two_party.operands import Chosen, frozen, join_halves, split_halves
from mpc.two_party.pair import Pair
from mpc.two_party.rlwe_layouts import Layout, choose_left, choose_right, weight
from mpc.two_party.rlwe_parameters import DISTANCE_BITS
from mpc.two_party.rlwe_products import WORD_BOUND, Product
from mpc.two_party.rlwe_repeated import Repeated

__all__ = [
    "Operand", "Way", "cross_terms", "crossing", "from_masks", "local_factors", "matrix_ways", "row_of",
]  # fmt: skip

Words = NDArray[np.uint64]

# Products that an operand which is kept is taken to serve.
_SERVED = 1000


class Operand:
    """What each party knows of a secret.

    Attributes
    ----------
    words : list of arrays
        What each party that lives here knows: an input its owner whole, other arrays each its share.
    known : tuple of bool
        For each party, whether it knows anything but zeros.
    bound : int
        On the magnitude of what a party knows.
    array : array
        What all of `words` are views of.
    """

    def __init__(self, x: SecretValue) -> None:
        here, plaintext = x.session.here, x.plaintext
        self.plaintext, self.shape = plaintext, x.shape
        if plaintext is None:
            self.array = x.shares
            self.words = list(x.shares)
            self.known = (True, True)
            self.bound = WORD_BOUND
            return
        nothing = np.zeros(x.shape, np.uint64)
        self.array = plaintext.base.encoded
        self.words = [
            plaintext.encoded[0] if party == plaintext.owner else nothing for party in here
        ]
        self.known = (plaintext.owner == 0, plaintext.owner == 1)
        self.bound = x.bound

    @property
    def lasting(self) -> bool:
        return self.plaintext is not None


def crossing(x: Operand, w: Operand) -> list[int]:
    """Return the parties whose x is to be multiplied with the other's w."""
    return [party for party in (0, 1) if x.known[party] and w.known[1 - party]]


def local_factors(session: Runtime, x: Operand, w: Operand) -> list[tuple[int, Words, Words]]:
    """Return (row, x, w) for each party here that knows something of both."""
    found = enumerate(zip(session.here, x.words, w.words, strict=True))
    return [(row, a, b) for row, (party, a, b) in found if x.known[party] and w.known[party]]


def row_of(pair: Pair, words: Words | list[Words], party: int) -> Words | None:
    """Return the row of a party, None if it does not live here."""
    return words[pair.parties.index(party)] if party in pair.parties else None


@dataclass(frozen=True)
class Way:
    """One way to make the cross terms of a product.

    Attributes
    ----------
    layout : Layout
    halves : callable
        Returns the layout for twice as many of the mixer's numbers.
    keeps_left : bool
        Whether keepers encrypt the left operand.
    axis, result_axis : int
        Of the mixer's operand, along which it may be twice as long; and of the result, which is then, too.
    pack, unpack : callable
        Return operands, left and right, as the layout takes them, and the result from what it gives.
    stays : bool
        Whether what is kept serves later products.
    """

    layout: Layout
    halves: Callable[[], Layout]
    keeps_left: bool
    axis: int
    result_axis: int
    pack: Callable[[Words, Words], tuple[Words, Words]] = lambda x, w: (x, w)
    unpack: Callable[[Words], Words] = lambda z: z
    stays: bool = False

    def weight(self, chosen: Chosen) -> float:
        """Return what the product takes, see :func:`mpc.two_party.rlwe_layouts.weight`."""
        product = chosen.product
        served = _SERVED if self.stays else 1
        return weight(product.layout, served, product.parameters.ciphertext_bits / 8)


def left_way(m: int, k: int, n: int) -> Way:
    return Way(choose_left(m, k, n), lambda: choose_left(m, k, 2 * n), True, 1, 1)


def right_way(m: int, k: int, n: int, products: int = 1) -> Way:
    return Way(
        choose_right(m, k, n, products=products),
        lambda: choose_right(2 * m, k, n, products=products),
        False, 0, 0, stays=products > 1,
    )  # fmt: skip


def matrix_ways(m: int, k: int, n: int, right: Operand) -> list[Way]:
    if m < FEW_ROWS and right.lasting:
        return [right_way(m, k, n, _SERVED), left_way(m, k, n)]
    return [left_way(m, k, n), right_way(m, k, n)]


def cross_terms(
    pair: Pair, ways: list[Way], left: Operand, right: Operand,
    x: list[Words], w: list[Words], parties: list[int], stack: slice | None = None,
) -> Words:  # fmt: skip
    """Return shares of the cross terms, (p, ...), by the way that takes fewest bytes and least work.

    `x` and `w` are what each party here knows; or stacks of matrices, which are those of a `stack` of the
    operands.
    """
    operands, count = pair.operands, 1 if stack is None else stack.stop - stack.start
    ahead = 0 if stack is None else 1
    found = []
    for way in ways:
        mixed = right if way.keeps_left else left
        chosen = operands.choose(
            mixed.array, way.layout, way.halves, mixed.bound,
            lasting=mixed.lasting or way.stays, count=count,
        )  # fmt: skip
        if chosen is not None:
            found.append((way.weight(chosen), way, chosen, mixed))
    if not found:
        raise SessionError(
            f"both operands of a product, {left.shape} and {right.shape}, have been multiplied as often as"
            " they may be, or it is too large: what the other party sees of their encryption would show one"
            f" by more than 2^-{DISTANCE_BITS}; share or compute them anew, or multiply less at once"
        )
    _, way, chosen, mixed = min(found, key=lambda entry: entry[0])
    product: Product | Repeated = chosen.product
    if stack is not None:
        product = Repeated(chosen.product, count)
    operands.spend(mixed.array, chosen.shown)
    packed = [way.pack(a, b) for a, b in zip(x, w, strict=True)]
    kept_words, mixed_words = [], []
    for a, b in packed:
        kept, factor = (a, b) if way.keeps_left else (b, a)
        kept_words.append(np.ascontiguousarray(kept))
        factor = split_halves(factor, way.axis + ahead) if chosen.halves else factor
        mixed_words.append(np.ascontiguousarray(factor))
    if len(parties) == 2:
        stacks = [
            _stacked(kept_words, product.kept_shape),
            _stacked(mixed_words, product.mixed_shape),
        ]
        out = pair.cross_products(product, stacks[0], stacks[1], product.fresh_life())
    else:
        keeper = parties[0] if way.keeps_left else 1 - parties[0]
        mine = row_of(pair, kept_words, keeper)
        theirs = row_of(pair, mixed_words, 1 - keeper)
        life = product.fresh_life()
        if way.stays:
            assert right.plaintext is not None
            base, views = right.plaintext.base, right.plaintext.views
            layout = chosen.product.layout.kept_as, product.parameters
            key = base.id, frozen(views), frozen(stack), layout
            kept_once = operands.kept(
                key, product.memory_bytes(), lambda: pair.keep(product, keeper, mine)
            )
            out = pair.multiply_kept(product, kept_once, theirs, life)
        else:
            out = pair.multiply_private(product, keeper, mine, theirs, life)
    if chosen.halves:
        out = join_halves(out, way.result_axis + ahead + 1)
    if not len(out):
        nothing = np.empty(
            way.layout.result_shape if stack is None else (count, *way.layout.result_shape),
            np.uint64,
        )
        return np.empty((0, *way.unpack(nothing).shape), np.uint64)
    return np.stack([way.unpack(part) for part in out])


def from_masks(
    pair: Pair, masks: Callable[[int, int, Factor], Masks], count: int, left: Operand,
    right: Operand, shape: tuple[int, int, int], parties: list[int], rows: Callable[[Words], Words],
) -> Words | None:  # fmt: skip
    """Return shares of the cross terms by masks that were made ahead, if there are any.

    Of shape (p, count, results).

    Parameters
    ----------
    masks : callable
        Describes masks: how many, the party that knows them, the other's matrices.
    count : int
        How many it takes.
    shape : tuple of int
        Of the right operand, as matrices.
    rows : callable
        Returns the left operand as the masks have it.
    """
    known = right.array if right.plaintext is None else right.plaintext
    factor = factors_of(pair, known, shape, right.bound)
    if factor is None:
        return None
    wanted = [masks(count, party, factor(1 - party)) for party in parties]
    made = pair.take_prepared(wanted)
    if made is None:
        return None
    x, w = [rows(words) for words in left.words], [words.reshape(shape) for words in right.words]
    return multiply_masked(pair, wanted, made, x, w)


def _stacked(words: list[Words], shape: tuple[int, ...]) -> Words:
    return np.stack(words) if words else np.empty((0, *shape), np.uint64)
