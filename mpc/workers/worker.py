"""One worker of a party: what runs in a process that joblib has started, here or on a cluster.

1. It connects to its party's own process, over TLS that both prove with the party's certificate,
   says at which address it listens, and waits for a part.
2. It gets a part: its party's shares of some rows and of the other operands, and the addresses of
   the workers of the other parties that do the same part.
3. These workers make a session of their own, by the full handshake of :mod:`mpc.parties.handshake`, and
   compute on shares like any other session.
4. It returns its party's share of the result, or why there is none, and goes back to step 1.

Every part, and every further try at one, is a new handshake: its keys come from fresh random bytes
of both sides of every connection, the provider's too. So no pair of key and id is ever used twice,
whatever becomes of a try, and nothing has to be remembered for that. Keys derived from the
session's would need all parties and the provider to keep count of tries.
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
from mpc.core.errors import PeerError, PeerTimeoutError
from mpc.core.frames import Kind
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
    "BUSY",
    "FAILED",
    "LARGEST_ANSWER",
    "LOST",
    "Operand",
    "Order",
    "Program",
    "Task",
    "own_contexts",
    "planned",
    "words_of",
]

Words = NDArray[np.uint64]
# Called with a session, the rows and the other operands; its result has as many rows.
Program = Callable[..., SharedArray]

BUSY, LOST, FAILED = "busy", "lost", "failed"
# How often a worker says that it computes still, in the time after which it counts as lost.
_BEATS = 4
LARGEST_ANSWER = 1 << 13
_LARGEST_ORDER = 1 << 20
_LARGEST_TEXT = 1000


@dataclass(frozen=True)
class Operand:
    """What a worker must know of an array beside its words.

    Attributes
    ----------
    shape : tuple of int
    frac_bits, bound : int
    owner : int, optional
        The party whose plaintext the array is: there the words are the value itself, elsewhere there
        are none. None if the words are a share.
    """

    shape: tuple[int, ...]
    frac_bits: int
    bound: int
    owner: int | None

    @classmethod
    def of(cls, x: SharedArray, rows: int | None = None) -> Operand:
        """Describe an array, or so many rows of one."""
        shape = x.shape if rows is None else (rows, *x.shape[1:])
        return cls(shape, x.frac_bits, x.bound, None if x.plaintext is None else x.plaintext.owner)

    def held_by(self, party: int) -> bool:
        """Whether a party's process has any words of it."""
        return self.owner is None or self.owner == party

    def array(self, session: Session, words: Words) -> SharedArray:
        """Make the array in a session, from words of shape (1, ...) where there are any."""
        if self.owner is None:
            return SharedArray(session, words, self.frac_bits, self.bound)
        plaintext = enter(session, self.owner, words, self.frac_bits, self.bound)
        return SharedArray(session, None, self.frac_bits, self.bound, plaintext=plaintext)


def own_contexts(me: Member) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the TLS contexts of a party's process and its workers, to connect and to listen with.

    Both sides show the party's own certificate, and accept no other.
    """
    assert me.key is not None
    known = {me.name: me.accepted}
    return (
        client_context(me.certificates, me.key, known),
        server_context(me.certificates, me.key, known),
    )


def words_of(x: SharedArray) -> Words:
    """Return the words of an array that this party's workers need: its shares, or its own plaintext."""
    return x.shares if x.plaintext is None else x.plaintext.encoded


def planned(session: Session, program: Program, operands: Sequence[Operand]) -> SharedArray:
    """Run the program where no party lives: the result has the shape, bound and cost of a run's."""
    nobody = session.without_parties()
    none = [np.empty((0, *operand.shape), np.uint64) for operand in operands]
    return program(nobody, *map(Operand.array, operands, [nobody] * len(none), none))


@dataclass(frozen=True)
class Order:
    """A part, as the party's process hands it out.

    Attributes
    ----------
    name : str
        Says which part of what, and at which try. All workers of a part must agree on it.
    addresses : tuple of (str, int)
        Of this part's worker of each party.
    operands : tuple of Operand
        The rows first.
    """

    name: str
    addresses: tuple[tuple[str, int], ...]
    operands: tuple[Operand, ...]

    def encode(self) -> bytes:
        """Return it for the wire."""
        operands = tuple((o.shape, o.frac_bits, o.bound, o.owner) for o in self.operands)
        return wire.encode((self.name, self.addresses, operands))

    @classmethod
    def decode(cls, data: bytes) -> Order:
        """Read what :meth:`encode` has written; the sender is the same party."""
        name, addresses, operands = wire.decode(data)
        return cls(name, addresses, tuple(Operand(*operand) for operand in operands))


@dataclass(frozen=True)
class Task:
    """What joblib gives to each worker. There are no shares and no keys in it.

    Attributes
    ----------
    path : str
        The configuration, which must be there, with the party's key, on every machine of the
        party.
    me : str
    format : ring.FixedPoint
    memory_limit : int
    address : (str, int)
        Where the party's process waits for its workers.
    token : bytes
        Which session and which call this is for.
    program : Program
    threads : int, optional
        How many of the machine's cores to use; default as :func:`ring.get_num_threads` says.
    """

    path: str
    me: str
    format: FixedPoint
    memory_limit: int
    address: tuple[str, int]
    token: bytes
    program: Program
    threads: int | None = None

    def __call__(self) -> None:
        """Do parts until the party's process has no more."""
        if self.threads is not None:
            set_num_threads(self.threads)
        read = replace(configuration.load(Path(self.path)), format=self.format)
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
            pass  # dismissed, or its party's process is gone
        finally:
            control.close()

    def _part(self, read: Configuration, control: Connection) -> bool:
        """Do one part. Returns whether to ask for another."""
        with bind((_own_host(control), 0)) as sock:
            host, port = sock.getsockname()[:2]
            control.post_bytes(Kind.CALL, wire.encode((self.token, host, port)))
            exchange([control], read.timeouts.answer)
            control.expect_bytes([Kind.CALL], _LARGEST_ORDER)
            if not wait([control], read.timeouts.idle):
                raise PeerTimeoutError(f"{self.me} has ordered nothing")
            order = Order.decode(control.take().data.tobytes())
            number = read.names.index(self.me)
            words = []
            for operand in order.operands:
                if not operand.held_by(number):
                    words.append(np.empty((0, *operand.shape), np.uint64))
                    continue
                control.expect_arrays(Kind.SHARE, (operand.shape,))
                exchange([control], read.timeouts.answer)
                words.append(control.take().arrays()[0][None])
            try:
                with _Watch(control, read.timeouts.answer / _BEATS) as watch:
                    result = self._compute(read, watch, sock.dup(), order, words)
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
        links = join_parties(replace(read, parties=parties), self.me, order.name, sock)
        with Session.from_links(read, self.me, links, self.memory_limit) as session:
            watch.over(links)
            operands = [o.array(session, w) for o, w in zip(order.operands, words, strict=True)]
            session.prepare(
                lambda planned: self.program(planned, *(planned.twin(x) for x in operands))
            )
            return self.program(session, *operands).shares[0]


def _own_host(connection: Connection) -> str:
    """Return the address of this machine by which the other end knows it."""
    with socket.socket(fileno=os.dup(connection.fileno())) as sock:
        return str(sock.getsockname()[0])


class _Watch:
    """Tells the party's process that a part is being computed, and ends it when that is gone.

    A process that stalls, or whose machine vanishes, tells nothing any more, which is noticed.
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
        """End these too, from now on."""
        self._links = links
        if self._over:
            self._abandon()

    def _look(self) -> None:
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._there, select.POLLIN)
        # Nothing comes from the party's process while a part is computed, except the end.
        while not (ready := dict(poll.poll(1000 * self._seconds))) and self._tell():
            pass
        if self._there.fileno() not in ready:
            self._over = True
            self._abandon()

    def _tell(self) -> bool:
        """Say that this process is there. Returns whether the other one is."""
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
