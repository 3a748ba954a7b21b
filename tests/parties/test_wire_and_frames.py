"""What processes read of one another's bytes: round trips, and garbage of every kind."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mpc
from mpc.core import frames, wire
from mpc.core.correlation import Correlation, MaskRef, Part
from mpc.core.errors import FrameError, PeerError, ShapeError
from mpc.core.frames import Kind
from mpc.protocols.b2a import RandomBits
from mpc.protocols.bit_injection import GatePair
from mpc.protocols.bits import MaskProducts
from mpc.protocols.bounded import BoundedPowers
from mpc.protocols.exponential import PowerWindow
from mpc.protocols.intervals import WordTables
from mpc.protocols.product import ProductTerm
from mpc.protocols.range_check import MaskShifts
from mpc.protocols.sign import Window
from mpc.protocols.sign_products import SignProducts
from mpc.protocols.truncation import TruncationPair
from mpc.provider.dealer import Provider
from mpc.provider.requests import Request
from mpc.transport.remote import route_of
from tests.helpers.memory import Memory, connected, frame_of, receive
from tests.helpers.programs import many_requests


def planned():
    with mpc.Session() as s:
        found = [c for _, c in s.plan(many_requests).correlations]
    return [*found, *(SignProducts(65, shift, 20) for shift in (0, 16, 40))]


@pytest.mark.parametrize("correlation", planned(), ids=lambda c: type(c).__name__)
def test_every_correlation_comes_back(correlation):
    encoded = wire.encode(correlation)
    decoded = wire.decode(encoded)
    assert repr(decoded) == repr(correlation)
    assert wire.encode(decoded) == encoded
    decoded.check(1 << 20)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=5).map(tuple),
    max_leaves=20,
)


@given(values)
def test_values_come_back(value):
    assert wire.decode(wire.encode(value)) == value


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(data):
    try:
        wire.decode(data)
    except ShapeError:
        pass


@settings(max_examples=300, deadline=None)
@given(st.randoms(use_true_random=False))
def test_a_mutated_request_is_refused_or_safe_to_deal(rng):
    encoded = bytearray(wire.encode(rng.choice(CORRELATIONS)))
    for _ in range(rng.randint(1, 4)):
        encoded[rng.randrange(len(encoded))] = rng.randrange(256)
    try:
        correlation = Request(0, 1, bytes(encoded)).correlation(1 << 16)
    except ShapeError:
        return
    assert isinstance(correlation, Correlation)
    out = np.zeros(correlation.corrected_words, np.uint64)
    provider = Provider([bytes(16), bytes(16)])
    try:
        provider.correct(1, correlation, out)
    except (IndexError, ValueError, TypeError, KeyError):
        pass  # the service ends that session alone


CORRELATIONS = planned()


@pytest.mark.parametrize(
    "hostile",
    [
        Window(1 << 60, 16, 8, True, "relu"),
        Window(-64, 16, 8, True, "relu"),
        Window(64, 16, 200, True, "relu"),
        Window(64, 63, 8, True, "relu"),
        Window(64, 16, 8, True, "relu", 0),
        Window(64, 16, 8, True, "relu", 1 << 60),
        Window(64, 16, 8, True, "relu", ands=0),
        Window(64, 16, 8, True, "relu", ands=3),
        Window(64, 16, 8, False, "bit", ands=2),
        SignProducts(1 << 60, 16, 8),
        SignProducts(-64, 16, 8),
        SignProducts(64, 16, 200),
        SignProducts(64, 16, 0),
        SignProducts(64, 63, 8),
        SignProducts(4, 16, 8, MaskProducts(2, ((0, 1),), 4)),
        TruncationPair(4, 16, ProductTerm("multiply", *[MaskRef(1, Part((5,)))] * 2, (5,))),
        TruncationPair(4, 16, ProductTerm("multiply", *[MaskRef(1, Part((5,)))] * 2, (4,))),
        TruncationPair(4, 16, TruncationPair(4, 16)),
        TruncationPair(4, 16, RandomBits(1, 4)),
        Window(4, 16, 8, True, "relu", 1, MaskProducts(2, ((0, 1),), 4)),
        PowerWindow(64, 63, 8),
        BoundedPowers(64, 1 << 20, 0, 25),
        BoundedPowers(1 << 60, 8, 0, 25),
        GatePair(128, 16, MaskRef(1, Part((1,), "xor"))),
        GatePair(128, 16, MaskRef(0, Part((2,), "xor"))),
        WordTables(1 << 60),
        WordTables(-64),
        MaskShifts(MaskRef(1, Part((4,))), 5, (16,)),
        MaskShifts(MaskRef(1, Part((4,))), 4, (16, 62)),
        MaskShifts(MaskRef(1, Part((4,))), 4, (0,)),
        MaskShifts(MaskRef(1, Part((4,))), 4, (16,) * (1 << 17)),
        ProductTerm("matmul", MaskRef(1, Part((9, 9))), MaskRef(2, Part((8, 9))), (9, 9)),
        ProductTerm("matmul", MaskRef(1, Part((9, 9))), MaskRef(2, Part((9, 9))), (10, 9)),
        ProductTerm("multiply", MaskRef(1, Part((4,)), owner=-1), MaskRef(2, Part((4,))), (4,)),
        ProductTerm("multiply", MaskRef(1, Part((4,))), MaskRef(2, Part((4,)), without=-1), (4,)),
        ProductTerm("multiply", MaskRef(1, Part((1 << 40,))), MaskRef(2, Part((1,))), (1 << 40,)),
        ProductTerm(
            "multiply",
            MaskRef(1, Part((4,)), views=(("index", (np.full((1 << 10, 1 << 10), 3),)),)),
            MaskRef(2, Part(())),
            (1 << 10, 1 << 10),
        ),
        ProductTerm(
            "multiply",
            MaskRef(1, Part((4,)), views=(("reshape", (5,)),)),
            MaskRef(2, Part(())),
            (5,),
        ),
    ],
    ids=repr,
)
def test_hostile_sizes_are_refused_before_memory_is_taken(hostile):
    with pytest.raises(ShapeError):
        Request(0, 1, wire.encode(hostile)).correlation(1 << 18)


def test_what_has_no_place_on_the_wire():
    for value in (1.5, [1], {1: 2}, object(), 1 << 63, np.zeros(2)):
        with pytest.raises(mpc.DtypeError):
            wire.encode(value)
    with pytest.raises(ShapeError):
        wire.decode(b"t\x01" * 40 + b"N")
    with pytest.raises(ShapeError, match="nothing on the wire"):
        wire.decode(b"O" + wire.encode("Connection"))


shapes = st.lists(st.lists(st.integers(0, 5), max_size=4).map(tuple), max_size=6).map(tuple)


@given(st.sampled_from(Kind), st.integers(0, 2**32 - 1), shapes)
def test_headers_come_back(kind, number, shapes):
    packed = frames.pack(kind, number, 7, True, shapes)
    header = frames.parse(packed)
    assert (header.kind, header.sequence, header.step, header.shapes) == (kind, number, 7, shapes)
    assert header.words
    assert header.nbytes == 8 * sum(int(np.prod(s)) for s in shapes)


ARRAYS = [np.arange(12, dtype=np.uint64).reshape(3, 4), np.arange(5, dtype=np.uint64)]


def test_arrays_come_back():
    for got, sent in zip(receive(frame_of(ARRAYS))[0], ARRAYS, strict=True):
        np.testing.assert_array_equal(got, sent)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (frame_of(ARRAYS, kind=Kind.REVEAL), "bob sent REVEAL"),
        (frame_of(ARRAYS, step=6), "bob runs another program"),
        (frame_of(ARRAYS[::-1]), "bob sent the shapes"),
        (frame_of([np.zeros((1 << 20,), np.uint64)]), "bob sent the shapes"),
        (frame_of(ARRAYS, sequence=1), "bob sent frame 1 where 0"),
        (frame_of(ARRAYS)[:-1], "bob closed the connection"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3, "bob sent a frame that is malformed"),
    ],
)
def test_other_frames_are_refused_by_name(data, message):
    with pytest.raises(PeerError, match=message):
        receive(data)


def changed(place, *values):
    data = bytearray(frame_of(ARRAYS))
    data[place : place + len(values)] = bytes(values)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (changed(0, 18), "sent a frame that is malformed: 18 elements do not have the shapes"
            " [(3, 4), (5,)]"),
        (changed(4, 1), "sent frame 1 where 0 was to come"),
        (changed(8, 6), "runs another program: not all steps before this one agree"),
        (changed(12, 2), "sent REVEAL (words) where OPEN was to come"),
        (changed(12, 99), "sent a frame that is malformed: no frame is of kind 99"),
        (changed(13, 0), "sent a frame that is malformed: 2 arrays do not have 3 axes"),
        (changed(13, 7), "sent a frame that is malformed: no frame has elements of dtype 7"),
        (changed(14, 1), "sent a frame that is malformed: 1 arrays do not have 3 axes"),
        (changed(15, 2), "sent a frame that is malformed: 2 arrays do not have 2 axes"),
        (changed(16, 3), "sent a frame that is malformed: 2 arrays do not have 3 axes"),
        (changed(16, 1, 2), "sent a frame that is malformed: 17 elements do not have the shapes"
            " [(3,), (4, 5)]"),
        (changed(18, 4), "sent a frame that is malformed: 17 elements do not have the shapes"
            " [(4, 4), (5,)]"),
        (frame_of([ARRAYS[0].T, ARRAYS[1]]), "sent the shapes ((4, 3), (5,)) where"
            " ((3, 4), (5,)) were to come"),
        (frame_of(ARRAYS[:1]), "sent the shapes ((3, 4),) where ((3, 4), (5,)) were to come"),
    ],
)  # fmt: skip
def test_a_header_that_differs_in_one_field_is_refused(data, message):
    with pytest.raises(FrameError) as caught:
        receive(data)
    # Parties whose programs differ hear what has to be the same.
    same = (
        "; all run one program, with the same shape=, dtype= and bound= of what any of them shares"
    )
    differs = (
        "were to come" in message or "another program" in message or "(words) where" in message
    )
    assert str(caught.value) == f"bob {message}{same if differs else ''}"


class Single(Memory):
    """Gives a byte, then nothing, then a byte."""

    silent = False

    def receive(self, target, whole=False):
        self.silent = not self.silent
        return 0 if self.silent else super().receive(target[:1])


def pull_single(data):
    connection = connected(Single(data))
    connection.expect_arrays(Kind.OPEN, ((3, 4), (5,)), 5)
    while not connection.pull():
        pass
    return connection.take()


def test_a_frame_that_comes_byte_by_byte():
    incoming = pull_single(frame_of(ARRAYS))
    assert incoming.header == (Kind.OPEN, 0, 5, True, ((3, 4), (5,)), 136)
    for got, sent in zip(incoming.arrays(), ARRAYS, strict=True):
        np.testing.assert_array_equal(got, sent)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [(Kind.ABORT, b"why", "bob stopped: why"), (Kind.BYE, b"", "bob ended the session")],
)
def test_last_words_shorter_than_what_is_expected(kind, text, message):
    out = Memory()
    sender = connected(out)
    sender.post_bytes(kind, text)
    sender.push()
    with pytest.raises(PeerError, match=message):
        pull_single(bytes(out.written))


def test_frames_that_come_together():
    data = b"".join(frame_of(ARRAYS, sequence=k) for k in range(3))
    assert len(data) < 700
    assert len(receive(data, count=3)) == 3


@pytest.mark.parametrize("rest", [-60, -9, -8, 0, 8, 16384, 40000])
@pytest.mark.parametrize("before", [(), (0,), (3,), (2, 2048)])
def test_records_hold_what_framing_says(rest, before):
    """The header and what fits beside it, then each array's rest."""
    arrays = [np.ones(before, np.uint64), np.ones((16384 + rest) // 8, np.uint64), ARRAYS[0]]
    out = Memory()
    connection = connected(out)
    connection.post(Kind.OPEN, arrays)
    pieces = [len(piece) for piece in connection.outgoing]
    assert connection.outgoing_bytes == sum(pieces)
    contents = [array.nbytes for array in arrays]
    head = sum(pieces) - sum(contents)
    records = sum(-(-size // frames.RECORD_BYTES) for size in pieces)
    assert frames.framing([(a.ndim, a.nbytes) for a in arrays]) == head + 22 * records
    connection.push()
    assert connection.outgoing_bytes == 0
    assert bytes(out.written[head:]) == b"".join(array.tobytes() for array in arrays)


def test_equal_rounds_are_noted_alike_whoever_was_first():
    found = set()
    for party in (True, np.int64(1), 1):
        route_of.cache_clear()
        for each in (party, 1):
            found.add(route_of((((2,), "sum"), ((3, 4), each)), 0, (1,)))
    assert len(found) == 1


def test_a_replayed_frame_is_refused():
    with pytest.raises(FrameError, match="bob sent frame 0 where 1"):
        receive(2 * frame_of(ARRAYS), count=2)
