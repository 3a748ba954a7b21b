"""Whether a result is in range, against Python's integers: exact at every edge, one bit opened."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mpc
from mpc.core.windows import Windows
from mpc.protocols import convolution, linear, product, range_check
from mpc.protocols.masking import mask_together
from mpc.protocols.range_check import LIMIT, verdict

# Results and operands where something could go wrong: the limits, and what comes back to them
# from beyond the ring.
TARGETS = [
    *(sign * (value + d) for sign in (1, -1) for d in (-1, 0, 1)
      for value in (LIMIT, 2 * LIMIT, 3 * LIMIT, 4 * LIMIT, 2**64 + LIMIT, 2**65, 2**80, 2**100)),
    0, 1, -1, 5, 2**64 + 5, 2**64 - 5, -(2**64) + 5, 7 * 2**64, 2**61 + 3, -(2**61), 2**122 + 17,
]  # fmt: skip
VALUES = [0, 1, -1, 2, 2**31, -(2**31), 2**31 + 1, LIMIT // 2, -LIMIT // 2, LIMIT - 1, 1 - LIMIT]


def exactly(values):
    """Return an array of Python's integers."""
    out = np.empty(np.shape(values), object)
    out[...] = np.asarray(values, object)
    return out


def in_range(result):
    return bool(np.all(abs(exactly(result)) < LIMIT))


def matrices(target, p):
    """Return rows and columns whose product is `target`, beside partial sums of the size of p 2^62."""
    d = p - p // 3
    quotient, rest = divmod(target, d)
    return [[LIMIT - 1, quotient, quotient, rest, 1 - LIMIT]], [[p], [p], [-(p // 3)], [1], [p]]


def with_limbs(monkeypatch):
    """Listen to the limbs that are made."""
    seen, limbs = [], range_check.limbs_of

    def listen(x, cuts):
        seen.append(limbs(x, cuts))
        return seen[-1]

    monkeypatch.setattr(range_check, "limbs_of", listen)
    return seen


# Step 3 alone, for parts that do their worst.


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_claims_hold_if_and_only_if_the_result_is_in_range(data):
    draw = data.draw
    bits = st.integers(1, 62)
    x, y = (draw(bits.map(lambda k: 2**k)), draw(bits.map(lambda k: 2**k)))
    terms = draw(st.sampled_from([1, 2, 3, 10, 784, 2**20]))
    x_cuts, y_cuts = range_check.cheapest_cuts(x, y, terms)
    sizes = range_check.sizes_of_products(x, x_cuts, y, y_cuts, terms)
    parts = [
        draw(st.one_of(st.sampled_from([-bound, bound, 0]), st.integers(-bound, bound)))
        for _, bound in sizes
    ]
    # Take the last few so that the result comes near a target, as far as their bounds let it.
    target = draw(st.sampled_from(TARGETS)) + draw(st.integers(-2, 2))
    for k in sorted(range(len(sizes)), key=lambda k: -sizes[k][0])[draw(st.integers(0, 3)) :]:
        shift, bound = sizes[k]
        rest = target - sum(
            p << s for j, (p, (s, _)) in enumerate(zip(parts, sizes, strict=True)) if j != k
        )
        parts[k] = max(-bound, min(bound, rest >> shift))
    result = sum(part << shift for part, (shift, _) in zip(parts, sizes, strict=True))
    claims = []
    for level, limit in range_check.levels_of(sizes):
        assert limit < LIMIT
        kept = sum(p << s - level for p, (s, _) in zip(parts, sizes, strict=True) if s >= level)
        word = (kept + 2**63) % 2**64 - 2**63
        claims.append(abs(word) <= limit)
    assert all(claims) == (abs(result) < LIMIT)


@pytest.mark.parametrize("rest", [2**60, 2**60 + 1, 2**61 - 8, 2**61, 2**61 + 8, 2**62, 3 * 2**61])
def test_a_level_claims_enough_for_the_next(rest):
    """Nothing that passes the level 3 may come back into range at level 0."""
    sizes = ((0, rest), (3, 2**61))
    levels = range_check.levels_of(sizes)
    assert (levels is None) == (rest > 2**61)
    # With what is left out at its largest, the claim of level 3 allows this much:
    claimed = 2**59 + -(-rest // 8)
    allowed = 8 * claimed + rest
    assert (allowed > 2**63) == (levels is None)
    if levels is not None:
        assert levels == ((0, LIMIT - 1), (3, claimed))


def test_every_sum_and_product_of_operands_has_levels():
    for x in (1, 2**20, 2**31, LIMIT - 1, LIMIT):
        for y in (1, 3, 2**31, LIMIT):
            for terms in (1, 2, 784, 2**20, 2**31):
                cuts = range_check.cheapest_cuts(x, y, terms)
                sizes = range_check.sizes_of_products(x, cuts[0], y, cuts[1], terms)
                assert all(bound <= LIMIT for _, bound in sizes)
        for count in (1, 3, 2**31):
            assert range_check.fewest_limbs(((0, count, x), (40, count, LIMIT)))


# Claims, one by one.


@pytest.mark.parametrize("limit", [0, 1, 2**31, LIMIT // 2, LIMIT - 1, LIMIT, 2**70])
def test_magnitude(session, share_integers, limit):
    for value in {*VALUES, limit - 1, limit, limit + 1, -limit - 1, -limit, 1 - limit}:
        if abs(value) < LIMIT:
            claim = range_check.magnitude(share_integers(session, [0, value]), limit)
            assert verdict(claim) == (abs(value) <= limit), value


def test_limits_of_each_element(session, share_integers):
    x = share_integers(session, [[3, -4], [5, 6]])
    for limits, expected in (
        ([5, 6], True),
        ([5, 5], False),
        ([[3], [6]], False),
        ([[4], [6]], True),
    ):
        assert verdict(range_check.magnitude(x, np.array(limits))) == expected, limits


@pytest.mark.parametrize("factor", [*VALUES, LIMIT, -(2**63)])
def test_multiples(session, share_integers, factor):
    for value in VALUES:
        claim = range_check.multiple(share_integers(session, [1, value]), np.array([0, factor]))
        assert verdict(claim) == in_range([value * factor]), value


def test_multiples_broadcast(session, share_integers):
    x = share_integers(session, [[2**40], [2**41]])
    for factors, expected in (([2**20, 1], True), ([2**21, 1], False)):
        claim = range_check.multiple(x, np.array([factors] * 2))
        assert len(claim.limits) == 2
        assert verdict(claim) == expected
        assert verdict(range_check.multiple(x[0, 0], np.array(factors))) == (
            factors[0] * 2**40 < LIMIT
        )
    assert verdict(range_check.multiple(x, np.array([[2**21 - 1], [2**20]])))
    assert not verdict(range_check.multiple(x, np.array([[2**21], [2**21]])))


@pytest.mark.parametrize("shift", [0, 1, 3, 40, 61])
def test_sums_of_two(session, share_integers, shift):
    for v in VALUES:
        for w in VALUES:
            result = (v << shift) + w
            x = share_integers(session, [0, v])
            for y in (share_integers(session, w), np.array(w, np.int64)):
                assert verdict(range_check.linear([(x, shift), (y, 0)])) == in_range(result), (v, w)
                if in_range(v << shift) and shift == 0:
                    break


def test_a_level_shift(session, share_integers):
    for v in VALUES:
        for shift in (1, 16, 31, 61):
            claim = range_check.linear([(share_integers(session, [v]), shift)])
            assert verdict(claim) == in_range(v << shift), (v, shift)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(VALUES) | st.integers(1 - LIMIT, LIMIT - 1), min_size=1, max_size=40),
    st.sampled_from(TARGETS),
)
def test_sums_of_many(session, share_integers, values, target):
    # Add what brings the sum to the target.
    rest = target - sum(values)
    while rest and len(values) < 90:
        values = [*values, max(1 - LIMIT, min(LIMIT - 1, rest))]
        rest -= values[-1]
    x = share_integers(session, np.array([values, [0] * len(values)]))
    expected = in_range(sum(values))
    assert verdict(range_check.linear([(x, 0)], axes=(0, 1))) == expected
    assert verdict(range_check.linear([(x, 0)], axes=(1,))) == expected
    assert verdict(range_check.linear([(x.T, 0)], axes=(0,))) == expected
    assert verdict(range_check.linear([(x[:, k], 0) for k in range(len(values))])) == expected


def test_sums_broadcast(session, share_integers):
    x = share_integers(session, [[LIMIT // 2], [1]])
    y = share_integers(session, [0, LIMIT // 2 - 1])
    assert verdict(range_check.linear([(x, 0), (y, 0)]))
    assert not verdict(range_check.linear([(x, 0), (y, 0), (np.array([0, 1]), 0)]))
    assert verdict(range_check.linear([(x, 0), (y, 0), (np.array([1, 0]), 0)]))


@pytest.mark.dear
def test_products_of_values(session, share_integers):
    for v in VALUES:
        for w in [*VALUES, LIMIT]:
            x = share_integers(session, [v])
            claim = range_check.bilinear(x, np.array([w]), linear.multiply_integers, 1)
            assert verdict(claim) == in_range(v * w), (v, w)
            if w < LIMIT:
                y = share_integers(session, [1, w])
                claim = range_check.bilinear(x, y, product.multiply, 1)
                assert verdict(claim) == in_range([v, v * w]), (v, w)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 124).flatmap(lambda k: st.integers(-(2**k), 2**k)) | st.sampled_from(TARGETS),
    st.integers(0, 62),
    st.integers(0, 62),
)
def test_products_by_bounds(session, share_integers, size, more, other):
    """Operands of every size, each with a bound that may be tight or far off."""
    v = int(abs(size) ** 0.5) + 1
    w = min(abs(size) // v, LIMIT - 1) * (-1 if size < 0 else 1)
    v = min(v, LIMIT - 1)
    x = share_integers(session, [v, -1], bound=max(v, min(LIMIT, v << more)))
    y = share_integers(session, [w, 0], bound=max(abs(w), min(LIMIT, abs(w) << other)))
    assert verdict(range_check.bilinear(x, y, product.multiply, 1)) == in_range(v * w)
    assert verdict(
        range_check.bilinear(y, np.array([v, 1]), linear.multiply_integers, 1)
    ) == in_range(v * w)


CANCELLING = [
    (target, size) for target in TARGETS for size in (2**20, 2**33 + 1, 2**61 + 12345)
    if abs(target // size) < LIMIT // 2
]  # fmt: skip


@pytest.mark.parametrize(("target", "size"), CANCELLING)
def test_products_that_cancel(session, share_integers, target, size):
    left, right = (np.array(m, np.int64) for m in matrices(target, size))
    assert (exactly(left) @ exactly(right))[0, 0] == target
    x, y = share_integers(session, left), share_integers(session, right)
    expected = in_range(target)
    assert verdict(range_check.bilinear(x, y, product.matmul, 5)) == expected
    for operand, public, reverse in ((x, right, False), (y, left, True)):
        claim = range_check.bilinear(
            operand, public, lambda u, v, r=reverse: linear.matmul_integers(u, v, reverse=r), 5
        )
        assert verdict(claim) == expected


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_matrix_products(session, share_integers, data):
    rows, inner, columns = (data.draw(st.integers(1, 5)) for _ in range(3))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    bits = data.draw(st.integers(20, 62))
    left = random.integers(-(2**bits) + 1, 2**bits, (2, rows, inner))
    right = random.integers(-(2 ** (62 - bits)) - 4, 2 ** (62 - bits) + 4, (inner, columns))
    x = share_integers(session, left)
    y = share_integers(session, right, bound=2 ** (62 - bits) + 4)
    expected = in_range(exactly(left) @ exactly(right))
    assert verdict(range_check.bilinear(x, y, product.matmul, inner)) == expected
    claim = range_check.bilinear(x, right, linear.matmul_integers, inner)
    assert verdict(claim) == expected


def test_convolutions(session, share_integers):
    windows = Windows((2, 2))
    images = np.arange(2 * 3 * 3).reshape(2, 3, 3, 1) * 2**40
    for last, expected in ((2**16, True), (2**19, False)):
        kernels = np.array([1, -2, 3, last]).reshape(2, 2, 1, 1)
        seen = windows.view(exactly(images))
        assert in_range(np.tensordot(seen, exactly(kernels), axes=3)) == expected
        claim = range_check.bilinear(
            share_integers(session, images),
            share_integers(session, kernels),
            lambda x, w: convolution.convolve(x, w, windows),
            4,
        )
        assert verdict(claim) == expected


def test_a_square(session, share_integers):
    for v in (2**31 - 1, 2**31, -(2**31) + 1, LIMIT - 1, 2**32, 2**33):
        x = share_integers(session, v)
        assert verdict(range_check.bilinear(x, x, product.multiply, 1)) == in_range(v * v)


# What else operands can be.


@pytest.mark.parametrize("owners", ["alice bob", "bob bob", "alice alice"])
def test_what_parties_have_given(session, owners):
    first, second = owners.split()
    for v, w in ((2**31 - 1, 2**31 - 1), (-(2**31) + 1, 2**31 - 1), (2**30, -(2**31) + 1)):
        for terms, expected in ((1, True), (2, abs(2 * v * w) < LIMIT)):
            x = session.share([[v] * terms] * 2, owner=first)
            y = session.share([[w]] * terms, owner=second)
            claim = range_check.bilinear(x, y, product.matmul, 2 * terms)
            assert verdict(claim) == expected
            before = session.cost()
            with session.range_policy.vouched():
                z = x @ y
            if not session.source.own_shares:
                # The masks serve the product.
                assert x.mask.ref.owner == session.parties.index(first)
                assert (session.cost() - before).rounds == 0
            if expected:
                np.testing.assert_array_equal(z.reveal(), [[v * w * terms]] * 2)


def test_products_that_are_not_truncated(session, integers):
    for v in (2.0**13, 2.0**14):
        x = session.share([v, -1.0], owner="alice")
        z = x * x  # 2^32 v^2, its term not dealt yet
        y = session.share([3, 3], owner="bob", bound=3)
        result = exactly([int(v * v) * 2**32 * 3, 3 * 2**32])
        claim = range_check.bilinear(z, y, product.multiply, 1)
        assert verdict(claim) == in_range(result)
        z = x * x
        assert verdict(range_check.linear([(z, 3), (x, 16)])) == in_range(
            exactly([int(v * v) * 2**35 + int(v) * 2**32, 2**35 - 2**32])
        )
        z = x * x
        assert verdict(range_check.magnitude(z, int(v * v) * 2**32))
        np.testing.assert_array_equal(z.reveal(), [v * v, 1.0])


@pytest.mark.dealt
def test_views_of_what_has_a_mask(session, share_integers):
    values = np.array([[2**40, 1, 2], [3, 2**33, -(2**40)], [5, 6, 7]])
    x = share_integers(session, values)
    mask_together(x)
    y = share_integers(session, [2**10, 2**22, 2**23])
    for view in (np.s_[1:], np.s_[[2, 0]], np.s_[::-1], np.s_[:, ::2], np.s_[0]):
        for transposed in (False, True):
            some = x[view].T if transposed else x[view]
            exact = exactly(values)[view].T if transposed else exactly(values)[view]
            if exact.shape[-1] != 3:
                continue
            before = session.cost()
            claim = range_check.bilinear(some, y, product.multiply, 1)
            assert verdict(claim) == in_range(exact * exactly([2**10, 2**22, 2**23]))
            if not session.source.own_shares:
                assert (session.cost() - before).rounds in (6, 7, 8)


def test_operands_stay_what_they_are(session, share_integers, integers):
    values = [LIMIT - 1, 1 - LIMIT, 2**33]
    x, y = share_integers(session, values), share_integers(session, values[::-1])
    verdict(range_check.bilinear(x, y, product.multiply, 1), range_check.linear([(x, 0)], (0,)))
    assert x.bound == LIMIT - 1
    assert (x.mask is None) == session.source.own_shares
    np.testing.assert_array_equal(integers(x), values)
    np.testing.assert_array_equal(integers(y), values[::-1])


def test_limbs_add_up_within_their_bounds(session, share_integers, integers, monkeypatch):
    seen = with_limbs(monkeypatch)
    random = np.random.default_rng(0)
    values = np.concatenate([VALUES, random.integers(1 - LIMIT, LIMIT, 500)])
    x = share_integers(session, values, bound=LIMIT)
    for other in (LIMIT, 2**40, 2**20):
        seen.clear()
        range_check.bilinear(x, np.array([other]), linear.multiply_integers, 1)
        (limbs,) = seen
        cuts, _ = range_check.cheapest_cuts(LIMIT, other, 1)
        assert len(limbs) == len(cuts) > 1
        found = [exactly(integers(limb)) for limb in limbs]
        np.testing.assert_array_equal(
            sum(limb * 2**cut for limb, cut in zip(found, cuts, strict=True)), exactly(values)
        )
        for limb, values_of_limb in zip(limbs, found, strict=True):
            assert max(abs(values_of_limb)) <= limb.bound <= LIMIT


@pytest.mark.parametrize("up", ["all", "none", "low", "high"])
def test_truncations_that_do_their_worst(session, share_integers, integers, monkeypatch, up):
    values = [LIMIT - 1, 1 - LIMIT, 2**42 - 1, 1 - 2**42, 2**21 - 1, -(2**21), 1, 0, 2**61 + 1]

    def rounded(x, shifts):
        found = []
        for k, shift in enumerate(shifts):
            upwards = up == "all" or (up == "low" and k == 0) or (up == "high" and k > 0)
            some = [-(-v >> shift) if upwards else v >> shift for v in values]
            found.append(share_integers(session, some).shares)
        return found

    seen = with_limbs(monkeypatch)
    monkeypatch.setattr(range_check, "_truncations", rounded)
    x = share_integers(session, values, bound=LIMIT - 1)
    for factor in (1, -1, 2, 2**20, 2**21, 3 * 2**30, LIMIT // 2, LIMIT - 1):
        claim = range_check.bilinear(x, np.array(factor), linear.multiply_integers, 1)
        assert verdict(claim) == in_range(exactly(values) * factor), factor
    assert not verdict(range_check.bilinear(x, x, product.multiply, 1))
    for limb in (limb for limbs in seen for limb in limbs):
        assert max(abs(exactly(integers(limb)))) <= limb.bound


def test_several_claims_take_one_verdict(session, share_integers, spent):
    x, y = share_integers(session, [5, -6]), share_integers(session, [2**61, 7])
    good = [range_check.linear([(x, 0), (y, 0)]), range_check.magnitude(x, 6)]
    bad = range_check.magnitude(y, 2**61 - 1)
    assert verdict(*good)
    for place in range(3):
        claims = good[:place] + [bad] + good[place:]
        got = spent(session, lambda claims=claims: verdict(*claims))
        if not session.source.own_shares:
            assert got == range_check.cost(session.size, 6)
        assert not verdict(*claims)


@pytest.mark.parametrize("count", [63, 64, 65, 1000])
def test_one_value_among_many(session, share_integers, count):
    for place in (0, count // 2, count - 1):
        values = np.zeros(count, np.int64)
        values[place] = 2**31
        x = share_integers(session, values, bound=2**31)
        for y in (2**31, 2**31 - 1):
            claim = range_check.bilinear(x, np.array(y), linear.multiply_integers, 1)
            assert verdict(claim) == (y < 2**31)
    # All are wrong, a multiple of every power of two.
    assert not verdict(range_check.magnitude(share_integers(session, np.full(count, 2)), 1))


def test_empty_arrays_are_in_range(session, share_integers, spent):
    x, y = share_integers(session, np.zeros((0, 3))), share_integers(session, np.zeros((3, 2)))

    def claims():
        assert verdict(
            range_check.bilinear(x, y, product.matmul, 3),
            range_check.linear([(x, 0), (x, 4)]),
            range_check.magnitude(x, 0),
            range_check.multiple(x, np.arange(3)),
        )

    # Without a provider transfers are made first, which open nothing.
    assert spent(session, claims).rounds <= (4 if session.source.own_shares else 2)


def test_nothing_holds_a_bound_beyond_the_limit(session, share_integers, monkeypatch):
    x = share_integers(session, [[1, 2], [3, 4]])
    derive = mpc.SharedArray.derive

    def checked(self, shares, *, bound, **rest):
        assert bound <= LIMIT
        return derive(self, shares, bound=bound, **rest)

    monkeypatch.setattr(mpc.SharedArray, "derive", checked)
    for terms, form in ((1, product.multiply), (2, product.matmul)):
        assert verdict(range_check.bilinear(x, x.T, form, terms))
    assert verdict(range_check.bilinear(x, np.ones((2, 2), int), linear.matmul_integers, 2))
    assert verdict(range_check.linear([(x, 0)], (0, 1)))


def test_a_plan_finds_nothing_wrong(session):
    found = []

    def program(planned):
        x = planned.share(None, owner="alice", shape=(3,), dtype=int)
        wide = x.derive(x.shares, frac_bits=0, bound=LIMIT)
        found.append(verdict(range_check.bilinear(wide, wide, product.multiply, 1)))

    session.plan(program)
    assert found == [True]
