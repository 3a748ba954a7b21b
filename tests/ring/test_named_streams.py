"""Streams by name against AES on counter blocks, and all streams in threads and forked children."""

import copy
import hashlib
import os
import pickle
import sys
import threading

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from ring import Stream
from ring.errors import ArgumentError, DtypeError, ProcessError
from ring.streams import NamedStream

KEY, NAME_KEY = bytes(range(16)), bytes(range(100, 132))


def reference(key, place, start, count):
    cipher = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    blocks = range(start // 2, (start + count + 1) // 2)
    counters = b"".join(((place + block) % 2**128).to_bytes(16, "big") for block in blocks)
    stream = cipher.update(counters)[8 * (start % 2) :]
    return [int.from_bytes(stream[k : k + 8], "little") for k in range(0, 8 * count, 8)]


def filled(stream, place, start, count):
    out = np.full(count, 77, np.uint64)
    stream.fill(out, place, start)
    return out.tolist()


@settings(deadline=None)
@given(
    st.binary(min_size=16, max_size=16),
    st.one_of(st.integers(0, 2**128 - 1), st.sampled_from([0, 2**64 - 1, 2**128 - 1, 2**128 - 7])),
    st.one_of(st.integers(0, 50), st.integers(0, 2**65 - 40), st.just(2**65 - 40)),
    st.integers(0, 40),
)
def test_known_answers(key, place, start, count):
    stream = NamedStream(key, NAME_KEY)
    assert filled(stream, place, start, count) == reference(key, place, start, count)


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=300))
def test_places(name_key, name):
    want = hashlib.blake2b(name, key=name_key, digest_size=16).digest()
    stream = NamedStream(KEY, name_key)
    for _ in range(2):
        assert stream.place(name) == int.from_bytes(want, "big")


def test_names_and_name_keys_have_nothing_in_common():
    names = [b"", b"\0", b"a", b"b", b"ab", b"a" * 64, b"a" * 65]
    streams = [NamedStream(KEY, key) for key in (NAME_KEY, bytes(32))]
    found = [filled(s, s.place(name), 0, 200) for s in streams for name in names]
    assert len(set().union(*found)) == 200 * len(found)


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33), "k" * 32, bytearray(32), None])
def test_wrong_name_key(key):
    with pytest.raises(ArgumentError, match=r"^name_key must be 32 bytes$"):
        NamedStream(KEY, key)


def test_wrong_out():
    stream = NamedStream(KEY, NAME_KEY)
    for out in (np.zeros(4), np.zeros(8, np.uint64)[::2], [0], np.uint64(0)):
        with pytest.raises(DtypeError, match="out must be a contiguous uint64 array"):
            stream.fill(out, 0)


def test_keys_stay_inside():
    stream = NamedStream(KEY, NAME_KEY)
    assert repr(stream) == "NamedStream(<key>)"
    for take in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            take(stream)
    assert not hasattr(stream, "__dict__")
    assert not any(getattr(stream, name, None) in (KEY, NAME_KEY) for name in dir(stream))


STREAMS = [Stream(KEY), NamedStream(KEY, NAME_KEY)]
each_stream = pytest.mark.parametrize("stream", STREAMS, ids=["by id", "by name"])


@each_stream
def test_threads_wait_for_each_other(stream):
    sizes = [1, 3, 700, 40_000]
    right = {(id, size): filled(stream, id, id % 5, size) for id in range(8) for size in sizes}
    wrong, start = [], threading.Barrier(4)

    def read(first):
        start.wait()
        for k in range(400):
            id, size = (first + k) % 8, sizes[k % 4]
            try:
                if filled(stream, id, id % 5, size) != right[id, size]:
                    wrong.append((id, size))
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=read, args=(k,)) for k in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []


@each_stream
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_is_refused(stream):
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        said = b"nothing"
        try:
            out = np.zeros(4, np.uint64)
            try:
                stream.fill(out, 1)
            except ProcessError as error:
                said = f"{error} {out.any()}".encode()
            # Its own are as good as ever.
            Stream(KEY).fill(out, 1)
            said += f" {out.any()}".encode()
        finally:
            os.write(there, said)
            os._exit(0)
    os.close(there)
    os.waitpid(child, 0)
    said = os.read(here, 1000).decode()
    os.close(here)
    assert said.startswith("a stream belongs to the process that has made it")
    assert said.endswith("False True")
    assert any(filled(stream, 1, 0, 4))
