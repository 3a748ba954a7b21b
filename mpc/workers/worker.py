"""A worker of a party: the task that joblib runs in a process on this machine or on a cluster.

1. The worker connects to its party's own process over TLS, in which both sides use the party's
   certificate. It sends the address at which it listens, and waits for a part.
2. The party's process sends a part: the party's shares of some rows and of the other operands, and the
   addresses of the other parties' workers that compute the same part.
3. These workers make a session of their own, by the full handshake of :mod:`mpc.parties.handshake`, and
   compute on shares like any other session.
4. The worker returns its party's share of the result, or the error, and goes back to step 1.
   Workers of watched parties (:mod:`mpc.core.watching`) have their parties' two rows of shares, and check
   each other before they return anything.

Every part has a handshake of its own, and so has every further try at a part. Its keys come from fresh
random bytes of both sides of every connection, the provider's included. So no pair of key and id is ever
used twice, however a try ends, and nothing has to be remembered for that. Keys derived from the session's
would require all parties and the provider to count tries alike.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mpc.array.shared_array import SharedArray
from mpc.core import wire
from mpc.core.errors import AbortError, AuditError, PeerError, PeerTimeoutError
from mpc.core.frames import Kind
from mpc.core.network import Network
from mpc.core.watching import roles_of
from mpc.parties import configuration
from mpc.parties.configuration import Configuration, Member
from mpc.parties.joining import Links, join_parties
from mpc.parties.tls import connect
from mpc.protocols.sharing import enter
from mpc.session import Session
from mpc.transport.addresses import bind
from mpc.transport.certificates import client_context, server_context
from mpc.transport.connection import Connection, exchange, wait
from ring import FixedPoint, set_num_threads

__all__ = [
    "ABORT",
    "BUSY",
    "FAILED",
    "LARGEST_ANSWER",
    "LOST",
    "WRONG",
    "Operand",
    "Order",
    "Program",
    "Task",
    "own_contexts",
    "plan_result",
    "words_of",
]

Words = NDArray[np.uint64]
# Called with a session, some rows and the other operands; its result has as many rows.
Program = Callable[..., SharedArray]

BUSY, LOST, FAILED, WRONG, ABORT = "busy", "lost", "failed", "wrong", "abort"
# How many BUSY messages a worker sends in the time after which it would count as lost.
_BEATS = 4
LARGEST_ANSWER = 1 << 13
_LARGEST_ORDER = 1 << 20
_LARGEST_TEXT = 1000


@dataclass(frozen=True)
class Operand:
    """The description of an array that is sent to workers beside its words.

    Attributes
    ----------
    shape : tuple of int
    frac_bits, bound : int
    owner : int, optional
        The owner, if the array is an input: its workers get the plaintext, other parties' workers no
        words. None if the array is shared: every party's workers get the party's share.
    """

    shape: tuple[int, ...]
    frac_bits: int
    bound: int
    owner: int | None

    @classmethod
    def of(cls, x: SharedArray, rows: int | None = None) -> Operand:
        """Describe an array, or its first `rows` rows."""
        shape = x.shape if rows is None else (rows, *x.shape[1:])
        return cls(shape, x.frac_bits, x.bound, None if x.plaintext is None else x.plaintext.owner)

    def held_by(self, party: int) -> bool:
        """Whether a party's process has words of the array."""
        return self.owner is None or self.owner == party

    def array(self, session: Session, words: Words) -> SharedArray:
        """Make the array in a session, from words of shape (p, ...), or (0, ...) where there are none."""
        if self.owner is None:
            return SharedArray(session, words, self.frac_bits, self.bound)
        plaintext = enter(session, self.owner, words, self.frac_bits, self.bound)
        return SharedArray(session, None, self.frac_bits, self.bound, plaintext=plaintext)


def own_contexts(me: Member) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return TLS contexts for connections between a party's process and its workers: client, server.

    Both sides present the party's own certificate, and accept no other.
    """
    assert me.key is not None
    known = {me.name: me.accepted}
    return (
        client_context(me.certificates, me.key, known),
        server_context(me.certificates, me.key, known),
    )


def words_of(x: SharedArray) -> Words:
    """Return the words of an array for this party's workers: its share, or the plaintext of an owner."""
    return x.shares if x.plaintext is None else x.plaintext.encoded


def plan_result(session: Session, program: Program, operands: Sequence[Operand]) -> SharedArray:
    """Run the program where no party lives.

    The result has the shape and the bound of a run's result, its session the cost of a run.
    """
    nobody = session.without_parties()
    none = [np.empty((0, *operand.shape), np.uint64) for operand in operands]
    result = program(nobody, *map(Operand.array, operands, [nobody] * len(none), none))
    nobody.check_each_other()
    return result


@dataclass(frozen=True)
class Order:
    """The description of a part that the party's process sends to a worker.

    Attributes
    ----------
    name : str
        Names program, session, call, try and part. The handshake compares it, so all workers of a
        part must have the same.
    addresses : tuple of (str, int)
        Of the worker of each party for this part.
    operands : tuple of Operand
        The rows first.
    """

    name: str
    addresses: tuple[tuple[str, int], ...]
    operands: tuple[Operand, ...]

    def encode(self) -> bytes:
        """Return the order encoded for the wire."""
        operands = tuple((o.shape, o.frac_bits, o.bound, o.owner) for o in self.operands)
        return wire.encode((self.name, self.addresses, operands))

    @classmethod
    def decode(cls, data: bytes) -> Order:
        """Decode an order; the sender is the same party, so it is trusted."""
        name, addresses, operands = wire.decode(data)
        return cls(name, addresses, tuple(Operand(*operand) for operand in operands))


@dataclass(frozen=True)
class Task:
    """The call that joblib pickles and sends to each worker. It holds no shares and no keys.

    Attributes
    ----------
    path : str
        Of the configuration, which must be at this path, with the party's key, on every machine
        where workers run.
    me : str
    format : ring.FixedPoint
    memory_limit : int
    network : Network, optional
        Those of the session.
    address : (str, int)
        At which the party's process listens for its workers.
    token : bytes
        Identifies the session and the call.
    program : Program
    threads : int, optional
        How many of the machine's cores to use; default :func:`ring.get_num_threads`.
    """

    path: str
    me: str
    format: FixedPoint
    memory_limit: int
    network: Network | None
    address: tuple[str, int]
    token: bytes
    program: Program
    threads: int | None = None

    def __call__(self) -> None:
        """Compute parts until the party's process has no more."""
        if self.threads is not None:
            set_num_threads(self.threads)
        # What the session has, whatever the file says by now: a measured network is not measured again.
        read = replace(
            configuration.load(Path(self.path)), format=self.format, network=self.network
        )
        me = read.parties[self.me]
        try:
            context, _ = own_contexts(me)
            control = connect(replace(me, address=self.address), context, read.timeouts.connect)
        except PeerError:
            return  # the party's process has gone on without this worker
        try:
            while self._part(read, control):
                pass
        except PeerError:
            pass  # the party's process has dismissed this worker, or is gone
        finally:
            control.close()

    def _part(self, read: Configuration, control: Connection) -> bool:
        """Wait for one part and compute it. Returns whether to wait for another."""
        with bind((_own_host(control), 0)) as sock:
            host, port = sock.getsockname()[:2]
            control.post_bytes(Kind.CALL, wire.encode((self.token, host, port)))
            exchange([control], read.timeouts.answer)
            control.expect_bytes([Kind.CALL], _LARGEST_ORDER)
            if not wait([control], read.timeouts.idle):
                raise PeerTimeoutError(f"{self.me} has sent no part to compute")
            order = Order.decode(control.take().data.tobytes())
            number = read.names.index(self.me)
            rows = len(roles_of(number, read.security, len(read.names)))
            words = []
            for operand in order.operands:
                if not operand.held_by(number):
                    words.append(np.empty((0, *operand.shape), np.uint64))
                    continue
                control.expect_arrays(Kind.SHARE, ((rows, *operand.shape),))
                exchange([control], read.timeouts.answer)
                words.append(control.take().arrays()[0])
            try:
                with _Watch(control, read.timeouts.answer / _BEATS) as watch:
                    result = self._compute(read, watch, sock.dup(), order, words)
            except AuditError as error:
                # Not a loss, after which the provider could try again.
                control.post_bytes(Kind.ANSWER, wire.encode((WRONG, str(error)[:_LARGEST_TEXT])))
            except AbortError:
                # Nor this: the session of the parties ends, too.
                control.post_bytes(Kind.ANSWER, wire.encode((ABORT, "")))
            except PeerError as error:
                control.post_bytes(Kind.ANSWER, wire.encode((LOST, str(error)[:_LARGEST_TEXT])))
            except Exception as error:
                text = f"{type(error).__name__}: {error}"[:_LARGEST_TEXT]
                control.post_bytes(Kind.ANSWER, wire.encode((FAILED, text)))
            else:
                control.post(Kind.SHARE, [result])
        exchange([control], read.timeouts.answer)
        return True

    def _compute(
        self,
        read: Configuration,
        watch: _Watch,
        sock: socket.socket,
        order: Order,
        words: Sequence[Words],
    ) -> Words:
        parties = {
            name: replace(member, address=address)
            for (name, member), address in zip(read.parties.items(), order.addresses, strict=True)
        }
        links = join_parties(
            replace(read, parties=parties), self.me, order.name, sock, self.memory_limit
        )
        with Session.from_links(read, self.me, links) as session:
            watch.over(links)
            operands = [o.array(session, w) for o, w in zip(order.operands, words, strict=True)]
            session.prepare(
                lambda planned: self.program(planned, *(planned.twin(x) for x in operands))
            )
            shares = self.program(session, *operands).shares
            # Nobody may use what follows from an opening that was not checked.
            session.check_each_other()
            return shares


def _own_host(connection: Connection) -> str:
    """Return the address of this machine on a connection."""
    with socket.socket(fileno=os.dup(connection.fileno())) as sock:
        return str(sock.getsockname()[0])


class _Watch:
    """Watches the connection to the party's process, in a thread, while a part is computed.

    It sends BUSY at intervals, so that the party's process can tell a worker that computes from one
    that stalls or whose machine is lost. When the party's process is gone, it ends the computation by
    closing the part's connections to other processes.
    """

    def __init__(self, control: Connection, seconds: float) -> None:
        self._control, self._seconds = control, seconds
        self._links: Links | None = None
        self._over = False
        self._here, self._there = socket.socketpair()
        self._thread = threading.Thread(target=self._look, name="sotto watches", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._here.close()
        self._thread.join()
        self._there.close()

    def over(self, links: Links) -> None:
        """Close these connections when the party's process is gone."""
        self._links = links
        if self._over:
            self._abandon()

    def _look(self) -> None:
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._there, select.POLLIN)
        # While a part is computed, the party's process sends nothing: what can be read is its end.
        while not (ready := dict(poll.poll(1000 * self._seconds))) and self._send_busy():
            pass
        if self._there.fileno() not in ready:
            self._over = True
            self._abandon()

    def _send_busy(self) -> bool:
        """Send BUSY. Returns whether the party's process is still there."""
        try:
            if not self._control.outgoing_bytes:
                self._control.post_bytes(Kind.ANSWER, wire.encode((BUSY, "")))
            self._control.push()
        except PeerError:
            return False
        return True

    def _abandon(self) -> None:
        if self._links is not None:
            for connection in self._links.connections:
                connection.abandon()
