"""Write ring.json and protocols.json: test vectors computed with Python's own integers alone.

Run ``python tests/vectors/generate.py`` after a change here; a test checks that the files are what
this program writes. It shares no code with the packages it tests. Words are 16 hexadecimal digits,
planes of bits are strings with bit 0 first.

ring.json: products, fixed point, bit planes, truth tables and streams.
protocols.json: truncation, sign and ReLU, each case with the shares of every party. For z shared
among n parties, a shift s and a window of L bits, lists run over parties first, then elements:

    c = z + 2^62 + r, opened; kappa = (1 - (c >> 63)) 2^(64 - s)
    y = (c >> s) - 2^(62 - s) - (r >> s) + kappa (r >> 63)
    u = ((c >> s) - 2^(62 - s)) mod 2^L, v = (r >> s) mod 2^L
    greater[j] = [v_j > u_j], equal[j] = [v_j = u_j], over digits j of the given widths, which make up the
    lower L - 1 bits, the lowest first; the highest of greater with the top bits of u and v added
    tables: of the digits, the widest first, in words and, one element after the other, a last lane
    msb: the sign bit of y; delta = msb ^ beta for a random bit beta
    relu = y - delta y - (1 - 2 delta) (y beta)
"""

import hashlib
import json
from fractions import Fraction
from pathlib import Path

WORD = 2**64
SEED = b"sotto vectors 1"


class Words:
    """Pseudo-random words: SHA-256 of the seed and a counter."""

    def __init__(self, name):
        self.name, self.counter, self.left = name.encode(), 0, []

    def word(self):
        if not self.left:
            counter = self.counter.to_bytes(8, "little")
            digest = hashlib.sha256(SEED + b"/" + self.name + b"/" + counter).digest()
            self.left = [int.from_bytes(digest[k : k + 8], "little") for k in range(0, 32, 8)]
            self.counter += 1
        return self.left.pop()

    def words(self, count):
        return [self.word() for _ in range(count)]

    def bits(self, count):
        return [self.word() >> 63 for _ in range(count)]

    def below(self, limit):
        return self.word() % limit


def signed(x):
    """Return the two's complement of a word."""
    return x - WORD if x >> 63 else x


def hexadecimal(x):
    """Write words, however deeply listed, as strings."""
    return [hexadecimal(item) for item in x] if isinstance(x, list) else f"{x:016x}"


def text(bits):
    return "".join(map(str, bits))


# Additive and XOR sharing.


def share(stream, secrets, parties):
    shares = [stream.words(len(secrets)) for _ in range(parties - 1)]
    last = [(x - sum(column)) % WORD for x, *column in zip(secrets, *shares, strict=True)]
    return [*shares, last]


def join(shares):
    return [sum(column) % WORD for column in zip(*shares, strict=True)]


def share_xor(stream, secrets, parties, draw):
    shares = [draw(stream, len(secrets)) for _ in range(parties - 1)]
    last = list(secrets)
    for row in shares:
        last = [x ^ y for x, y in zip(last, row, strict=True)]
    return [*shares, last]


def join_xor(shares):
    total = [0] * len(shares[0])
    for row in shares:
        total = [x ^ y for x, y in zip(total, row, strict=True)]
    return total


# Digits of the lower bits of a window.


def digits_of(x, widths):
    """Return the digits, the lowest first, and the bit above them."""
    found = []
    for width in widths:
        found.append(x % 2**width)
        x >>= width
    return found, x % 2


def tables_of(v, widths):
    """Return the truth table of [v_j > t] of each digit; the highest has the top bit added."""
    below, top = digits_of(v, widths)
    tables = [
        [int(digit > t) for t in range(2**width)]
        for digit, width in zip(below, widths, strict=True)
    ]
    return [*tables[:-1], [bit ^ top for bit in tables[-1]]]


def compare(u, v, widths):
    """Return greater and equal for each digit, by their definition."""
    (below, top), (other, other_top) = digits_of(u, widths), digits_of(v, widths)
    greater = [int(q > p) for p, q in zip(below, other, strict=True)]
    greater[-1] ^= top ^ other_top
    return greater, [int(q == p) for p, q in zip(below, other, strict=True)]


def read_share(tables, u, widths, first):
    """Read greater and equal off one party's share of the tables, an affine map."""
    greater, equal = [], []
    below, top = digits_of(u, widths)
    for j, digit in enumerate(below):
        here, highest = tables[j][digit], j == len(widths) - 1
        before = tables[j][digit - 1] if digit or highest else 0
        greater.append(here ^ int(first and highest and top))
        equal.append(here ^ before ^ int(first and not digit))
    return greater, equal


def in_order(widths):
    """Return the numbers of the digits, the widest first."""
    return sorted(range(len(widths)), key=lambda j: -widths[j])


def packed_tables(rows, widths):
    """Put the tables of all elements into words: whole words of each, then lanes of 16, 32 or 64 bits."""
    numbers = [
        sum(bit << k for k, bit in enumerate(bit for j in in_order(widths) for bit in tables[j]))
        for tables in rows
    ]
    length = sum(2**width for width in widths)
    whole, rest = length // 64, length % 64
    lane = next((width for width in (16, 32, 64) if width >= rest), 0) if rest else 0
    if lane == 64:
        whole, lane = whole + 1, 0
    out = [x >> 64 * word & WORD - 1 for word in range(whole) for x in numbers]
    if lane:
        each = 64 // lane
        out += [
            sum((x >> 64 * whole) << lane * k for k, x in enumerate(numbers[start : start + each]))
            for start in range(0, len(numbers), each)
        ]
    return out


def unpacked_tables(words, widths, size):
    """Undo :func:`packed_tables`."""
    length = sum(2**width for width in widths)
    whole, rest = length // 64, length % 64
    lane = next(width for width in (16, 32, 64) if width >= rest) if rest else 64
    found = []
    for e in range(size):
        x = sum(words[word * size + e] << 64 * word for word in range(whole))
        if rest:
            at = e * lane
            last = words[whole * size + at // 64] >> at % 64 & 2**lane - 1
            x |= last << 64 * whole
        tables = [None] * len(widths)
        for j in in_order(widths):
            tables[j] = [x >> k & 1 for k in range(2 ** widths[j])]
            x >>= 2 ** widths[j]
        found.append(tables)
    return found


def transposed(rows):
    return [list(column) for column in zip(*rows, strict=True)]


# The ring.


def dot(row, column):
    return sum(x * y for x, y in zip(row, column, strict=True)) % WORD


def matmul_cases():
    shapes = [(1, 1, 1), (1, 5, 3), (3, 2, 1), (7, 9, 17), (8, 8, 8), (9, 7, 8), (16, 3, 9)]
    for m, k, n in shapes:
        stream = Words(f"matmul {m} {k} {n}")
        a = [stream.words(k) for _ in range(m)]
        b = [stream.words(n) for _ in range(k)]
        product = [[dot(row, column) for column in transposed(b)] for row in a]
        yield {"a": hexadecimal(a), "b": hexadecimal(b), "product": hexadecimal(product)}


def encode_cases():
    values = [0.0, -0.0, 1.0, -1.0, 0.1, -0.1, 1 / 3, 1e-300, -5e-324]
    for frac_bits, int_bits in [(16, 15), (1, 1), (8, 7), (20, 10), (30, 32), (40, 3)]:
        unit, limit = 2.0**-frac_bits, 2.0**int_bits
        stream = Words(f"encode {frac_bits} {int_bits}")
        halves = [sign * (k + 0.5) * unit for k in range(4) for sign in (1, -1)]
        edges = [limit - unit, limit - unit / 2, limit - unit / 4, limit, 2 * limit, 1e300]
        some = [signed(x) / 2.0**63 * limit for x in stream.words(8)]
        for x in [*values, *halves, *edges, *(-x for x in edges), *some]:
            # Python rounds fractions half to even, exactly.
            units = round(Fraction(x) * 2**frac_bits)
            fits = abs(units) < 2 ** (frac_bits + int_bits)
            yield {
                "frac_bits": frac_bits,
                "int_bits": int_bits,
                "value": x.hex(),
                "word": hexadecimal(units % WORD) if fits else None,
            }


def decode_cases():
    stream = Words("decode")
    words = [0, 1, WORD - 1, 2**63, 2**63 - 1, 2**31, WORD - 2**31, *stream.words(8)]
    for frac_bits in (0, 1, 16, 32, 63):
        for word in words:
            value = float(signed(word)) / 2.0**frac_bits
            yield {"frac_bits": frac_bits, "word": hexadecimal(word), "value": value.hex()}


def bit_cases():
    for count in (0, 1, 2, 63, 64, 65, 127, 128, 200):
        bits = Words(f"bits {count}").bits(count)
        words = [
            sum(bit << k for k, bit in enumerate(bits[start : start + 64]))
            for start in range(0, count, 64)
        ]
        yield {"bits": text(bits), "words": hexadecimal(words)}


def polynomial_cases():
    """Sums of products of planes; a factor of -1 is a plane of ones, ~k is plane k negated."""
    for planes, secrets, outputs, terms, words in [(5, 3, 2, 9, 1), (8, 4, 3, 20, 3)]:
        stream = Words(f"polynomials {planes} {terms}")
        p = [stream.words(words) for _ in range(planes)]
        s = [stream.words(words) for _ in range(secrets)]
        before = [stream.words(words) for _ in range(outputs)]
        after = [list(row) for row in before]
        listed = []
        for _ in range(terms):
            output, factor = stream.below(outputs), stream.below(secrets + 1) - 1
            literals = [stream.below(planes) for _ in range(stream.below(4))]
            literals = [~k if stream.below(3) == 0 else k for k in literals]
            listed.append({"output": output, "factor": factor, "literals": literals})
            for w in range(words):
                product = WORD - 1 if factor < 0 else s[factor][w]
                for k in literals:
                    product &= WORD - 1 - p[~k][w] if k < 0 else p[k][w]
                after[output][w] ^= product
        yield {
            "planes": hexadecimal(p),
            "secrets": hexadecimal(s),
            "terms": listed,
            "before": hexadecimal(before),
            "after": hexadecimal(after),
        }


def stream_cases():
    """Return the counter mode example of NIST SP 800-38A, section F.5.1: AES-128.

    The initial counter block is f0f1...ff; a keystream block is the ciphertext plus the plaintext.
    """
    plain = (
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    )
    cipher = (
        "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff"
        "5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee"
    )
    pairs = zip(bytes.fromhex(plain), bytes.fromhex(cipher), strict=True)
    stream = bytes(x ^ y for x, y in pairs)
    words = [int.from_bytes(stream[k : k + 8], "little") for k in range(0, len(stream), 8)]
    yield {
        "key": "2b7e151628aed2a6abf7158809cf4f3c",
        "id": "f0f1f2f3f4f5f6f7",
        "block": "f8f9fafbfcfdfeff",
        "words": hexadecimal(words),
    }


# The protocols.


def secrets_for(shift, window, stream):
    """Return values of z whose truncation fits in the window, edges first."""
    largest = min(2**62 - 1, (2 ** (window - 1) - 1) << shift)
    unit = 2**shift
    edges = [0, 1, -1, unit, -unit, unit - 1, 1 - unit, unit // 2, largest, -largest]
    some = [stream.below(2 * largest + 1) - largest for _ in range(4)]
    small = [stream.below(8 * unit + 1) - 4 * unit for _ in range(2)]
    return [z for z in [*edges, *some, *small] if abs(z) <= largest]


def protocol_case(parties, shift, widths):
    window = sum(widths) + 1
    stream = Words(f"protocol {parties} {shift} {window}")
    z = secrets_for(shift, window, stream)
    size = len(z)
    edges = [0, 2**63, WORD - 1, 2**63 - 1, 2**62]
    r = [*edges, *stream.words(size)][:size]
    # Masks that bring c to the ends of its range, where the carry is decided.
    r[-2], r[-1] = (-z[-2] - 2**62) % WORD, (2**63 - 1 - z[-1] - 2**62) % WORD

    z_shares = share(stream, [x % WORD for x in z], parties)
    r_shares = share(stream, r, parties)
    messages = [
        [(x + mask + (2**62 if i == 0 else 0)) % WORD for x, mask in zip(*pair, strict=True)]
        for i, pair in enumerate(zip(z_shares, r_shares, strict=True))
    ]
    c = join(messages)
    kappa = [(1 - (x >> 63)) * 2 ** (64 - shift) % WORD for x in c]

    # Truncation.
    high, top = [x >> shift for x in r], [x >> 63 for x in r]
    high_shares, top_shares = share(stream, high, parties), share(stream, top, parties)
    public = [((x >> shift) - 2 ** (62 - shift)) % WORD for x in c]
    y_shares = [
        [
            ((a if i == 0 else 0) - h + k * t) % WORD
            for a, h, k, t in zip(public, high_shares[i], kappa, top_shares[i], strict=True)
        ]
        for i in range(parties)
    ]
    y = join(y_shares)
    for before, after in zip(z, y, strict=True):
        assert signed(after) in (before >> shift, -(-before >> shift)), (before, after)

    # The sign.
    u = [x % 2**window for x in public]
    v = [x % 2**window for x in high]
    words = packed_tables([tables_of(x, widths) for x in v], widths)
    table_shares = share_xor(stream, words, parties, lambda some, length: some.words(length))
    lines = [unpacked_tables(row, widths, size) for row in table_shares]
    greater, equal, msb = [], [], []
    for e in range(size):
        g, p = compare(u[e], v[e], widths)
        shares = [read_share(lines[i][e], u[e], widths, i == 0) for i in range(parties)]
        assert (g, p) == tuple(join_xor([pair[k] for pair in shares]) for k in (0, 1))
        bit = 0
        for j in range(len(widths)):
            bit = g[j] ^ p[j] & bit
        assert bit == y[e] >> 63, (z[e], r[e])
        greater.append(g)
        equal.append(p)
        msb.append(bit)

    # ReLU.
    beta = stream.bits(size)
    beta_bits = share_xor(stream, beta, parties, lambda some, length: some.bits(length))
    beta_shares = share(stream, beta, parties)
    high_beta = share(stream, [h * b for h, b in zip(high, beta, strict=True)], parties)
    top_beta = share(stream, [t * b for t, b in zip(top, beta, strict=True)], parties)
    delta = [bit ^ b for bit, b in zip(msb, beta, strict=True)]
    relu_shares = [
        [
            (y_i - d * y_i - (1 - 2 * d) * (a * b - h + k * t)) % WORD
            for y_i, d, a, b, h, k, t in zip(
                y_shares[i], delta, public, beta_shares[i], high_beta[i], kappa, top_beta[i],
                strict=True,
            )
        ]
        for i in range(parties)
    ]  # fmt: skip
    relu = join(relu_shares)
    assert [signed(x) for x in relu] == [max(0, signed(x)) for x in y]

    return {
        "parties": parties,
        "shift": shift,
        "window": window,
        "widths": list(widths),
        **{
            name: hexadecimal(value)
            for name, value in {
                "z": [x % WORD for x in z],
                "z_shares": z_shares,
                "r": r,
                "r_shares": r_shares,
                "c": c,
                "kappa": kappa,
                "high_shares": high_shares,
                "top_shares": top_shares,
                "y_shares": y_shares,
                "y": y,
                "u": u,
                "v": v,
                "tables": words,
                "table_shares": table_shares,
                "beta_shares": beta_shares,
                "high_beta_shares": high_beta,
                "top_beta_shares": top_beta,
                "relu_shares": relu_shares,
                "relu": relu,
            }.items()
        },
        "greater": [text(plane) for plane in transposed(greater)],
        "equal": [text(plane) for plane in transposed(equal)],
        "msb": text(msb),
        "beta": text(beta),
        "beta_bit_shares": [text(row) for row in beta_bits],
        "delta": text(delta),
    }


def protocol_cases():
    for parties in (2, 3, 5):
        yield protocol_case(parties, 16, (6, 5, 5, 5, 5, 5))
    for shift, widths in [
        (0, (3,)), (0, (5,) * 7), (0, (7,) * 9), (1, (7, 7, 7, 7, 7, 7, 7, 7, 6)), (13, (8, 7, 5, 9, 1)),
        (14, (2, 6, 3, 6, 6)), (16, (6, 6, 6, 6, 6, 6, 6, 5)), (17, (4, 4, 4, 4, 3)), (40, (4, 3)),
    ]:  # fmt: skip
        yield protocol_case(2 if shift else 3, shift, widths)
    yield protocol_case(5, 15, (6, 6, 6, 6, 6, 6, 6, 6))


def files():
    """Return the text of each file."""
    contents = {
        "ring.json": {
            "matmul": list(matmul_cases()),
            "encode": list(encode_cases()),
            "decode": list(decode_cases()),
            "bits": list(bit_cases()),
            "polynomials": list(polynomial_cases()),
            "streams": list(stream_cases()),
        },
        "protocols.json": {"cases": list(protocol_cases())},
    }
    return {name: written(content) for name, content in contents.items()}


def written(content):
    """Write JSON with a line for each case, so that a difference can be read."""
    sections = []
    for name, cases in content.items():
        lines = ",\n".join(json.dumps(case) for case in cases)
        sections.append(f"{json.dumps(name)}: [\n{lines}\n]")
    return "{" + ",\n".join(sections) + "}\n"


if __name__ == "__main__":
    for name, content in files().items():
        Path(__file__).with_name(name).write_text(content, encoding="ascii")
