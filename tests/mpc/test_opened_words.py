"""What is sent, opened and dealt under fixed keys stays what it was.

A change that is meant to change none of it leaves the recorded digests as they are. One that does
records them anew with ``SOTTO_RECORD=1``, and says in its message which words changed and why.
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

import mpc
from mpc.command.self_test import CHECKS
from mpc.protocols import limits
from mpc.transport.local import LocalTransport

FILE = Path(__file__).parents[1] / "vectors" / "opened_words.json"
NAMES = ("alice", "bob", "carol", "dave", "erin")
RECORDED = json.loads(FILE.read_text()) if FILE.exists() else {}


def digest(check, parties, monkeypatch):
    """Run a protocol with keys that count from zero; return a hash of all words that moved."""
    heard = hashlib.blake2b(digest_size=16)
    keys = iter(range(1 << 16))
    for module in (mpc.core.keys, limits):
        monkeypatch.setattr(module, "fresh_key", lambda: next(keys).to_bytes(16, "big"))

    def hear(*arrays):
        for words in arrays:
            heard.update(repr(words.shape).encode())
            heard.update(np.ascontiguousarray(words).astype("<u8").tobytes())

    deliver, deliver_to = LocalTransport.open, LocalTransport.open_to

    def listen(transport, messages):
        opened = deliver(transport, messages)
        for (words, opening), total in zip(messages, opened, strict=True):
            heard.update(f"open {opening}".encode())
            hear(words, total)
        return opened

    def listen_to_one(transport, party, shares, opening):
        heard.update(f"open to {party}".encode())
        hear(shares)
        return deliver_to(transport, party, shares, opening)

    monkeypatch.setattr(LocalTransport, "open", listen)
    monkeypatch.setattr(LocalTransport, "open_to", listen_to_one)
    with mpc.Session(NAMES[:parties]) as session:
        correlated = session.correlated

        def listen_to_correlated(correlation):
            shares = correlated(correlation)
            heard.update(f"{type(correlation).__name__} {shares.id}".encode())
            parts = (*shares.masks, *shares.corrected)
            hear(np.concatenate([part.reshape(parties, -1) for part in parts], axis=1))
            return shares

        session.correlated = listen_to_correlated
        found = check.run(*check.make(session))
        if isinstance(found, mpc.SharedArray):
            hear(found.shares)
            hear(np.asarray(found.reveal(to="bob")).view(np.uint64))
            found.reveal()
        heard.update(str(session.cost().total).encode())
    return heard.hexdigest()


@pytest.mark.parametrize("parties", [2, 3], ids=["two", "three"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: f"{check.name}, {check.what}")
def test_words_are_those_recorded(check, parties, monkeypatch):
    name = f"{check.name}, {check.what}, {parties} parties"
    found = digest(check, parties, monkeypatch)
    if os.environ.get("SOTTO_RECORD"):
        RECORDED[name] = found
        FILE.write_text(json.dumps(RECORDED, indent=1, sort_keys=True) + "\n")
    assert RECORDED[name] == found
