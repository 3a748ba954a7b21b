"""Notices: messages between the services of parties on connections beside the session's.

"news": keys of requests, to the leader; "past": a turn that a party has passed, to it as well. "leaves": a
service leaves. "reload": the parties are to agree on their models again. "here": a sign of life.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from mpc import FrameError, PeerError, ShapeError
from mpc.core import wire
from mpc.core.errors import PeerTimeoutError
from mpc.core.frames import Kind
from mpc.parties.configuration import Configuration
from mpc.parties.joining import Links
from mpc.transport.connection import Connection
from mpc.transport.loop import By, Loop, Seat, Talk
from nn.serving.agreement import KEY_BYTES, Book
from nn.serving.turns import Wishes

__all__ = ["Notices"]

_LARGEST_NOTICE = 1 << 20
# Seconds until a party whose connection for notices is lost counts as lost in the session too.
_SUSPECT_SECONDS = 1.0


class Notices:
    """One party's connections for notices.

    :meth:`begin` and :meth:`end` may be called by any thread, all else by the event loop's only.

    Parameters
    ----------
    read : callable
        Returns the configuration in use.
    me : str
    book : Book
    loop : Loop

    Attributes
    ----------
    links : Links or None
        The connections of the session that runs.
    """

    def __init__(self, read: Callable[[], Configuration], me: str, book: Book, loop: Loop) -> None:
        self._read, self._me, self._book, self._loop = read, me, book, loop
        self.links: Links | None = None
        self._wishes = Wishes()
        self._seats: dict[str, Seat] = {}
        self._suspect: tuple[float, Links, int] | None = None
        self._leaves, self._next_sign = False, 0.0

    def begin(self, links: Links, wishes: Wishes) -> None:
        """Send and receive notices from now on, in a session that begins."""
        self.links, self._wishes = links, wishes
        self._loop.call(lambda: self._open(links))

    def end(self, links: Links) -> None:
        """Close the connections of a session that has ended."""
        self.links = None
        self._loop.call(lambda: self._close(links))

    def _open(self, links: Links) -> None:
        if self.links is links:
            self._seats = {
                name: self._loop.add(connection, self._receive(connection, links))
                for name, connection in links.notices.items()
            }
            if self._leaves:
                self._note_leaving(self._me)

    def _close(self, links: Links) -> None:
        for name, seat in tuple(self._seats.items()):
            if links.notices.get(name) is seat.line:
                self._loop.detach(seat)
                del self._seats[name]
        for connection in links.notices.values():
            connection.close()

    def _receive(self, connection: Connection, links: Links) -> Talk:
        """Receive the notices of another party."""
        peer, read = connection.peer, self._read()
        number, limit = read.names.index(peer), read.timeouts.party
        try:
            while True:
                connection.expect_bytes([Kind.NOTICE], _LARGEST_NOTICE)
                # A limit for the next notice, whatever this party sends meanwhile.
                yield By(time.monotonic() + limit)
                try:
                    word, one, other = wire.decode(connection.take().data.data)
                    if word == "news":
                        self._book.heard(number, _cut(one), _cut(other))
                    elif word == "past" and type(one) is int:
                        self._book.passed(number, one)
                    elif word == "leaves" and one in {m.name for m in read.services}:
                        self._note_leaving(one)
                    elif word == "reload":
                        self.ask_for_reload()
                except (ShapeError, TypeError, ValueError):
                    raise FrameError(f"{peer} sent a notice that is malformed") from None
        except PeerTimeoutError:
            # It stalls, or its machine is gone. Turns without requests may not notice.
            if self.links is links:
                self._wishes.lost = f"{peer} did not answer within {limit:g} s"
                links.peers[number].abandon()
            return None
        except PeerError:
            # Its connection for the session may hold further messages, or report the loss itself.
            self._suspect = time.monotonic() + _SUSPECT_SECONDS, links, number
            return None

    def _send(self, names: Sequence[str], *notice: Any) -> None:
        data = wire.encode(notice)
        for name in names:
            if (seat := self._seats.get(name)) is not None and isinstance(seat.line, Connection):
                seat.line.post_bytes(Kind.NOTICE, data)
                self._loop.push(seat)

    def _send_to_others(self, *notice: Any) -> None:
        self._send([name for name in self._read().names if name != self._me], *notice)

    def send_news(self) -> None:
        """Send keys of requests to the leader, and to all parties the name of a service that leaves."""
        if not self._seats:
            return
        has, has_not, turn = self._book.news()
        if has or has_not:
            self._send(self._read().names[-1:], "news", has, has_not)
        if turn:
            self._send(self._read().names[-1:], "past", turn, b"")
        wishes = self._wishes
        if wishes.leaves and not wishes.announced:
            wishes.announced = True
            self._send_to_others("leaves", wishes.leaves, b"")

    def leave(self) -> None:
        """Announce that this party leaves."""
        self._leaves = True
        self._note_leaving(self._me)

    def _note_leaving(self, name: str) -> None:
        """Have the leader end the session, once requests that all parties have are answered."""
        if self._wishes.leave(name):
            self._book.prompt()

    def ask_for_reload(self) -> None:
        """Have all parties agree on their models again."""
        if self._me == self._read().names[-1]:
            self._wishes.reload = True
            self._book.prompt()
        else:
            self._send(self._read().names[-1:], "reload", b"", b"")

    def look(self) -> None:
        """Send a sign of life, and close the session's connection to a party that is lost."""
        now = time.monotonic()
        if now > self._next_sign:
            # Turns without requests do not show the others that this party is there.
            self._next_sign = now + self._read().timeouts.party / 4
            self._send_to_others("here", b"", b"")
        if self._suspect is not None and now > self._suspect[0]:
            _, suspected, number = self._suspect
            self._suspect = None
            if suspected is self.links:
                suspected.peers[number].abandon()


def _cut(data: bytes) -> list[bytes]:
    """Return the keys of a notice."""
    if type(data) is not bytes or len(data) % KEY_BYTES:
        raise ShapeError("keys must be whole")
    return [data[k : k + KEY_BYTES] for k in range(0, len(data), KEY_BYTES)]
