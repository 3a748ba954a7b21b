"""An operand is multiplied as often as a program likes, and shown by no more than 2^-40 in all."""

from fractions import Fraction

import numpy as np
import pytest

import mpc
from mpc.core.errors import SessionError
from mpc.protocols import own_products
from mpc.two_party.operands import LIMIT, Operands, product_for
from mpc.two_party.rlwe_layouts import choose_left
from mpc.two_party.rlwe_parameters import PARAMETERS

X = np.arange(12.0).reshape(3, 4) / 8


@pytest.fixture(scope="module")
def alone():
    with mpc.Session(provider=None) as s:
        yield s


def computed(s, values):
    return s.share(values, owner="alice") + s.share(np.zeros_like(values), owner="bob")


def test_the_same_arrays_are_multiplied_again_and_again(alone):
    x, w = computed(alone, X), computed(alone, X.T)
    for _ in range(12):
        np.testing.assert_array_equal((x @ w).reveal(), X @ X.T)
        np.testing.assert_array_equal((x[:2] @ w).reveal(), X[:2] @ X.T)
    rooms = [alone.pair.operands.room(z.shares) for z in (x, w)]
    assert 0 <= min(rooms) < LIMIT and max(rooms) <= LIMIT


def test_what_is_shown_adds_up_over_sizes_and_parameters():
    operands, array = Operands(), np.zeros((2, 4, 3), np.uint64)
    shown, names = Fraction(0), []
    for k in range(300):
        layout = choose_left(1 + k % 3, 1, 1)
        product = product_for(layout, 1 << 63, 1, operands.room(array))
        operands.life(array[:, ::-1], product)
        shown += product.parameters.distance(product.bound * layout.used, product.answered)
        names.append(product.parameters.name)
        assert operands.room(array) == LIMIT - shown >= 0
    # Larger parameters take over, where the cheapest ones would show too much.
    assert names[0] == PARAMETERS[0].name != names[-1]
    # Another array has all of it.
    assert operands.room(array.copy()) == LIMIT


COPIES = {
    "index": lambda x: x[[0, 1]],
    "mask": lambda x: x[np.array([True, False, True])],
    "reshaped": lambda x: x.T.reshape(3, 4),
    "joined": lambda x: np.concatenate([x, x[[0]]]),
    "stacked": lambda x: np.stack([x, x])[1],
    "rows, one by one": lambda x: np.stack(list(x)),
    "negative": lambda x: -x,
    "public sum": lambda x: x + 1,
    "public product": lambda x: 3 * x,
    "public matrix": lambda x: np.eye(3, dtype=int) @ x,
    "halves": lambda x: x * 0.5,
    "view of a copy": lambda x: x[[1, 0]].T.T[:1],
}


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("of", ["shares", "input"])
def test_copies_are_counted_as_what_they_are_copied_from(alone, name, of):
    operands = alone.pair.operands
    x = computed(alone, X) if of == "shares" else alone.share(X, owner="alice")
    held = x.shares if of == "shares" else x.plaintext.base.encoded
    copies = [COPIES[name](x) for _ in range(2)]
    # Elements of an input that is only viewed are that input's.
    arrays = [c.shares if c.plaintext is None else c.plaintext.base.encoded for c in copies]
    if name == "halves":
        # Products with public fractions are rounded, if not exact: this one is.
        assert copies[0].frac_bits > 16
    shown = LIMIT / 8
    operands.spend(arrays[0], shown)
    assert operands.room(held) == operands.room(arrays[1]) == LIMIT - shown
    operands.spend(held, shown)
    assert operands.room(arrays[0]) == LIMIT - 2 * shown
    # Made later, too; and what is joined of two counts as both.
    other = computed(alone, X)
    operands.spend(other.shares, shown)
    later = np.concatenate([COPIES[name](x).ravel(), other.ravel()])
    assert operands.room(later.shares) == LIMIT - 2 * shown
    operands.spend(later.shares, LIMIT / 2)
    assert operands.room(held) == LIMIT / 2 - 2 * shown
    assert operands.room(other.shares) == LIMIT / 2 - shown
    with pytest.raises(SessionError, match="as often as it may be"):
        operands.spend(later[[0, 3]].shares, LIMIT / 2)


def test_a_copy_in_every_product_shows_no_more_than_the_array(alone):
    """By the products that a program makes: nothing of the count is left out."""
    operands, spent = alone.pair.operands, []
    x, w = computed(alone, X), computed(alone, X.T)
    spend_all(alone, w)
    for _ in range(4):
        before = operands.room(x.shares)
        np.testing.assert_array_equal((x[[0, 1]] @ w).reveal(), X[:2] @ X.T)
        spent.append(before - operands.room(x.shares))
    assert min(spent) > 0
    assert operands.room(x.shares) == LIMIT - sum(spent)


def test_copies_that_are_gone_leave_the_count_of_what_is_left(alone):
    operands, x = Operands(), np.zeros((2, 4), np.uint64)
    copy = x[:, [0, 1]].copy()
    operands.follow(copy, [x])
    operands.spend(copy, LIMIT / 4)
    del copy
    assert len(operands._shown) == 1
    assert operands.room(x) == LIMIT * 3 / 4
    last = x.copy()
    operands.follow(last, [x])
    del x
    assert operands.room(last) == LIMIT * 3 / 4


def test_a_forgotten_array_leaves_nothing_behind():
    operands, array = Operands(), np.zeros((2, 4, 3), np.uint64)
    product = product_for(choose_left(3, 4, 3), 1 << 63)
    operands.life(array, product)
    assert len(operands._shown) == 1
    del array
    assert not operands._shown


def test_what_would_be_shown_too_much_is_refused():
    operands, array = Operands(), np.zeros((2, 4, 3), np.uint64)
    product = product_for(choose_left(3, 4, 3), 1 << 63)
    while product.distance_of_one <= operands.room(array):
        operands.life(array, product)
    before = operands.room(array)
    assert 0 <= before < product.distance_of_one
    with pytest.raises(SessionError, match=r"as often as it may be.*2\^-40; share or compute"):
        operands.life(array, product)
    assert operands.room(array) == before
    assert product_for(choose_left(3, 4, 3), 1 << 63, 1, Fraction(0)) is None


def spend_all(s, *arrays):
    """Leave no room for any more answers."""
    for x in arrays:
        s.pair.operands.spend(x.shares, s.pair.operands.room(x.shares))


def test_the_other_operand_is_shown_where_one_may_not_be(alone):
    x, w = computed(alone, X), computed(alone, X.T)
    spend_all(alone, w)
    np.testing.assert_array_equal((x @ w).reveal(), X @ X.T)
    assert alone.pair.operands.room(w.shares) == 0
    assert alone.pair.operands.room(x.shares) < LIMIT
    spend_all(alone, x)
    before = alone.cost().total
    with pytest.raises(SessionError, match=r"both operands of a product, \(3, 4\) and \(4, 3\)"):
        x @ w
    assert alone.cost().total == before
    # An input that bob has encrypted, for few rows.
    given = alone.share(X.T, owner="bob")
    with alone.range_policy.vouched():
        np.testing.assert_array_equal((x @ given).reveal(), X @ X.T)


def test_elementwise_products_of_what_may_not_be_shown(alone, monkeypatch):
    values = np.linspace(-4, 4, 4097)
    values = np.round(values * 256) / 256
    for spent in ((), (0,), (1,), (0, 1)):
        pair = computed(alone, values), computed(alone, values[::-1].copy())
        spend_all(alone, *(pair[k] for k in spent))
        z = pair[0] * pair[1]
        got = z.derive(z.shares, frac_bits=0, bound=z.bound).reveal()
        np.testing.assert_array_equal(got, np.round(values * values[::-1] * 2**32))
        rooms = [alone.pair.operands.room(x.shares) for x in pair]
        shown = [k for k in (0, 1) if rooms[k] < LIMIT and k not in spent]
        assert shown == {(): [1], (0,): [1], (1,): [0], (0, 1): []}[spent]
    one = alone.share(values, owner="alice")
    other = alone.share(values, owner="bob")
    monkeypatch.setattr(own_products, "_SLOTS", 3000)
    z = one * other
    got = z.derive(z.shares, frac_bits=0, bound=z.bound).reveal()
    np.testing.assert_array_equal(got, np.round(values * values * 2**32))
