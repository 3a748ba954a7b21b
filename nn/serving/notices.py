"""What a party that serves tells the others beside the session, and hears of them.

Which requests it has, who leaves, that models are to be agreed on anew, and that it is there.
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
# How long a party's other line may live on after its line for notices.
_SUSPECT_SECONDS = 1.0


class Notices:
    """One party's lines for notices. But for :meth:`begin` and :meth:`end`, all is for the loop.

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
        Of the session that runs.
    """

    def __init__(self, read: Callable[[], Configuration], me: str, book: Book, loop: Loop) -> None:
        self._read, self._me, self._book, self._loop = read, me, book, loop
        self.links: Links | None = None
        self._wishes = Wishes()
        self._told: dict[str, Seat] = {}
        self._suspect: tuple[float, Links, int] | None = None
        self._leaves, self._next_sign = False, 0.0

    def begin(self, links: Links, wishes: Wishes) -> None:
        """Tell and hear from now on, in a session that begins."""
        self.links, self._wishes = links, wishes
        self._loop.call(lambda: self._open(links))

    def end(self, links: Links) -> None:
        """Hang up."""
        self.links = None
        self._loop.call(lambda: self._close(links))

    def _open(self, links: Links) -> None:
        if self.links is links:
            self._told = {
                name: self._loop.add(connection, self._hear(connection, links))
                for name, connection in links.notices.items()
            }
            if self._leaves:
                self._hear_leaving(self._me)

    def _close(self, links: Links) -> None:
        for name, seat in tuple(self._told.items()):
            if links.notices.get(name) is seat.line:
                self._loop.detach(seat)
                del self._told[name]
        for connection in links.notices.values():
            connection.close()

    def _hear(self, connection: Connection, links: Links) -> Talk:
        """Hear what another party tells beside the session."""
        peer, read = connection.peer, self._read()
        number, limit = read.names.index(peer), read.timeouts.party
        try:
            while True:
                connection.expect_bytes([Kind.NOTICE], _LARGEST_NOTICE)
                # What this party sends is no sign of life of the other.
                yield By(time.monotonic() + limit)
                try:
                    word, one, other = wire.decode(connection.take().data.data)
                    if word == "news":
                        self._book.heard(number, _cut(one), _cut(other))
                    elif word == "leaves" and one in {m.name for m in read.services}:
                        self._hear_leaving(one)
                    elif word == "reload":
                        self.ask_for_reload()
                except (ShapeError, TypeError, ValueError):
                    raise FrameError(f"{peer} sent a notice that is malformed") from None
        except PeerTimeoutError:
            # It stalls, or its machine is gone without a word. Turns without requests do not miss it.
            if self.links is links:
                self._wishes.lost = f"{peer} did not answer within {limit:g} s"
                links.peers[number].abandon()
            return None
        except PeerError:
            # It may have said more on its other line, or end there by itself.
            self._suspect = time.monotonic() + _SUSPECT_SECONDS, links, number
            return None

    def _tell(self, names: Sequence[str], *notice: Any) -> None:
        data = wire.encode(notice)
        for name in names:
            if (seat := self._told.get(name)) is not None and isinstance(seat.line, Connection):
                seat.line.post_bytes(Kind.NOTICE, data)
                self._loop.push(seat)

    def _tell_others(self, *notice: Any) -> None:
        self._tell([name for name in self._read().names if name != self._me], *notice)

    def tell_news(self) -> None:
        """Tell the leader of requests, and all who leaves."""
        if not self._told:
            return
        has, has_not = self._book.news()
        if has or has_not:
            self._tell(self._read().names[-1:], "news", has, has_not)
        wishes = self._wishes
        if wishes.leaves and not wishes.told:
            wishes.told = True
            self._tell_others("leaves", wishes.leaves, b"")

    def leave(self) -> None:
        """Say that this party leaves."""
        self._leaves = True
        self._hear_leaving(self._me)

    def _hear_leaving(self, name: str) -> None:
        """Let the leader end the session, as soon as what all have is done."""
        if self._wishes.leave(name):
            self._book.prompt()

    def ask_for_reload(self) -> None:
        """Have all parties agree on their models again."""
        if self._me == self._read().names[-1]:
            self._wishes.reload = True
            self._book.prompt()
        else:
            self._tell(self._read().names[-1:], "reload", b"", b"")

    def look(self) -> None:
        """Give a sign of life, and end what waits for one that is lost."""
        now = time.monotonic()
        if now > self._next_sign:
            # For whom turns tell nothing of this party.
            self._next_sign = now + self._read().timeouts.party / 4
            self._tell_others("here", b"", b"")
        if self._suspect is not None and now > self._suspect[0]:
            _, suspected, number = self._suspect
            self._suspect = None
            if suspected is self.links:
                suspected.peers[number].abandon()


def _cut(data: bytes) -> list[bytes]:
    if type(data) is not bytes or len(data) % KEY_BYTES:
        raise ShapeError("keys must be whole")
    return [data[k : k + KEY_BYTES] for k in range(0, len(data), KEY_BYTES)]
