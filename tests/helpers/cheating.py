"""A party that serves and deviates: ``python -m tests.helpers.cheating CHEAT serve ...``.

From a request on, so that the session begins well.
"""

import sys

import numpy as np

import nn.command
from mpc.core.frames import Kind
from mpc.core.runtime import Runtime
from mpc.transport.connection import Connection
from mpc.transport.watched import RemoteWatched
from nn.serving.agreement import Book
from nn.serving.client_calls import Calls
from nn.serving.service import PartyService
from nn.serving.turns import Turns


def around(owner, name, change):
    """Replace a method by ``change(original, self, *args, **kwargs)``."""
    original = getattr(owner, name)
    setattr(owner, name, lambda *args, **kwargs: change(original, *args, **kwargs))


def answer():
    """Send the client another answer."""

    def post(original, self, kind, arrays, *args, **kwargs):
        if kind is Kind.ANSWER:
            arrays = [each + np.uint64(1) for each in arrays]
        return original(self, kind, arrays, *args, **kwargs)

    around(Connection, "post", post)


def opening():
    """Change the top bit of one word in an opening of the evaluation."""
    left = []

    def evaluate(original, *args):
        left.append(7)
        return original(*args)

    def exchange(original, self, kind, sent, wanted):
        if kind is Kind.OPEN and sent and left:
            left[0] -= 1
            if left[0] == 0:
                sent = {q: [np.array(each) for each in arrays] for q, arrays in sent.items()}
                next(iter(sent.values()))[0].reshape(-1)[:1] ^= np.uint64(1 << 63)
        return original(self, kind, sent, wanted)

    around(Turns, "_evaluate", evaluate)
    around(RemoteWatched, "_exchange", exchange)


def plan():
    """As the leader, tell the others different turns, once there is a request."""
    begun = []

    def choose(original, *args):
        found = original(*args)
        begun.extend(found[0])
        return found

    def give(original, self, owner, words):
        post = self.transport._exchange
        if begun and owner == 2:

            def different(kind, sent, wanted):
                sent = {q: [np.array(each) for each in arrays] for q, arrays in sent.items()}
                sent[0][0][0] ^= np.uint64(2)  # that it is to agree on models again
                return post(kind, sent, wanted)

            self.transport._exchange = different
        try:
            return original(self, owner, words)
        finally:
            self.transport._exchange = post

    around(Book, "choose", choose)
    around(Runtime, "give", give)


def digest():
    """Tell clients another digest of the model."""

    def told(original, self):
        return {name: bytes(32) for name in original.fget(self)}

    original = PartyService.digests
    PartyService.digests = property(lambda self: told(original, self))


def shares():
    """Compute with other shares of clients' rows than those that were sent."""

    def predict(original, self, connection, *call):
        yield from original(self, connection, *call)

    def add(original, self, request, limits):
        request.shares[0, 0, 0] += np.uint64(1 << 40)
        return original(self, request, limits)

    around(Calls, "predict", predict)
    around(Book, "add", add)


if __name__ == "__main__":
    {each.__name__: each for each in (answer, opening, plan, digest, shares)}[sys.argv[1]]()
    sys.exit(nn.command.main(sys.argv[2:]))
