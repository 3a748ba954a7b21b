"""What revealing a product tells: z + U, U uniform below a unit, once for each array."""

import numpy as np
import pytest

from mpc.protocols.truncation import TruncationPair

SHIFT = 16
SIZE = 1 << 13


def balanced(words, bits):
    """Whether each of the lowest bits is set in half of the words, to within six deviations."""
    ones = np.array([(words >> np.uint64(k) & np.uint64(1)).sum() for k in range(bits)])
    return bool((np.abs(ones - words.size / 2) < 3 * np.sqrt(words.size)).all())


def told(heard, y):
    """Return z + U, from what was opened for the truncation and the result."""
    ((both,),) = heard.opened[-1:]
    c = np.ascontiguousarray(both[:, 0])
    low = c.reshape(-1) & np.uint64(2**SHIFT - 1)
    encoded = np.round(y * 2**16).astype(np.int64).view(np.uint64)
    return (encoded << np.uint64(SHIFT)) + low, c.reshape(-1)


VALUES = {
    "zero": np.zeros(SIZE),
    "units": np.full(SIZE, 2.0**-16),
    "large": np.full(SIZE, 30000.0),
    "mixed": np.linspace(-30000, 30000, SIZE),
}


@pytest.mark.dealt
@pytest.mark.parametrize("name", VALUES)
def test_a_revealed_product_is_z_and_something_uniform_below_a_unit(fresh_session, tap, name):
    s = fresh_session
    a, b = VALUES[name], np.linspace(-1, 1, SIZE)
    exact = (np.round(a * 2**16).astype(np.int64) * np.round(b * 2**16).astype(np.int64)).view(
        np.uint64
    )
    x, w = s.share(a, owner="alice"), s.share(b, owner="bob")
    z = x * w
    with tap(s) as heard:
        y = z.reveal()
    v, c = told(heard, y)
    u = v - exact
    # Exactly: y and what was opened say z + U, and U is what it is said to be, whatever z is.
    assert (u < 2**SHIFT).all()
    assert balanced(u, SHIFT)
    assert balanced(u ^ exact, SHIFT)
    # R, which was opened with c, is r >> s: c and y say as much.
    ((both,),) = heard.opened[-1:]
    r = c - exact - np.uint64(1 << 62)
    np.testing.assert_array_equal(both[0, 1], r >> np.uint64(SHIFT))
    # And no more: the rest of what was opened is uniform, whatever y is.
    assert balanced(c >> np.uint64(SHIFT), 64 - SHIFT)
    assert balanced((c ^ v) >> np.uint64(SHIFT), 64 - SHIFT)


def revealed(s, z):
    """Reveal to all twice and to each party."""
    found = [z.reveal(), s.reveal(z)]
    return found + [z.reveal(to=party) for party in s.parties]


def test_the_same_array_is_truncated_once(fresh_session, tap):
    s = fresh_session
    x, w = s.share(np.linspace(-9, 9, 2000), owner="alice"), s.share(1 / 3, owner="bob")
    z = x * w
    planned = s.plan(lambda p: p.twin(z).truncate()).cost
    before = s.cost()
    with tap(s) as heard:
        found = revealed(s, z)
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
    spent = (s.cost() - before).total
    if s.source.own_shares:
        assert spent.rounds == planned.rounds + 2 + s.size
    else:
        # One correlation, and one masked value, which goes with the result.
        assert len(heard.dealt) == 1
        assert len(heard.opened) == 2 + s.size
        assert spent.rounds == 2 + s.size
    # Other uses in the format take the same array.
    np.testing.assert_array_equal(z.truncate().reveal(), found[0])
    assert (s.cost() - before).total.rounds == spent.rounds + 1


def test_a_plan_knows_what_is_truncated_already(pair):
    x = pair.share(np.linspace(-9, 9, 20), owner="alice")
    z = x * x

    def program(p):
        return p.twin(z).reveal()

    outlines = [z.outline()]
    for again in (False, True):
        # Without a provider, to make transfers comes first, and truncation is a round of its own.
        rounds = 4 if pair.source.own_shares and not again else 1
        assert pair.plan(program).cost.rounds == rounds
        before = pair.cost()
        z.reveal()
        assert (pair.cost() - before).total.rounds == rounds
        outlines.append(z.outline())
    assert outlines[0] != outlines[1] == outlines[2]


@pytest.mark.dealt
@pytest.mark.parametrize("first", ["all", "alice", "bob", "shares"])
def test_what_is_revealed_first_to_one_is_rounded_once(fresh_session, tap, first):
    """Whoever learns it first: the others learn the same, and shares of it are the same, too."""
    s = fresh_session
    x, w = s.share(np.linspace(-9, 9, 2000), owner="alice"), s.share(1 / 3, owner="bob")
    z, words = x * w, []
    with tap(s) as heard:
        for to in {"all": [None], "shares": []}.get(first, [first]):
            words.append(z.reveal(to=to))
        kept = z.truncate()
        # Used before and after its shares were asked for.
        words += [(kept * 1).reveal(), z.reveal(to="alice"), z.reveal(to="bob"), kept.reveal()]
    for other in words[1:]:
        np.testing.assert_array_equal(other, words[0])
    assert sum(isinstance(c, TruncationPair) for _, c, _ in heard.dealt) == 1
    assert np.abs(words[0] - np.linspace(-9, 9, 2000) / 3).max() < 3e-4


@pytest.mark.dealt
@pytest.mark.parametrize("first", ["all", "bob"])
def test_a_plan_knows_to_whom_it_was_revealed(fresh_session, first):
    s = fresh_session
    x = s.share(np.linspace(-9, 9, 20), owner="alice")
    z = x * x
    z.reveal(to=None if first == "all" else first)

    def program(z):
        return (z.truncate() + 1).relu().reveal()

    plan, before = s.plan(lambda p: program(p.twin(z))), s.cost()
    program(z)
    assert plan.cost == s.cost() - before
    # c is opened only if not all parties know it.
    assert plan.cost.rounds == 5 + (first == "bob")


@pytest.mark.dealt
def test_an_array_that_is_computed_anew_tells_more(pair, tap):
    """As the docs say: what should be revealed twice must be kept."""
    a = np.full(SIZE, 2.0**-9 + 2.0**-16)
    x = pair.share(a, owner="alice")
    exact = np.uint64(int(a[0] * 2**16) ** 2)
    seen = []
    for _ in range(2):
        with tap(pair) as heard:
            seen.append(told(heard, (x * x).reveal())[0] - exact)
    assert (seen[0] != seen[1]).mean() > 0.9
    # A view is an array of its own, too.
    z = x * x
    with tap(pair) as heard:
        z.reveal()
        z[:10].reveal()
    assert sum(isinstance(c, TruncationPair) for _, c, _ in heard.dealt) == 2
