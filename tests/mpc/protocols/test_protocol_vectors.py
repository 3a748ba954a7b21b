"""The vectors of tests/vectors, share by share, over the local steps of the protocols."""

import json
from pathlib import Path

import numpy as np
import pytest

from mpc.protocols import relu, truncation
from ring import pack_bits
from ring.bits import fold_of

FILE = Path(__file__).parents[2] / "vectors" / "protocols.json"
CASES = json.loads(FILE.read_text())["cases"]


def words(listed):
    """Read hexadecimal words, however deeply listed."""
    texts = np.array(listed, dtype=object)
    return np.array([int(x, 16) for x in texts.flat], np.uint64).reshape(texts.shape)


def packed(numbers, fold):
    """Put the lowest bits of numbers into lanes."""
    width = 64 >> fold
    out = [0] * -(-len(numbers) // (1 << fold))
    for i, n in enumerate(numbers.tolist()):
        out[i >> fold] |= n % (1 << width) << (i % (1 << fold) * width)
    return np.array(out, np.uint64)


def number(case):
    return f"{case['parties']} parties, shift {case['shift']}, window {case['window']}"


@pytest.mark.parametrize("case", [case for case in CASES if case["shift"]], ids=number)
def test_truncation(case):
    """A shift of zero is no truncation."""
    c, expected, shift = words(case["c"]), words(case["y_shares"]), case["shift"]
    highs, tops = words(case["high_shares"]), words(case["top_shares"])
    for i in range(case["parties"]):
        out = np.empty_like(c)
        fold = fold_of(shift)
        truncation._finish(0, c.size, c, highs[i], packed(tops[i], fold), shift, fold, i == 0, out)
        assert np.array_equal(out, expected[i])


@pytest.mark.parametrize("case", CASES, ids=number)
def test_relu(case):
    c, expected = words(case["c"]), words(case["relu_shares"])
    delta = pack_bits([int(bit) for bit in case["delta"]])
    names = ["beta", "high_beta", "high"]
    rings = np.stack([words(case[f"{name}_shares"]) for name in names], axis=1)
    tops = [words(case[f"{name}_shares"]) for name in ("top", "top_beta")]
    shift, fold = case["shift"], fold_of(case["shift"])
    for i in range(case["parties"]):
        out = np.empty_like(c)
        # With a shift of zero the mask itself is [r >> s].
        mask = rings[i, 2].copy()
        parts = rings[i] if shift else rings[i, :2].copy()
        lanes = np.stack([packed(top[i], fold) for top in tops])
        relu._finish(0, c.size, c, delta, mask, parts, lanes, shift, fold, i == 0, out)
        assert np.array_equal(out, expected[i])
