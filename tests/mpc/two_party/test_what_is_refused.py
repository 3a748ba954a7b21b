"""What a session without a provider refuses, by name."""

import pytest

import mpc
from mpc.protocols.masking import mask_together
from mpc.protocols.truncation import TruncationPair


def test_correlations_that_nobody_deals():
    with mpc.Session(provider=None) as s:
        x = s.share([1.5], owner="alice")
        assert mask_together(x) == []
        with pytest.raises(
            mpc.SessionError, match=r"TruncationPair .* a session without a provider"
        ):
            s.correlated(TruncationPair(1, 16, None))
        # And goes on.
        assert (x * 2).reveal().tolist() == [3.0]


def test_more_than_two_parties():
    with pytest.raises(mpc.PartyError, match="has two parties, got 3: alice, bob, carol"):
        mpc.Session(("alice", "bob", "carol"), provider=None)
