"""Keys by blocks of ids against AES written out, and that a key tells nothing of another block."""

import copy
import os
import pickle
import threading

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from ring import Stream
from ring.errors import ArgumentError, ProcessError
from ring.streams import BLOCK_IDS, OWN_IDS, NamedStream, NamedStreamBlocks, StreamBlocks, block_of

ROOT = bytes(range(16))
EDGES = [
    0, 1, BLOCK_IDS - 1, BLOCK_IDS, 2 * BLOCK_IDS - 1, OWN_IDS - 1, OWN_IDS, OWN_IDS + 1, 2**64 - 1
]  # fmt: skip
ids = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from(EDGES), st.integers(0, 2000))


def aes(key, *numbers):
    cipher = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return cipher.update(b"".join(n.to_bytes(16, "big") for n in numbers))


def block(id):
    return id // BLOCK_IDS if id < OWN_IDS else id


def filled(stream, place, start=0, count=6):
    out = np.full(count, 77, np.uint64)
    stream.fill(out, place, start)
    return out.tolist()


def named(root, id):
    n = block(id)
    keys = aes(root, n, 2**64 + n, 2**65 + n)
    return NamedStream(keys[:16], keys[16:])


@given(
    st.binary(min_size=16, max_size=16), st.lists(ids, min_size=1, max_size=6), st.integers(0, 40)
)
def test_known_answers(root, some, start):
    """The key of a block is AES of its number, whatever was read before."""
    blocks, corrections = StreamBlocks(root), NamedStreamBlocks(root)
    for id in (*some, *some):
        assert block_of(id) == block(id)
        own = Stream(aes(root, block(id)))
        assert filled(blocks, id, start) == filled(own, id, start)
        rows = np.array([5, 0, 3])
        one, other = np.empty((3, 2), np.uint64), np.empty((3, 2), np.uint64)
        blocks.fill_rows(one, id, rows, start)
        own.fill_rows(other, id, rows, start)
        np.testing.assert_array_equal(one, other)
        found, wanted = corrections.at(id), named(root, id)
        assert found.place(b"name") == wanted.place(b"name")
        assert filled(found, wanted.place(b"name"), start) == filled(
            wanted, wanted.place(b"name"), start
        )


def test_ids_share_the_key_of_their_block_alone():
    """Who holds one block's key reads the ids of this block, and meets no word of any other."""
    blocks = StreamBlocks(ROOT)
    some = [*range(4 * BLOCK_IDS), *range(OWN_IDS, OWN_IDS + 3)]
    for opened in (0, 2 * BLOCK_IDS - 1, OWN_IDS, OWN_IDS + 1):
        key = Stream(aes(ROOT, block(opened)))
        alike = {id for id in some if filled(key, id) == filled(blocks, id)}
        assert alike == {id for id in some if block(id) == block(opened)}
        hidden = {word for id in some if id not in alike for word in filled(blocks, id)}
        assert not hidden & {word for id in some for word in filled(key, id)}


def test_keys_of_names_have_nothing_in_common():
    corrections, masks = NamedStreamBlocks(ROOT), StreamBlocks(ROOT[::-1])
    seen = [0, BLOCK_IDS, 2 * BLOCK_IDS, OWN_IDS, OWN_IDS + 1]
    streams = [corrections.at(id) for id in seen]
    places = [stream.place(b"a") for stream in streams]
    assert len(set(places)) == len(streams)
    words = [filled(stream, places[0], 0, 50) for stream in streams]
    words += [filled(masks, id, 0, 50) for id in seen]
    assert len(set().union(*words)) == 50 * len(words)
    assert corrections.at(1) is corrections.at(BLOCK_IDS - 1)


def test_many_blocks_and_back():
    """Ciphers that were dropped are made again."""
    blocks = StreamBlocks(ROOT)
    first = [filled(blocks, BLOCK_IDS * k) for k in range(300)]
    assert [filled(blocks, BLOCK_IDS * k) for k in range(300)] == first
    assert len(blocks._made) < 100


def test_what_it_refuses():
    for make in (StreamBlocks, NamedStreamBlocks):
        for root in (b"", bytes(15), bytes(32), "k" * 16, bytearray(16), None):
            with pytest.raises(ArgumentError, match=r"^root must be 16 bytes$"):
                make(root)
        for id in (-1, -BLOCK_IDS - 1, 2**64):
            with pytest.raises(ArgumentError, match=rf"id must be in \[0, 2\^64\), got {id}$"):
                make(ROOT).at(id)
        with pytest.raises(TypeError):
            make(ROOT).at(0.5)
    with pytest.raises(ArgumentError, match="start must be in"):
        StreamBlocks(ROOT).fill(np.empty(2, np.uint64), 0, 2**65 - 1)


def test_keys_stay_inside():
    for blocks in (StreamBlocks(ROOT), NamedStreamBlocks(ROOT)):
        assert repr(blocks) == f"{type(blocks).__name__}(<key>)"
        for take in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError):
                take(blocks)
        assert not any(getattr(blocks, name, None) == ROOT for name in dir(blocks))


def test_threads():
    right = {id: filled(StreamBlocks(ROOT), id) for id in range(0, 200 * BLOCK_IDS, BLOCK_IDS // 2)}
    blocks, wrong = StreamBlocks(ROOT), []

    def read(step):
        order = list(right)[::step]
        for id in order * 3:
            try:
                if filled(blocks, id) != right[id]:
                    wrong.append(id)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=read, args=(step,)) for step in (1, -1, 3, -3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("id", [3, 10 * BLOCK_IDS], ids=["kept", "new"])
def test_a_forked_child_is_refused(id):
    blocks = StreamBlocks(ROOT)
    filled(blocks, 1)
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        said = b"nothing"
        try:
            filled(blocks, id)
        except ProcessError as error:
            said = str(error).encode()
        finally:
            os.write(there, said)
            os._exit(0)
    os.close(there)
    os.waitpid(child, 0)
    with open(here, "rb") as pipe:
        assert b"this process was forked from that one" in pipe.read()
