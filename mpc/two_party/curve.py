"""Points of the curve P-256: sums, and hashes to the curve.

Keys and shared secrets are OpenSSL's, in `cryptography`, which has no sums of points; those are here,
over Python's integers. Points are pairs (x, y); the point at infinity is refused.

Sums are the complete formula of Renes, Costello and Batina (2016, algorithm 1): the same operations
for any two points, also equal and opposite ones. The hash is P256_XMD:SHA-256_SSWU_RO_ of RFC 9380: the
same operations for every input, no search, and as good as a random oracle to the whole curve.
What is not constant: Python's integers take the time that their number of digits does. It is the same for
all but one value in 2^16, and exponents are public; but a process on the same core that times single
products could learn from it which of two points has been hashed. Nothing here multiplies a point by a
secret.
"""

from __future__ import annotations

from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric import ec

from mpc.core.errors import ArgumentError

__all__ = ["POINT_BYTES", "Point", "add", "decode", "encode", "hash_to_point", "negative"]

Point = tuple[int, int]

POINT_BYTES = 64
CURVE = ec.SECP256R1()
P = 2**256 - 2**224 + 2**192 + 2**96 - 1
A = P - 3
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B

# RFC 9380, sections 8.2, 6.6.2 and F.2.1.2: Z, the root of -Z, and bytes of a field element before it is
# reduced.
_Z = P - 10
_ROOT_OF_MINUS_Z = pow(10, (P + 1) // 4, P)
_ELEMENT_BYTES = 48

_Projective = tuple[int, int, int]


def _sum(first: _Projective, second: _Projective) -> _Projective:
    (x1, y1, z1), (x2, y2, z2) = first, second
    xx, yy, zz = x1 * x2 % P, y1 * y2 % P, z1 * z2 % P
    xy, xz, yz = (x1 * y2 + x2 * y1) % P, (x1 * z2 + x2 * z1) % P, (y1 * z2 + y2 * z1) % P
    t = (A * xz + 3 * B * zz) % P
    u = (A * xx + 3 * B * xz - A * A * zz) % P
    v = (3 * xx + A * zz) % P
    minus, plus = (yy - t) % P, (yy + t) % P
    return (xy * minus - yz * u) % P, (v * u + plus * minus) % P, (yz * plus + xy * v) % P


def _affine(point: _Projective) -> Point:
    x, y, z = point
    # By Fermat: the extended Euclidean algorithm takes as long as the number wants.
    inverse = pow(z, P - 2, P)
    if not inverse:
        raise ArgumentError("two points are opposite: they have no sum on the plane")
    return x * inverse % P, y * inverse % P


def add(first: Point, second: Point) -> Point:
    """Return the sum of two points.

    Raises
    ------
    ArgumentError
        If they are opposite: their sum is the point at infinity.
    """
    return _affine(_sum((*first, 1), (*second, 1)))


def negative(point: Point) -> Point:
    """Return the opposite point."""
    return point[0], -point[1] % P


def encode(point: Point) -> bytes:
    """Return 64 bytes: x, then y, the highest byte first."""
    return point[0].to_bytes(32, "big") + point[1].to_bytes(32, "big")


def decode(data: bytes) -> Point:
    """Return the point of 64 bytes.

    Raises
    ------
    ArgumentError
        If there are more or fewer, or the point is not on the curve.
    """
    if len(data) != POINT_BYTES:
        raise ArgumentError(f"a point has {POINT_BYTES} bytes, got {len(data)}")
    x, y = (int.from_bytes(data[k : k + 32], "big") for k in (0, 32))
    if not (x < P and y < P and (y * y - (x * x + A) * x - B) % P == 0):
        raise ArgumentError("a point is not on the curve P-256")
    return x, y


def public_key(point: Point) -> ec.EllipticCurvePublicKey:
    """Return a point as a key of `cryptography`, which refuses points off the curve too."""
    return ec.EllipticCurvePublicNumbers(*point, CURVE).public_key()


def point_of(key: ec.EllipticCurvePrivateKey) -> Point:
    """Return the public point of a private key."""
    numbers = key.public_key().public_numbers()
    return numbers.x, numbers.y


def _chosen(first: int, second: int, bit: int) -> int:
    """Return `second` where the bit is 1, without a branch."""
    return first ^ (first ^ second) & -bit


def _expand(message: bytes, tag: bytes, count: int) -> bytes:
    """expand_message_xmd (RFC 9380, section 5.3.1), to `count` bytes."""
    blocks = -(-count // 32)
    suffix = tag + bytes([len(tag)])
    start = sha256(bytes(64) + message + count.to_bytes(2, "big") + b"\0" + suffix).digest()
    out = [sha256(start + b"\1" + suffix).digest()]
    for k in range(2, blocks + 1):
        mixed = bytes(a ^ b for a, b in zip(start, out[-1], strict=True))
        out.append(sha256(mixed + bytes([k]) + suffix).digest())
    return b"".join(out)[:count]


def _map(u: int) -> _Projective:
    """The simplified map of Shallue, van de Woestijne and Ulas (RFC 9380, appendix F.2)."""
    zu2 = _Z * u * u % P
    t = (zu2 * zu2 + zu2) % P
    over = B * (t + 1) % P
    under = A * _chosen(-t % P, _Z, int(t == 0)) % P
    # The equation's right side is top / bottom; root is its root if it has one.
    square, bottom = under * under % P, pow(under, 3, P)
    top = (over * (over * over + A * square) + B * bottom) % P
    both = top * bottom % P
    root = both * pow(both * bottom * bottom % P, (P - 3) // 4, P) % P
    none = int(root * root * bottom % P != top)
    over = _chosen(over, zu2 * over % P, none)
    # With Z u^2 x in place of x the right side is (Z u^2)^3 as large.
    root = _chosen(root, root * pow(_ROOT_OF_MINUS_Z * u, 3, P) % P, none)
    root = _chosen(root, -root % P, (u ^ root) & 1)
    return over, root * under % P, under


def hash_to_point(message: bytes, tag: bytes) -> Point:
    """Hash to the curve so that nobody knows the logarithm: hash_to_curve of RFC 9380.

    Parameters
    ----------
    message : bytes
    tag : bytes
        What the hash is for, at most 255 bytes: another tag is another hash.
    """
    if not 0 < len(tag) < 256:
        raise ArgumentError(f"tag must have 1 to 255 bytes, got {len(tag)}")
    data = _expand(message, tag, 2 * _ELEMENT_BYTES)
    halves = data[:_ELEMENT_BYTES], data[_ELEMENT_BYTES:]
    first, second = (_map(int.from_bytes(half, "big") % P) for half in halves)
    return _affine(_sum(first, second))
