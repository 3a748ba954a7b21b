"""Products of two secrets, and masks that are opened once in a tensor's life."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mpc
from mpc.protocols import masking, product
from mpc.provider import dealer as provider

UNIT = 2.0**-16

encoded = st.integers(-(2**31) + 1, 2**31 - 1)

MATRICES = [
    ((1, 1), (1, 1)),
    ((2, 3), (3, 4)),
    ((5, 1), (1, 5)),
    ((1, 9), (9, 1)),
    ((17, 13), (13, 9)),
    ((3,), (3,)),
    ((3,), (3, 2)),
    ((2, 3), (3,)),
    ((4, 2, 3), (4, 3, 2)),
    ((4, 2, 3), (3, 2)),
    ((2, 3), (4, 3, 2)),
    ((2, 1, 2, 3), (4, 3, 5)),
    ((4, 2, 3), (3,)),
    ((3,), (4, 3, 2)),
    ((0, 3), (3, 2)),
    ((2, 0), (0, 3)),
    ((2, 3), (3, 0)),
]


def numbers(shape, start=0):
    """Different multiples of 1/8, of both signs."""
    size = int(np.prod(shape))
    return ((np.arange(size) * 37 + start) % 200 - 99.0).reshape(shape) / 8


@settings(deadline=None, max_examples=50, derandomize=True)
@given(a=st.lists(encoded, min_size=1, max_size=30), data=st.data())
def test_elementwise_products_are_exact(session, integers, a, data):
    b = data.draw(st.lists(encoded, min_size=len(a), max_size=len(a)))
    x = session.share(np.array(a) * UNIT, owner="alice")
    y = session.share(np.array(b) * UNIT, owner="bob")
    product = x * y
    assert product.frac_bits == 32
    want = [i * j for i, j in zip(a, b, strict=True)]
    assert integers(product).tolist() == want
    assert max(map(abs, want)) <= product.bound
    assert integers(y * x).tolist() == want
    assert integers(x * x).tolist() == [i * i for i in a]


def test_products_of_edges_are_exact(session, integers, edges):
    x = session.share(edges[:, None], owner="alice")
    y = session.share(edges, owner="bob")
    whole = (edges * 2**16).astype(np.int64)
    np.testing.assert_array_equal(integers(x * y), whole[:, None] * whole)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_matrix_products_are_exact_in_the_ring(session, integers, seed):
    random = np.random.default_rng(seed)
    m, k, n = random.integers(1, 20, 3)
    # Sums stay below 2^62, where int64 is exact too.
    a, b = random.integers(-(2**28), 2**28, (m, k)), random.integers(-(2**28), 2**28, (k, n))
    x, y = session.share(a * UNIT, owner="alice"), session.share(b * UNIT, owner="bob")
    np.testing.assert_array_equal(integers(x @ y), a @ b)
    np.testing.assert_array_equal(integers(y.T @ x.T), (a @ b).T)


@pytest.mark.parametrize(("left", "right"), MATRICES, ids=str)
def test_matrix_products_take_numpys_shapes(session, left, right):
    a, b = numbers(left), numbers(right, 5)
    want = a @ b
    x, y = session.share(a, owner="alice"), session.share(b, owner="bob")
    for found in (x @ y, x @ b, a @ y, np.matmul(x, y)):
        assert found.shape == want.shape
        assert found.bound >= np.abs(want).max(initial=0) * 2**32
        np.testing.assert_allclose(found.reveal(), want, rtol=0, atol=UNIT)


def test_whole_numbers_and_bits(session):
    a, b = np.array([3, -4, 0]), np.array([[2, -1, 5]])
    x, y = session.share(a, owner="alice"), session.share(b, owner="bob")
    fixed = session.share([0.5, 2.0, 1.0], owner="bob")
    np.testing.assert_array_equal((x * y).reveal(), a * b)
    np.testing.assert_array_equal((y @ x).reveal(), b @ a)
    product = x * fixed
    assert product.frac_bits == 16
    np.testing.assert_array_equal(product.reveal(), [1.5, -8.0, 0.0])
    bits = session.share(np.array([True, False, True]), owner="bob")
    np.testing.assert_array_equal((bits * fixed).reveal(), [0.5, 0, 1])
    np.testing.assert_array_equal((bits @ fixed).reveal(), 1.5)


@pytest.mark.parametrize("exponent", [1, 2, 3, 4, 7, np.int64(2)])
def test_powers(session, exponent):
    a = np.array([0, 1, -1, 1.5, -2.25])
    x = session.share(a, owner="alice")
    error = np.abs((x**exponent).reveal() - a**exponent)
    assert error.max() <= 2.25**7 * exponent * UNIT
    whole = session.share(np.array([-3, 0, 2]), owner="bob")
    np.testing.assert_array_equal((whole**exponent).reveal(), np.array([-3, 0, 2]) ** exponent)


def test_products_of_products_are_truncated_first(session):
    a = np.array([1.5, -2.0, 3.0])
    x = session.share(a, owner="alice")
    y = (x * x) * x
    assert y.frac_bits == 32
    np.testing.assert_allclose(y.reveal(), a**3, rtol=0, atol=8 * UNIT)
    z = (x * x) @ (x * x)
    np.testing.assert_allclose(z.reveal(), a**2 @ a**2, rtol=0, atol=64 * UNIT)


# Masks.


OWNERS = [
    ("alice", "bob"),
    ("bob", "alice"),
    ("alice", "alice"),
    ("bob", "bob"),
    (None, "bob"),
    ("alice", None),
    (None, None),
]


@pytest.mark.parametrize("owners", OWNERS, ids=str)
def test_products_of_what_each_has_given_or_computed(session, owners):
    a, b = numbers((3, 4)), numbers((4, 5), 7)
    x = session.share(a, owner=owners[0] or "alice")
    w = session.share(b, owner=owners[1] or session.parties[-1])
    # A sum is no longer what one party has given.
    x = x if owners[0] else x + 0
    w = w if owners[1] else w + 0
    for _ in range(2):
        np.testing.assert_allclose((x @ w).reveal(), a @ b, rtol=0, atol=UNIT)
        np.testing.assert_allclose((x * x).reveal(), a * a, rtol=0, atol=UNIT)
        np.testing.assert_allclose(
            (w.T[:, :3] * x.T[0]).reveal(), b.T[:, :3] * a.T[0], rtol=0, atol=UNIT
        )


@pytest.mark.dealt
def test_a_tensor_is_opened_once(fresh_session, tap):
    s = fresh_session
    x = s.share(numbers((3, 4)), owner="alice")
    w = s.share(numbers((4, 5)), owner="bob")
    v = s.share(numbers((4, 2)), owner="bob")
    with tap(s) as heard:
        x @ w
    assert heard.words_opened == 12 + 20
    with tap(s) as heard:
        x @ w
        w.T @ x.T
    assert heard.sent == []
    with tap(s) as heard:
        x @ v
    assert heard.words_opened == 8
    # Both masks at once, in one round.
    y = s.share(numbers((3, 4)), owner="bob")
    z = s.share(numbers((4,)), owner="alice")
    with tap(s) as heard:
        y * z
    assert [len(message) for message in heard.sent] == [2]


@pytest.mark.dealt
def test_a_second_product_with_the_same_tensor_opens_nothing_of_it(fresh_session):
    s = fresh_session
    a, b = numbers((3, 4)), numbers((4, 5))
    w = s.share(b, owner="alice")
    costs = []
    for _ in range(3):
        x = s.share(a, owner="bob")
        before = s.cost()
        product = x @ w
        costs.append((s.cost() - before).total.sent[:2])
        np.testing.assert_allclose(product.reveal(), a @ b, rtol=0, atol=UNIT)
    # Each owner opens what it has given.
    alice, bob = 8 * (s.size - 1) * 20, 8 * (s.size - 1) * 12
    assert costs == [(alice, bob), (0, bob), (0, bob)]


@pytest.mark.dealt
def test_a_square_opens_its_operand_once(fresh_session, tap):
    x = fresh_session.share(numbers((10,)), owner="alice")
    with tap(fresh_session) as heard:
        square = x * x
    assert heard.words_opened == 10
    assert [len(messages) for messages in heard.sent] == [1]
    np.testing.assert_allclose(square.reveal(), numbers((10,)) ** 2, rtol=0, atol=UNIT)


VIEWS = [
    lambda x: x.T,
    lambda x: x[1],
    lambda x: x[:, 2:],
    lambda x: x[::-1, None],
    lambda x: x[[2, 0, 2]],
    lambda x: x[:, np.array([True, False, True, True])],
    lambda x: x[[0, 1], [1, 3]],
    lambda x: x.reshape(2, 6),
    lambda x: x.T.reshape(-1),
    lambda x: x.reshape(3, 2, 2).transpose((1, 0, 2))[1],
    lambda x: x.T[1:].T.reshape(9)[::2],
    lambda x: x[0, 1],
]


@pytest.mark.parametrize("view", range(len(VIEWS)))
@pytest.mark.parametrize("given", [True, False], ids=["given", "computed"])
def test_views_of_masked_tensors_keep_the_mask(fresh_session, tap, view, given):
    s, view = fresh_session, VIEWS[view]
    a = numbers((3, 4))
    x = s.share(a, owner="alice")
    if not given:
        x = x + 0
    x * x
    with tap(s) as heard:
        part = view(x)
        product = part * part
    if not s.source.own_shares:
        assert heard.sent == []
        assert part.mask is not None
    np.testing.assert_allclose(product.reveal(), view(a) ** 2, rtol=0, atol=UNIT)
    # Together with a tensor of its own mask, too.
    other = s.share(np.ones(view(a).shape), owner="bob")
    np.testing.assert_allclose((part * other).reveal(), view(a), rtol=0, atol=UNIT)


@pytest.mark.parametrize("given", [True, False], ids=["given", "computed"])
def test_masked_tensors_stay_what_they_are(session, integers, given):
    a = numbers((3, 4))
    x = session.share(a, owner="bob")
    if not given:
        x = x + 0
    (x @ x.T).reveal()
    assert (x.mask is None) == session.source.own_shares
    np.testing.assert_array_equal(x.reveal(), a)
    np.testing.assert_array_equal((x + 1.5 - x * 2).reveal(), a + 1.5 - 2 * a)
    np.testing.assert_array_equal(integers(x.sum(0)), (a.sum(0) * 2**16).astype(int))


@pytest.mark.parametrize("room", [0, 100, 1 << 20])
def test_the_provider_expands_what_its_cache_has_dropped(monkeypatch, room):
    small = partial(provider.Provider, cache_bytes=room)
    monkeypatch.setattr("mpc.session_setup.Provider", small)
    with mpc.Session(("alice", "bob", "carol")) as s:
        arrays = [numbers((3, 4), k) for k in range(5)]
        shared = [s.share(a, owner="alice") for a in arrays]
        for _ in range(2):
            for a, x in zip(arrays, shared, strict=True):
                for b, y in zip(arrays, shared, strict=True):
                    np.testing.assert_allclose((x * y).reveal(), a * b, rtol=0, atol=UNIT)
                    got = (x @ y.T).reveal()
                    np.testing.assert_allclose(got, a @ b.T, rtol=0, atol=UNIT)


@pytest.mark.filterwarnings("error")
def test_products_of_single_elements(session):
    a = numbers((2, 3, 4))
    x = session.share(a, owner="alice")
    y = session.share(-1.5, owner="bob")
    for _ in range(3):
        assert abs((x[1, 2, 3] * x[0, 0, 0]).reveal() - a[1, 2, 3] * a[0, 0, 0]) <= UNIT
        assert abs((y * y).reveal() - 2.25) <= UNIT
        np.testing.assert_allclose((x * y).reveal(), -1.5 * a, rtol=0, atol=UNIT)
        np.testing.assert_allclose((y * x.T).reveal(), -1.5 * a.T, rtol=0, atol=UNIT)


@pytest.mark.dealt
@pytest.mark.parametrize("owner", ["alice", "bob"])
def test_what_a_party_has_given_takes_one_product_each(session, monkeypatch, owner):
    """The owner multiplies its value itself, so its share of the other mask is not dealt with."""
    X, W = numbers((3, 4)), numbers((4, 2), 5)
    calls = []
    add = product.matmul_add

    def listen(a, b, out):
        calls.append(a.shape)
        add(a, b, out)

    monkeypatch.setattr(product, "matmul_add", listen)
    x = session.share(X, owner=owner)
    w = session.share(W, owner="alice") + session.share(np.zeros(W.shape), owner="bob")
    asked = []
    correct = session.source.provider.correct
    monkeypatch.setattr(
        session.source.provider,
        "correct",
        lambda id, term, out: (asked.append(term), correct(id, term, out)),
    )
    number = session.parties.index(owner)
    for left, right, mine, other in ((x, w, "x", "w"), (w.T, x.T, "w", "x")):
        calls.clear()
        asked.clear()
        found = (left @ right).reveal()
        wanted = X @ W
        np.testing.assert_array_equal(found, wanted if left is x else wanted.T)
        # One at each party, one at the provider.
        assert len(calls) == session.size + 1
        (term,) = (one.cross_term for one in asked if one.cross_term is not None)
        assert getattr(term, mine).owner == number
        assert getattr(term, mine).without is None
        assert getattr(term, other).without == number
    # Elementwise too, and for two values of one owner, where all masks are known to it.
    np.testing.assert_array_equal((x * w[:1, :1]).reveal(), X * W[:1, :1])
    np.testing.assert_array_equal((x @ session.share(W, owner=owner)).reveal(), X @ W)


@pytest.mark.dealt
def test_a_slice_of_rows_is_a_mask_further_on_in_the_stream(session):
    X = numbers((6, 2, 3))
    x = session.share(X, owner="bob") + session.share(X, owner="alice")
    masking.mask_together(x)
    whole = session.source.provider.mask(x.mask.ref)
    for rows in (
        slice(2, 5),
        slice(0, 0),
        slice(-2, None),
        slice(None),
        slice(4, 2),
        slice(1, 5, 2),
    ):
        piece = x[rows]
        assert piece.mask.ref.views == () or rows.step == 2
        np.testing.assert_array_equal(session.source.provider.mask(piece.mask.ref), whole[rows])
        again = piece[1:].reshape(-1, 3)
        np.testing.assert_array_equal(
            session.source.provider.mask(again.mask.ref), whole[rows][1:].reshape(-1, 3)
        )
        np.testing.assert_array_equal(
            (again * again).reveal(), (2 * X[rows][1:].reshape(-1, 3)) ** 2
        )
    for party in range(session.size):
        without = replace(x[1:3].mask.ref, without=party)
        share = x.mask.shares[party, 1:3]
        np.testing.assert_array_equal(
            session.source.provider.mask(without) + share,
            session.source.provider.mask(x[1:3].mask.ref),
        )


# Products that leave their term for later.


def integer_product(session, a, b):
    return session.share(np.array(a) * UNIT, owner="alice") * session.share(
        np.array(b) * UNIT, owner=session.parties[-1]
    )


# Both signs, products of which two fit below 2^62, and products that a truncation by 16 bits leaves whole.
LEFT = [0, 1, -1, 2**31 - 1, -(2**31) + 1, 65536, -65536, 3, -7, 2**30]
RIGHT = [5, -1, 65535, 2**30 - 1, 2**30 - 1, 65536, 1, -65537, 2**20, -2]
WHOLE = [i * j for i, j in zip(LEFT, RIGHT, strict=True)]


def near(found, exact, shift=16):
    """Whether integers are others divided by a power of two, rounded either way."""
    return all(z >> shift <= y <= -(-z >> shift) for y, z in zip(found, exact, strict=True))


USES = {
    "truncated": (lambda z: z.truncate(), WHOLE),
    "truncated in another shape": (lambda z: z.reshape(2, 5).truncate().reshape(10), WHOLE),
    "plus a public number": (lambda z: (z + 1.5).truncate(), [z + (3 << 31) for z in WHOLE]),
    "a public number minus": (lambda z: (1.5 - z).truncate(), [(3 << 31) - z for z in WHOLE]),
    "twice": (lambda z: (z + z).truncate(), [2 * z for z in WHOLE]),
    "with a narrower bound": (lambda z: z.with_integer_bound(2**62 - 1).truncate(), WHOLE),
    "transposed": (lambda z: z.reshape(2, 5).T.truncate().T.reshape(10), WHOLE),
    "a view": (lambda z: z[::-1].truncate()[::-1], WHOLE),
    "scaled": (lambda z: (z * 2).truncate(), [2 * z for z in WHOLE]),
    "relu": (lambda z: z.relu(), [max(z, 0) for z in WHOLE]),
    "gate": (lambda z: z.gate(z.relu_with_derivative()[1]), [max(z, 0) for z in WHOLE]),
    "added to one that broadcasts": (
        lambda z: (z[:1] + z).truncate(), [WHOLE[0] + z for z in WHOLE],
    ),
}  # fmt: skip


@pytest.mark.parametrize("use", USES)
def test_a_product_is_right_whatever_it_is_used_for(session, integers, use):
    run, exact = USES[use]
    z = integer_product(session, LEFT, RIGHT)
    assert near(integers(run(z)).tolist(), exact)
    # Used again, and then as it is.
    assert near(integers(run(z)).tolist(), exact)
    assert integers(z).tolist() == WHOLE
    assert near(integers(run(z)).tolist(), exact)


def test_a_product_is_compared_exactly(session):
    z = integer_product(session, LEFT, RIGHT)
    np.testing.assert_array_equal((z < 0).reveal(), [w < 0 for w in WHOLE])
    np.testing.assert_array_equal((z == 0).reveal(), [w == 0 for w in WHOLE])


@pytest.mark.dealt
def test_what_is_truncated_is_not_dealt(session, spent):
    z = integer_product(session, LEFT, RIGHT)
    for use in (lambda: z.truncate(), lambda: z.relu(), lambda: (z + 1.0).reshape(5, 2).truncate()):
        assert "product" not in spent_by_protocol(session, use)
    assert spent(session, lambda: z.shares).correction_bytes == 8 * len(LEFT)
    assert spent(session, lambda: z.shares).correction_bytes == 0


def spent_by_protocol(session, program):
    before = session.cost()
    program()
    return (session.cost() - before).by_protocol


def test_a_plan_takes_over_what_a_product_lacks(pair):
    z = integer_product(pair, LEFT, RIGHT)
    for program in (lambda x: x.truncate(), lambda x: x.relu(), lambda x: (x / 3).truncate()):
        asked = []
        cost = pair.plan(
            lambda p, program=program, asked=asked: (
                program(p.twin(z)),
                asked.extend(p.source.asked),
            )
        ).cost
        before = pair.cost()
        program(z)
        spent = pair.cost() - before
        assert (cost.total.rounds, cost.total.correction_bytes) == (
            spent.total.rounds,
            spent.total.correction_bytes,
        )


def test_a_product_that_broadcasts_in_a_sum(session):
    """Its term has another shape than the sum, so it is dealt first."""
    wide = session.share(np.array([1.0, -2.0, 0.5]), owner="alice")
    small = integer_product(session, [3 << 16], [-5 << 16])
    for total in (small + wide, wide + small, small + np.array([1.0, -2.0, 0.5])):
        np.testing.assert_allclose(total.truncate().reveal(), [-14, -17, -14.5], atol=UNIT)
