"""The vectors of tests/vectors, share by share, over the local steps of the protocols."""

import json
from pathlib import Path

import numpy as np
import pytest

from mpc.protocols import relu, truncation
from ring import pack_bits

FILE = Path(__file__).parents[1] / "vectors" / "protocols.json"
CASES = json.loads(FILE.read_text())["cases"]


def words(listed):
    """Read hexadecimal words, however deeply listed."""
    texts = np.array(listed, dtype=object)
    return np.array([int(x, 16) for x in texts.flat], np.uint64).reshape(texts.shape)


def number(case):
    return f"{case['parties']} parties, shift {case['shift']}, window {case['window']}"


@pytest.mark.parametrize("case", [case for case in CASES if case["shift"]], ids=number)
def test_truncation(case):
    """A shift of zero is no truncation."""
    c, expected = words(case["c"]), words(case["y_shares"])
    pairs = np.stack([words(case["high_shares"]), words(case["top_shares"])], axis=1)
    for i in range(case["parties"]):
        out = np.empty_like(c)
        truncation._finish(0, c.size, c, pairs[i], case["shift"], i == 0, out)
        assert np.array_equal(out, expected[i])


@pytest.mark.parametrize("case", CASES, ids=number)
def test_relu(case):
    c, expected = words(case["c"]), words(case["relu_shares"])
    delta = pack_bits([int(bit) for bit in case["delta"]])
    names = ["beta", "high_beta", "top_beta", "high", "top"]
    rings = np.stack([words(case[f"{name}_shares"]) for name in names], axis=1)
    for i in range(case["parties"]):
        out = np.empty_like(c)
        # With a shift of zero the mask itself is [r >> s].
        mask = rings[i, 3].copy()
        parts = rings[i] if case["shift"] else rings[i, :2].copy()
        relu._finish(0, c.size, c, delta, mask, parts, case["shift"], i == 0, out)
        assert np.array_equal(out, expected[i])
