"""Channels in lock step, and in two threads over queues and over sockets."""

import os
import queue
import socket
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from mpc.core.errors import PeerClosedError, PeerTimeoutError
from mpc.two_party.channel import LockStep
from mpc.two_party.pair import Pair
from ring import unpack_bits

TIMEOUT = 60.0


class QueueEnd:
    """One party of two in a process, each in a thread of its own."""

    def __init__(self, party, outgoing, incoming):
        self.parties, self.names = (party,), ("alice", "bob")
        self._outgoing, self._incoming = outgoing, incoming
        self.sent, self.messages, self.fail_after = 0, 0, None

    def swap(self, messages, counts, *, continued=False):
        party = self.parties[0]
        assert [m.size for m in messages] == [counts[party]]
        if self.fail_after is not None and self.messages >= self.fail_after:
            raise PeerClosedError(f"{self.names[1 - party]} closed the connection")
        self.messages += 1
        if counts[party]:
            self.sent += messages[0].nbytes
            self._outgoing.put(messages[0].tobytes())
        if not counts[1 - party]:
            return [np.empty(0, np.uint64)]
        try:
            data = self._incoming.get(timeout=TIMEOUT)
        except queue.Empty:
            raise PeerTimeoutError(f"{self.names[1 - party]} is late") from None
        return [np.frombuffer(data, np.uint64)]

    def drain(self):
        """Forget what is on its way, as a new connection does."""
        while not self._incoming.empty():
            self._incoming.get()


class SocketEnd(QueueEnd):
    """One party behind a socket; a writer of its own, since both may send at once."""

    def __init__(self, party, connection):
        super().__init__(party, queue.SimpleQueue(), None)
        self._connection = connection
        threading.Thread(target=self._write, daemon=True).start()

    def _write(self):
        while (data := self._outgoing.get()) is not None:
            self._connection.sendall(data)

    def swap(self, messages, counts, *, continued=False):
        party = self.parties[0]
        if counts[party]:
            self.sent += messages[0].nbytes
            self._outgoing.put(messages[0].tobytes())
        buffer = bytearray(8 * counts[1 - party])
        view = memoryview(buffer)
        while view:
            size = self._connection.recv_into(view)
            if not size:
                raise PeerClosedError(f"{self.names[1 - party]} closed the connection")
            view = view[size:]
        return [np.frombuffer(buffer, np.uint64)]

    def close(self):
        self._outgoing.put(None)


def run_both(programs):
    """Run one program each in two threads; raise what either raises."""
    results, errors = [None, None], [None, None]

    def work(k):
        try:
            results[k] = programs[k]()
        except Exception as error:
            errors[k] = error

    threads = [threading.Thread(target=work, args=(k,), daemon=True) for k in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * TIMEOUT)
        assert not thread.is_alive()
    for error in errors:
        if error is not None:
            raise error
    return results


def queue_ends():
    one, other = queue.SimpleQueue(), queue.SimpleQueue()
    return QueueEnd(0, one, other), QueueEnd(1, other, one)


@contextmanager
def socket_ends():
    pair = socket.socketpair()
    ends = [SocketEnd(party, connection) for party, connection in enumerate(pair)]
    try:
        yield ends
    finally:
        for end in ends:
            end.close()
        for connection in pair:
            connection.close()


@pytest.fixture(name="run_both")
def run_both_fixture():
    return run_both


@pytest.fixture
def ends():
    """Two ends over queues."""
    return queue_ends()


@pytest.fixture
def sockets():
    """Two ends over a socket."""
    with socket_ends() as ends:
        yield ends


@pytest.fixture
def lock_step():
    """A channel of both parties in one thread."""
    return LockStep()


@pytest.fixture(scope="module")
def pair():
    """Both parties in lock step."""
    return Pair(LockStep())


@pytest.fixture(scope="session")
def shared():
    """Share integers: the second party's share is given, or uniform."""

    def share(values, second=None):
        words = np.array([int(v) % 2**64 for v in np.ravel(values)], np.uint64)
        words = words.reshape(np.shape(values))
        if second is None:
            second = np.frombuffer(os.urandom(8 * words.size), np.uint64).reshape(words.shape)
        return np.stack([words - second, second])

    return share


@pytest.fixture(scope="session")
def integers():
    """The integers of shares, as Python's, in [-2^63, 2^63)."""

    def join(shares):
        total = shares.sum(axis=0, dtype=np.uint64)
        return total.view(np.int64).tolist()

    return join


@pytest.fixture(scope="session")
def bits():
    """The bits of XOR shares, as a list."""

    def join(shares, size):
        return unpack_bits(np.bitwise_xor.reduce(shares), size).tolist()

    return join
