"""The vectors of tests/vectors, which were computed without the library, over its kernels."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from ring import Stream, decode, encode, matmul, pack_bits, unpack_bits
from ring.bits import add_polynomials
from ring.digits import add_tables, digits_of, read_tables
from ring.errors import RangeError

FOLDER = Path(__file__).parents[1] / "vectors"
RING = json.loads((FOLDER / "ring.json").read_text())
PROTOCOLS = json.loads((FOLDER / "protocols.json").read_text())["cases"]


def words(listed):
    """Read hexadecimal words, however deeply listed."""
    texts = np.array(listed, dtype=object)
    return np.array([int(x, 16) for x in texts.flat], np.uint64).reshape(texts.shape)


def bits(text):
    return np.array([int(bit) for bit in text], np.uint8)


def number(case):
    return f"{case['parties']} parties, shift {case['shift']}, window {case['window']}"


def test_files_are_what_the_generator_writes():
    spec = importlib.util.spec_from_file_location("generate_vectors", FOLDER / "generate.py")
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    # tests/mpc/test_opened_words.py records the other file.
    there = {path.name for path in FOLDER.glob("*.json")}
    assert set(generator.files()) == there - {"opened_words.json"}
    for name, content in generator.files().items():
        assert (FOLDER / name).read_text(encoding="ascii") == content


def test_every_kind_has_cases():
    assert {name: len(cases) > 0 for name, cases in RING.items()} == dict.fromkeys(
        ["matmul", "encode", "decode", "bits", "polynomials", "streams"], True
    )
    assert {case["parties"] for case in PROTOCOLS} == {2, 3, 5}


def test_matmul():
    for case in RING["matmul"]:
        assert np.array_equal(matmul(words(case["a"]), words(case["b"])), words(case["product"]))


def test_encode():
    for case in RING["encode"]:
        value, form = float.fromhex(case["value"]), (case["frac_bits"], case["int_bits"])
        if case["word"] is None:
            with pytest.raises(RangeError):
                encode(value, form[0], int_bits=form[1])
        else:
            assert int(encode(value, form[0], int_bits=form[1])) == int(case["word"], 16), case


def test_decode():
    for case in RING["decode"]:
        decoded = decode(words([case["word"]]), case["frac_bits"])
        assert decoded.tolist() == [float.fromhex(case["value"])], case


def test_bits():
    for case in RING["bits"]:
        plane, expected = bits(case["bits"]), words(case["words"])
        assert np.array_equal(pack_bits(plane), expected)
        assert np.array_equal(unpack_bits(expected, plane.size), plane)


@pytest.mark.parametrize("split", [None, 0, 1, 3])
def test_polynomials(split):
    """The secrets in one array, or the later ones in another."""
    for case in RING["polynomials"]:
        terms, secrets = case["terms"], words(case["secrets"])
        places = np.cumsum([0, *(len(term["literals"]) for term in terms)]).astype(np.int64)
        out = words(case["before"])
        add_polynomials(
            words(case["planes"]),
            secrets[:split],
            np.array([term["output"] for term in terms], np.int64),
            np.array([term["factor"] for term in terms], np.int64),
            places,
            np.array([k for term in terms for k in term["literals"]], np.int64),
            out,
            None if split is None else secrets[split:],
        )
        assert np.array_equal(out, words(case["after"]))


def test_streams():
    for case in RING["streams"]:
        expected = words(case["words"])
        stream, id = Stream(bytes.fromhex(case["key"])), int(case["id"], 16)
        for skip in range(expected.size):
            out = np.empty(expected.size - skip, np.uint64)
            stream.fill(out, id, 2 * int(case["block"], 16) + skip)
            assert np.array_equal(out, expected[skip:])


@pytest.mark.parametrize("case", PROTOCOLS, ids=number)
class TestProtocols:
    def test_shares_add_up(self, case):
        for name in ("z", "r", "y", "relu"):
            assert np.array_equal(words(case[f"{name}_shares"]).sum(axis=0), words(case[name]))

    def test_opening_and_truncation(self, case):
        shift = np.uint64(case["shift"])
        c = words(case["z"]) + np.uint64(2**62) + words(case["r"])
        assert np.array_equal(c, words(case["c"]))
        # NumPy's signed shift is the floor that the truncation may exceed by one.
        floor = words(case["z"]).view(np.int64) >> np.int64(case["shift"])
        above = words(case["y"]).view(np.int64) - floor
        assert set(above.tolist()) <= ({0, 1} if shift else {0})

    def test_tables(self, case):
        r, expected = words(case["r"]), words(case["tables"])
        tables = np.zeros_like(expected)
        add_tables(r, case["shift"], digits_of(tuple(case["widths"]), True), tables)
        assert np.array_equal(tables, expected)
        shares = words(case["table_shares"])
        assert np.array_equal(np.bitwise_xor.reduce(shares, axis=0), expected)

    def test_leaves_and_prefix(self, case):
        shift, widths, c = case["shift"], case["widths"], words(case["c"])
        count, digits = len(widths), digits_of(tuple(widths), True)
        planes = np.zeros((case["parties"], 2, count, 1), np.uint64)
        for i, tables in enumerate(words(case["table_shares"])):
            read_tables(c, shift, digits, tables, i == 0, *planes[i])
        whole = np.bitwise_xor.reduce(planes, axis=0)
        for plane, name in zip(whole, ("greater", "equal"), strict=True):
            assert unpack_bits(plane, c.size).tolist() == [
                bits(text).tolist() for text in case[name]
            ]
        # msb is the sum of every g times the p of all digits above.
        literals = [[j, *range(count + j + 1, 2 * count)] for j in range(count)]
        out = np.zeros((1, 1), np.uint64)
        add_polynomials(
            whole.reshape(2 * count, 1),
            np.zeros((1, 1), np.uint64),
            np.zeros(count, np.int64),
            np.full(count, -1),
            np.cumsum([0, *map(len, literals)]),
            np.concatenate(literals),
            out,
        )
        msb = unpack_bits(out[0], c.size)
        assert np.array_equal(msb, bits(case["msb"]))
        assert np.array_equal(msb, words(case["y"]) >> np.uint64(63))
        assert np.array_equal(msb ^ bits(case["delta"]), bits(case["beta"]))
