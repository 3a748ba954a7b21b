"""Windows of images against loops over every place, and on shares against the plain result."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mpc
from mpc.core.windows import Windows
from mpc.protocols.convolution import convolve, cost
from mpc.protocols.pooling import (
    cost_of_gradient,
    cost_of_maximum,
    cost_of_mean,
    maximum_gradient,
    maximum_of_first,
    maximum_with_bits,
    mean_of_first,
)
from mpc.protocols.sign import count_bits

UNIT = 2.0**-16


@st.composite
def geometries(draw):
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = draw(st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2))
    size = draw(st.tuples(st.integers(3, 6), st.integers(3, 6)))
    return Windows(kernel, stride, padding), (
        draw(st.integers(1, 2)),
        *size,
        draw(st.integers(1, 2)),
    )


def by_loops(x, windows):
    """Cut out every window of padded images one by one."""
    padded = np.pad(x, ((0, 0), *windows.padding, (0, 0)))
    (h, w), (down, across) = windows.kernel, windows.stride
    return np.array(
        [
            [
                [image[i : i + h, j : j + w] for j in range(0, image.shape[1] - w + 1, across)]
                for i in range(0, image.shape[0] - h + 1, down)
            ]
            for image in padded
        ]
    )


@settings(deadline=None, max_examples=50)
@given(geometries(), st.integers(0, 2**32))
def test_view_and_its_transpose(geometry, seed):
    windows, shape = geometry
    random = np.random.default_rng(seed)
    x = random.normal(size=shape)
    seen = windows.view(x)
    np.testing.assert_array_equal(seen, by_loops(x, windows))
    assert windows.places(*shape[1:3]) == seen.shape[1:3]
    # <view(x), y> = <x, add_back(y)> for every y: what makes it the transpose.
    y = random.normal(size=seen.shape)
    assert (seen * y).sum() == pytest.approx((x * windows.add_back(y, shape)).sum())


def test_a_view_without_padding_copies_nothing():
    x = np.zeros((2, 5, 5, 1))
    assert np.shares_memory(Windows((3, 3)).view(x), x)


@settings(deadline=None, max_examples=15)
@given(geometries(), st.integers(0, 2**32), st.booleans(), st.booleans())
def test_convolution_on_shares(geometry, seed, given_x, given_w):
    windows, shape = geometry
    random = np.random.default_rng(seed)
    x = np.round(random.normal(size=shape) / UNIT) * UNIT
    w = np.round(random.normal(size=(*windows.kernel, shape[-1], 3)) / UNIT) * UNIT
    with mpc.Session(("alice", "bob", "carol")) as s:
        # Adding a share of zero makes a value nobody has given.
        zero = s.share(0.0, owner="carol")
        secret_x, secret_w = s.share(x, owner="bob"), s.share(w, owner="alice")
        z = convolve(
            secret_x if given_x else secret_x + zero,
            secret_w if given_w else secret_w + zero,
            windows,
        )
        wanted = np.tensordot(by_loops(x, windows), w, axes=3)
        assert z.frac_bits == 32
        np.testing.assert_allclose(z.reveal(), wanted, atol=UNIT, rtol=0)


def test_an_image_and_the_kernels_are_opened_once(spent):
    windows = Windows((5, 5))
    with mpc.Session() as s:
        x, w = s.share(np.ones((2, 9, 9, 3)), owner="bob"), s.share(np.ones((5, 5, 3, 4)), "alice")
        found = spent(s, lambda: convolve(x, w, windows).shares)
        assert found == cost(2, max(x.size, w.size), 2 * 5 * 5 * 4)
        assert found.sent == (8 * w.size, 8 * x.size)
        assert spent(s, lambda: convolve(x, w, windows).shares) == cost(2, 0, 2 * 5 * 5 * 4)
        assert spent(s, lambda: convolve(x, w, windows)) == cost(2, 0)


def test_convolution_of_shapes_that_do_not_fit():
    with mpc.Session() as s:
        x = s.share(np.ones((2, 4, 4, 3)), owner="bob")
        with pytest.raises(mpc.ShapeError, match=r"must fit together.*\(2, 4, 4, 3\)"):
            convolve(x, s.share(np.ones((2, 2, 2, 1)), owner="alice"), Windows((2, 2)))
        with pytest.raises(mpc.ShapeError, match=r"kernel of \(5, 5\) does not fit"):
            convolve(x, s.share(np.ones((5, 5, 3, 1)), owner="alice"), Windows((5, 5)))
        assert s.cost().rounds == 0


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("frac_bits", [16, 32])
def test_maximum_of_edges(session, edges, share_integers, integers, count, frac_bits):
    random = np.random.default_rng(count)
    raw = (edges / UNIT).astype(np.int64)
    raw = raw << 16 if frac_bits == 32 else raw
    values = np.stack([random.permutation(raw) for _ in range(count)])
    if count > 2:
        values[1] = values[0]  # ties
        values[2] = values[0] + 1
    x = share_integers(session, values, frac_bits, bound=1 << (31 + frac_bits - 16))
    best = maximum_of_first(x)
    assert best.frac_bits == frac_bits
    assert best.bound == x.bound
    np.testing.assert_array_equal(integers(best), values.max(axis=0))


@pytest.mark.parametrize("count", [1, 3, 4, 9])
@pytest.mark.parametrize("frac_bits", [16, 32])
def test_mean(session, share_integers, integers, count, frac_bits):
    random = np.random.default_rng(count)
    values = random.integers(-(2**46), 2**46, size=(count, 65)) >> (32 - frac_bits)
    values[:, 0] = (2**46 - 1) >> (32 - frac_bits)
    x = share_integers(session, values, frac_bits, bound=1 << (46 - 32 + frac_bits))
    result = mean_of_first(x)
    assert result.frac_bits == 16
    wanted = values.sum(axis=0) / count / 2 ** (frac_bits - 16)
    # A unit for each rounding; 1 / k itself is exact to 26 bits and more of the largest value.
    allowed = 1 if count & (count - 1) == 0 else 2 + 2.0**30 / 2**26
    assert np.abs(integers(result) - wanted).max() <= allowed
    assert np.abs(integers(result)).max() <= result.bound


@pytest.mark.parametrize("count", [1, 2, 4, 64, 2**17])
@pytest.mark.parametrize("frac_bits", [0, 16])
def test_mean_of_whole_numbers(count, frac_bits):
    """Exact as far as the format has bits for it."""
    values = np.random.default_rng(count).integers(-999, 1000, (count, 3))
    values[:, 0] = 999
    with mpc.Session(frac_bits=frac_bits, int_bits=29) as s:
        result = mean_of_first(s.share(values, owner="alice", bound=999))
        assert result.frac_bits == min(frac_bits, count.bit_length() - 1)
        found = result.reveal()
        assert np.abs(found).max() * 2**result.frac_bits <= result.bound
        error = np.abs(found - values.mean(axis=0)).max()
        exact = count <= 2**frac_bits
        assert error == 0 if exact else error < 2.0**-result.frac_bits


@pytest.mark.dealt
def test_declared_costs(fresh_session, spent):
    s, parties = fresh_session, fresh_session.size
    x = s.share(np.ones((5, 70)), owner="alice")
    window = count_bits(2 * x.bound)
    assert spent(s, lambda: maximum_of_first(x)) == cost_of_maximum(parties, 5, 70, window)
    best, bits = maximum_with_bits(x)
    assert spent(s, lambda: maximum_gradient(best, bits, 5)) == cost_of_gradient(parties, 5, 70)
    for count in (1, 3, 4):
        for some in (x[:count], x[:count] * 0.5):
            surplus = some.frac_bits - 16
            wanted = cost_of_mean(parties, count, 70, surplus, some.bound)
            assert spent(s, lambda y=some: mean_of_first(y)) == wanted


def test_nothing_to_pool():
    with mpc.Session() as s:
        x = s.share(np.ones((0, 3)), owner="alice")
        with pytest.raises(mpc.ArgumentError, match=r"at least one array, got shape \(0, 3\)"):
            maximum_of_first(x)
        with pytest.raises(mpc.ArgumentError, match=r"at least one array, got shape \(0, 3\)"):
            mean_of_first(x)
