"""What a session without a provider refuses, by name."""

import importlib.util
import sys
from pathlib import Path

import pytest

import mpc
from mpc.protocols.masking import mask_ahead, mask_together
from mpc.protocols.truncation import TruncationPair

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_correlations_that_nobody_deals():
    with mpc.Session(provider=None) as s:
        x = s.share([1.5], owner="alice")
        with pytest.raises(
            mpc.SessionError, match="masks need a provider, and the session has none"
        ):
            mask_together(x)
        mask_ahead(x)
        assert x.mask is None
        with pytest.raises(
            mpc.SessionError, match=r"TruncationPair .* a session without a provider"
        ):
            s.correlated(TruncationPair(1, 16, None))
        # And goes on.
        assert (x * 2).reveal().tolist() == [3.0]


def test_a_protocol_of_ones_own_with_one_way():
    spec = importlib.util.spec_from_file_location("own_protocol", EXAMPLES / "own_protocol.py")
    example = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = example
    try:
        spec.loader.exec_module(example)
        with mpc.Session(provider=None) as s:
            x = s.share([2, -3], owner="alice", dtype=int, bound=10)
            with pytest.raises(mpc.SessionError, match="masks need a provider"):
                example.cube(x)
            assert x.reveal().tolist() == [2, -3]
    finally:
        del sys.modules[spec.name]


def test_more_than_two_parties():
    with pytest.raises(mpc.PartyError, match="has two parties, got 3: alice, bob, carol"):
        mpc.Session(("alice", "bob", "carol"), provider=None)
