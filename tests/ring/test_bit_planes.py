"""Bit planes against Python's integers, bit by bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring import pack_bits, unpack_bits
from ring.bits import add_polynomials, count_words
from ring.errors import ArgumentError, DtypeError

COUNTS = [0, 1, 2, 7, 8, 9, 63, 64, 65, 127, 128, 129, 200]

bit_lists = st.one_of(
    st.lists(st.integers(0, 1), max_size=70),
    st.lists(st.integers(0, 1), min_size=120, max_size=135),
)


def packed(bits):
    """Put bit e into bit e % 64 of word e // 64."""
    out = [0] * -(-len(bits) // 64)
    for e, bit in enumerate(bits):
        out[e // 64] |= int(bit) << e % 64
    return out


@pytest.mark.parametrize(("bits", "words"), [(0, 0), (1, 1), (63, 1), (64, 1), (65, 2), (129, 3)])
def test_count_words(bits, words):
    assert count_words(bits) == words


class TestPack:
    @given(bit_lists)
    def test_positions(self, bits):
        result = pack_bits(np.array(bits, np.uint8))
        assert result.dtype == np.uint64
        assert result.tolist() == packed(bits)

    @given(bit_lists)
    def test_round_trip(self, bits):
        back = unpack_bits(pack_bits(np.array(bits, bool)), len(bits))
        assert back.dtype == np.uint8
        assert back.tolist() == bits

    @pytest.mark.parametrize("count", COUNTS)
    def test_one_bit_at_a_time(self, count):
        for e in range(count):
            bits = np.zeros(count, bool)
            bits[e] = True
            expected = [0] * count_words(count)
            expected[e // 64] = 2 ** (e % 64)
            assert pack_bits(bits).tolist() == expected

    @pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.int64, np.uint64])
    def test_dtypes(self, dtype):
        bits = np.arange(70) % 3 == 0
        assert np.array_equal(pack_bits(bits.astype(dtype)), packed(bits))

    @pytest.mark.parametrize("leading", [(), (1,), (3,), (2, 3), (0,), (2, 0)])
    @pytest.mark.parametrize("count", [0, 1, 64, 65])
    def test_leading_axes(self, leading, count):
        bits = np.random.default_rng(count).integers(0, 2, (*leading, count), np.uint8)
        words = pack_bits(bits)
        assert words.shape == (*leading, count_words(count))
        for place in np.ndindex(*leading):
            assert words[place].tolist() == packed(bits[place])
        assert np.array_equal(unpack_bits(words, count), bits)

    def test_other_memory_layouts(self):
        bits = np.random.default_rng(1).integers(0, 2, (70, 66), np.uint8)
        for view in (bits.T, bits[::2, ::-1], np.broadcast_to(bits[0], (3, 66))):
            words = pack_bits(view)
            assert words.tolist() == [packed(row) for row in view]
            assert np.array_equal(unpack_bits(words, view.shape[1]), view)

    @pytest.mark.parametrize("bits", [[0.0, 1.0], [], ["1"], [None], [1j]])
    def test_wrong_dtype(self, bits):
        with pytest.raises(DtypeError, match="bits must be bools or integers, got dtype"):
            pack_bits(bits)

    @pytest.mark.parametrize("bits", [[0, 2], [-1], [[1, 0], [1, 255]]])
    def test_neither_zero_nor_one(self, bits):
        with pytest.raises(ArgumentError, match="bits must be zeros and ones"):
            pack_bits(bits)

    def test_scalar(self):
        with pytest.raises(ArgumentError, match="bits must have at least one axis"):
            pack_bits(True)


class TestUnpack:
    @given(st.lists(st.integers(0, 2**64 - 1), max_size=4), st.data())
    def test_positions(self, words, data):
        count = data.draw(st.integers(0, 64 * len(words)))
        bits = unpack_bits(np.array(words, np.uint64), count)
        assert bits.dtype == np.uint8
        assert bits.tolist() == [words[e // 64] >> e % 64 & 1 for e in range(count)]

    def test_other_memory_layouts(self):
        words = np.random.default_rng(2).integers(0, 2**64, (4, 6), np.uint64)
        expected = unpack_bits(words, 6 * 64).reshape(4, 6, 64)
        for view, bits in ((words.T, expected.swapaxes(0, 1)), (words[:, ::-2], expected[:, ::-2])):
            whole = bits.reshape(len(view), -1)
            assert np.array_equal(unpack_bits(view, whole.shape[1]), whole)

    @pytest.mark.parametrize("count", [-1, 65, 1000])
    def test_count_out_of_range(self, count):
        with pytest.raises(ArgumentError, match=rf"count must be in \[0, 64\], got {count}"):
            unpack_bits(np.zeros((2, 1), np.uint64), count)

    @pytest.mark.parametrize("words", [np.zeros(1), np.zeros(1, np.int64), np.zeros(1, ">u8"), [5]])
    def test_wrong_dtype(self, words):
        with pytest.raises(DtypeError, match="words must be a uint64 array, got dtype"):
            unpack_bits(words, 1)

    def test_scalar(self):
        with pytest.raises(ArgumentError, match="words must have at least one axis"):
            unpack_bits(np.uint64(5), 3)


@st.composite
def polynomials(draw):
    """Draw the terms of a polynomial, and how many planes of what length it is for."""
    planes, secrets, outputs = (draw(st.integers(1, 6)) for _ in range(3))
    literal = st.integers(-planes, planes - 1)
    terms = draw(
        st.lists(
            st.tuples(
                st.integers(0, outputs - 1),
                st.integers(-1, secrets - 1),
                st.lists(literal, max_size=4),
            ),
            max_size=12,
        )
    )
    words = draw(st.sampled_from([0, 1, 2, 63, 64, 65, 128, 200]))
    return planes, secrets, outputs, terms, words


def arrays_of(terms):
    """List terms as the kernel wants them."""
    places = np.cumsum([0, *(len(literals) for _, _, literals in terms)])
    return (
        np.array([output for output, _, _ in terms], np.int64),
        np.array([factor for _, factor, _ in terms], np.int64),
        places.astype(np.int64),
        np.array([k for _, _, literals in terms for k in literals], np.int64),
    )


@pytest.mark.usefixtures("threads")
class TestPolynomials:
    @settings(max_examples=80, deadline=None)
    @given(polynomials(), st.integers(0, 2**32 - 1))
    def test_any(self, drawn, seed):
        planes, secrets, outputs, terms, words = drawn
        random = np.random.default_rng(seed)
        p = random.integers(0, 2**64, (planes, words), np.uint64)
        s = random.integers(0, 2**64, (secrets, words), np.uint64)
        # A row of words on either side, which the kernel may not touch.
        guarded = random.integers(0, 2**64, (outputs + 2, words), np.uint64)
        expected = guarded.tolist()
        for output, factor, literals in terms:
            for w in range(words):
                product = int(s[factor, w]) if factor >= 0 else 2**64 - 1
                for k in literals:
                    product &= int(p[k, w]) if k >= 0 else 2**64 - 1 - int(p[~k, w])
                expected[output + 1][w] ^= product
        add_polynomials(p, s, *arrays_of(terms), guarded[1:-1])
        assert guarded.tolist() == expected

    def test_operands_stay_as_they_are(self):
        p, s = np.full((2, 70), 3, np.uint64), np.full((1, 70), 5, np.uint64)
        out = np.zeros((1, 70), np.uint64)
        add_polynomials(p, s, *arrays_of([(0, 0, [0, ~1]), (0, -1, [])]), out)
        assert (p == 3).all() and (s == 5).all()
        assert (out == (5 & 3 & ~3) ^ (2**64 - 1)).all()
