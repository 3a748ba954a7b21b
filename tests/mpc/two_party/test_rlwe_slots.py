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
from mpc.two_party.rlwe_answers import Life
from mpc.two_party.rlwe_parameters import LENGTH, noise_bound
from mpc.two_party.rlwe_slots import (
    MASK_BITS,
    SLOT_PARAMETERS,
    SlotProduct,
    answer_slots,
    plain_numbers,
    receive_slots,
    receive_slots_answer,
    send_slots,
)
from tests.helpers.rlwe import (
    ALARM,
    chance_of_uniform_words,
    key_of,
    pipes,
    public_of,
    some_words,
)


def in_lock_step(product, x, w, keeper=None, mixer=None):
    if keeper is None:
        keeper, mixer = pipes()
    key, public = key_of(SLOT_PARAMETERS), public_of(SLOT_PARAMETERS)
    send_slots(product, key, x, keeper)
    kept = receive_slots(product, mixer)
    mine = answer_slots(product, kept, public, w, mixer, product.fresh_life())
    return mine, receive_slots_answer(product, key, keeper)


@pytest.mark.parametrize("size", [0, 1, 1000, LENGTH, LENGTH + 1, 5 * LENGTH - 7])
@pytest.mark.parametrize("kind", ["random", "extreme", "ones", "half", "zeros"])
def test_products_are_exact(size, kind):
    product = SlotProduct(size)
    x, w = some_words((size,), kind, 1), some_words((size,), kind, 2)
    keeper, mixer = pipes()
    mine, theirs = in_lock_step(product, x, w, keeper, mixer)
    assert np.array_equal(mine + theirs, x * w)
    assert keeper.sent_bytes == product.operand_bytes()
    assert mixer.sent_bytes == product.answer_bytes()


def test_bytes_a_number():
    product = SlotProduct(16 * LENGTH)
    assert 90 < product.operand_bytes() / product.size < 90.01
    assert product.answer_bytes() / product.size == 64


@pytest.mark.parametrize("kind", ["zeros", "half", "ones"])
def test_shares_and_what_travels_are_uniform(kind):
    size = 2 * LENGTH
    product = SlotProduct(size)
    keeper, mixer = pipes()
    shares = in_lock_step(
        product, some_words((size,), kind), some_words((size,), kind), keeper, mixer
    )
    for share in shares:
        assert chance_of_uniform_words(share) > ALARM
    for data in mixer.sent:
        assert chance_of_uniform_words(np.frombuffer(data, np.uint64)) > ALARM


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
    keeper, mixer = pipes()
    key, public = key_of(SLOT_PARAMETERS), public_of(SLOT_PARAMETERS)
    x, life = some_words((10,), "random"), product.fresh_life()
    send_slots(product, key, x, keeper)
    kept = receive_slots(product, mixer)
    answer_slots(product, kept, public, x, mixer, life)
    sent = len(mixer.sent)
    with pytest.raises(SessionError, match="would show it"):
        answer_slots(product, kept, public, x, mixer, life)
    with pytest.raises(ArgumentError, match="the product allows"):
        answer_slots(product, kept, public, x, mixer, Life(2 * product.life))
    with pytest.raises(ShapeError, match=re.escape("must have [4] polynomials, got []")):
        answer_slots(product, [], public, x, mixer, product.fresh_life())
    assert len(mixer.sent) == sent
    with pytest.raises(RangeError, match="parameters q180 flood 131 bits.*above 2\\^-40"):
        SlotProduct(10**6, products=1000)
    for wrong in ((-1, 1), (1, 0)):
        with pytest.raises(ArgumentError, match="size must not be negative"):
            SlotProduct(*wrong)


def test_arguments_and_messages_that_do_not_fit():
    product = SlotProduct(10)
    keeper, _ = pipes()
    key = key_of(SLOT_PARAMETERS)
    with pytest.raises(DtypeError, match="the keeper's operand must be a uint64 array"):
        send_slots(product, key, np.zeros(10), keeper)
    with pytest.raises(ShapeError, match=re.escape("must have shape (10,), got (9,)")):
        send_slots(product, key, np.zeros(9, np.uint64), keeper)

    class Short:
        peer = "bob"

        def receive(self, count):
            return bytes(count - 8)

    with pytest.raises(FrameError, match="bob's answer ends early"):
        receive_slots_answer(product, key, Short())
    with pytest.raises(FrameError, match="bob's ciphertexts ends early"):
        receive_slots(product, Short())
