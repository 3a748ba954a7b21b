"""Fixed point against Python's exact fractions."""

import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ring import FixedPoint, decode, encode
from ring.errors import ArgumentError, DtypeError, RangeError

words = st.integers(0, 2**64 - 1)
inside = st.floats(-32767, 32767)


def units(x, frac_bits=16):
    """Round half to even, exactly, and wrap around."""
    return round(Fraction(float(x)) * 2**frac_bits) % 2**64


def signed(word):
    return word - 2**64 if word >> 63 else word


def raises_at(error, value, where="", name="x"):
    return pytest.raises(error, match=rf"^{name} must .*, got {re.escape(str(value))}{where}$")


class TestEncode:
    @given(st.lists(inside, max_size=20))
    def test_doubles(self, values):
        encoded = encode(values)
        assert encoded.dtype == np.uint64
        assert encoded.tolist() == [units(x) for x in values]

    @given(hnp.arrays(np.float32, 7, elements=st.floats(-32767, 32767, width=32)))
    def test_single_precision(self, values):
        assert encode(values).tolist() == [units(x) for x in values]

    @given(hnp.arrays(np.float16, 7, elements=st.floats(-32752, 32752, width=16)))
    def test_half_precision(self, values):
        assert encode(values).tolist() == [units(x) for x in values]

    @given(inside, st.integers(1, 40))
    def test_any_format(self, x, frac_bits):
        assert int(encode(x, frac_bits)) == units(x, frac_bits)

    @given(st.integers(-(2**20), 2**20))
    def test_half_to_even(self, k):
        x = (k + 0.5) * 2.0**-16
        lower = k % 2**64
        upper = (k + 1) % 2**64
        assert int(encode(x)) == (lower if k % 2 == 0 else upper)
        assert int(encode(np.nextafter(x, -np.inf))) == lower
        assert int(encode(np.nextafter(x, np.inf))) == upper

    @given(st.integers(-32767, 32767))
    def test_integers(self, k):
        expected = (k << 16) % 2**64
        assert int(encode(k)) == expected
        for dtype in (np.int16, np.int32, np.int64, ">i4"):
            assert encode(np.array([k], dtype)).tolist() == [expected]
        if k >= 0:
            for dtype in (np.uint16, np.uint32, np.uint64):
                assert encode(np.array([k], dtype)).tolist() == [expected]

    @given(words.map(signed))
    def test_whole_numbers_alone(self, k):
        fits = abs(k) < 2**62
        for dtype in (np.int64, np.uint64)[: 1 + (k >= 0)]:
            value = np.array([k], dtype)
            if fits:
                assert encode(value, 0, int_bits=62).tolist() == [k % 2**64]
            else:
                with raises_at(RangeError, k, " at index 0"):
                    encode(value, 0, int_bits=62)

    def test_small_integers_and_bools(self):
        small = np.array([-128, -1, 0, 127], np.int8)
        assert encode(small).view(np.int64).tolist() == [-128 << 16, -1 << 16, 0, 127 << 16]
        assert encode(np.array([0, 255], np.uint8)).tolist() == [0, 255 << 16]
        assert encode([True, False]).tolist() == [65536, 0]
        assert encode(True, 0).tolist() == 1

    @pytest.mark.parametrize("x", [1.5, 3, True, np.float32(1.5), np.int8(3), np.array(2.0)])
    def test_scalars_give_arrays_without_axes(self, x):
        encoded = encode(x)
        assert isinstance(encoded, np.ndarray)
        assert encoded.shape == ()
        assert encoded.dtype == np.uint64
        assert int(encoded) == units(x)

    @pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 1, 3)])
    @pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, bool])
    def test_shape_is_kept(self, shape, dtype):
        encoded = encode(np.ones(shape, dtype))
        assert encoded.shape == shape
        assert encoded.dtype == np.uint64
        assert (encoded == 65536).all()

    def test_other_memory_layouts(self):
        x = np.arange(24.0).reshape(4, 6) - 11.3
        expected = encode(x)
        assert np.array_equal(encode(x.T), expected.T)
        assert np.array_equal(encode(x[::2, ::-1]), expected[::2, ::-1])
        assert np.array_equal(encode(np.asfortranarray(x)), expected)
        assert np.array_equal(encode(x.astype(">f8")), expected)
        assert np.array_equal(encode(np.broadcast_to(x[0], (3, 6))), expected[[0, 0, 0]])

    def test_input_stays_as_it_is(self):
        for x in (np.array([1.5, -2.0]), np.array([3, 4]), np.array([3, 4], np.uint64)):
            before = x.copy()
            encode(x, 0 if x.dtype.kind != "f" else 16)[...] = 9
            assert np.array_equal(x, before)


class TestLimits:
    @pytest.mark.parametrize(
        ("frac_bits", "int_bits"), [(16, 15), (1, 1), (8, 7), (20, 10), (30, 22), (1, 51)]
    )
    @pytest.mark.parametrize("sign", [1, -1])
    def test_largest_and_first_beyond(self, frac_bits, int_bits, sign):
        bits = frac_bits + int_bits
        unit = 2.0**-frac_bits
        largest = sign * (2.0**int_bits - unit)
        assert encode(largest, frac_bits, int_bits=int_bits) == sign * (2**bits - 1) % 2**64
        # Half a unit more rounds to the limit, anything less rounds back.
        beyond = largest + sign * unit / 2
        below = np.nextafter(beyond, 0)
        assert encode(below, frac_bits, int_bits=int_bits) == sign * (2**bits - 1) % 2**64
        for x in (beyond, sign * 2.0**int_bits, sign * 1e300):
            with pytest.raises(RangeError, match=rf"x must be below 2\^{int_bits} in magnitude"):
                encode(x, frac_bits, int_bits=int_bits)

    @pytest.mark.parametrize(("frac_bits", "int_bits"), [(31, 31), (1, 61), (16, 46), (62, 0)])
    @pytest.mark.parametrize("sign", [1, -1])
    def test_formats_wider_than_a_double(self, frac_bits, int_bits, sign):
        limit = sign * 2.0**int_bits
        below = np.nextafter(limit, 0)
        assert encode(below, frac_bits, int_bits=int_bits) == units(below, frac_bits)
        with raises_at(RangeError, limit):
            encode(limit, frac_bits, int_bits=int_bits)

    @pytest.mark.parametrize("dtype", [np.int32, np.int64])
    @pytest.mark.parametrize("sign", [1, -1])
    def test_integers(self, dtype, sign):
        assert encode(np.array([sign * 32767], dtype)).tolist() == [(sign * 32767 << 16) % 2**64]
        with raises_at(RangeError, sign * 32768, " at index 0"):
            encode(np.array([sign * 32768], dtype))

    @pytest.mark.parametrize("value", [32768, 2**31, 2**47, 2**48, 2**63, 2**64 - 1])
    def test_large_unsigned_integers(self, value):
        """None of them comes in through wrapping around."""
        with raises_at(RangeError, value, " at index 1"):
            encode(np.array([0, value], np.uint64))

    @pytest.mark.parametrize("value", [-(2**63), -(2**48), 2**63 - 1])
    def test_large_signed_integers(self, value):
        with raises_at(RangeError, value, " at index 1"):
            encode(np.array([0, value], np.int64))

    def test_truth_counts_as_one(self):
        assert encode(True, 4, int_bits=1) == 16
        for one in (True, 1, 1.0):
            with raises_at(RangeError, one):
                encode(one, 4, int_bits=0)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
    def test_not_finite(self, value, dtype):
        with pytest.raises(RangeError, match=f"^images must be finite, got {value} at index 2$"):
            encode(np.array([0, 1, value, value], dtype), name="images")

    @pytest.mark.parametrize("order", ["C", "F"])
    @pytest.mark.parametrize("kind", [float, int])
    def test_first_bad_value_is_named(self, order, kind):
        x = np.zeros((3, 4), kind, order=order)
        x[1, 2], x[2, 0] = 40000, -50000
        with raises_at(RangeError, x[1, 2], r" at index \(1, 2\)"):
            encode(x)
        with raises_at(RangeError, x[2, 0], r" at index \(0, 2\)"):
            encode(x.T)

    @pytest.mark.parametrize("value", [1e9, 10**9])
    def test_scalar_has_no_index(self, value):
        with raises_at(RangeError, value, name="bias"):
            encode(value, name="bias")


class TestEncodeRefuses:
    @pytest.mark.parametrize(
        "x",
        [1j, "1.5", None, b"1", [1.5, None], np.datetime64("2020-01-01")],
        ids=lambda x: type(x).__name__,
    )
    def test_what_is_no_real_number(self, x):
        with pytest.raises(DtypeError, match=r"^weights must hold real numbers, got dtype"):
            encode(x, name="weights")

    @pytest.mark.parametrize("x", [2**70, [1, -(2**70)]])
    def test_whole_numbers_beyond_64_bits(self, x):
        with pytest.raises(RangeError, match=r"^weights must be below 2\^63 in magnitude"):
            encode(x, name="weights")

    @pytest.mark.parametrize("x", [1.0, [0.5], np.zeros(0), np.float32(2)])
    def test_floats_without_fractional_bits(self, x):
        with pytest.raises(DtypeError, match=r"^labels must hold whole numbers .* got dtype float"):
            encode(x, 0, name="labels")

    @pytest.mark.parametrize(
        ("frac_bits", "int_bits"), [(-1, 15), (16, -1), (31, 32), (63, 0), (0, 63)]
    )
    def test_format_that_does_not_fit(self, frac_bits, int_bits):
        with pytest.raises(RangeError, match=f"got {frac_bits} and {int_bits}$"):
            encode(1, frac_bits, int_bits=int_bits)

    @pytest.mark.parametrize("x", [1, 1.0])
    @pytest.mark.parametrize("wrong", [16.0, 16.5, "16", None])
    def test_format_that_is_no_whole_number(self, x, wrong):
        with pytest.raises(DtypeError, match=r"^frac_bits must be a whole number, got"):
            encode(x, wrong)
        with pytest.raises(DtypeError, match=r"^int_bits must be a whole number, got"):
            encode(x, int_bits=wrong)

    def test_no_small_integers(self):
        assert int(encode(1.5, np.int8(16), int_bits=np.uint8(15))) == 98304


class TestDecode:
    @given(st.lists(words, max_size=20), st.integers(0, 63))
    def test_any_words(self, values, frac_bits):
        decoded = decode(np.array(values, np.uint64), frac_bits)
        assert decoded.dtype == np.float64
        # Dividing two integers rounds once, and correctly.
        assert decoded.tolist() == [signed(word) / 2**frac_bits for word in values]

    @given(st.integers(1 - 2**31, 2**31 - 1))
    def test_undoes_encode_undoes_decode(self, k):
        word = np.array(k % 2**64, np.uint64)
        assert np.array_equal(encode(decode(word)), word)

    @given(inside)
    def test_within_half_a_unit(self, x):
        assert abs(float(decode(encode(x))) - x) <= 2.0**-17

    @pytest.mark.parametrize("shape", [(), (0,), (3, 0), (2, 3)])
    def test_shape_is_kept(self, shape):
        decoded = decode(np.full(shape, 65536, np.uint64))
        assert isinstance(decoded, np.ndarray)
        assert decoded.shape == shape
        assert (decoded == 1).all()

    def test_other_memory_layouts(self):
        x = np.arange(12, dtype=np.uint64).reshape(3, 4)
        assert np.array_equal(decode(x.T, 0), x.T)
        assert np.array_equal(decode(x[:, ::-2], 1), x[:, ::-2] / 2)

    def test_scalar(self):
        assert float(decode(np.uint64(2**64 - 32768))) == -0.5

    @pytest.mark.parametrize(
        "x", [1, 1.0, [1, 2], np.ones(2, np.int64), np.ones(2, np.uint32), np.ones(2, ">u8")]
    )
    def test_wrong_dtype(self, x):
        with pytest.raises(DtypeError, match=r"x must be a uint64 array .* got dtype"):
            decode(x)

    @pytest.mark.parametrize("frac_bits", [-1, 64, 1000])
    def test_fractional_bits_out_of_range(self, frac_bits):
        with pytest.raises(ArgumentError, match=rf"frac_bits .* got {frac_bits}$"):
            decode(np.zeros(1, np.uint64), frac_bits)

    @pytest.mark.parametrize("frac_bits", [16.0, "16", None])
    def test_fractional_bits_no_whole_number(self, frac_bits):
        with pytest.raises(DtypeError, match="frac_bits must be a whole number"):
            decode(np.zeros(1, np.uint64), frac_bits)


class TestFixedPoint:
    def test_default(self):
        form = FixedPoint()
        assert (form.frac_bits, form.int_bits) == (16, 15)
        assert form.limit == 32768.0
        assert form.bound == 2**31 - 1

    @pytest.mark.parametrize(("frac_bits", "int_bits"), [(0, 1), (0, 61), (23, 15), (30, 1)])
    def test_formats_that_fit(self, frac_bits, int_bits):
        form = FixedPoint(frac_bits, int_bits)
        assert form.limit == 2**int_bits
        assert form.bound == 2 ** (frac_bits + int_bits) - 1
        # The largest value times itself, seen as one term in range.
        assert form.bound * 2**frac_bits < 2**62

    @pytest.mark.parametrize(
        ("frac_bits", "int_bits", "message"),
        [
            (23, 16, "below 62.* = 62"),
            (0, 62, "below 62.* = 62"),
            (31, 1, "below 62.* = 63"),
            (-1, 15, "frac_bits must be at least 0, got -1"),
            (16, 0, "int_bits must be at least 1, got 0"),
        ],
    )
    def test_formats_that_do_not_fit(self, frac_bits, int_bits, message):
        with pytest.raises(RangeError, match=message):
            FixedPoint(frac_bits, int_bits)

    @pytest.mark.parametrize("wrong", [16.0, "16", None, True])
    def test_no_whole_numbers(self, wrong):
        with pytest.raises(DtypeError, match="frac_bits must be a whole number"):
            FixedPoint(wrong)
        with pytest.raises(DtypeError, match="int_bits must be a whole number"):
            FixedPoint(16, wrong)

    def test_value_semantics(self):
        assert FixedPoint(16, 15) == FixedPoint()
        assert len({FixedPoint(), FixedPoint(16, 15), FixedPoint(8, 7)}) == 2
        with pytest.raises(AttributeError):
            FixedPoint().frac_bits = 8
