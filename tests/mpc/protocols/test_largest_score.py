"""A score that is the largest of its row, or less than a margin below it."""

import numpy as np
import pytest

import mpc
from mpc.core.correlation import MaskRef, Part
from mpc.core.errors import ShapeError
from mpc.protocols import largest_score
from mpc.protocols.largest_score import ScoreTables, near_largest

pytestmark = pytest.mark.dealt


def rows_of(k, bound, unit, rows, random):
    """Rows of integers up to `bound`: extremes, ties, and some that are near one another's margin."""
    some = random.integers(-bound, bound, (rows, k), endpoint=True)
    near = random.integers(-bound // 2, bound // 2, (rows, 1)) + unit * random.integers(
        -3, 4, (rows, k)
    )
    near += random.integers(-1, 2, (rows, k))
    some[::3] = np.clip(near, -bound, bound)[::3]
    some[1::7] = bound
    some[2::7] = -bound
    some[3::7, :-1] = -bound
    some[3::7, -1:] = bound
    return some


@pytest.mark.parametrize("k", [2, 3, 9, 10, 16])
@pytest.mark.parametrize(
    ("frac_bits", "bits"), [(0, 20), (5, 30), (6, 30), (16, 31), (32, 61), (32, 62)]
)
def test_it_is_a_score_near_the_largest(session, share_integers, integers, k, frac_bits, bits):
    random, bound = np.random.default_rng(k), 2**bits - 1
    fine = max(0, frac_bits - 5)
    for rows in (1, 63, 64, 65):
        z = rows_of(k, bound, 1 << fine, rows, random)
        x = share_integers(session, z, frac_bits, bound=bound)
        margin = largest_score.margin(bound, frac_bits)
        found = near_largest(x)
        assert (found.shape, found.frac_bits, found.bound) == ((rows,), frac_bits, bound)
        m = integers(found)
        assert (z == m[:, None]).any(axis=1).all()
        below = [int(most) - int(one) for most, one in zip(z.max(axis=1), m, strict=True)]
        assert 0 <= min(below) and max(below) < max(1, margin)
    # At the end of the ring a word has no room for a difference of cut scores: it is exact there.
    assert margin == (0 if not fine or bits == 62 else 2 << fine)


def test_the_lower_bits_of_what_is_opened_decide_near_ties(pair, share_integers, integers):
    """Two scores between the same units: either wins, in some of the rows."""
    z = np.tile(np.array([[100 * 2**27, 100 * 2**27 + 2**26, 0]]), (400, 1))
    found = integers(near_largest(share_integers(pair, z, 32, bound=2**40)))
    assert set(found) == {z[0, 0], z[0, 1]}


@pytest.mark.parametrize("masked", [False, True])
def test_declared_cost_and_plan(session, share_integers, masked):
    x = share_integers(session, np.arange(700).reshape(70, 10), 16, bound=2**31 - 1)
    cost = largest_score.cost(session.size, 70, 10, x.bound, 16)
    if masked:  # as of an array that was multiplied before
        x * x
    plan = session.plan(lambda p: near_largest(p.twin(x))).cost
    before = session.cost()
    near_largest(x)
    spent = session.cost() - before
    assert plan == spent
    if not masked:
        assert spent.total == cost
    assert spent.rounds == 3 - masked


def test_shares_of_wins_are_masked_over_all_bits_that_are_sent(
    session, share_integers, monkeypatch
):
    """A mask of 16 values alone would hide no carry."""
    sent, opened = [], session.open

    def listen(*messages):
        sent.append(messages)
        return opened(*messages)

    x = share_integers(session, np.arange(4000).reshape(400, 10), 16, bound=2**31 - 1)
    monkeypatch.setattr(session, "open", listen)
    near_largest(x)
    assert [party for _, party in sent[-1]] == list(range(session.size))
    lanes = [words.view(np.uint16).reshape(-1) for words, _ in sent[-1]]
    # Each party's, and what they add up to, whatever wins: 4000 lanes, to within eight deviations.
    for some in (*lanes, np.sum(lanes, axis=0, dtype=np.uint16)):
        for place in range(0, 16, 4):
            counts = np.bincount(some >> place & 15, minlength=16)
            assert np.abs(counts - 250).max() < 8 * np.sqrt(250)


def test_what_a_provider_is_asked_for_is_checked():
    mask = MaskRef(1, Part((5, 3)))
    ScoreTables(5, 3, 11, 40, mask).check(2**20)
    for wrong in (
        (5, 1, 11, 40, mask), (5, 17, 11, 40, mask), (5, 3, 11, 60, mask), (4, 3, 11, 40, mask),
        (3, 5, 11, 40, mask),
    ):  # fmt: skip
        with pytest.raises(ShapeError):
            ScoreTables(*wrong).check(2**20)


def test_a_softmax_of_two_columns_and_of_two_parties_alone_does_without():
    for provider, k, used in (("crypto", 3, True), ("crypto", 2, False), (None, 3, False)):
        with mpc.Session(provider=provider) as s:
            x = s.share(np.zeros((4, k)), owner="bob")
            steps = mpc.protocols.softmax._choose_steps(x, k)
            assert bool(steps.margin) == used
