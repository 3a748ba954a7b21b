"""What a pair finds wrong ends the session, since all of it is used within protocols.

`Runtime.protocol` ends a session at a PeerError; that both parties are told is in
`tests/parties/test_faults_alone.py`.
"""

import pytest

import mpc
from mpc.command.self_test import CHECKS
from mpc.two_party.pair import Pair


@pytest.mark.parametrize(
    "check", [c for c in CHECKS if not c.dealt], ids=lambda check: f"{check.name}, {check.what}"
)
def test_every_use_of_a_pair_is_within_a_protocol(check, monkeypatch):
    names = []
    with mpc.Session(provider=None) as s:
        monkeypatch.setattr(Pair, "_check_process", lambda self: names.append(s._ledger._protocol))
        found = check.run(*check.make(s))
        if isinstance(found, mpc.SharedArray):
            found.reveal()
    assert "-" not in names


def test_a_pair_is_used():
    with mpc.Session(provider=None) as s:
        x = s.share([1.5, -2.0], owner="alice")
        taken = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Pair, "_check_process", lambda self: taken.append(1))
            x.relu().reveal()
        assert taken


def test_a_peer_error_in_a_protocol_ends_the_session_and_other_errors_do_not():
    with mpc.Session(provider=None) as s:
        x = s.share([1.5], owner="alice")
        with pytest.raises(mpc.RangeError), s.protocol("mine"):
            raise mpc.RangeError("out of range")
        assert x.reveal().tolist() == [1.5]
        with pytest.raises(mpc.FrameError), s.protocol("mine"), s.protocol("inner"):
            raise mpc.FrameError("bob has sent something else")
        with pytest.raises(mpc.SessionError, match="the session is closed"):
            x.relu()
