"""The matrix product against Python's integers."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring import matmul
from ring.errors import DtypeError, ShapeError
from ring.matmul import BLOCK_DEPTH, LANES, PACKED_ROWS, SMALL, TILE_ROWS, matmul_add

EDGES = np.array([0, 1, 2, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1], np.uint64)


def words(shape, seed):
    """Draw words of which a quarter are edge values."""
    random = np.random.default_rng(seed)
    some = random.integers(0, 2**64, shape, np.uint64)
    return np.where(random.random(shape) < 0.25, random.choice(EDGES, shape), some)


def product(a, b):
    """Multiply as matmul does, one Python integer after the other."""
    left = a[None, :] if a.ndim == 1 else a
    right = b[:, None] if b.ndim == 1 else b
    leading = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    lefts = np.broadcast_to(left, leading + left.shape[-2:])
    rights = np.broadcast_to(right, leading + right.shape[-2:])
    out = np.empty((*leading, left.shape[-2], right.shape[-1]), np.uint64)
    for place in np.ndindex(*leading):
        rows, columns = lefts[place].tolist(), rights[place].T.tolist()
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                out[(*place, i, j)] = sum(x * y for x, y in zip(row, column, strict=True)) % 2**64
    if a.ndim == 1:
        out = out[..., 0, :]
    return out[..., 0] if b.ndim == 1 else out


def spaced(x):
    """Return a view of every second row and column of something larger."""
    wide = np.full((*x.shape[:-2], 2 * x.shape[-2], 2 * x.shape[-1]), 77, np.uint64)
    view = wide[..., ::2, ::2]
    view[...] = x
    return view


def framed(x):
    """Return a view of the middle of something larger."""
    wide = np.full((*x.shape[:-2], x.shape[-2] + 2, x.shape[-1] + 3), 77, np.uint64)
    view = wide[..., 1:-1, 1:-2]
    view[...] = x
    return view


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


LAYOUTS = {
    "plain": np.ascontiguousarray,
    "transposed": lambda x: np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2),
    "spaced": spaced,
    "spaced and transposed": lambda x: spaced(x.swapaxes(-1, -2)).swapaxes(-1, -2),
    "framed": framed,
    "reversed": lambda x: np.ascontiguousarray(x[..., ::-1, ::-1])[..., ::-1, ::-1],
    "read-only": read_only,
}

layouts = st.sampled_from(sorted(LAYOUTS))
seeds = st.integers(0, 2**32 - 1)
rows = st.integers(0, 2 * TILE_ROWS + 3)
depths = st.integers(0, 20)
columns = st.one_of(
    st.integers(0, 2 * LANES + 3),
    st.integers(8 * LANES - 1, 9 * LANES + 2),
    st.just(16 * LANES + 1),
)


@pytest.mark.usefixtures("threads")
class TestAnyShape:
    @settings(max_examples=120, deadline=None)
    @given(rows, depths, columns, layouts, layouts, seeds)
    def test_matrices(self, m, k, n, left, right, seed):
        a, b = words((m, k), seed), words((k, n), seed + 1)
        assert np.array_equal(matmul(LAYOUTS[left](a), LAYOUTS[right](b)), product(a, b))

    @pytest.mark.parametrize("depth", [BLOCK_DEPTH + d for d in (-1, 0, 1, BLOCK_DEPTH, 517)])
    @pytest.mark.parametrize(("m", "n"), [(TILE_ROWS, LANES), (9, 7), (17, 9), (3, 9)])
    def test_depth_around_a_block(self, m, n, depth):
        a, b = words((m, depth), depth), words((depth, n), n)
        assert np.array_equal(matmul(a, b), product(a, b))

    @pytest.mark.parametrize("m", range(PACKED_ROWS + 2))
    def test_few_rows(self, m):
        a, b = words((m, 6), m), words((6, 11 * LANES + 5), 9)
        expected = product(a, b)
        assert np.array_equal(matmul(a, b), expected)
        # Transposed, b cannot be read by rows, and is packed.
        assert np.array_equal(matmul(a, LAYOUTS["transposed"](b)), expected)

    @settings(max_examples=40, deadline=None)
    @given(
        st.sampled_from(
            [
                ((3,), (3,)),
                ((1,), (3,)),
                ((2, 3), (3,)),
                ((2, 3), (1,)),
                ((2, 1), (3,)),
                ((1, 1), (3, 2)),
                ((2, 1, 2), (3, 1)),
                ((0,), (1,)),
                ((2, 0), (1,)),
                ((), (2, 2)),
            ]
        ),
        st.integers(0, 9),
        st.integers(0, 9),
        st.integers(0, 9),
        layouts,
        layouts,
        seeds,
    )
    def test_stacks(self, leading, m, k, n, left, right, seed):
        a, b = words((*leading[0], m, k), seed), words((*leading[1], k, n), seed + 1)
        result = matmul(LAYOUTS[left](a), LAYOUTS[right](b))
        assert result.shape == np.broadcast_shapes(*leading) + (m, n)
        assert np.array_equal(result, product(a, b))

    @pytest.mark.parametrize("k", [0, 1, 5])
    @pytest.mark.parametrize(
        ("left", "right"),
        [
            (lambda k: (k,), lambda k: (k,)),
            (lambda k: (k,), lambda k: (k, 3)),
            (lambda k: (9, k), lambda k: (k,)),
            (lambda k: (k,), lambda k: (2, k, 3)),
            (lambda k: (2, 4, k), lambda k: (k,)),
        ],
    )
    def test_vectors(self, left, right, k):
        a, b = words(left(k), 1), words(right(k), 2)
        result = matmul(a, b)
        assert result.shape == np.matmul(np.zeros(a.shape), np.zeros(b.shape)).shape
        assert np.array_equal(result, product(a, b))
        assert np.array_equal(
            matmul(a[..., ::-1], b[..., ::-1, :] if b.ndim > 1 else b[::-1]), result
        )

    def test_one_matrix_for_a_whole_stack(self):
        a, b = words((3, 9, 4), 1), words((4, 5), 2)
        assert np.array_equal(matmul(np.broadcast_to(a[0], (3, 9, 4)), b)[2], product(a[0], b))

    @settings(max_examples=40, deadline=None)
    @given(rows, depths, columns, seeds)
    def test_add_to_what_is_there(self, m, k, n, seed):
        a, b = words((m, k), seed), words((k, n), seed + 1)
        # Words around the result, which no kernel may touch.
        buffer = words((m * n + 32,), seed + 2)
        before = buffer.copy()
        out = buffer[16 : 16 + m * n].reshape(m, n)
        expected = out + product(a, b)
        matmul_add(a, b, out)
        assert np.array_equal(out, expected)
        assert np.array_equal(buffer[:16], before[:16])
        assert np.array_equal(buffer[16 + m * n :], before[16 + m * n :])

    # In one kernel, and one product after the other.
    @pytest.mark.parametrize("small", [SMALL, 0])
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_add_to_a_stack(self, monkeypatch, small, layout):
        monkeypatch.setattr(sys.modules["ring.matmul"], "SMALL", small)
        a, b, out = words((2, 1, 9, 3), 1), words((4, 3, 5), 2), words((2, 4, 9, 5), 3)
        a, b = LAYOUTS[layout](a), LAYOUTS[layout](b)
        expected = out + product(a, b)
        matmul_add(a, b, out)
        assert np.array_equal(out, expected)


def test_large_enough_for_threads(monkeypatch):
    """Against NumPy's own product, which wraps around in a plain loop."""
    monkeypatch.setattr("ring.threads._threads", 2)
    a, b = words((131, 1025), 1), words((1025, 77), 2)
    assert np.array_equal(matmul(a, b), np.matmul(a, b))
    assert np.array_equal(matmul(b.T, a.T), np.matmul(a, b).T)
    few = words((5, 1025), 3)
    wide = words((1025, 400), 4)
    assert np.array_equal(matmul(few, wide), np.matmul(few, wide))


def test_callers_at_the_same_time(monkeypatch):
    monkeypatch.setattr("ring.threads._threads", 2)
    monkeypatch.setattr("ring.threads.WORTHWHILE", 1)
    pairs = [(words((40, 30), seed), words((30, 20), seed + 1)) for seed in range(40)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda pair: matmul(*pair), pairs))
    for (a, b), result in zip(pairs, results, strict=True):
        assert np.array_equal(result, np.matmul(a, b))


def test_operands_stay_as_they_are():
    a, b = words((9, 5), 1), words((5, 9), 2)
    before = a.copy(), b.copy()
    result = matmul(a, b)
    result[...] = 0
    assert np.array_equal(a, before[0]) and np.array_equal(b, before[1])


@pytest.mark.parametrize(
    "wrong",
    [
        [[1]],
        np.ones((1, 1)),
        np.ones((1, 1), np.int64),
        np.ones((1, 1), np.uint32),
        np.ones((1, 1), bool),
        np.ones((1, 1), ">u8"),
        np.ones((1, 1), object),
    ],
    ids=lambda x: str(np.asarray(x).dtype),
)
def test_wrong_dtype(wrong):
    right = np.ones((1, 1), np.uint64)
    with pytest.raises(DtypeError, match=r"a must be a uint64 array .* got dtype"):
        matmul(wrong, right)
    with pytest.raises(DtypeError, match=r"b must be a uint64 array .* got dtype"):
        matmul(right, wrong)


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        ((2, 3), (4, 2), r"last axis.*\(2, 3\) and \(4, 2\)"),
        ((3,), (4,), r"last axis.*\(3,\) and \(4,\)"),
        ((2, 3), (4,), r"last axis.*\(2, 3\) and \(4,\)"),
        ((3,), (2, 4, 5), r"last axis.*\(3,\) and \(2, 4, 5\)"),
        ((2, 1, 3), (3, 3, 1), r"must broadcast.*\(2, 1, 3\) and \(3, 3, 1\)"),
        ((), (3, 1), "a must have at least one axis"),
        ((1, 3), (), "b must have at least one axis"),
    ],
)
def test_shapes_that_do_not_fit(left, right, message):
    with pytest.raises(ShapeError, match=message):
        matmul(np.zeros(left, np.uint64), np.zeros(right, np.uint64))
