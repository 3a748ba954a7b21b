"""Products without a provider: exact modulo 2^64 whoever knows what, counted, and never shown too often."""

from fractions import Fraction

import numpy as np
import pytest

import mpc
from mpc.core.cost import Ledger
from mpc.core.keys import fresh_streams
from mpc.core.known import OwnerInput, Plaintext
from mpc.core.setup import Setup
from mpc.core.windows import Windows
from mpc.protocols import convolution, own_convolution, own_products
from mpc.protocols.own_operands import Operand, matrix_ways
from mpc.protocols.own_products import SLOTS_FROM
from mpc.session import SessionAt
from mpc.session_setup import policy
from mpc.transport.local import LocalTransport
from mpc.two_party.joint import OwnShares
from mpc.two_party.operands import LIMIT, Operands, frozen, join_halves, split_halves
from mpc.two_party.pair import Pair
from mpc.two_party.rlwe_layouts import choose_left, choose_right
from ring import FixedPoint
from tests.helpers.rlwe import exact_product, some_words

WHO = ("alice", "bob", "shared")
BOUND = 2**62 - 1


@pytest.fixture(scope="module")
def session():
    with mpc.Session(provider=None) as s:
        yield s


def given(session, who, words):
    """A value that both parties share, with such words for the first, or that one has given."""
    if who == "shared":
        second = some_words(words.shape, "random", 99)
        shares = np.stack([words, second])[list(session.here)]
        return session.share(0, owner="alice").derive(shares, frac_bits=0, bound=BOUND)
    owner = WHO.index(who)
    encoded = np.stack([words] * sum(party == owner for party in session.here) or [words])
    if owner not in session.here:
        encoded = encoded[:0]
    known = Plaintext(OwnerInput(session, owner, encoded), encoded)
    return session.share(0, owner="alice").derive(None, frac_bits=0, bound=BOUND, plaintext=known)


def whole(value, words):
    """The integer that is multiplied."""
    return words if value.plaintext is not None else words + some_words(words.shape, "random", 99)


def limited(words, who):
    """Words of an input are at most 2^62 - 1 in magnitude."""
    return (words.view(np.int64) >> 2).view(np.uint64) if who != "shared" else words


def joined(shares):
    return shares.sum(axis=0, dtype=np.uint64)


def operands(session, left, right, shapes, kind):
    words = [limited(some_words(shape, kind, k), who) for k, (shape, who) in
             enumerate(zip(shapes, (left, right), strict=True))]  # fmt: skip
    values = [given(session, who, w) for who, w in zip((left, right), words, strict=True)]
    return values, [whole(v, w) for v, w in zip(values, words, strict=True)]


@pytest.mark.parametrize("right", WHO)
@pytest.mark.parametrize("left", WHO)
@pytest.mark.parametrize(
    ("shapes", "kind"),
    [
        (((1, 3), (3, 2)), "half"),
        (((40, 9), (9, 5)), "extreme"),
        (((2, 3, 4), (4, 5)), "ones"),
        (((3, 4), (2, 4, 2)), "random"),
        (((2, 1, 20, 4), (70, 4, 2)), "extreme"),
        (((0, 4), (4, 2)), "random"),
        (((2, 0), (0, 3)), "random"),
    ],
)
def test_matrix_products_are_exact(session, left, right, shapes, kind):
    (x, w), (a, b) = operands(session, left, right, shapes, kind)
    shape = np.matmul(np.zeros(shapes[0]), np.zeros(shapes[1])).shape
    z = own_products.matmul(session, session.pair, x, w, shape)
    assert z.shape == (2, *shape)
    wide = np.broadcast_to(a, (*shape[:-2], *a.shape[-2:]))
    tall = np.broadcast_to(b, (*shape[:-2], *b.shape[-2:]))
    for at in np.ndindex(*shape[:-2]):
        np.testing.assert_array_equal(joined(z)[at], exact_product(wide[at], tall[at]))


@pytest.mark.parametrize("right", WHO)
@pytest.mark.parametrize("left", WHO)
@pytest.mark.parametrize(
    ("shapes", "kind"),
    [
        (((0,), (1,)), "random"),
        (((), ()), "half"),
        (((5, 1), (3,)), "ones"),
        (((SLOTS_FROM - 1,), (SLOTS_FROM - 1,)), "extreme"),
        (((SLOTS_FROM, 1), (1, 3)), "extreme"),
    ],
)
def test_elementwise_products_are_exact(session, left, right, shapes, kind):
    (x, w), (a, b) = operands(session, left, right, shapes, kind)
    shape = np.broadcast_shapes(*shapes)
    z = own_products.multiply(session, session.pair, x, w, shape)
    assert z.shape == (2, *shape)
    np.testing.assert_array_equal(joined(z), np.multiply(a, b))


GEOMETRIES = [
    (Windows((3, 2), (1, 1), ((1, 1), (0, 2))), (3, 6, 5, 2), 3),
    # Pixels that no window reaches, and gaps between windows.
    (Windows((2, 2), (3, 2), ((0, 0), (1, 0))), (2, 7, 6, 1), 2),
    (Windows((1, 1)), (1, 1, 1, 1), 1),
    # More pixels than a polynomial has coefficients: as matrices.
    (Windows((3, 3), (40, 40)), (1, 90, 100, 1), 2),
]


@pytest.mark.parametrize(
    "who", [("bob", "alice"), ("shared", "alice"), ("shared", "shared"), ("bob", "bob")]
)
@pytest.mark.parametrize(("windows", "shape", "outputs"), GEOMETRIES)
@pytest.mark.parametrize("left", ["all", "little"])
def test_convolutions_and_gradients_are_exact(session, who, windows, shape, outputs, left):
    places = windows.places(*shape[1:3])
    kernels, results = (*windows.kernel, shape[3], outputs), (shape[0], *places, outputs)
    (x, w), (a, b) = operands(session, *who, (shape, kernels), "extreme")
    (_, g), (_, c) = operands(session, *who, (shape, results), "random")
    if left == "little":
        # So that only halves of words may be answered for.
        for value in (x, w, g):
            array = Operand(value).array
            spent = session.pair.operands
            spent.spend(array, spent.room(array) - LIMIT / 2**38)
    rows = windows.view(a).reshape(-1, np.prod(kernels[:3]))
    z = joined(own_convolution.convolve(session, session.pair, x, w, windows))
    np.testing.assert_array_equal(
        z.reshape(-1, outputs), exact_product(rows, b.reshape(-1, outputs))
    )
    z = joined(own_convolution.kernel_gradient(session, session.pair, x, g, windows))
    np.testing.assert_array_equal(
        z.reshape(-1, outputs), exact_product(rows.T, c.reshape(-1, outputs))
    )
    z = joined(own_convolution.input_gradient(session, session.pair, g, w, windows, shape))
    seen = exact_product(c.reshape(-1, outputs), b.reshape(-1, outputs).T)
    seen = seen.reshape(*results[:3], *windows.kernel, shape[3])
    np.testing.assert_array_equal(z, windows.add_back(seen, shape))


def test_halves_of_words():
    w = some_words((7, 5), "extreme", 3)
    halves = split_halves(w, 0)
    assert halves.shape == (14, 5)
    assert np.abs(halves.view(np.int64)).max() <= 2**31
    np.testing.assert_array_equal(join_halves(halves, 0), w)


def spent_by(session, program):
    before = session.cost()
    program()
    cost = session.cost() - before
    return cost.rounds, sum(cost.total.sent)


def test_images_take_fewer_bytes_than_their_windows(session):
    x = session.share(np.ones((4, 16, 16, 1)), owner="bob", bound=1)
    w = session.share(np.ones((5, 5, 1, 3)), owner="alice", bound=1)
    windows = Windows((5, 5))
    convolution.convolve(x, w, windows)
    rounds, sent = spent_by(session, lambda: convolution.convolve(x, w, windows))
    # The kernels stay where they are; each image is answered once.
    layout = own_convolution.ImageConvolution(4, 16, 16, 1, 3, (5, 5))
    answer = 4 * 9.5 * (8192 + len(layout.places))
    assert (rounds, sent) == (1, pytest.approx(answer, rel=1e-3))
    # However many there are.
    assert spent_by(session, lambda: convolution.convolve(x[:3], w, windows))[0] == 1


@pytest.mark.parametrize(
    ("left", "right", "rounds"), [("bob", "alice", 1), ("shared", "shared", 2)]
)
def test_a_stack_of_matrices_takes_the_rounds_of_one(session, left, right, rounds):
    (x, w), (a, b) = operands(session, left, right, ((5, 2, 9), (5, 9, 3)), "extreme")
    spent = session.pair.operands

    def multiply():
        z = joined(own_products.matmul(session, session.pair, x, w, (5, 2, 3)))
        for k in range(5):
            np.testing.assert_array_equal(z[k], exact_product(a[k], b[k]))

    multiply()
    assert spent_by(session, multiply)[0] == rounds
    # By halves of words, too, of whichever is the mixer's.
    for value in (x, w):
        array = Operand(value).array
        spent.spend(array, spent.room(array) - LIMIT / 2**38)
    multiply()


def test_a_stack_shows_as_much_as_its_products():
    one, other, array = Operands(), Operands(), np.zeros((3, 4), np.uint64)
    layout = choose_left(20, 3, 4)

    def choose(operands, count):
        return operands.choose(array, layout, lambda: layout, 2**20, lasting=True, count=count)

    assert choose(other, 7).shown == 7 * choose(one, 1).shown
    # So many that the cheapest way would show too much.
    most = int(LIMIT / 2**16 / choose(one, 1).shown)
    assert choose(one, most).product == choose(one, 1).product != choose(one, most + 1).product


def test_an_input_that_stays_is_encrypted_once(session):
    pair = session.pair
    x = given(session, "shared", some_words((4, 30), "random"))
    w = given(session, "alice", limited(some_words((30, 8), "random", 5), "alice"))
    product = matrix_ways(4, 30, 8, Operand(w))[0].layout
    assert isinstance(product, type(choose_right(2, 30, 8)))

    def multiply(rows, weights):
        shape = rows.shape[0], weights.shape[1]
        return own_products.matmul(session, pair, rows, weights, shape)

    multiply(x, w)
    once = spent_by(session, lambda: multiply(x, w))
    assert once[0] == 1
    # With another number of rows, too; not if it is another view.
    assert spent_by(session, lambda: multiply(x[:3], w)) == (1, pytest.approx(once[1], rel=0.01))
    assert spent_by(session, lambda: multiply(x, w[:, ::-1]))[0] == 2


def test_views_that_only_print_alike_are_other_operands(session):
    order = np.random.default_rng(0).permutation(1200)
    other = order.copy()
    other[[600, 601]] = order[[601, 600]]
    words = limited(some_words((1200, 2), "random", 6), "alice")
    w = given(session, "alice", words)
    x = given(session, "bob", np.arange(1200, dtype=np.uint64)[None])
    for index in (order, other):
        z = own_products.matmul(session, session.pair, x, w[index], (1, 2))
        wanted = exact_product(np.arange(1200, dtype=np.uint64)[None], words[index])
        np.testing.assert_array_equal(joined(z), wanted)


def test_views_as_keys():
    views = [("index", (slice(1, None), np.arange(3))), ("transpose", (1, 0))]
    assert frozen(views) == frozen(
        [("index", (slice(1, None), np.arange(3))), ("transpose", (1, 0))]
    )
    assert frozen(views) != frozen([("index", (slice(1, 2), np.arange(3))), ("transpose", (1, 0))])
    assert frozen(("index", np.array([1]))) != frozen(("index", np.array([[1]])))
    assert frozen(("index", np.array([True]))) != frozen(("index", np.array([1], np.uint8)))
    hash(frozen(views))


def test_what_is_used_longest_ago_is_forgotten():
    operands, made = Operands(memory_limit=20), []

    def ask(key, size=10):
        return operands.kept(key, size, lambda: made.append(key) or key)

    assert [ask(k) for k in "abacab"] == list("abacab")
    assert made == ["a", "b", "c", "b"]
    # One that is larger than all there may be stays alone.
    ask("big", 100)
    ask("big", 100)
    ask("a")
    assert made == ["a", "b", "c", "b", "big", "a"]


def choose(operands, array, *, lasting, sizes=(1000, 784, 128), bound=2**63):
    m, k, n = sizes
    return operands.choose(
        array, choose_left(m, k, n), lambda: choose_left(m, k, 2 * n), bound, lasting=lasting
    )


def test_no_array_is_ever_shown_by_more_than_2_to_the_minus_40():
    operands, array = Operands(), np.zeros((784, 128), np.uint64)
    names, total = [], 0
    while (chosen := choose(operands, array[::2], lasting=False)) is not None:
        # Many products at a time.
        product = chosen.product
        assert chosen.shown >= product.parameters.distance(
            product.bound * product.layout.used, product.answered
        )  # fmt: skip
        times = max(1, int(operands.room(array) / (8 * chosen.shown)))
        operands.spend(array.T, times * chosen.shown)
        total += times * chosen.shown
        names.append((product.parameters.name, chosen.halves))
    assert total <= LIMIT
    assert operands.room(array) == LIMIT - total
    # First whole words; then halves, with more and more room.
    assert names[0][1] is False
    assert {("q180", True), ("q192", True), ("q210", True)} <= set(names)
    with pytest.raises(mpc.SessionError, match="compute it anew"):
        operands.spend(array, operands.room(array) + Fraction(1, 2**300))
    assert operands.room(array) == LIMIT - total
    # Another array has all its life before it, even at the same place in memory.
    del array
    assert not operands._shown


def test_weights_serve_longer_than_anybody_asks():
    """Of 1000 rows: a thousand products a second, for a hundred years."""
    operands, weights = Operands(), np.zeros((784, 128), np.uint64)
    asked, products = 1000 * 3600 * 24 * 365 * 100, 0
    while products < asked:
        chosen = choose(operands, weights, lasting=True, bound=2**21)
        assert chosen is not None
        times = max(1, int(operands.room(weights) / 64 / chosen.shown))
        operands.spend(weights, times * chosen.shown)
        products += times


def test_shares_of_weights_serve_longer_than_anybody_asks():
    operands, weights = Operands(), np.zeros((784, 128), np.uint64)
    asked, products = 1000 * 3600 * 24 * 365, 0
    while products < asked:
        chosen = choose(operands, weights, lasting=False)
        assert chosen is not None
        times = max(1, int(operands.room(weights) / 64 / chosen.shown))
        operands.spend(weights, times * chosen.shown)
        products += times


def test_after_a_failure_both_choose_alike():
    one, other = Operands(), Operands()
    array, same = np.zeros((784, 128), np.uint64), np.zeros((784, 128), np.uint64)
    # One of them has counted products which the other has not begun.
    one.spend(array, LIMIT / 2)
    weights = {"lasting": True, "bound": 2**21}
    assert choose(one, array, **weights) != choose(other, same, **weights)
    for operands in (one, other):
        operands.forget()
    for how in ({"lasting": False}, weights):
        assert choose(one, array, **how) == choose(other, same, **how)
    assert one.room(array) == LIMIT - LIMIT / 2


def test_products_with_an_operand_that_is_spent(session):
    """Then the other operand is the mixer's, or transfers are used; with neither left it is an error."""
    spent = session.pair.operands

    def use_up(*values):
        for value in values:
            array = Operand(value).array
            spent.spend(array, spent.room(array))

    (x, w), (a, b) = operands(session, "shared", "shared", ((SLOTS_FROM,),) * 2, "random")
    for value in (w, x):
        use_up(value)
        z = own_products.multiply(session, session.pair, x, w, (SLOTS_FROM,))
        np.testing.assert_array_equal(joined(z), a * b)
    (x, w), (a, b) = operands(session, "shared", "shared", ((20, 9), (9, 5)), "random")
    use_up(w)
    z = own_products.matmul(session, session.pair, x, w, (20, 5))
    np.testing.assert_array_equal(joined(z), exact_product(a, b))
    use_up(x)
    before = session.cost()
    with pytest.raises(mpc.SessionError, match="compute them anew"):
        own_products.matmul(session, session.pair, x, w, (20, 5))
    assert (session.cost() - before).rounds == 0


def test_a_party_alone_does_what_both_do_in_lock_step(ends, run_both):
    """Choices, what is kept and what is forgotten are the same at both."""
    streams = fresh_streams(2)[0]
    windows = Windows((3, 3), (2, 2), ((1, 1), (1, 1)))

    def party(me):
        session = SessionAt(
            Setup(
                parties=("alice", "bob"), here=(me,), format=FixedPoint(), memory_limit=1 << 28,
                streams={me: streams[me]}, source=_Nobody(), transport=LocalTransport(),
                ledger=Ledger(2), range_policy=policy("warn", (me,)),
            )
        )  # fmt: skip
        session.pair = pair = Pair(ends[me])
        pair.operands = Operands(memory_limit=3_000_000)
        out = []
        for left, right in (
            ("bob", "alice"),
            ("shared", "shared"),
            ("shared", "bob"),
            ("bob", "shared"),
        ):
            (x, w), plain = operands(session, left, right, ((3, 40), (40, 50)), "extreme")
            for _ in range(2):
                z = own_products.matmul(session, pair, x, w, (3, 50))
                out.append((z, exact_product(*plain)))
            z = own_products.matmul(session, pair, x[:2], w[:, 1:], (2, 49))
            out.append((z, exact_product(plain[0][:2], plain[1][:, 1:])))
            (x, w), plain = operands(session, left, right, ((2, 6, 6, 2), (3, 3, 2, 3)), "random")
            z = own_convolution.convolve(session, pair, x, w, windows)
            rows = windows.view(plain[0]).reshape(-1, 18)
            out.append((z, exact_product(rows, plain[1].reshape(18, 3)).reshape(2, 3, 3, 3)))
            (x, w), plain = operands(session, left, right, ((SLOTS_FROM,),) * 2, "extreme")
            out.append(
                (own_products.multiply(session, pair, x, w, (SLOTS_FROM,)), plain[0] * plain[1])
            )
        return out

    first, second = run_both([lambda: party(0), lambda: party(1)])
    for (mine, wanted), (theirs, _) in zip(first, second, strict=True):
        np.testing.assert_array_equal(mine[0] + theirs[0], wanted)


class _Nobody(OwnShares):
    """Without the parties' set-up over the session's own transport, which here goes over queues."""

    own_shares = False
