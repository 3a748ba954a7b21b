"""No legal call returns a wrong number: it is right, or refused, or warned of."""

import copy
import warnings

import numpy as np
import pytest

import mpc
from mpc.core.ranges import LARGEST, Operation, beyond
from mpc.protocols import range_check
from mpc.session import agreed

UNIT = 2.0**-16


def whole(s, values, **options):
    return s.share(np.asarray(values, np.int64), owner="alice", **options)


def fixed(s, values, **options):
    return s.share(np.asarray(values, float), owner="bob", **options)


# Program on a session, and the right value, or None where a RangeError is.
RIGHT = {
    "mean of whole numbers": (lambda s: whole(s, np.arange(1000)).mean(), 499.5),
    "mean of sevens": (lambda s: whole(s, np.full(10_000, 7)).mean(), 7),
    "mean of many": (lambda s: whole(s, np.arange(100_000)).mean(), 49999.5),
    "mean of a million": (lambda s: fixed(s, np.full(1_000_000, 10000.0)).mean(), 10000),
    "three factors": (lambda s: whole(s, [30000]) * whole(s, [30000]) * whole(s, [30000]), 2.7e13),
    "cube": (lambda s: whole(s, [30000]) ** 3, 2.7e13),
    "fourth power": (lambda s: whole(s, [30000]) ** 4, 8.1e17),
    "matrix product": (lambda s: whole(s, [[30000] * 3] * 3) @ whole(s, [[30000] * 3] * 3), 2.7e9),
    "sum of squares": (lambda s: (whole(s, [30000] * 9) * whole(s, [30000] * 9)).sum(), 8.1e9),
    "cube of fixed point": (lambda s: fixed(s, [30000]) ** 3, None),
    "fourth power of fixed point": (lambda s: fixed(s, [200]) ** 4, None),
    "small cube": (lambda s: fixed(s, [100.0]) ** 3, 1e6),
    "product of fixed point": (lambda s: fixed(s, [30000]) * fixed(s, [30000]), 9e8),
    "fixed matrix product": (lambda s: fixed(s, [[30000.0] * 3]) @ fixed(s, [[30000.0]] * 3), None),
    "sum of fixed squares": (lambda s: (fixed(s, [30000] * 9) * fixed(s, [30000] * 9)).sum(), None),
    "relu of a sum": (
        lambda s: (fixed(s, [30000]) * fixed(s, [30000]) * 2 + fixed(s, [1])).relu(),
        None,
    ),
    "large public float": (lambda s: fixed(s, [1.5, 30000]) * 1e9, [1.5e9, 3e13]),
    "large public integer": (lambda s: whole(s, [3]) * 2**40, 3 * 2**40),
    "too large a public integer": (lambda s: whole(s, [30000]) * 2**50, None),
    "fixed times a large integer": (lambda s: fixed(s, [1.5]) * 2**40, 1.5 * 2**40),
    "matrix with large public": (
        lambda s: fixed(s, [[1.5, -2.0]]) @ np.array([[1e9], [3e9]]),
        -4.5e9,
    ),
    "whole matrix with large public": (
        lambda s: whole(s, [[3, -2]]) @ np.array([[2**40], [2**41]]),
        -(2**40),
    ),
    "too large a matrix": (lambda s: whole(s, [[30000, 1]]) @ np.array([[2**50], [1]]), None),
    "small factor": (lambda s: fixed(s, [30000]) * 0.1, 3000),
    "order of products": (
        lambda s: (
            whole(s, [2**30]) * whole(s, [2**30]) > -3 * whole(s, [2**29]) * whole(s, [2**29])
        ),
        1,
    ),
    "order of products 2^63 apart": (
        lambda s: (
            whole(s, [2**31 - 1]) * whole(s, [2**31 - 1])
            > whole(s, [1 - 2**31]) * whole(s, [2**31 - 1])
        ),
        1,
    ),
    "abs of a product": (
        lambda s: abs(whole(s, [2**31 - 1]) * whole(s, [1 - 2**31])),
        float((2**31 - 1) ** 2),
    ),
    "abs of a fixed product": (lambda s: abs(fixed(s, [30000]) * fixed(s, [-30000])), 9e8),
    "whole number and fixed point": (
        lambda s: whole(s, [2**31 - 1]) + fixed(s, [0.5]),
        2**31 - 0.5,
    ),
    "large whole and fixed": (
        lambda s: whole(s, [2**20]) * whole(s, [2**20]) + fixed(s, [0.5]),
        2**40 + 0.5,
    ),
    "too large a whole and fixed": (
        lambda s: whole(s, [2**30]) * whole(s, [2**30]) + fixed(s, [0.5]),
        None,
    ),
    "joined": (
        lambda s: np.concatenate([whole(s, [2**30]) * whole(s, [2**30]), fixed(s, [0.5])]),
        None,
    ),
    "product plus public": (lambda s: fixed(s, [1.5]) * fixed(s, [1.5]) + 2.0**31, 2**31 + 2.25),
    "largest of wide values": (
        lambda s: (whole(s, [[1 - 2**31], [2**31 - 1]]) * whole(s, [[2**31 - 1]])).argmax(),
        1,
    ),
    "division of a large product": (
        lambda s: whole(s, [2**30]) * whole(s, [2**30]) / 2**30,
        2.0**30,
    ),
    "division that does not fit": (lambda s: whole(s, [2**30]) * whole(s, [2**30]) / 3, None),
    "division by a small number": (lambda s: fixed(s, [3.0]) / 1e-9, 3e9),
    "division by too small a number": (lambda s: fixed(s, [3.0]) / 1e-300, None),
    "factor beyond doubles": (lambda s: fixed(s, [0.0]) * 1e300, 0),
}


@pytest.mark.parametrize("parties", [("alice", "bob"), ("alice", "bob", "carol")], ids=len)
@pytest.mark.parametrize("name", RIGHT)
def test_right_or_refused(name, parties):
    program, want = RIGHT[name]
    with warnings.catch_warnings(), mpc.Session(parties) as s:
        warnings.simplefilter("error")
        if want is None:
            with pytest.raises(mpc.RangeError):
                program(s)
            return
        got = np.asarray(program(s).reveal(), float)
        np.testing.assert_allclose(got, np.broadcast_to(want, got.shape), rtol=0, atol=UNIT)


@pytest.mark.parametrize("rows", [500, 499, 2**10])
def test_column_means_of_ages(session, rows):
    ages = np.random.default_rng(0).integers(18, 90, (rows, 3))
    found = whole(session, ages).mean(axis=0).reveal()
    np.testing.assert_allclose(found, ages.mean(axis=0), rtol=0, atol=UNIT)


def test_an_error_names_operation_index_value_and_limit(session):
    x = whole(session, [[1, 30000], [30000, 2]])
    with pytest.raises(mpc.RangeError) as caught:
        x**5
    assert str(caught.value).startswith(
        "*: the result at index (0, 1) is 2.43e+22, which is not below 2^62 in magnitude"
    )
    with pytest.raises(mpc.RangeError, match=r"at index 1 is .*not below 2\^30 \(with 32 bits"):
        fixed(session, [1.0, 30000.0]) ** 3


def test_with_bound_is_checked(session):
    x = fixed(session, [[1.5, -3.0]])
    assert x.with_bound(3).bound == 3 << 16
    with pytest.raises(
        mpc.RangeError, match=r"^with_bound\(2\.5\): the value at index \(0, 1\) is -3,"
    ):
        x.with_bound(2.5)
    # A product of which the term is yet to be dealt, and a masked value.
    z = x * fixed(session, [2.0, 2.0])
    assert z.with_bound(6).bound == 6 << 32
    with pytest.raises(mpc.RangeError, match="the value at index"):
        z.with_bound(5.9)
    np.testing.assert_array_equal(z.reveal(), [[3, -6]])


@pytest.mark.dealt
def test_checks_cost_nothing(fresh_session, spent):
    s = fresh_session
    x, y = whole(s, [[30000, 2]]), whole(s, [[30000], [-2]])
    spent(s, lambda: x @ y)  # masks both
    cost = spent(s, lambda: x @ y @ x)
    with s.range_policy.vouched():
        assert spent(s, lambda: x @ y @ x) == cost


def test_a_bound_is_never_below_the_value(session):
    big = whole(session, [30000]) ** 4
    assert 30000**4 <= big.bound <= LARGEST


@pytest.mark.parametrize("mode", ["warn", "error"])
def test_without_values(mode):
    with mpc.Session(ranges=mode) as s:
        x = fixed(s, [2.0, 3.0])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            proven = fixed(s, [2.0], bound=100) @ fixed(s, [3.0], bound=100)
            np.testing.assert_allclose(proven.reveal(), 6, atol=UNIT)
            np.testing.assert_array_equal((x * x).reveal(), [4, 9])
        if mode == "error":
            for program in (lambda: x @ x, lambda: x * x * x, lambda: (x * x).sum()):
                with pytest.raises(mpc.RangeError, match=r"may reach 2\^.*bound=.*with_bound"):
                    program()
            before = s.cost()
            with pytest.raises(mpc.RangeError, match="may reach"):
                x @ x
            assert s.cost() == before
            # Nor is an operand truncated first.
            wide = fixed(s, [2.0, 3.0], bound=8) * fixed(s, [2.0, 3.0], bound=8)
            wide = wide + fixed(s, [1.0, 1.0], bound=2.0**14) * fixed(s, [1.0, 1.0], bound=2.0**14)
            before = s.cost()
            with pytest.raises(mpc.RangeError, match=r"^\*: .* may reach"):
                wide * fixed(s, [30000.0, 1.0])
            assert s.cost() == before
        else:
            for _ in range(3):
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    assert (x @ x).reveal() == 13
                # Once a place, whatever the filter says.
                assert len(caught) == (1 if _ == 0 else 0)
                for warning in caught:
                    assert warning.category is mpc.RangeWarning
                    assert warning.filename == __file__
                    assert str(warning.message).startswith("@: by the bounds of the operands")


def test_modes_are_checked():
    with pytest.raises(
        mpc.ArgumentError, match=r"^ranges must be one of values, check, warn, error"
    ):
        mpc.Session(ranges="maybe")
    with pytest.raises(mpc.ArgumentError, match=r"^ranges must be one of warn, error, check, got"):
        mpc.launch(test_modes_are_checked, ranges="values")
    with mpc.Session() as s:
        assert s.ranges == "values"


def test_a_plan_of_what_is_checked_on_values():
    with mpc.Session() as s:
        cost = s.plan(lambda p: (p.share(None, owner="bob", shape=(3,)) ** 4).reveal()).cost
        x = fixed(s, [1.0, 2.0, 3.0])
        before = s.cost()
        np.testing.assert_array_equal((x**4).reveal(), [1, 16, 81])
        assert (s.cost() - before).total.rounds == cost.rounds


# The check on values, against Python's integers.

EDGES = [0, 1, -1, 2**31, -(2**31), 2**61, 2**62 - 1, 1 - 2**62, 2**32 + 1, 3]


def decided(operands, exact, addends):
    operation = Operation("test", tuple(operands), exact, addends, 1 << 200, 0, tuple)
    return beyond(operation, lambda x: x)


@pytest.mark.parametrize("first", EDGES)
def test_products_at_the_edges(first):
    for second in EDGES:
        x, y = np.array([first]), np.array([second])
        assert (decided((x, y), lambda a, b: a * b, 1) is None) == (abs(first * second) <= LARGEST)
        assert (decided((x, y), lambda a, b: a + b, 2) is None) == (abs(first + second) <= LARGEST)


def test_inner_products_that_cancel():
    random = np.random.default_rng(3)
    for bits in (20, 31, 40, 50, 61):
        for length in (1, 2, 7, 100):
            x = random.integers(-(2**bits), 2**bits, (4, length))
            y = random.integers(-(2**bits), 2**bits, (length, 4))
            # Half of the columns cancel but for a little.
            if length > 1:
                x[:, -1], y[-1, :2] = 1, 0
                for column in range(2):
                    total = sum(int(a) * int(b) for a, b in zip(x[0], y[:, column], strict=True))
                    y[-1, column] = -max(-(2**62) + 1, min(2**62 - 1, total)) + column
            exact = x.astype(object) @ y.astype(object)
            fits = bool(np.all(np.abs(exact) <= LARGEST))
            assert (decided((x, y), lambda a, b: a @ b, length) is None) == fits
            for row in range(4):
                one = x[row : row + 1]
                fits = bool(np.all(np.abs(exact[row]) <= LARGEST))
                assert (decided((one, y), lambda a, b: a @ b, length) is None) == fits


def test_wraps_that_come_back():
    """The ring shows a small number, which is not the result."""
    for target in (0, 5, -7):
        x, y = np.array([2**32, 1]), np.array([2**32, target])
        message = decided((x, y), lambda a, b: (a * b).sum(), 2)
        assert message is not None
        assert "which is not below 2^62" in message
    # 2^64, of terms that cancel but for what doubles do not hold.
    x, y = np.array([2**61, 2**61]), np.array([2**61 - 1, 9 - 2**61])
    assert decided((x, y), lambda a, b: (a * b).sum(), 2) is not None
    y[1] = 1 - 2**61
    assert decided((x, y), lambda a, b: (a * b).sum(), 2) is None


def test_secret_bits_are_a_kind_of_their_own(session):
    one = whole(session, [-1], bound=1)
    a, b = whole(session, [3]), whole(session, [5])
    for program in (
        lambda: ~one, lambda: one & one, lambda: one | one, lambda: one ^ one,
        lambda: np.where(one, a, b), lambda: np.logical_not(one),
    ):  # fmt: skip
        with pytest.raises(mpc.DtypeError, match="secret bits: results of comparisons, or bools"):
            program()
    bits = session.share(np.array([True, False, True]), owner="bob")
    compared = whole(session, [1, -1, 0]) > 0
    assert bits.binary
    for bit in (
        bits, compared, ~bits, bits & compared, bits | compared, bits ^ compared, bits[::-1],
        bits.reshape(3, 1), np.concatenate([bits, compared]), np.stack([bits, bits]).T,
        bits * compared, compared[:2],
    ):  # fmt: skip
        assert bit.binary
        assert bit.bound == 1
        (~bit).reveal()
    for other in (
        bits + bits, bits * 1, bits.sum(), one, 1 - bits, bits * a, np.concatenate([bits, one]),
        np.stack([a, a * 0 + 1, a, a]),
    ):  # fmt: skip
        assert not other.binary
    np.testing.assert_array_equal(np.where(bits, a, b).reveal(), [3, 5, 3])
    with pytest.raises(mpc.DtypeError, match="secret bits"):
        bits & whole(session, [0, 1, 1], bound=1)
    hot = fixed(session, [[1.0, 3.0, 2.0]]).argmax(axis=1, one_hot=True)
    np.testing.assert_array_equal((~hot).reveal(), [[1, 0, 1]])


def test_vouching_ends_with_its_block(session):
    x = whole(session, [30000])
    with session.range_policy.vouched():
        x**5
    with pytest.raises(mpc.RangeError):
        x**5


@pytest.mark.parametrize(
    "factor", [3.2236248948130263e-308, 1 + 2.0**-52, -1e-17, 2.0**-61, 2.0**-80]
)
def test_factors_with_many_bits(session, factor):
    """Exact, of small values, or too many bits for one shift."""
    for values, bound in (([1.0, -1.0], 1), ([30000.0, 0.0], None), ([7.0, UNIT], 8)):
        x = fixed(session, values, bound=bound)
        np.testing.assert_allclose(
            (x * factor).reveal(), np.array(values) * factor, rtol=0, atol=UNIT
        )


def test_parties_must_say_the_same():
    """What is agreed on in the handshake tells sessions apart that check in other ways."""
    names = {
        agreed(program, mode) for program in ("p", None) for mode in ("warn", "error", "check")
    }
    assert len(names) == 6


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_bound_holds_of_what_is_encoded(session, dtype):
    for value, bound in ((2048, 2047.99), (64, 63.99), (1, 0.999)):
        with pytest.raises(mpc.RangeError, match="within its bound"):
            session.share(np.array([value, -value], dtype), owner="alice", bound=bound)
        x = session.share(np.array([value, -value], dtype), owner="alice", bound=value)
        np.testing.assert_array_equal((x > 0).reveal(), [1, 0])
    large = 2**31 - 1
    assert whole(session, [large], bound=large).bound == large
    assert whole(session, [3], bound=10**400).bound == large
    with pytest.raises(mpc.RangeError, match="within its bound"):
        whole(session, [large], bound=large - 1)
    with pytest.raises(mpc.RangeError):
        whole(session, [1], bound=5).with_bound(0.1)
    assert whole(session, [1], bound=5).with_bound(1.9).bound == 1


def test_public_numbers_beyond_doubles(session):
    x, bit = fixed(session, [1.0]), fixed(session, [1.0]) > 0
    huge = np.longdouble("1e400")
    for program in (
        lambda: x * huge, lambda: x + huge, lambda: x @ np.array([huge]), lambda: x > huge,
        lambda: np.where(bit, huge, np.longdouble(0)), lambda: np.maximum(x, huge),
        lambda: np.where(bit, 2**62, -(2**62)), lambda: x + 10**30,
    ):  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(mpc.RangeError):
                program()
    np.testing.assert_allclose((x / np.longdouble(3)).reveal(), 1 / 3, atol=UNIT)
    with pytest.raises(mpc.DtypeError, match="masked"):
        np.maximum(x, np.ma.masked)


def test_messages_show_the_operand_as_it_was_given(session):
    x = fixed(session, [1.0])
    for program in (lambda: x < 2.0**50, lambda: x - 2.0**50, lambda: np.minimum(x, 2.0**50)):
        with pytest.raises(mpc.RangeError, match=r"got 1125899906842624\.0"):
            program()


def test_what_is_typed_in_is_warned_of_each_time():
    lines = ("a = x**4", "b = y**4", "b = y**4")
    with mpc.Session(ranges="warn") as s:
        names = {"x": fixed(s, [3.0]), "y": fixed(s, [3000.0])}
        for line in lines:
            with pytest.warns(mpc.RangeWarning):
                exec(compile(line, "<stdin>", "single"), names)


def test_a_plan_does_not_use_up_the_warnings_of_a_run():
    def program(s):
        return (s.share([3000.0], owner="alice") ** 4).reveal()

    with mpc.Session(ranges="warn") as s:
        for _ in range(2):
            with pytest.warns(mpc.RangeWarning):
                s.plan(program)
        with pytest.warns(mpc.RangeWarning):
            program(s)


def test_a_session_cannot_be_copied():
    with mpc.Session() as s:
        for function in (copy.copy, copy.deepcopy):
            with pytest.raises(mpc.SessionError, match="cannot be copied"):
                function(s)


def test_a_stated_bound_does_not_round_anew(session):
    z = fixed(session, [0.3, 0.7]) * fixed(session, [0.9, 0.1])
    first = z.reveal()
    for _ in range(20):
        np.testing.assert_array_equal(z.with_bound(3).reveal(), first)


def test_bits_of_nothing(session):
    x = session.share(np.zeros((0, 2)), owner="alice")
    bit = x > 0
    for found in (x * bit, np.where(bit, x, 0), bit & bit, (x * x).gate(bit)):
        assert found.reveal().shape == (0, 2)


def test_shapes_and_indices_that_are_none(session):
    x = fixed(session, np.zeros((2, 3)))
    np.testing.assert_array_equal(x.reshape(np.array([3, 2])).reveal(), np.zeros((3, 2)))
    for program in (
        lambda: x.reshape(2.0, 3), lambda: x.reshape("a"), lambda: x[slice("a")],
        lambda: x[[0, [1]]], lambda: np.squeeze(x, axis=7), lambda: np.expand_dims(x, 7),
        lambda: session.plan(None), lambda: np.concatenate([x[0, 0], x[0, 1]]),
    ):  # fmt: skip
        with pytest.raises((mpc.ShapeError, mpc.DtypeError)):
            program()


def test_a_refusal_ahead_counts_in_the_operands_units():
    """Whole numbers have no bits behind the point, whatever the format."""
    with mpc.Session(ranges="error") as s:
        x = whole(s, [3])
        with pytest.raises(
            mpc.RangeError, match=r"may reach 2\^93, and it must stay below 2\^62 to be"
        ):
            x * x * x
        y = fixed(s, [3.0])
        with pytest.raises(mpc.RangeError, match=r"below 2\^30 \(with 32 bits behind the point\)"):
            y * y * y


# What is checked on shares beside what follows: rounds with the check and where bounds are enough.
LATER = {
    "var": (lambda x, w: x.var(), 9, 4),
    "std": (lambda x, w: x.std(), 13, 10),
    "norm": (lambda x, w: np.linalg.norm(x), 9, 7),
    "average": (lambda x, w: np.average(x, weights=w), 11, 10),
    "cov": (lambda x, w: np.cov(x, w)[0, 0], 9, 3),
    "corrcoef": (lambda x, w: np.corrcoef(x, w)[0, 1], 25, 22),
}


@pytest.mark.parametrize("name", LATER)
def test_checks_are_decided_with_those_of_what_follows(name):
    """In the same rounds, and by one bit: a refused call spends what another one does."""
    function, checked, unchecked = LATER[name]
    x, w = np.array([1.5, 2.0, -4.0, 8.0, 3.0]), np.array([4.0, 4.0, -4.0, 8.0, 1.0])
    want = float(function(x, w))
    spent = []
    for scale, bound in ((1, None), (1, 8.0), (4000, None)):
        with mpc.Session(ranges="check") as s:
            a, b = fixed(s, x * scale, bound=bound), fixed(s, w * scale, bound=bound)
            if scale > 1:
                with pytest.raises(mpc.RangeError, match=r"a result (is|may) not .*below 2\^30"):
                    function(a, b)
            else:
                found = function(a, b)
            spent.append(s.cost())
            assert not s._beside and s.range_policy.later is None
            if scale > 1:
                # The session goes on, and checks at once what is no part of such a function.
                found = function(fixed(s, x), fixed(s, w))
                with pytest.raises(mpc.RangeError, match=r"^@: a result"):
                    a @ b
            assert abs(found.reveal() - want) < 8 * UNIT
    assert [cost.rounds for cost in spent[:2]] == [checked, unchecked]
    if name != "corrcoef":  # which is refused when its roots are, before it divides
        assert spent[0].total == spent[2].total
    for ranges in ("values", "warn"):
        with mpc.Session(ranges=ranges) as s, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert abs(function(fixed(s, x), fixed(s, w)).reveal() - want) < 8 * UNIT


def test_an_error_within_what_is_decided_later_leaves_nothing_behind():
    with mpc.Session(ranges="check") as s:
        a = fixed(s, [2.0, 3.0])

        def fails():
            with range_check.Later(s):
                assert not (a @ a).shape and s._beside
                raise KeyError

        with pytest.raises(KeyError):
            fails()
        assert not s._beside and s.range_policy.later is None
        # Within another block there is one decision, at the end of the outer one.
        with range_check.Later(s):
            with range_check.Later(s):
                product = a @ a
            assert s._beside
        assert not s._beside
        assert product.reveal() == 13
