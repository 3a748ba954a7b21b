"""Every path that truncates in a session without a provider rounds as the provider's does.

z / 2^s is rounded up with probability (z mod 2^s) / 2^s, exactly where z is a multiple, and anew each time:
whatever shares of z there are, also where one party holds all of it.
"""

import numpy as np
import pytest

import mpc
from mpc import SharedArray
from mpc.protocols import combination, exponential, linear, truncation
from tests.helpers.chances import ALARM, chance_of_count

SHIFT, SIZE = 16, 8000
LARGEST = 2**62 - 1
NUMERATORS = (0, 1, 16384, 40000, 65535)
WHOLES = (0, 12345, -12345, 2**44, -(2**44))


@pytest.fixture(scope="module")
def alone():
    with mpc.Session(provider=None) as s:
        yield s


def of_shares(s, shares):
    return SharedArray(s, shares, 2 * SHIFT, LARGEST)


def computed(s, values):
    second = np.random.default_rng(5).integers(0, 2**64, values.size, np.uint64)
    return of_shares(s, np.stack([values.view(np.uint64) - second, second]))


def held_by(owner):
    def make(s, values):
        party = s.parties.index(owner)
        shares = np.zeros((2, values.size), np.uint64)
        shares[party] = values.view(np.uint64)
        return of_shares(s, shares)

    return make


def constant(s, values):
    return SharedArray.from_public(s, values * 2.0 ** (-2 * SHIFT), 2 * SHIFT, LARGEST)


KINDS = {
    "computed": computed,
    "all of it alice's": held_by("alice"),
    "all of it bob's": held_by("bob"),
    "public": constant,
}


def ones(s, size):
    return s.share(np.ones(size), owner="bob").relu_with_derivative()[1]


PATHS = {
    "truncate": lambda s, z: z.truncate(),
    "transposed": lambda s, z: z.reshape(2, -1).T.truncate().T.reshape(-1),
    "a view": lambda s, z: z[::-1].truncate()[::-1],
    "relu": lambda s, z: z.relu(),
    "gate": lambda s, z: z.gate(ones(s, z.size)),
    "combination": lambda s, z: combination.combine([(z, combination.Fraction(1, 0))], SHIFT),
    "divide": lambda s, z: truncation.divide_by_power(z, SHIFT, SHIFT),
}


def integers(x):
    return x.derive(x.shares, frac_bits=0, bound=x.bound).reveal()


def check(ups, p):
    assert set(np.unique(ups)) <= {0, 1}
    assert chance_of_count(ups.sum(), ups.size, p) > ALARM


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", KINDS)
def test_rounded_up_as_often_as_it_should_be(alone, kind, path):
    wholes = np.abs(WHOLES) if path == "relu" else np.array(WHOLES)
    z = np.repeat((wholes << SHIFT) + NUMERATORS, SIZE)
    found = integers(PATHS[path](alone, KINDS[kind](alone, z))).reshape(len(wholes), SIZE)
    for row, whole, numerator in zip(found, wholes, NUMERATORS, strict=True):
        check(row - whole, numerator / 2**SHIFT)


@pytest.mark.parametrize("kind", KINDS)
def test_a_relu_of_what_is_negative(alone, kind):
    z = KINDS[kind](alone, np.full(SIZE, -20000))
    # Rounded up it is 0, down -1.
    assert not integers(z.relu()).any()
    value, derivative = KINDS[kind](alone, np.full(SIZE, 20000)).relu_with_derivative()
    bits = alone.share(np.ones(SIZE), owner="alice").gate(derivative)
    # The derivative is that of the rounded value.
    np.testing.assert_array_equal(bits.reveal() == 1, integers(value) == 1)
    check(integers(value), 20000 / 2**SHIFT)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", KINDS)
def test_each_time_anew(alone, kind, path):
    p = 0.25
    z = KINDS[kind](alone, np.full(SIZE, int(p * 2**SHIFT)))
    first, second = (
        integers(PATHS[path](alone, z.derive(z.shares, frac_bits=z.frac_bits, bound=z.bound)))
        for _ in range(2)
    )
    both = p * p + (1 - p) * (1 - p)
    assert abs((first == second).mean() - both) <= 7 * np.sqrt(both * (1 - both) / SIZE)


@pytest.mark.parametrize("owner", ["alice", "bob", None])
def test_public_fractions(alone, owner):
    values = np.full(SIZE, 2.0**-16)
    x = alone.share(values, owner=owner or "alice")
    if owner is None:
        x = x + alone.share(np.zeros(SIZE), owner="bob")
    check(integers((x * 0.375).truncate()), 0.375)
    check(integers((x / 8).truncate()), 0.125)
    # Of a fraction that is no power of two, to the accuracy of its limbs.
    up = integers(((x * 5) / 3).truncate()).mean() - 1
    assert abs(up - 2 / 3) <= 7 * np.sqrt(2 / 9 / SIZE) + 2.0**-14


@pytest.mark.parametrize("owner", ["alice", "bob"])
def test_the_exponent_of_what_an_owner_holds(alone, owner):
    """Its lowest bits are zeros at one party."""
    d = np.round(-1.23456 * 2**16) / 2**16
    x = linear.at_bits(alone.share(np.full(SIZE, d), owner=owner), 40)
    found = exponential.exp(x)
    values = found.derive(found.shares, frac_bits=0, bound=found.bound).reveal() * 2.0**-24
    assert abs(values.mean() - np.exp(d)) < 1e-7
