"""Watched parties in one process, each with keys, views and a session of its own, in lock step.

A thread for each; one computes at a time, until it waits for another one's message. Every array that goes
from one to another is copied and goes through `tamper`, which may change it: `tamper(message)`.
"""

import queue
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpc.core.cost import Ledger
from mpc.core.errors import ABORTED, AbortError, FrameError
from mpc.core.frames import Kind
from mpc.core.setup import Setup
from mpc.core.watching import Watch, input_key, role_streams, salt_stream
from mpc.provider.sources import InProcess
from mpc.provider.watched import watched_provider
from mpc.session import SessionAt
from mpc.session_setup import policy
from mpc.transport.watched import Watched
from ring import FixedPoint, fresh_key
from ring.streams import StreamBlocks

NAMES = ("alice", "bob", "carol")
MORE = (*NAMES, "dave", "erin")
"""Of these the first are in a session of more than three."""


class LostError(Exception):
    """Another party has stopped."""


@dataclass
class Message:
    """What one party sends another in one step, before it is sent."""

    kind: Kind
    sender: int
    receiver: int
    number: int
    step: int
    arrays: list[np.ndarray]
    public: bool


class Network:
    """Queues between each two parties, and the baton that the one that computes holds."""

    def __init__(self, tamper=None, parties=3):
        self.parties = range(parties)
        self.queues = {(a, b): queue.Queue() for a in self.parties for b in self.parties}
        self.baton = threading.Lock()
        self.tamper = tamper
        self.frames = []

    def stop(self, party, problem):
        for other in self.parties:
            self.queues[party, other].put(problem)


class LocalWatched(Watched):
    """A watched party of the same process."""

    bytes_on_the_wire = (0, 0)

    def __init__(self, me, pair_keys, network):
        super().__init__(me, pair_keys)
        self.network, self.count, self.closed = network, 0, False
        self.accepted, self.public = 0, False

    def tell(self, words):
        self.public = True
        told = super().tell(words)
        self.public = False
        return told

    def check(self):
        super().check()
        self.accepted += 1

    def _exchange(self, kind, sent, wanted):
        network = self.network
        for q, arrays in sent.items():
            copies = [np.array(each, np.uint64, order="C") for each in arrays]
            message = Message(kind, self.me, q, self.count, self._steps, copies, self.public)
            self.count += 1
            if network.tamper is not None:
                network.tamper(message)
            network.frames.append(
                (self.me, q, message.number, kind, message.step, [a.shape for a in copies])
            )
            network.queues[self.me, q].put(message)
        came = {}
        for q, shapes in wanted.items():
            network.baton.release()
            try:
                message = network.queues[q, self.me].get(timeout=60)
            finally:
                network.baton.acquire()
            if isinstance(message, str):
                network.queues[q, self.me].put(message)
                raise AbortError if message == ABORTED else LostError(message)
            if (message.kind, message.step) != (kind, self._steps):
                raise FrameError("programs differ")
            assert tuple(a.shape for a in message.arrays) == shapes
            came[q] = message.arrays
        return came

    def close(self, problem):
        if not self.closed:
            self.closed = True
            self.network.stop(self.me, problem or "ended")


@dataclass
class Keys:
    """The keys of one session, all of them."""

    roles: list[bytes]
    pairs: dict[tuple[int, int], bytes]
    session: bytes

    @classmethod
    def fresh(cls, parties=3):
        pairs = {(a, b): fresh_key() for a in range(parties) for b in range(a)}
        return cls(
            [fresh_key() for _ in range(parties)],
            pairs | {(b, a): k for (a, b), k in pairs.items()},
            fresh_key(),
        )


def session_of(
    me, keys, network, provider=None, ranges="warn", form=(16, 15), transport=LocalWatched
):
    """Return the session of one party, which has no key but its own."""
    parties = len(keys.roles)
    here = (me, (me + 1) % parties)
    streams = {role: role_streams(keys.roles[role], parties) for role in here}
    inputs = [StreamBlocks(input_key(key, me)) for key in keys.roles]
    pair_keys = {q: keys.pairs[me, q] for q in range(parties) if q != me}
    salts = {
        me: salt_stream(pair_keys[(me - 1) % parties]),
        here[1]: salt_stream(pair_keys[here[1]]),
    }
    source = InProcess(streams, parties, provider or watched_provider(keys.roles), copies=2)
    setup = Setup(
        parties=MORE[:parties], here=here, format=FixedPoint(*form), memory_limit=1 << 28,
        streams=streams, source=source, transport=transport(me, pair_keys, network),
        ledger=Ledger(parties), range_policy=policy(ranges, here), watch=Watch(me, {me: inputs}, salts),
        session_id=keys.session,
    )  # fmt: skip
    return SessionAt(setup)


@dataclass
class Outcome:
    """What came of a run: a result or an error at each party, what was sent, and the sessions."""

    results: list[Any]
    network: Network
    sessions: list[Any]

    @property
    def errors(self):
        return [result for result in self.results if isinstance(result, BaseException)]


def run(
    program,
    tamper=None,
    keys=None,
    provider_of=None,
    transports=None,
    parties=3,
    **options,
):
    """Run `program(session)` at so many parties.

    `provider_of(keys)` makes each one's provider, `transports` are those of parties that cheat.
    """
    keys = keys or Keys.fresh(parties)
    network = Network(tamper, parties)
    outcome = Outcome([None] * parties, network, [None] * parties)

    def body(me):
        with network.baton:
            try:
                provider = None if provider_of is None else provider_of(keys.roles)
                session = outcome.sessions[me] = session_of(
                    me, keys, network, provider,
                    transport=(transports or {}).get(me, LocalWatched), **options,
                )  # fmt: skip
                with session:
                    outcome.results[me] = program(session)
            except BaseException as error:
                outcome.results[me] = error
                network.stop(me, ABORTED if isinstance(error, AbortError) else "stopped")

    threads = [threading.Thread(target=body, args=(me,)) for me in range(parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcome
