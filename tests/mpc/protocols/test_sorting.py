"""Shuffles and sorts: declared costs, permutations that are uniform, and openings that tell nothing."""

from itertools import permutations

import numpy as np
import pytest
from scipy.special import chdtrc

import mpc
from mpc.core.correlation import MaskRef, Part
from mpc.core.errors import ShapeError
from mpc.protocols import merge_network, ranks, shuffle, shuffled_sort, sign

# Some hundred examinations: a false alarm in one test run out of a hundred million.
ALARM = 1e-11
NAMES = ("alice", "bob", "carol", "dave", "erin")


def given(session, values):
    return session.share(np.asarray(values), owner="alice", bound=1 << 20) + 0


def keys_of(x):
    """Return columns for a sort: values, and places behind them."""
    columns = np.zeros((len(x.shares), x.size, 2), np.uint64)
    columns[:, :, 0] = x.shares
    if len(columns):
        columns[0, :, 1] = np.arange(x.size)
    return columns, (x.size - 1).bit_length()


def sort(x):
    columns, shift = keys_of(x)
    return shuffled_sort.sort(x, columns, shift, (x.bound + 1) << shift)


def revealed(x, words):
    return x.derive(words, frac_bits=0, bound=2**62 - 1).reveal()


@pytest.mark.dealt
@pytest.mark.parametrize("size", [2, 65, 512, 513, 3000])
def test_costs_are_declared_and_planned(fresh_session, spent, size):
    s = fresh_session
    x = given(s, np.zeros(size, np.int64))
    _, shift = keys_of(x)
    window = sign.count_bits(2 * ((x.bound + 1) << shift))
    declared = shuffled_sort.cost(s.size, size, 2, window)
    assert spent(s, lambda: sort(x)) == declared
    plan = s.plan(lambda p: sort(given(p, np.zeros(size, np.int64))))
    assert plan.cost.total == declared


@pytest.mark.dealt
@pytest.mark.parametrize("k", [2, 5, 17])
def test_costs_of_few_and_of_networks(fresh_session, spent, k):
    s = fresh_session
    x = given(s, np.zeros((3, k), np.int64))
    window = sign.count_bits(2 * x.bound)
    few = spent(s, lambda: ranks.ordered(ranks.sorting_matrix(x), x).shares)
    assert few == ranks.cost(s.size, 3, k, window)
    assert spent(s, lambda: merge_network.sort(x)) == merge_network.cost(s.size, 3, k, window)


@pytest.mark.parametrize("size", [3, 600, 2500])
@pytest.mark.parametrize("parties", [2, 3, 5])
def test_equal_values_keep_their_order(size, parties):
    a = np.random.default_rng(size).integers(-3, 3, size)
    with mpc.Session(NAMES[:parties]) as s:
        x = given(s, a)
        got = revealed(x, sort(x))
    np.testing.assert_array_equal(got[:, 1], np.argsort(a, kind="stable"))
    np.testing.assert_array_equal(got[:, 0], np.sort(a))


def test_more_pairs_than_expected_take_another_batch(monkeypatch):
    monkeypatch.setattr(shuffled_sort, "_pairs_within", lambda rest, sample: 100)
    a = np.random.default_rng(0).integers(-300, 300, 600)
    with mpc.Session() as s:
        x = given(s, a)
        np.testing.assert_array_equal(revealed(x, sort(x))[:, 0], np.sort(a))


@pytest.mark.parametrize("k", [1, 2, 3, 7, 16, 33, 100])
def test_the_network_sorts_every_row_of_zeros_and_ones(k):
    """By the zero-one principle; all of them where they are few."""
    if k <= 7:
        rows = np.arange(2**k)[:, None] >> np.arange(k) & 1
    else:
        rows = np.random.default_rng(k).integers(0, 2, (500, k))
    rows = rows.copy()
    for first, second in merge_network.stages_of(k):
        assert len({*first, *second}) == 2 * len(first)
        low, high = rows[:, first], rows[:, second]
        rows[:, first], rows[:, second] = np.minimum(low, high), np.maximum(low, high)
    assert np.all(np.diff(rows, axis=1) >= 0)


# What is opened.


def chance_of_uniform(counts):
    expected = counts.sum() / len(counts)
    return chdtrc(len(counts) - 1, ((counts - expected) ** 2 / expected).sum())


def orders(times, make):
    """Count how often each order of four comes out."""
    every = {order: k for k, order in enumerate(permutations(range(4)))}
    counts = np.zeros(len(every))
    for _ in range(times):
        counts[every[tuple(make())]] += 1
    return counts


@pytest.mark.parametrize("keeps", ["alice", "bob", "carol", None])
def test_one_party_s_permutation_is_enough(keeps, monkeypatch):
    """All others' permutations being known, the order is uniform; without any it is not."""
    permute, parties = shuffle._permuted_by, ("alice", "bob", "carol")
    honest = None if keeps is None else parties.index(keeps)
    ordinary = shuffle._permutation

    def permuted(session, party, x):
        known = lambda words: np.arange(len(words))  # noqa: E731
        monkeypatch.setattr(shuffle, "_permutation", ordinary if party == honest else known)
        return permute(session, party, x)

    monkeypatch.setattr(shuffle, "_permuted_by", permuted)
    with mpc.Session(parties) as s:
        x = given(s, np.arange(4))
        found = orders(
            480, lambda: revealed(x, shuffle.shuffled(s, x.shares[:, :, None]))[:, 0].tolist()
        )
    assert (chance_of_uniform(found) > ALARM) == (keeps is not None)


@pytest.mark.parametrize("values", [[5, 5, 5, 5], [1, 2, 3, 4], [4, 4, 1, 1]])
def test_comparisons_opened_are_those_of_a_uniform_order(values, monkeypatch):
    """Equal values too: the ranks that the openings show are uniform, whatever the values are."""
    shown = []
    order = shuffled_sort._Comparer.order
    monkeypatch.setattr(
        shuffled_sort._Comparer, "order",
        lambda self, keys: shown.append(order(self, keys)) or shown[-1],
    )  # fmt: skip
    with mpc.Session() as s:
        x = given(s, values)

        def one():
            sort(x)
            return shown[-1].tolist()

        assert chance_of_uniform(orders(480, one)) > ALARM


@pytest.mark.dealt
def test_what_a_shuffle_sends_is_uniform(session, tap):
    """To the party that permutes, what is left when it and all others but one take their masks away."""
    size = 4096
    for values in (np.zeros(size, np.int64), np.full(size, (1 << 20) - 1)):
        x = given(session, values)
        with tap(session) as heard:
            found = shuffle.shuffled(session, x.shares[:, :, None])
        assert len(heard.opened) == session.size
        words = [found[party] for party in range(session.size)]
        for party, (((hidden, _),), (opened,)) in enumerate(
            zip(heard.sent, heard.opened, strict=True)
        ):
            for honest in set(range(session.size)) - {party}:
                # Shares of all others are known to them: what is left is the honest one's message.
                others = [k for k in range(session.size) if k != honest]
                words += [
                    hidden[honest],
                    opened,
                    opened[0] - hidden[others].sum(axis=0, dtype=np.uint64),
                ]
                words.append(hidden[honest] - x.shares[honest][:, None])
        for some in words:
            octets = np.bincount(
                np.ascontiguousarray(some).view(np.uint8).reshape(-1), minlength=256
            )
            assert chance_of_uniform(octets) > ALARM


def test_words_of_an_order_are_used_once():
    with mpc.Session() as s:
        x = given(s, np.arange(50))
        first, second = (revealed(x, shuffle.shuffled(s, x.shares[:, :, None])) for _ in range(2))
        assert (first != second).any()


@pytest.mark.parametrize(
    ("order", "a"),
    [
        (MaskRef(1, Part((4,)), owner=None), MaskRef(2, Part((4, 1)), without=0)),
        (MaskRef(1, Part((4,)), owner=0), MaskRef(2, Part((4, 1)))),
        (MaskRef(1, Part((4,)), owner=0), MaskRef(2, Part((4, 1)), without=1)),
        (MaskRef(1, Part((3,)), owner=0), MaskRef(2, Part((4, 1)), without=0)),
        (MaskRef(1, Part((4,)), owner=0), MaskRef(2, Part((4, 2)), without=0)),
    ],
)
def test_the_provider_refuses_orders_that_do_not_fit(order, a):
    shuffle.PermutedMask(
        MaskRef(1, Part((4,)), owner=0), MaskRef(2, Part((4, 1)), without=0), 4, 1
    ).check(1 << 20)
    with pytest.raises(ShapeError):
        shuffle.PermutedMask(order, a, 4, 1).check(1 << 20)


def test_a_shuffle_without_a_provider_is_refused_by_name():
    with mpc.Session(provider=None) as s:
        x = given(s, np.arange(4))
        with pytest.raises(mpc.SessionError, match="a PermutedMask must come from a source"):
            shuffle.shuffled(s, x.shares[:, :, None])
