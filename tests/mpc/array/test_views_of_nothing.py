"""Views that keep nothing, or are told in NumPy's numbers: the provider sees what the parties see."""

from dataclasses import replace

import numpy as np
import pytest

import mpc
from mpc.core import wire
from mpc.core.correlation import MaskRef, Part, check_dealt, chosen_rows
from mpc.core.errors import ShapeError
from mpc.core.wire import name_of
from mpc.protocols.b2a import RandomBits
from mpc.protocols.product import ProductTerm

SIZE = 515


@pytest.fixture(scope="module")
def large():
    """Two arrays of so many words that the provider expands rows alone."""
    with mpc.Session() as s:
        random = np.random.default_rng(0)
        x = s.share(random.normal(size=(SIZE, 520)), owner="alice")
        z = s.share(random.normal(size=(SIZE, 520)), owner="bob")
        x.mask_data()
        z.mask_data()
        yield x, z


@pytest.mark.parametrize("key", [slice(SIZE, None, 2), slice(5, 5, 2), slice(0, 0)], ids=str)
def test_a_product_of_no_rows_is_zero(large, key):
    x, z = large
    whole = (x[:3] @ z[:3].T).reveal()
    for _ in range(3):
        assert not (x[key].T @ z[key]).reveal().any()
        assert (x[key] * z[key]).reveal().shape == (0, 520)
        np.testing.assert_allclose((x[:3] @ z[:3].T).reveal(), whole, atol=2**-14)
    # Nor is the whole taken for nothing afterwards.
    some = (x[:, :4].T @ z[:, :4]).reveal()
    assert some.any()


@pytest.mark.parametrize(
    "index",
    [
        (np.int64(2),),
        (np.uint8(1), np.int64(2)),
        (2, np.int32(1)),
        (np.int64(1), slice(np.int64(3))),
    ],
    ids=str,
)
def test_both_ends_name_a_view_alike(index):
    x = MaskRef(5, Part((4, 6))).view(("index", index))
    term = ProductTerm("multiply", x, x, x.check(1000))
    again = wire.decode(wire.encode(term))
    assert name_of(9, term) == name_of(9, replace(again))
    plain = tuple(int(k) if isinstance(k, np.integer) else k for k in index)
    if not any(isinstance(k, slice) for k in plain):
        y = MaskRef(5, Part((4, 6))).view(("index", plain))
        assert name_of(9, replace(term)) == name_of(9, ProductTerm("multiply", y, y, x.check(1000)))


def test_sizes_of_zero_do_not_make_up_for_large_ones():
    with pytest.raises(ShapeError):
        RandomBits(1 << 40, 0).check(1 << 27)
    with pytest.raises(ShapeError):
        check_dealt(np.zeros(3, np.uint64), 4)


def test_an_index_of_bools_in_two_axes(large):
    x, _ = large
    chosen = np.zeros(x.shape, bool)
    chosen[3, 4] = chosen[510, 7] = True
    assert chosen_rows(MaskRef(1, Part(x.shape)).view(("index", (chosen,)))) is None
    np.testing.assert_array_equal((x[chosen] * 1).reveal(), x.reveal()[chosen])
    assert (x[chosen] * x[chosen]).reveal().shape == (2,)
