"""The part of a session that protocols use: parties, openings, correlated randomness, cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from threading import get_ident
from types import TracebackType
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import Correlation, Opening, cut
from mpc.core.cost import Cost, Spent
from mpc.core.errors import PartyError, PeerError, SessionError
from mpc.core.events import record
from mpc.core.owner import Owner
from mpc.core.round_bytes import bytes_of_frames, bytes_of_opening_to, bytes_of_round
from mpc.core.setup import Setup
from mpc.core.watching import MALICIOUS, PARTIES, SEMI_HONEST, deliveries
from ring import processes
from ring.streams import OWN_IDS

__all__ = ["MEMORY_LIMIT", "Beside", "CorrelatedShares", "Result", "Runtime", "Steps"]

MEMORY_LIMIT = 1 << 28
"""Bytes that a batch may take by default."""

Words = NDArray[np.uint64]
T = TypeVar("T")


class Result(NamedTuple):
    """What a protocol in :data:`Steps` opens without a mask, see :meth:`Runtime.revealing`."""

    words: Words
    opening: Opening


# A protocol by its rounds: it yields what it opens, and is sent what was opened.
Steps = Generator[tuple[Words, Opening] | Result, Words, T]


class CorrelatedShares:
    """This process's shares of a correlation: masks at once, corrected parts when they are needed.

    What hides a value is the masks alone. So a protocol opens it under them before it needs the
    corrected parts: a correction from the provider, which takes a round trip if it is asked for only
    now, comes while the opening does.

    Parameters
    ----------
    id : int
    correlation : Correlation
    masks : uint64 array of shape (p, mask words)
    fetch : callable
        Waits for the corrected parts, and returns them: of shape (p, corrected words).

    Attributes
    ----------
    id : int
        The correlation's id.
    correlation : Correlation
    masks : list of uint64 arrays of shape (p, *part.shape)
        Of the uniform parts.
    """

    __slots__ = ("_corrected", "_fetch", "correlation", "id", "masks")

    def __init__(
        self,
        id: int,
        correlation: Correlation,
        masks: Words,
        fetch: Callable[[int, Correlation], Words],
    ) -> None:
        self.id, self.correlation, self._fetch = id, correlation, fetch
        self.masks = cut(masks, correlation.layout.masks)
        self._corrected: list[Words] | None = None

    @property
    def corrected(self) -> list[Words]:
        """The shares of the corrected parts, of shape (p, *part.shape): the first time this may wait."""
        if self._corrected is None:
            words = self._fetch(self.id, self.correlation)
            self._corrected = cut(words, self.correlation.layout.corrected)
        return self._corrected


class Runtime:
    """The part of a session that protocols use.

    Parameters
    ----------
    setup : Setup
    last_id : int
        The last id that is used already.

    Attributes
    ----------
    last_id : int
        The last number that :meth:`fresh_id` has returned.
    size : int
        How many computing parties there are.
    """

    def __init__(self, setup: Setup, last_id: int = 0) -> None:
        self.parties, self.here = setup.parties, setup.here
        self.size = len(setup.parties)
        self.watch = setup.watch
        watches = setup.watch is not None and setup.watch.me is not None
        # The parties whose processes this one is: all whose roles are here, but those that it watches.
        self.residents = setup.here[:1] if watches else setup.here
        self.format, self.memory_limit = setup.format, setup.memory_limit
        self.session_id, self.network = setup.session_id, setup.network
        # The row of party 0 on the party axis, which adds public values to its share; None if it
        # does not live here.
        self.first_row = self.here.index(0) if 0 in self.here else None
        # Of the parties that live here, by number.
        self.streams = setup.streams
        self.source, self.transport = setup.source, setup.transport
        self.range_policy = setup.range_policy
        # Where there is no provider, a mpc.two_party.pair.Pair: what both parties make for each other.
        self.pair: Any = None
        self._ledger = setup.ledger
        self._ledger.security = self.security
        self._endings: dict[Callable[[], None], None] = {}
        self._beside: list[Beside[Any]] = []
        self.last_id = last_id
        # Where ids go on behind those of a program that were set aside before others were used.
        self._detour: tuple[int, int] | None = None
        self._closed = False
        self._owner = Owner()
        self._began = time.monotonic()
        # How many openings a reveal has made, -1 outside of one.
        self._revealed = -1
        # Whether something was opened since the last check of which not all watched parties know.
        self._some_know = False

    @property
    def security(self) -> str:
        """What the parties are trusted to do: "semi-honest" or "malicious", see :class:`mpc.Session`."""
        return SEMI_HONEST if self.watch is None else MALICIOUS

    @property
    def me(self) -> str | None:
        """The party that lives in this process, or None if several or none do."""
        return self.parties[self.residents[0]] if len(self.residents) == 1 else None

    @property
    def bytes_on_the_wire(self) -> tuple[int, int]:
        """Bytes sent to and received from the others and the provider, headers included."""
        return self.transport.bytes_on_the_wire

    def number(self, party: str, name: str = "party") -> int:
        """Return the number of a party, or raise PartyError."""
        if not isinstance(party, str) or party not in self.parties:
            raise PartyError(f"{name} must be one of {', '.join(self.parties)}, got {party!r}")
        return self.parties.index(party)

    def check_open(self) -> None:
        """Raise SessionError if the session is closed, or not this thread's and process's."""
        if self._closed:
            raise SessionError("the session is closed")
        owner = self._owner
        if owner.thread != get_ident() or owner.generation != processes.generation:
            owner.claim()  # raises unless it is free

    def hand_over(self) -> None:
        """Let another thread use the session: the next one that does.

        A session belongs to the thread that uses it first, until that ends or calls this. Other
        threads get a SessionError. Between processes all parties must hand over at the same points
        of the same program, like all that they do.

        Raises
        ------
        SessionError
            If it belongs to another thread.

        Examples
        --------
        >>> import threading
        >>> import mpc
        >>> with mpc.Session() as s:
        ...     x = s.share([1.5, -2.0], owner="alice")
        ...     s.hand_over()
        ...     thread = threading.Thread(target=lambda: print(x.relu().reveal()))
        ...     thread.start()
        ...     thread.join()
        [1.5 0. ]
        """
        self.check_open()
        self._owner.release()

    def fresh_id(self, kept: bool = False) -> int:
        """Return a new id, for a tensor's mask or a correlation. All parties count alike.

        With `kept` for a mask that has a key of its own, see :mod:`mpc.core.keys`.
        """
        self.check_open()
        if self._detour is not None:
            self._return()
        if self.last_id >= OWN_IDS - 1:
            # From there on ids are those of masks that are kept.
            raise SessionError(
                f"a session has ids up to {OWN_IDS - 1}, which are used up: begin another"
            )
        self.last_id += 1
        return OWN_IDS + self.last_id if kept else self.last_id

    def _return(self) -> None:
        """Go on where ids went before those that were set aside, once these are used."""
        if self._detour is not None and self.last_id == self._detour[0]:
            self.last_id, self._detour = self._detour[1], None

    def note(self, *step: object) -> None:
        """Enter a step into the checksum by which the parties notice that their programs differ."""
        self.transport.note(*step)

    def open(self, *messages: tuple[Words, Opening]) -> list[Words]:
        """Open several arrays in one round. The only place where parties' shares meet.

        Where two parties without a provider send each other messages, each is what one of them sends:
        here, and in pieces by :meth:`open_more`.

        Parameters
        ----------
        *messages : (words, opening)
            Shares of shape (p, ...) that add ("sum") or XOR ("xor"); or, with a party's number,
            what that party sends to all: of shape (1, ...) where it lives, else (0, ...).

        Returns
        -------
        list of uint64 arrays
            The opened values, of shape (1, ...), or (0, ...) in a plan.
        """
        self.check_open()
        others: list[Beside[Any]] = []
        # What is revealed among watched parties is all that is opened then.
        if self._beside and self._revealed < 0:
            others = [other for other in self._beside if other.joins]
        count = len(messages)
        if others:
            messages += tuple([other.message for other in others if other.message is not None])
        shapes = tuple([(words.shape[1:], opening) for words, opening in messages])
        if self.watch is None:
            self._ledger.add_round(*bytes_of_round(shapes, self.size, self.size - 1))
        else:
            self._count_reveal()
            self._ledger.add_round(*bytes_of_round(shapes, self.size, self.size - 2))
        try:
            opened = self.transport.open(messages)
        except PeerError as error:
            self._end(str(error))
            raise
        if not others:
            return opened
        for other, words in zip(others, opened[count:], strict=True):
            other.go_on(words)
        return opened[:count]

    def run(self, steps: Steps[T]) -> T:
        """Carry out a protocol that is written as :data:`Steps`, each of its rounds alone."""
        try:
            message = next(steps)
            while True:
                message = steps.send(self._open_alone(message))
        except StopIteration as end:
            value: T = end.value
            return value
        finally:
            steps.close()

    def _open_alone(self, message: tuple[Words, Opening] | Result) -> Words:
        """Open what a protocol opens next; among watched parties a result is checked."""
        if self.watch is not None and isinstance(message, Result):
            with self.revealing():
                return self.open(message)[0]
        return self.open(message)[0]

    def beside(self, steps: Steps[T]) -> Beside[T]:
        """Carry out a protocol while that of the ``with`` block runs, in the same rounds.

        Each opening of the block takes along what `steps` opens next; what is left at the end of the block
        has rounds of its own. The first step is taken at once. Among watched parties a
        :class:`Result` waits for the end of the block, to be checked.

        Returns
        -------
        Beside
            Its `value` is what `steps` returns, known after the block.
        """
        return Beside(self, steps)

    def begin_with(self, *messages: tuple[Words, int]) -> list[Words]:
        """Deliver messages as :meth:`open` does, as a part of the session's start: nothing is booked."""
        return self._deliver(messages)

    def open_more(self, *messages: tuple[Words, int]) -> list[Words]:
        """Open more of a message that is sent in pieces: these belong to the round before."""
        shapes = tuple([(words.shape[1:], opening) for words, opening in messages])
        self._ledger.add_round(*bytes_of_round(shapes, self.size, self.size - 1), continued=True)
        return self._deliver(messages)

    def _deliver(self, messages: Sequence[tuple[Words, Opening]]) -> list[Words]:
        self.check_open()
        try:
            return self.transport.open(messages)
        except PeerError as error:
            self._end(str(error))
            raise

    def open_to(self, party: int, shares: Words, opening: Literal["sum", "xor"] = "sum") -> Words:
        """Open one array to one party: the other parties send it their shares.

        Among watched parties, within :meth:`revealing`, to the party's process; else to both holders of
        its role, of whom each lacks some of the masks that hide the value.
        """
        self.check_open()
        senders = tuple([p for p in range(self.size) if p != party])
        private = False
        if self.watch is not None:
            private = self._revealed >= 0
            self._some_know |= not private and self.size > PARTIES
            senders = tuple([each for each, _ in deliveries(party, private, self.size)])
            self._count_reveal()
        self._ledger.add_round(*bytes_of_opening_to(senders, shares.shape[1:], self.size), to=party)
        try:
            deliver = self.transport.reveal_to if private else self.transport.open_to
            return deliver(party, shares, opening)
        except PeerError as error:
            self._end(str(error))
            raise

    def give(self, owner: int, words: Words) -> Words:
        """Deliver what watched party `owner` says freely, (1, ...) where it lives, to all: 1 round."""
        self.check_open()
        self._ledger.add_round(
            *bytes_of_round(((words.shape[1:], owner),), self.size, self.size - 1)
        )
        try:
            return self.transport.give(owner, words)
        except PeerError as error:
            self._end(str(error))
            raise

    # Revealing.

    def revealing(self) -> AbstractContextManager[None]:
        """Check the parties before and after what the ``with`` block opens without a mask, at once.

        Among semi-honest parties there is nothing to check. Among watched ones it takes 2 rounds of 16
        bytes to each other party, and raises AbortError, with which the session ends, if one has deviated.
        """
        return _NOTHING if self.watch is None else _Revealing(self)

    def check_each_other(self) -> None:
        """Among watched parties, check what all have sent since the last time, as :meth:`revealing` does.

        Before what follows from it is written, handed to another session, or lets parties go different
        ways. 1 round, 16 bytes to each other party; nothing among semi-honest parties. Of more than three
        parties, some do not know what was opened to one role alone: then 2, and who has stopped is missed
        in the second.
        """
        if self.watch is not None:
            if self._some_know:
                self._check()
            self._check()

    def _count_reveal(self) -> None:
        """Within a reveal, allow one opening alone: what it opens was checked before."""
        if self._revealed > 0:
            raise SessionError("what is revealed must be all that is opened between two checks")
        self._revealed += self._revealed >= 0

    def _check(self) -> None:
        """Check what all parties have sent since the last time: 1 round."""
        self.check_open()
        self._some_know = False
        with self._ledger.protocol("check"):
            self._ledger.add_round(*bytes_of_frames([[(2,)]] * self.size, self.size - 1))
        try:
            self.transport.check()
        except PeerError as error:
            self._end(str(error))
            raise

    def tell(
        self,
        own: Sequence[Words],
        shapes: Sequence[tuple[int, ...]] | None = None,
        *,
        booked: bool = True,
    ) -> list[Words]:
        """Broadcast public words of every party to all parties, in one round.

        Parameters
        ----------
        own : sequence of uint64 arrays
            The words of the parties that live here, one array each.
        shapes : sequence of tuple of int, optional
            The shape of every party's words; default the shape of `own[0]` for all.
        booked : bool, default=True
            Whether to book the round. False for a round that a plan cannot foresee, such as one that
            waits for workers.

        Returns
        -------
        list of uint64 arrays
            Every party's words, in the parties' order; none in a plan.
        """
        self.check_open()
        if shapes is None:
            shapes = [own[0].shape] * self.size
        words = [np.empty((0, *shape), np.uint64) for shape in shapes]
        for party, sent in zip(self.residents, own, strict=True):
            words[party] = sent[None]
        if booked:
            messages = tuple([(tuple(shape), party) for party, shape in enumerate(shapes)])
            self._ledger.add_round(*bytes_of_round(messages, self.size, self.size - 1))
        try:
            received = self.transport.tell(words)
        except PeerError as error:
            self._end(str(error))
            raise
        return [each[0] for each in received] if self.here else []

    def correlated(self, correlation: Correlation) -> CorrelatedShares:
        """Get this process's shares of a correlation: masks now, corrected parts when they are asked for.

        Open under the masks first, where that can be: corrected parts may have to be waited for.

        Raises
        ------
        SessionError
            If the session's source cannot make correlations of this class.
        """
        source, kind = self.source, type(correlation)
        if not source.makes(kind):
            raise SessionError(
                f"a {kind.__name__} must come from a source that makes it, got"
                f" {source.name}, which does not"
            )
        id = self.fresh_id()
        layout = correlation.layout
        self.transport.note(kind.__name__, id, layout.mask_words, layout.corrected_words)
        try:
            masks = source.masks(id, correlation)
        except PeerError as error:
            self._end(str(error))
            raise
        source.book(correlation, self._ledger)
        return CorrelatedShares(id, correlation, masks, self._corrected)

    def _corrected(self, id: int, correlation: Correlation) -> Words:
        self.check_open()
        if correlation.layout.corrected_words:
            self._ledger.wait_for_correction()
        try:
            return self.source.corrected(id, correlation)
        except PeerError as error:
            self._end(str(error))
            raise

    # Cost.

    def cost(self) -> Cost:
        """Return the rounds and bytes spent up to now."""
        return self._ledger.cost()

    def spent(self) -> Spent:
        """Return the total of :meth:`cost`, without its parts and so at once."""
        return self._ledger.total()

    def layer(self, name: str) -> AbstractContextManager[None]:
        """Book rounds, bytes and seconds of the ``with`` block under the layer `name`."""
        return self._ledger.layer(name)

    def protocol(self, name: str) -> AbstractContextManager[None]:
        """Book rounds and bytes of the ``with`` block under the protocol `name`.

        A PeerError that leaves the block ends the session: what another party has sent was not what it
        should be, and nothing may go on after it.
        """
        return _Protocol(self, self._ledger.protocol(name))

    def book_at_once(self, others: Sequence[Runtime]) -> None:
        """Book other sessions that ran in parallel: the sum of their bytes, the maximum of their rounds."""
        self._ledger.add_at_once([other._ledger for other in others])

    def book_form(self, said: str) -> None:
        """Book what form a protocol has taken, and why (for protocols)."""
        self._ledger.book_form(said)

    # The end.

    def at_end(self, ending: Callable[[], None]) -> None:
        """Have `ending` called once when the session ends."""
        self._endings[ending] = None

    def _end(self, problem: str | None) -> None:
        if self._closed:
            return
        self._closed = True
        self.streams.clear()
        self.pair = None
        self.source.close()
        if self._owner.generation != processes.generation:
            return  # in a forked child: the connections belong to the parent, which goes on
        if self.session_id:
            total, (sent, received) = self._ledger.total(), self.bytes_on_the_wire
            record(
                "session", warning=problem is not None, session=self.session_id.hex()[:8],
                me=str(self.me), parties=",".join(self.parties), rounds=total.rounds, sent=sent,
                received=received, seconds=time.monotonic() - self._began, problem=problem or "-",
            )  # fmt: skip
        self.transport.close(problem)
        for ending in self._endings:
            ending()


_NOTHING = nullcontext()


class _Revealing:
    __slots__ = ("_runtime",)

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def __enter__(self) -> None:
        self._runtime._check()
        self._runtime._revealed = 0

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._runtime._revealed = -1
        if error is None:
            self._runtime._check()


class Beside(Generic[T]):
    """A protocol that is carried out beside another one, see :meth:`Runtime.beside`.

    Attributes
    ----------
    message : (words, opening) or None
        What it opens next.
    value : object
        What it has found, once it has no message any more.
    """

    __slots__ = ("_session", "_steps", "message", "value")

    value: T

    def __init__(self, session: Runtime, steps: Steps[T]) -> None:
        self._session, self._steps = session, steps
        self.message: tuple[Words, Opening] | Result | None = None

    def __enter__(self) -> Beside[T]:
        try:
            self.message = next(self._steps)
        except StopIteration as end:
            self.value = end.value
        self._session._beside.append(self)
        return self

    @property
    def joins(self) -> bool:
        """Whether there is a message that an opening of others may take along."""
        if isinstance(self.message, Result):
            return self._session.watch is None
        return self.message is not None

    def go_on(self, opened: Words) -> None:
        """Take the step after the opening of `message`."""
        try:
            self.message = self._steps.send(opened)
        except StopIteration as end:
            self.message, self.value = None, end.value

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            while kind is None and self.message is not None:
                if self.joins:
                    self._session.open()
                    continue
                with self._session.revealing():
                    (opened,) = self._session.open(self.message)
                self.go_on(opened)
        finally:
            self._session._beside.remove(self)
            self._steps.close()


class _Protocol:
    __slots__ = ("_booking", "_runtime")

    def __init__(self, runtime: Runtime, booking: AbstractContextManager[None]) -> None:
        self._runtime, self._booking = runtime, booking

    def __enter__(self) -> None:
        self._booking.__enter__()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # In the step that it was in, which the other parties are told.
        if isinstance(error, PeerError):
            self._runtime._end(str(error))
        self._booking.__exit__(None, None, None)
