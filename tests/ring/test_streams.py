"""Streams against AES on counter blocks written out one by one."""

import copy
import pickle

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from ring import Stream, fresh_key
from ring.errors import ArgumentError, DtypeError

KEY = bytes(range(16))
# Words in the buffer of zeros that the cipher is fed from.
PIECE = 8192

keys = st.binary(min_size=16, max_size=16)
ids = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**32, 2**63, 2**64 - 1]))
starts = st.one_of(
    st.integers(0, 50),
    st.integers(0, 2**65 - 100),
    st.sampled_from([2**33 - 1, 2**33 - 2, 2**64 - 3, 2**65 - 100]),
)


def reference(key, id, start, count):
    """Encrypt the blocks id || 0, id || 1, ... that hold the words asked for."""
    cipher = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    blocks = range(start // 2, (start + count + 1) // 2)
    counters = b"".join(id.to_bytes(8, "big") + block.to_bytes(8, "big") for block in blocks)
    stream = cipher.update(counters)[8 * (start % 2) :]
    return [int.from_bytes(stream[k : k + 8], "little") for k in range(0, 8 * count, 8)]


def filled(stream, id, start, count):
    out = np.full(count, 77, np.uint64)
    stream.fill(out, id, start)
    return out.tolist()


@settings(deadline=None)
@given(keys, ids, starts, st.integers(0, 40))
def test_known_answers(key, id, start, count):
    assert filled(Stream(key), id, start, count) == reference(key, id, start, count)


@pytest.mark.parametrize("count", [PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 2 * PIECE + 3])
@pytest.mark.parametrize("start", [0, 1, 2, PIECE - 1])
def test_more_than_a_piece(count, start):
    assert filled(Stream(KEY), 5, start, count) == reference(KEY, 5, start, count)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60), st.integers(0, 9)), max_size=8))
def test_random_access(reads):
    """One object read in any order gives what a new one gives."""
    stream = Stream(KEY)
    whole = [filled(Stream(KEY), id, 0, 80) for id in range(4)]
    for id, start, count in reads:
        assert filled(stream, id, start, count) == whole[id][start : start + count]


def test_last_words_of_a_stream():
    assert filled(Stream(KEY), 0, 2**65 - 3, 3) == reference(KEY, 0, 2**65 - 3, 3)


def test_keys_and_ids_differ():
    seen = [tuple(filled(Stream(key), id, 0, 4)) for key in (KEY, bytes(16)) for id in range(5)]
    seen.append(tuple(filled(Stream(KEY), 2**63, 0, 4)))
    assert len({word for words in seen for word in words}) == 4 * len(seen)


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0,), (3, 0)])
def test_shapes(shape):
    out = np.zeros(shape, np.uint64)
    Stream(KEY).fill(out, 9)
    assert out.reshape(-1).tolist() == reference(KEY, 9, 0, out.size)


def test_words_around_stay():
    buffer = np.full(20, 77, np.uint64)
    Stream(KEY).fill(buffer[5:12], 3, 1)
    assert buffer[5:12].tolist() == reference(KEY, 3, 1, 7)
    assert (buffer[:5] == 77).all() and (buffer[12:] == 77).all()


@pytest.mark.parametrize("kind", [np.int64, np.uint64, np.int8])
def test_numpy_integers(kind):
    assert filled(Stream(KEY), kind(7), kind(3), 5) == reference(KEY, 7, 3, 5)


@pytest.mark.parametrize(
    "out",
    [
        np.zeros(4),
        np.zeros(4, np.int64),
        np.zeros(4, np.uint32),
        np.zeros(4, ">u8"),
        np.zeros(8, np.uint64)[::2],
        np.zeros((2, 3), np.uint64).T,
    ],
    ids=["float64", "int64", "uint32", "big-endian", "strided", "transposed"],
)
def test_wrong_out(out):
    before = out.copy()
    with pytest.raises(DtypeError, match="out must be a contiguous uint64 array"):
        Stream(KEY).fill(out, 1)
    assert np.array_equal(out, before)


@pytest.mark.parametrize("id", [-1, 2**64])
def test_id_out_of_range(id):
    with pytest.raises(ArgumentError, match=rf"id must be in \[0, 2\^64\), got {id}$"):
        Stream(KEY).fill(np.zeros(1, np.uint64), id)


@pytest.mark.parametrize("start", [-1, 2**65 - 1, 2**65, 2**70])
@pytest.mark.parametrize("id", [0, 2**64 - 1])
def test_start_out_of_range(id, start):
    """Behind its end a stream would go on as the next id's."""
    out = np.zeros(2, np.uint64)
    with pytest.raises(ArgumentError, match=f"start must be in .*, got {start}$"):
        Stream(KEY).fill(out, id, start)
    assert not out.any()


@pytest.mark.parametrize(
    "key", [b"", bytes(15), bytes(17), bytes(32), "k" * 16, bytearray(16), None]
)
def test_wrong_key(key):
    with pytest.raises(ArgumentError, match=r"^key must be 16 bytes$"):
        Stream(key)


def test_key_stays_inside():
    key = b"do not show this"
    stream = Stream(key)
    for shown in (repr(stream), str(stream), f"{stream}"):
        assert shown == "Stream(<key>)"
    for take in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            take(stream)
    assert not hasattr(stream, "__dict__")
    assert not any(getattr(stream, name, None) == key for name in dir(stream))
    with pytest.raises(ArgumentError) as caught:
        Stream(key + b"!")
    assert "show" not in str(caught.value)


def test_fresh_keys():
    made = {fresh_key() for _ in range(100)}
    assert len(made) == 100
    assert all(isinstance(key, bytes) and len(key) == 16 for key in made)


def test_fresh_keys_come_from_the_system(monkeypatch):
    monkeypatch.setattr("os.urandom", lambda count: bytes([7]) * count)
    assert fresh_key() == bytes([7]) * 16


@pytest.mark.parametrize("words", [0, 1, 6, 9000])
@pytest.mark.parametrize("start", [0, 5, 2**40])
def test_a_row_from_each_of_some_keys(words, start):
    streams = [None, *(Stream(bytes([k]) * 16) for k in range(3)), None]
    out = np.full((5, words), 9, np.uint64)
    Stream.fill_each(streams, out, 7, start)
    for stream, row in zip(streams, out, strict=True):
        wanted = np.zeros(words, np.uint64)
        if stream is not None:
            stream.fill(wanted, 7, start)
        np.testing.assert_array_equal(row, wanted)


def test_rows_from_keys_refuse_what_fill_refuses():
    streams = [None, Stream(bytes(16))]
    with pytest.raises(ArgumentError, match="2 rows"):
        Stream.fill_each(streams, np.empty((3, 2), np.uint64), 0)
    with pytest.raises(DtypeError):
        Stream.fill_each(streams, np.empty((2, 4), np.uint64)[:, :2], 0)
    with pytest.raises(DtypeError):
        Stream.fill_each(streams, np.empty((2, 4), np.int64), 0)
    with pytest.raises(ArgumentError, match="start"):
        Stream.fill_each(streams, np.empty((2, 4), np.uint64), 0, 2**65 - 3)


def test_reading_on_is_as_reading_anew():
    """Also in odd pieces, back again, and in pieces that take several writes."""
    whole = np.empty(40_000, np.uint64)
    Stream(bytes(16)).fill(whole, 3)
    stream, at = Stream(bytes(16)), 0
    for count in (3, 1, 0, 8, 20_000, 5, 9_001):
        part = np.empty(count, np.uint64)
        stream.fill(part, 3, at)
        np.testing.assert_array_equal(part, whole[at : at + count])
        # A word is left out now and then, or read twice.
        at += count + {3: 1, 8: -1}.get(count, 0)
        if count == 5:
            stream.fill(np.empty(5, np.uint64), 4)
            stream.fill(np.empty(5, np.uint64), 3)
