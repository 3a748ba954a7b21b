"""Elementwise products by ring-LWE: exact modulo 2^64, masks, margins."""

import re
from fractions import Fraction

import numpy as np
import pytest

from mpc.core.errors import (
    ArgumentError,
    DtypeError,
    FrameError,
    RangeError,
    SessionError,
    ShapeError,
)
from mpc.two_party import rlwe_slots
from mpc.two_party.channel import LockStep
from mpc.two_party.cost import Cost
from mpc.two_party.rlwe_answers import Life
from mpc.two_party.rlwe_ciphertexts import Ciphertexts
from mpc.two_party.rlwe_parameters import LENGTH, noise_bound
from mpc.two_party.rlwe_protocol import Kept, keep, multiply_kept, multiply_private, product_cost
from mpc.two_party.rlwe_slots import MASK_BITS, SLOT_PARAMETERS, SlotProduct, plain_numbers
from tests.helpers.rlwe import ALARM, Recorded, chance_of_uniform_words, keys_of, some_words


def in_lock_step(product, x, w, channel=None):
    """Return the mixer's share and the keeper's."""
    channel = channel or LockStep()
    kept = keep(channel, product, keys_of(SLOT_PARAMETERS), x)
    shares = multiply_kept(channel, product, kept, w, product.fresh_life())
    return shares[1], shares[0]


@pytest.mark.parametrize("size", [0, 1, 1000, LENGTH, LENGTH + 1, 5 * LENGTH - 7])
@pytest.mark.parametrize("kind", ["random", "extreme", "ones", "half", "zeros"])
def test_products_are_exact(size, kind):
    product = SlotProduct(size)
    x, w = some_words((size,), kind, 1), some_words((size,), kind, 2)
    channel = LockStep()
    mine, theirs = in_lock_step(product, x, w, channel)
    assert np.array_equal(mine + theirs, x * w)
    assert channel.sent == [product.operand_bytes(), product.answer_bytes()]
    assert Cost(rounds=channel.rounds, sent=tuple(channel.sent)) == product_cost(product, 0)
    once = multiply_private(channel, product, keys_of(SLOT_PARAMETERS), x, w, product.fresh_life())
    assert np.array_equal(once[0] + once[1], x * w)


def test_bytes_a_number():
    product = SlotProduct(16 * LENGTH)
    assert 90 < product.operand_bytes() / product.size < 90.01
    assert product.answer_bytes() / product.size == 64


@pytest.mark.parametrize("kind", ["zeros", "half", "ones"])
def test_shares_and_what_travels_are_uniform(kind):
    size = 2 * LENGTH
    product = SlotProduct(size)
    channel = Recorded()
    shares = in_lock_step(product, some_words((size,), kind), some_words((size,), kind), channel)
    for share in shares:
        assert chance_of_uniform_words(share) > ALARM
    assert channel.messages[1]
    for words in channel.messages[1]:
        assert chance_of_uniform_words(words) > ALARM


def test_nothing_wraps_around():
    """A mask and a product are below half of the product of the plain primes, and its last digit."""
    primes = plain_numbers().primes
    largest = (primes[-1] - 1) // 2
    for p in primes[:-1]:
        largest *= p
    assert 2 ** (MASK_BITS - 1) + 2**126 < largest
    assert not set(primes) & set(SLOT_PARAMETERS.numbers.primes)


def test_margin():
    """Half a message is 2^15 modulo 2^64, and 2^14 are the flood's; see the parameters for Hoeffding."""
    q = SLOT_PARAMETERS.numbers.q
    for t in plain_numbers().primes:
        flood = Fraction(2 ** (SlotProduct(1).flood_bits - 1) * 2**64, q)
        noise = noise_bound(LENGTH * ((t - 1) // 2)) * Fraction(2**64, q)
        assert flood + noise + 5000 < Fraction(2**64, 2 * t)


def test_distance():
    """By the largest polynomial modulo a plain prime, all of whose coefficients make noise."""
    for size, products in ((1, 1), (LENGTH + 1, 3)):
        product = SlotProduct(size, products)
        coefficients = products * 4 * LENGTH * -(-size // LENGTH)
        assert product.life == coefficients == products * product.answered
        largest = max(noise_bound(LENGTH * ((t - 1) // 2)) for t in plain_numbers().primes)
        # And a product of two words for each number, under a mask of its own.
        least = coefficients * largest / 2**product.flood_bits
        least += Fraction(coefficients // 4 * 2**126, 2**MASK_BITS)
        assert least <= product.distance <= least * Fraction(1001, 1000)


def test_measured_margin(monkeypatch):
    """The phase's distance from what it rounds to."""
    seen = []
    original = rlwe_slots._unscale

    def watch(phase, t, out):
        original(phase, t, out)
        exact = [(int(v) % int(t)) * 2**64 // int(t) for v in out[:500]]
        away = [
            (int(a) - b + 2**63) % 2**64 - 2**63 for a, b in zip(phase[:500], exact, strict=True)
        ]
        seen.append(max(map(abs, away)))

    monkeypatch.setattr(rlwe_slots, "_unscale", watch)
    product = SlotProduct(100)
    in_lock_step(product, some_words((100,), "half"), some_words((100,), "half"))
    assert len(seen) == 4
    assert 2**13 < max(seen) < 2**14 + 10 * 22


def test_life_and_bounds():
    product = SlotProduct(10)
    assert product.distance <= Fraction(1, 2**40)
    channel, keys = LockStep(), keys_of(SLOT_PARAMETERS)
    x, life = some_words((10,), "random"), product.fresh_life()
    kept = keep(channel, product, keys, x)
    multiply_kept(channel, product, kept, x, life)
    sent = list(channel.sent)
    with pytest.raises(SessionError, match="would show it"):
        multiply_kept(channel, product, kept, x, life)
    with pytest.raises(ArgumentError, match="the product allows"):
        multiply_kept(channel, product, kept, x, Life(2 * product.life))
    ciphertexts = kept.ciphertexts
    few = Ciphertexts(SLOT_PARAMETERS, ciphertexts.c_0[:, :0], ciphertexts.c_1[:, :0])
    with pytest.raises(ShapeError, match="must have 4 polynomials, got 0"):
        multiply_kept(channel, product, Kept(keys, few), x, product.fresh_life())
    assert channel.sent == sent
    with pytest.raises(RangeError, match="parameters q180 flood 131 bits.*above 2\\^-40"):
        SlotProduct(10**6, products=1000)
    for wrong in ((-1, 1), (1, 0)):
        with pytest.raises(ArgumentError, match="size must not be negative"):
            SlotProduct(*wrong)


def test_arguments_and_messages_that_do_not_fit():
    product = SlotProduct(10)
    channel, keys = LockStep(), keys_of(SLOT_PARAMETERS)
    with pytest.raises(DtypeError, match="the keeper's operand must be a uint64 array"):
        keep(channel, product, keys, np.zeros(10))
    with pytest.raises(ShapeError, match=re.escape("must have shape (10,), got (9,)")):
        keep(channel, product, keys, np.zeros(9, np.uint64))
    assert channel.sent == [0, 0]
    x = np.zeros(10, np.uint64)
    kept = keep(channel, product, keys, x)
    with pytest.raises(DtypeError, match="the mixer's operand must be a uint64 array"):
        multiply_kept(channel, product, kept, np.zeros(10), product.fresh_life())

    class Short(LockStep):
        def swap(self, messages, counts, *, continued=False):
            return [m[:-1] for m in super().swap(messages, counts, continued=continued)]

    with pytest.raises(FrameError, match="bob has sent"):
        multiply_kept(Short(), product, kept, x, product.fresh_life())
    with pytest.raises(FrameError, match="alice has sent"):
        keep(Short(), product, keys, x)
    # And behind a channel that does not look.
    shares = np.empty(product.share_shape, np.uint64)
    with pytest.raises(FrameError, match="bob's answer ends early"):
        product.open(keys.secret, 0, bytes(8 * product.answer_words()[0] - 8), "bob", shares)
    with pytest.raises(FrameError, match="bob's ciphertexts ends early"):
        product.read(keys.public, bytes(8 * product.operand_words()[0] - 8), 4, "bob")
