"""What revealing a product tells: z + U, U uniform below a unit, once for each array."""

import numpy as np
import pytest

from mpc.protocols import clip, limits, relu
from mpc.protocols.truncation import TruncationPair
from mpc.session_setup import _values_of

SHIFT = 16
SIZE = 1 << 13


def balanced(words, bits):
    """Whether each of the lowest bits is set in half of the words, to within seven deviations."""
    ones = np.array([(words >> np.uint64(k) & np.uint64(1)).sum() for k in range(bits)])
    return bool((np.abs(ones - words.size / 2) < 3.5 * np.sqrt(words.size)).all())


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
    assert plan.cost.rounds == 4 + (first == "bob")


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


def clipped(z, *ends):
    return clip.clip_with_derivative(z, *(end and end << 16 for end in ends))[0]


def within(z):
    excess = limits.Excess(z.session)
    found = limits.relu_within(z, 20 << 16, excess)
    return found if not z.session.source.own_shares else z.relu()


# What a protocol that truncates on its way makes of y, and the same of y in the clear.
TRUNCATING = {
    "relu": (lambda z: z.relu(), lambda y: np.maximum(y, 0)),
    "derivative": (lambda z: z.relu_with_derivative()[0], lambda y: np.maximum(y, 0)),
    "two rounds": (
        lambda z: z.relu() if z.session.source.own_shares else relu.relu_in_two_rounds(z),
        lambda y: np.maximum(y, 0),
    ),
    "clip": (lambda z: clipped(z, -1, 2), lambda y: np.clip(y, -1, 2)),
    "above": (lambda z: clipped(z, 1, None), lambda y: np.maximum(y, 1)),
    "below": (lambda z: clipped(z, None, 2), lambda y: np.minimum(y, 2)),
    "relu with a limit": (within, lambda y: np.maximum(y, 0)),
    "a limit": (
        lambda z: limits.truncate_within(z, 20 << 16, limits.Excess(z.session)), lambda y: y
    ),
    "absolute": (abs, np.abs),
    "gate": (lambda z: z.gate(z > 0), lambda y: np.maximum(y, 0)),
}  # fmt: skip


@pytest.mark.parametrize("name", TRUNCATING)
def test_what_truncates_on_its_way_rounds_once(fresh_session, name):
    """Twice, then in another protocol, then revealed: all are of one rounding, as the plan knows."""
    s = fresh_session
    function, exact = TRUNCATING[name]
    z = s.share(np.linspace(-9, 9, 700), owner="alice") * s.share(1 / 3, owner="bob")
    first = function(z).reveal()

    def rest(z):
        return function(z).reveal(), z.relu().reveal(), z.reveal(to="bob"), z.reveal()

    plan, before = s.plan(lambda p: rest(p.twin(z))).cost, s.cost()
    second, positive, told, y = rest(z)
    assert plan == s.cost() - before
    for found, right in ((first, exact), (second, exact), (told, lambda y: y)):
        np.testing.assert_array_equal(found, right(y))
    np.testing.assert_array_equal(positive, np.maximum(y, 0))
    assert np.abs(y - np.linspace(-9, 9, 700) / 3).max() < 3e-4


@pytest.mark.dealt
def test_what_is_kept_takes_no_round(pair, tap):
    z = pair.share(np.linspace(-9, 9, 700), owner="alice") * pair.share(1 / 3, owner="bob")
    z.relu()
    before = pair.cost()
    with tap(pair) as heard:
        checked = _values_of(z.truncate())  # as a check of ranges looks at them
        words = z.truncate().shares
    assert not heard.dealt and not heard.opened and pair.cost() == before
    # R alone is opened then: c is known.
    with tap(pair) as heard:
        y = z.reveal()
    assert heard.opened[-1][0].size == 700
    for values in (words.sum(axis=0).view(np.int64), checked):
        np.testing.assert_array_equal(values, y * 2**16)


@pytest.mark.dealt
@pytest.mark.parametrize("name", ["relu", "two rounds", "clip", "gate"])
def test_what_is_kept_holds_nothing_else_that_was_dealt(pair, name):
    """Not tables and bits as well, of which it is a row: by the arrays that own the memory."""
    z = pair.share(np.linspace(-9, 9, 640), owner="alice") * pair.share(1 / 3, owner="bob")
    TRUNCATING[name][0](z)
    parts = z.truncated.pending._parts()
    held = sum((part if part.base is None else part.base).nbytes for part in parts)
    # Of each party R, and T in lanes of 16 bits.
    assert held == pair.size * z.size * (8 + 2)
