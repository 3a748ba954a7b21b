"""What a product tells that is revealed without a provider: z + U to a party, y alone to a client."""

import numpy as np
import pytest

import mpc
from mpc.protocols import truncation

SHIFT = 16
SIZE = 1 << 13
UNIT = np.uint64(1 << SHIFT)

VALUES = {
    "zero": np.zeros(SIZE),
    "units": np.full(SIZE, 2.0**-16),
    "large": np.full(SIZE, 30000.0),
    "mixed": np.linspace(-30000, 30000, SIZE),
}


def balanced(words, bits):
    """Whether each of the lowest bits is set in half of the words, to within seven deviations."""
    ones = np.array([(words >> np.uint64(k) & np.uint64(1)).sum() for k in range(bits)])
    return bool((np.abs(ones - words.size / 2) < 3.5 * np.sqrt(words.size)).all())


@pytest.fixture
def session():
    with mpc.Session(provider=None) as s:
        yield s


@pytest.fixture
def held(monkeypatch):
    """The shares that truncations begin with, in order."""
    found, fresh = [], truncation.fresh_shares

    def noted(session, shares):
        found.append(fresh(session, shares))
        return found[-1].copy()

    monkeypatch.setattr(truncation, "fresh_shares", noted)
    return found


def product(s, name, owners):
    """Return a shared product, and it in the clear, as words with all its bits."""
    a, b = VALUES[name], np.linspace(-1, 1, SIZE)
    exact = np.round(a * 2**16).astype(np.int64) * np.round(b * 2**16).astype(np.int64)
    left, right = owners
    return s.share(a, owner=left) * s.share(b, owner=right), exact.view(np.uint64)


@pytest.mark.parametrize("owners", [("alice", "bob"), ("alice", "alice"), ("bob", "bob")])
@pytest.mark.parametrize("name", VALUES)
def test_a_party_learns_z_and_something_uniform_of_its_own(session, held, name, owners):
    z, exact = product(session, name, owners)
    revealed = z.reveal() * 2**16
    # No more bits than the format has.
    assert (revealed == np.round(revealed)).all()
    y = revealed.astype(np.int64).view(np.uint64)
    (shares,) = held
    alice = (shares[0] - np.uint64(1)) & (UNIT - np.uint64(1))
    bob = shares[1] & (UNIT - np.uint64(1))
    for own in (alice, bob):
        # From y and the last bits of its own share.
        u = (y << np.uint64(SHIFT)) + own - exact
        assert (u < UNIT).all()
        assert balanced(u, SHIFT)
        assert balanced(u ^ exact, SHIFT)
        # What it knows is no part of z.
        assert balanced(own ^ exact, SHIFT)


def test_again_it_tells_nothing_more(session, held):
    z, _ = product(session, "mixed", ("alice", "bob"))
    first = z.reveal()
    assert (z.reveal() == first).all() and (z.reveal(to="bob") == first).all()
    assert len(held) == 1


@pytest.mark.parametrize("fraction", [1, 1 << 14, (1 << 16) - 1])
def test_whoever_has_both_shares_of_the_result_alone_learns_the_rounded_value(session, fraction):
    """The result's shares say no more of z than the result does: as a client gets them."""
    exact = np.full(SIZE, (3 << SHIFT) + fraction)
    z = session.share(exact, owner="alice") * session.share(np.ones(SIZE, int), owner="bob")
    (y,) = truncation.divide_by_powers(z, [SHIFT])
    up = y.shares.sum(axis=0) - np.uint64(3)
    assert set(up.tolist()) <= {0, 1}
    for share in y.shares:
        for k in range(64):
            bit = share >> np.uint64(k) & np.uint64(1)
            # Of what is rounded up as of the rest, to within seven deviations.
            for some in (bit[up == 1], bit[up == 0]):
                assert abs(int(some.sum()) - some.size / 2) <= 3.5 * np.sqrt(max(some.size, 16))


@pytest.mark.parametrize("provider", ["crypto", None])
@pytest.mark.parametrize(
    "compute",
    [
        lambda p, ones: p.relu(),
        lambda p, ones: np.maximum(p, 0),
        lambda p, ones: p.relu_with_derivative()[0],
        lambda p, ones: abs(p),
        lambda p, ones: p.gate(ones > 0),
    ],
    ids=["relu", "maximum", "relu_with_derivative", "abs", "gate"],
)
def test_a_value_is_rounded_once(compute, provider):
    with mpc.Session(**({} if provider else {"provider": None})) as s:
        ones = s.share(np.ones(SIZE), owner="bob")
        p = s.share(np.full(SIZE, 1.5 + 2.0**-16), owner="alice") * (ones * 0.5 + 0)
        first = compute(p, ones).reveal()
        # Half a unit, rounded up or down.
        assert len(set(first.tolist())) == 2
        assert (first == compute(p, ones).reveal()).all()
        assert (first == p.reveal()).all()


@pytest.mark.parametrize("provider", ["crypto", None])
def test_a_maximum_of_two_arrays_is_of_values_that_are_kept(provider):
    with mpc.Session(**({} if provider else {"provider": None})) as s:
        half = s.share(np.full(SIZE, 0.5), owner="bob")
        p = s.share(np.full(SIZE, 1.5 + 2.0**-16), owner="alice") * half
        first, again = (np.maximum(p, half).reveal() for _ in range(2))
        assert (first == again).all() and len(set(first.tolist())) == 2
