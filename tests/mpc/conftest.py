"""Sessions, edge values and probes that the tests of mpc share."""

import os
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

import mpc

NAMES = ("alice", "bob", "carol", "dave", "erin")
UNIT = 2.0**-16


# How many parties, and who deals; None: two parties without a provider.
KINDS = [(2, "crypto"), (3, "crypto"), (5, "crypto"), (2, None)]
KIND_IDS = ["two", "three", "five", "alone"]


# Without a provider a body runs with so many sets of its parameters, unless all are asked for.
MOST_ALONE = 1


def pytest_collection_modifyitems(items):
    """Leave out, where there is no provider, what says what it deals, and most parameters."""
    every = "SOTTO_EVERY_PARAMETER" in os.environ
    bodies, kept = {}, []
    for item in items:
        call = getattr(item, "callspec", None)
        if call is None or "alone" not in call._idlist:
            kept.append(item)
            continue
        if item.get_closest_marker("dealt") is None and (
            every or item.get_closest_marker("dear") is None
        ):
            bodies.setdefault((item.path, item.originalname), []).append(item)
    chosen = {
        item
        for group in bodies.values()
        for item in (group if every else group[:: max(1, -(-len(group) // MOST_ALONE))])
    }
    known = set(kept) | chosen
    items[:] = [item for item in items if item in known]


@pytest.fixture(scope="module", params=KINDS, ids=KIND_IDS)
def session(request):
    """A session of two, three or five parties, or of two without a provider."""
    parties, provider = request.param
    with mpc.Session(NAMES[:parties], provider=provider) as s:
        yield s


@pytest.fixture(params=KINDS, ids=KIND_IDS)
def fresh_session(request):
    """A session of its own for one test, with ids and costs at zero."""
    parties, provider = request.param
    with mpc.Session(NAMES[:parties], provider=provider) as s:
        yield s


@pytest.fixture(params=["crypto", None], ids=["two", "alone"])
def pair(request):
    """A session of two parties for one test, with a provider and without."""
    with mpc.Session(provider=request.param) as s:
        yield s


def edge_integers(bits):
    """Zero, units, powers of two and their neighbours, up to the largest of `bits` bits."""
    near = {0, 2**bits - 1, 2**bits - 2}
    for k in range(bits):
        near |= {2**k - 1, 2**k, min(2**k + 1, 2**bits - 1)}
    return np.array(sorted(near | {-n for n in near}), np.int64)


@pytest.fixture(scope="session")
def edges():
    """Edge values of the default format, exactly representable."""
    return edge_integers(31) * UNIT


@pytest.fixture(scope="session")
def wide_edges():
    """Edge values of what a truncation takes, as integers below 2^62."""
    return edge_integers(62)


# What does not fit one share is cut in two; below 2^62 both parts then fit.
_HIGH = 3 * 2**30


@pytest.fixture(scope="session")
def share_integers():
    """Share integers below 2^62 in magnitude as encoded values with any fractional bits."""

    def share(session, values, frac_bits=0, bound=2**62 - 1):
        values = np.asarray(values, np.int64)
        high = (values + _HIGH // 2) // _HIGH
        x = session.share(high, owner="alice") * _HIGH
        x = x + session.share(values - high * _HIGH, owner="bob")
        return x.derive(x.shares, frac_bits=frac_bits, bound=bound)

    return share


@pytest.fixture(scope="session")
def integers():
    """Reveal the encoded values of an array as they are, without truncation."""

    def reveal(x):
        return x.derive(x.shares, frac_bits=0, bound=x.bound).reveal()

    return reveal


@pytest.fixture(scope="session")
def spent():
    """Run a program and return what it has cost."""

    def run(session, program):
        before = session.cost()
        program()
        return (session.cost() - before).total

    return run


class _Listened:
    """A stream that tells what is read from it."""

    def __init__(self, stream, tell):
        self.stream, self.tell = stream, tell

    def fill(self, out, id, start=0):
        self.stream.fill(out, id, start)
        self.tell(id, out.copy())

    def at(self, id):
        return _Listened(self.stream.at(id), self.tell)

    def place(self, name):
        return self.stream.place(name)


class Tap:
    """What the parties expanded, were sent and opened, in order, as copies.

    Attributes
    ----------
    filled : list of (party, which of its streams, id or place, words)
        "masks", "corrections", or the number of the other party that the stream is shared with.
    dealt : list of (id, correlation, words of shape (p, ...))
    sent : list of rounds, each a list of (words of shape (p, ...), opening)
    opened : list of rounds, each a list of arrays
    only_to : dict of int to int
        Of rounds in which one party alone learns what is opened: the round's place, and the party.
    """

    def __init__(self):
        self.filled, self._dealt, self.sent, self.opened = [], [], [], []
        self.only_to = {}

    def correlated(self, correlation, shares):
        """Listen to shares of a correlation, whose corrected parts come later."""
        parts = [part.copy() for part in shares.masks]
        self._dealt.append((shares.id, correlation, parts))
        fetch = shares._fetch

        def listen(id, correlation):
            words = fetch(id, correlation)
            parts.append(words.copy())
            return words

        shares._fetch = listen

    @property
    def dealt(self):
        return [
            (
                id,
                correlation,
                np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1),
            )
            for id, correlation, parts in self._dealt
        ]

    @property
    def words_opened(self):
        """How many words have been opened."""
        return sum(array.size for arrays in self.opened for array in arrays)

    def listened(self, party, streams):
        """Return streams that are listened to."""

        def tell(other):
            return lambda id, words: self.filled.append((party, other, id, words))

        pairs = {j: _Listened(stream, tell(j)) for j, stream in streams.pairs.items()}
        return replace(
            streams,
            masks=_Listened(streams.masks, tell("masks")),
            corrections=_Listened(streams.corrections, tell("corrections")),
            pairs=pairs,
        )


@pytest.fixture(scope="session")
def tap():
    """Listen to a session inside a ``with`` block."""

    @contextmanager
    def listen(session):
        heard = Tap()
        correlated, transport = session.correlated, session.transport
        deliver, deliver_to = transport.open, transport.open_to
        streams = {party: heard.listened(party, some) for party, some in session.streams.items()}

        def listen_to_correlated(correlation):
            shares = correlated(correlation)
            heard.correlated(correlation, shares)
            return shares

        def listen_to_open(messages):
            heard.sent.append([(words.copy(), opening) for words, opening in messages])
            opened = deliver(messages)
            heard.opened.append([array.copy() for array in opened])
            return opened

        def listen_to_one(party, shares, opening):
            heard.only_to[len(heard.sent)] = party
            return deliver_to(party, shares, opening)

        with pytest.MonkeyPatch.context() as patch:
            for party, listened in streams.items():
                patch.setitem(session.streams, party, listened)
            patch.setattr(session, "correlated", listen_to_correlated)
            patch.setattr(transport, "open", listen_to_open)
            patch.setattr(transport, "open_to", listen_to_one)
            yield heard

    return listen
