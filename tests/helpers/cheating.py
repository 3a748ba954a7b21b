"""A party that serves and deviates when it is told to.

``python -m tests.helpers.cheating FILE serve ...``: while FILE holds "NAME CHEAT", party NAME does that.
"""

import sys
from pathlib import Path

import numpy as np

import nn.command
from mpc.core.frames import Kind
from mpc.core.runtime import Runtime
from mpc.transport.connection import Connection
from mpc.transport.watched import RemoteWatched
from nn.serving.agreement import Book
from nn.serving.service import PartyService
from nn.serving.turns import Turns

_, _FILE, *_ARGUMENTS = sys.argv
_ME = _ARGUMENTS[_ARGUMENTS.index("--me") + 1] if "--me" in _ARGUMENTS else ""
CHEATS = ("answer", "digest", "opening", "plan", "shares")


def told(cheat):
    path = Path(_FILE)
    return path.exists() and path.read_text() == f"{_ME} {cheat}"


def around(owner, name, change):
    """Replace a method by ``change(original, self, *args)``."""
    original = getattr(owner, name)
    setattr(owner, name, lambda *args, **kwargs: change(original, *args, **kwargs))


def changed(sent, place, bit):
    """Return messages with one bit of one word changed, to all who get them alike."""
    copies = {q: [np.array(each) for each in arrays] for q, arrays in sent.items()}
    copies[place][0].reshape(-1)[:1] ^= np.uint64(bit)
    return copies


def post(original, self, kind, arrays, *args, **kwargs):
    """Send clients another answer."""
    if kind is Kind.ANSWER and told("answer"):
        arrays = [each + np.uint64(1) for each in arrays]
    return original(self, kind, arrays, *args, **kwargs)


left: list[int] = []


def evaluate(original, self, requests):
    left[:] = [7] if told("opening") else []
    return original(self, requests)


def exchange(original, self, kind, sent, wanted):
    """Change the top bit of one word in an opening of an evaluation."""
    if kind is Kind.OPEN and sent and left:
        left[0] -= 1
        if left[0] == 0:
            sent = changed(sent, next(iter(sent)), 1 << 63)
    return original(self, kind, sent, wanted)


def give(original, self, owner, words):
    """As the leader, tell one of the others that all are to agree on models again."""
    deliver = self.transport._exchange
    if owner == self.transport.me and told("plan"):
        self.transport._exchange = lambda kind, sent, wanted: deliver(
            kind, changed(sent, 0, 2), wanted
        )
    try:
        return original(self, owner, words)
    finally:
        self.transport._exchange = deliver


def add(original, self, request, limits):
    """Compute with other shares of a client's rows than the client has sent."""
    if told("shares"):
        request.shares[0, 0, 0] += np.uint64(1 << 40)
    return original(self, request, limits)


if __name__ == "__main__":
    around(Connection, "post", post)
    around(Turns, "_evaluate", evaluate)
    around(RemoteWatched, "_exchange", exchange)
    around(Runtime, "give", give)
    around(Book, "add", add)
    digests = PartyService.digests.fget
    PartyService.digests = property(
        lambda self: {
            name: bytes(32) if told("digest") else own for name, own in digests(self).items()
        }
    )
    sys.exit(nn.command.main(_ARGUMENTS))
