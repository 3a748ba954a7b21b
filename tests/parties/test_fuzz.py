"""Random and mutated bytes, wherever bytes of others are read: refused by name, or harmless.

SOTTO_SEED and SOTTO_FUZZ set the seed and the number of frames, and of values.
"""

import gc
import os
import random
import ssl
import tracemalloc

import numpy as np
import pytest

import mpc
from mpc.core import frames, wire
from mpc.core.errors import PeerError, ShapeError
from mpc.core.frames import Kind
from mpc.parties import configuration
from mpc.parties.handshake import read_hello, terms
from mpc.parties.tls import own_contexts
from mpc.provider.requests import Block, Request, read
from mpc.transport.connection import Connection
from mpc.transport.tls_session import Tls
from nn.serving.model_description import Description
from ring import FixedPoint
from tests.helpers.memory import Memory, frame_of
from tests.helpers.programs import flower_network, many_requests, price_network

CASES = int(os.environ.get("SOTTO_FUZZ", "100000"))
SEED = int(os.environ.get("SOTTO_SEED", "20261122"))

ARRAYS = [np.arange(12, dtype=np.uint64).reshape(3, 4), np.arange(5, dtype=np.uint64)]
SHAPES = ((3, 4), (5,))
# As large as the largest bytes that are expected below.
LARGEST = 1 << 16


def mutated(draw, good):
    """Return bytes with some changed, left out, put in, or said twice."""
    data = bytearray(good)
    for _ in range(draw.randrange(1, 5)):
        # Often where the header is, which says most.
        place = draw.randrange(min(len(data), 24) if draw.random() < 0.5 else len(data) or 1)
        choice = draw.randrange(5)
        if choice == 0 and data:
            data[place] = draw.randrange(256)
        elif choice == 1 and data:
            data[place] ^= 1 << draw.randrange(8)
        elif choice == 2:
            del data[place : place + draw.randrange(1, 20)]
        elif choice == 3:
            data[place:place] = draw.randbytes(draw.randrange(1, 20))
        else:
            data[place:place] = data[place : place + draw.randrange(1, 40)]
        if not data:
            break
    return bytes(data)


class Trickle(Memory):
    """Gives what it has in pieces of any size."""

    def __init__(self, data, draw):
        super().__init__(data)
        self.draw = draw

    def read(self, size, target=None):
        return super().read(min(size, self.draw.choice([1, 3, 16, 50, 700])), target)


def frames_of_all_kinds():
    """Return what a session and a service send, one frame each."""
    form = FixedPoint(16, 15)
    hello = ("session", tuple(TERMS.items()), bytes(16), bytes(32))
    assert form.frac_bits == 16
    good = [frame_of(ARRAYS), frame_of(ARRAYS, kind=Kind.REVEAL), frame_of(ARRAYS[1:])]
    for kind, value in (
        (Kind.HELLO, hello), (Kind.CALL, ("predict", bytes(16), "network", b"", "class", 7)),
        (Kind.ANSWER, ("ok", "network", 64, (1, 2))), (Kind.READY, ()), (Kind.ABORT, ()),
    ):  # fmt: skip
        out = Memory()
        connection = Connection(out, "bob")
        connection.post_bytes(kind, wire.encode(value) if value else b"why")
        connection.push()
        good.append(bytes(out.written))
    return good


class Read:
    """Stands in for a configuration."""

    names = ("alice", "bob")
    format = FixedPoint(16, 15)
    provider = None
    transfers = "softspoken"
    network = None
    auditor = None
    security = "semi-honest"


TERMS = terms(Read, "a program")


def take_two(data, draw, arrays):
    """Read two frames as a party does; return how many were as expected."""
    connection = Connection(Trickle(data, draw), "bob")
    for number in range(2):
        if arrays:
            connection.expect_arrays(Kind.OPEN, SHAPES, 5)
        else:
            connection.expect_bytes([Kind.HELLO, Kind.CALL, Kind.ANSWER], LARGEST)
        try:
            assert connection.pull()
        except PeerError as error:
            text = str(error)
            assert text.startswith("bob ") and text.isprintable() and len(text) < 1500
            return number
        incoming = connection.take()
        if arrays:
            assert [a.shape for a in incoming.arrays()] == list(SHAPES)
        else:
            assert incoming.data.nbytes <= LARGEST
            decodes(incoming.data.tobytes())
    return 2


def decodes(data):
    try:
        wire.decode(data)
    except ShapeError:
        return False
    return True


def frames_case(draw, good):
    chosen = draw.choice(good) + (draw.choice(good) if draw.random() < 0.3 else b"")
    data = draw.randbytes(draw.randrange(1, 300)) if draw.random() < 0.2 else mutated(draw, chosen)
    return take_two(data, draw, draw.random() < 0.5)


def test_frames():
    draw, good = random.Random(SEED), frames_of_all_kinds()
    taken = sum(frames_case(draw, good) > 0 for _ in range(CASES))
    # Mutations of words alone, or behind the frame, are frames like any other.
    assert 0.02 * CASES < taken < 0.8 * CASES


def test_no_frame_takes_memory_for_what_does_not_come():
    draw, good = random.Random(SEED + 1), frames_of_all_kinds()
    for huge in (1 << 31, (1 << 32) - 1):
        good.append(frames.pack(Kind.OPEN, 0, 5, True, [(huge,)]))
        good.append(frames.pack(Kind.CALL, 0, 0, False, [(huge,)]))
        good.append(frames.pack(Kind.ABORT, 0, 0, False, [(huge,)]))
    held = []
    tracemalloc.start()
    try:
        for _ in range(3):
            for _ in range(min(CASES, 1500)):
                frames_case(draw, good)
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20
    assert held[2] - held[1] < 1 << 16


def values_of_all_kinds():
    """Return the encodings of requests, greetings, calls and descriptions."""
    with mpc.Session() as s:
        asked = s.plan(many_requests).correlations
        described = [
            Description.of("m", model.share(s, owner="alice"), 100).values()
            for model in (flower_network(), price_network())
        ]
    good = [wire.encode(correlation) for _, correlation in asked]
    good += list(Block.of(asked, 0, asked[-1][0]).frames(5))
    good += [wire.encode(value) for value in described]
    return [*good, wire.encode(("session", tuple(TERMS.items()), bytes(16), bytes(32)))]


def test_values():
    draw, good = random.Random(SEED + 2), values_of_all_kinds()
    decoded = 0
    for number in range(CASES):
        random_bytes = draw.randbytes(draw.randrange(1, 200))
        decoded += decodes(mutated(draw, draw.choice(good)) if number % 5 else random_bytes)
    assert 0.002 * CASES < decoded < 0.8 * CASES


def test_requests_descriptions_and_greetings():
    """What is made of values: correlations, descriptions of models, greetings."""
    draw, good = random.Random(SEED + 3), values_of_all_kinds()
    made = [0, 0, 0, 0]
    for _ in range(CASES // 20):
        data = mutated(draw, draw.choice(good))
        try:
            Request(7, 8, data).correlation(1 << 16)
            made[0] += 1
        except ShapeError:
            pass
        try:
            made[3] += len(list(read(mutated(draw, draw.choice(good)))))
        except ShapeError:
            pass
        try:
            value = wire.decode(mutated(draw, draw.choice(good[-3:-1])))
            Description.read(value if isinstance(value, tuple) else (value,))
            made[1] += 1
        except (ShapeError, mpc.DataError):
            pass
        out = Memory()
        sender = Connection(out, "bob")
        sender.post_bytes(Kind.HELLO, mutated(draw, good[-1]))
        sender.push()
        try:
            read_hello(Connection(Memory(bytes(out.written)), "bob"), 1.0)
            made[2] += 1
        except PeerError:
            pass
    assert all(made), made


@pytest.mark.parametrize("shape", [(), (0,), (0, 5), (1, 0, 3)])
def test_empty_shapes_are_frames_too(shape):
    connection = Connection(Memory(frame_of([np.zeros(shape, np.uint64)])), "bob")
    connection.expect_arrays(Kind.OPEN, (shape,), 5)
    assert connection.pull()
    assert connection.take().arrays()[0].shape == shape


class Socket:
    """Stands in for a socket: gives what it has in pieces, then nothing yet, or the end."""

    def __init__(self, data, draw, ends):
        self.data, self.draw, self.ends = memoryview(data), draw, ends

    def setblocking(self, blocking):
        pass

    def send(self, data):
        return len(data)

    def recv_into(self, target):
        if not len(self.data):
            if self.ends:
                return 0
            raise BlockingIOError
        count = min(len(self.data), self.draw.choice([1, 3, 16, 50, 700]))
        target[:count] = self.data[:count]
        self.data = self.data[count:]
        return count


def test_strangers_before_they_have_proved_who_they_are(tmp_path):
    """TLS's own first flight, mutated: refused, or waited for; nobody gets in, nothing else is raised."""
    read = configuration.load(configuration.write_example(tmp_path / "trial"))
    client, _ = own_contexts(read, "bob")
    _, server = own_contexts(read, "alice")
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        client.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    good, draw = outgoing.read(), random.Random(SEED + 4)
    refused = 0
    for number in range(max(1, CASES // 50)):
        data = mutated(draw, good) if number % 4 else draw.randbytes(draw.randrange(1, 600))
        tls = Tls(Socket(data, draw, number % 2), server, server=True)
        try:
            assert not tls.step()
        except OSError:
            refused += 1
    assert refused > CASES // 200
