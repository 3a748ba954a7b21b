"""What processes read of one another's bytes: round trips, and garbage of every kind."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mpc
from mpc.correlation import Correlation, MaskRef, Part
from mpc.errors import FrameError, PeerError, ShapeError
from mpc.protocols.bits import MaskProducts
from mpc.protocols.convert import RandomBits
from mpc.protocols.exponential import PowerWindow
from mpc.protocols.gate import GatePair
from mpc.protocols.product import ProductTerm
from mpc.protocols.sign import Window
from mpc.protocols.truncation import TruncationPair
from mpc.requests import Request
from mpc.transport import frames, wire
from mpc.transport.frames import Kind
from tests.parties.memory import frame_of, receive
from tests.parties.programs import many_requests


def planned():
    with mpc.Session() as s:
        return [c for _, c in s.plan(many_requests).correlations]


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
    provider = mpc.session.Provider([bytes(16), bytes(16)])
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
        TruncationPair(4, 16, ProductTerm("multiply", *[MaskRef(1, Part((5,)))] * 2, (5,))),
        TruncationPair(4, 16, ProductTerm("multiply", *[MaskRef(1, Part((5,)))] * 2, (4,))),
        TruncationPair(4, 16, TruncationPair(4, 16)),
        TruncationPair(4, 16, RandomBits(1, 4)),
        Window(4, 16, 8, True, "relu", 1, MaskProducts(2, ((0, 1),), 4)),
        PowerWindow(64, 63, 8),
        GatePair(128, 16, MaskRef(1, Part((1,), "xor"))),
        GatePair(128, 16, MaskRef(0, Part((2,), "xor"))),
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


def test_a_replayed_frame_is_refused():
    with pytest.raises(FrameError, match="bob sent frame 0 where 1"):
        receive(2 * frame_of(ARRAYS), count=2)
