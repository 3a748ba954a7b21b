"""Points of P-256 against OpenSSL and the vectors of RFC 9380."""

import os

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.core.errors import ArgumentError
from mpc.two_party.curve import (
    CURVE,
    P,
    add,
    decode,
    encode,
    hash_to_point,
    negative,
    point_of,
    public_key,
)

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
TAG = b"QUUX-V01-CS02-with-P256_XMD:SHA-256_SSWU_RO_"
# RFC 9380, appendix J.1.1.
VECTORS = {
    b"": (
        0x2C15230B26DBC6FC9A37051158C95B79656E17A1A920B11394CA91C44247D3E4,
        0x8A7A74985CC5C776CDFE4B1F19884970453912E9D31528C060BE9AB5C43E8415,
    ),
    b"abc": (
        0x0BB8B87485551AA43ED54F009230450B492FEAD5F1CC91658775DAC4A3388A0F,
        0x5C41B3D0731A27A7B14BC0BF0CCDED2D8751F83493404C84A88E71FFD424212E,
    ),
    b"abcdef0123456789": (
        0x65038AC8F2B1DEF042A5DF0B33B1F4ECA6BFF7CB0F9C6C1526811864E544ED80,
        0xCAD44D40A656E7AFF4002A8DE287ABC8AE0482B5AE825822BB870D6DF9B56CA3,
    ),
    b"q128_" + b"q" * 128: (
        0x4BE61EE205094282BA8A2042BCB48D88DFBB609301C49AA8B078533DC65A0B5D,
        0x98F8DF449A072C4721D241A3B1236D3CACCBA603F916CA680F4539D2BFB3C29E,
    ),
    b"a512_" + b"a" * 512: (
        0x457AE2981F70CA85D8E24C308B14DB22F3E3862C5EA0F652CA38B5E49CD64BC5,
        0xECB9F0EADC9AEED232DABC53235368C1394C78DE05DD96893EEFA62B0F4757DC,
    ),
}

scalars = st.one_of(st.integers(1, 4), st.integers(ORDER - 4, ORDER - 1), st.integers(1, ORDER - 1))


def times(k):
    return point_of(ec.derive_private_key(k % ORDER, CURVE))


@settings(max_examples=60, deadline=None)
@given(scalars, scalars)
def test_sums(j, k):
    if (j + k) % ORDER:
        assert add(times(j), times(k)) == times(j + k)
    else:
        with pytest.raises(ArgumentError, match="two points are opposite"):
            add(times(j), times(k))


@settings(max_examples=20, deadline=None)
@given(scalars)
def test_doubles_and_opposites(k):
    assert add(times(k), times(k)) == times(2 * k)
    assert negative(times(k)) == times(-k)


@pytest.mark.parametrize("message", VECTORS, ids=lambda m: f"{len(m)}-bytes")
def test_hash_is_that_of_the_rfc(message):
    assert hash_to_point(message, TAG) == VECTORS[message]


def test_hash_needs_a_tag():
    for tag in (b"", b"t" * 256):
        with pytest.raises(ArgumentError, match="tag must have 1 to 255 bytes"):
            hash_to_point(b"", tag)


def test_hashes_are_points_and_differ_by_message_and_tag():
    points = {hash_to_point(os.urandom(32), TAG) for _ in range(50)}
    points |= {hash_to_point(b"", bytes([k])) for k in range(1, 50)}
    assert len(points) == 99
    for point in points:
        public_key(point)


def test_bytes_and_back():
    for k in (1, 2, ORDER - 1):
        assert decode(encode(times(k))) == times(k)


@pytest.mark.parametrize(
    "data",
    [
        encode((1, 1)),
        encode((0, 0)),
        encode((times(1)[0], P - 1 - times(1)[1])),
        # The same point with x or y above the field's order.
        (5 + P).to_bytes(32, "big") + bytes(32),
        bytes([255]) * 64,
    ],
)
def test_points_off_the_curve_are_refused(data):
    with pytest.raises(ArgumentError, match="not on the curve"):
        decode(data)


@pytest.mark.parametrize("size", [0, 63, 65])
def test_points_of_another_length_are_refused(size):
    with pytest.raises(ArgumentError, match=f"a point has 64 bytes, got {size}"):
        decode(bytes(size))
