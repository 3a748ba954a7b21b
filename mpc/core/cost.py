"""Rounds, trips and bytes: what a session has spent, by protocol and by layer.

Trips are what a slow network makes one wait for. Every party has a clock, which counts the messages in the
longest chain that it has waited for: a message that is sent at t by its sender's clock sets the clock of
whoever waits for it to t + 1 at least. A round in which all parties send to all others moves all clocks.
One in which a party hears nothing leaves its clock alone: it goes on at once, and a party that is behind
may have caught up. So the trips of a program are not the sum of those of its parts, each alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from mpc.core.errors import ArgumentError
from mpc.core.figures import Panel, draw_bars

__all__ = ["Cost", "Ledger", "Spent"]


@dataclass
class Spent:
    """Rounds, bytes and seconds of one protocol or layer.

    Attributes
    ----------
    rounds : int
        Each begins only after the messages of the one before have arrived.
    bytes_sent : int
        Bytes the busiest computing party sends to the other computing parties, all together.
    correction_bytes : int
        Bytes the crypto provider sends to the last computing party. Corrections depend on no data,
        so they can be sent ahead.
    seconds : float
        Wall time; no part of ``==``.
    sent : tuple of int
        Bytes that each computing party sends, where measured; no part of ``==``.
    trips : int
        Messages one after another, each on its way for half a round trip: by how many the longest chain of
        messages that wait for one another has grown. No part of ``==``: it depends on what came before.
        Corrections count as asked for when the session began, or at the last `Session.prepare`.
    """

    rounds: int = 0
    bytes_sent: int = 0
    correction_bytes: int = 0
    seconds: float = field(default=0.0, compare=False)
    sent: tuple[int, ...] = field(default=(), compare=False, repr=False)
    trips: int = field(default=0, compare=False, repr=False)

    def __add__(self, other: Spent) -> Spent:
        return self._combine(other, 1)

    def __sub__(self, other: Spent) -> Spent:
        return self._combine(other, -1)

    def _combine(self, other: Spent, sign: int) -> Spent:
        sent = tuple(a + sign * b for a, b in zip_longest(self.sent, other.sent, fillvalue=0))
        # Another party may be the busiest one in the sum or difference than in either.
        measured = all(spent.sent or not spent.bytes_sent for spent in (self, other))
        return Spent(
            self.rounds + sign * other.rounds,
            max(sent) if sent and measured else self.bytes_sent + sign * other.bytes_sent,
            self.correction_bytes + sign * other.correction_bytes,
            self.seconds + sign * other.seconds,
            sent if measured else (),
            self.trips + sign * other.trips,
        )


@dataclass(frozen=True)
class Cost:
    """A session's cost up to now, or a plan's. Printing it gives a table.

    Attributes
    ----------
    total : Spent
    by_protocol, by_layer : dict of str to Spent
        The total, split. Rounds and bytes outside of any layer or protocol are under ``"-"``.
    framing : tuple of int
        Bytes that each computing party's messages take on the wire beside their contents, where
        the parties are processes: headers, TLS, and the last party's requests to the provider. No
        part of ``==``.
    correction_framing : int
        Likewise what the provider sends beside the corrections.
    forms : dict of str to str
        Where the session knows its network: by layer, in how many rounds its last ReLU or maximum went, and
        why. Likewise no part of ``==``.
    security : str
        What the parties are trusted to do, see :class:`mpc.Session`. Likewise no part of ``==``.
    """

    total: Spent
    by_protocol: dict[str, Spent]
    by_layer: dict[str, Spent]
    framing: tuple[int, ...] = field(default=(), compare=False)
    correction_framing: int = field(default=0, compare=False)
    forms: dict[str, str] = field(default_factory=dict, compare=False)
    security: str = field(default="semi-honest", compare=False)

    @property
    def rounds(self) -> int:
        """Rounds in all."""
        return self.total.rounds

    @property
    def trips(self) -> int:
        """Messages one after another in the longest chain: half a round trip each."""
        return self.total.trips

    @property
    def bytes_sent_per_party(self) -> int:
        """Bytes the busiest computing party sends to the others."""
        return self.total.bytes_sent

    @property
    def correction_bytes(self) -> int:
        """Bytes the crypto provider sends to the last computing party."""
        return self.total.correction_bytes

    def plot(self, by: str = "layer", *, sent: str = "sent by a party") -> Any:
        """Draw rounds, bytes and seconds as bars (extra: plot).

        Parameters
        ----------
        by : "layer" or "protocol"
            Seconds are known by layer only.
        sent : str
            What to call the bytes that are sent.

        Returns
        -------
        matplotlib.figure.Figure
            Shown in a notebook; elsewhere ``figure.savefig("cost.png")``.

        Raises
        ------
        MissingExtraError
            Without matplotlib.
        """
        if by not in ("layer", "protocol"):
            raise ArgumentError(f"by must be 'layer' or 'protocol', got {by!r}")
        parts = self.by_layer if by == "layer" else self.by_protocol
        names = [f"in no {by}" if name == "-" else name for name in parts]
        return draw_bars(names, _panels(list(parts.values()), sent))

    @property
    def wire_bytes(self) -> tuple[int, ...]:
        """Bytes that each computing party puts on the wire, as its sockets count them."""
        sent = self.total.sent or (0,) * len(self.framing)
        return tuple(a + b for a, b in zip(sent, self.framing, strict=True))

    @property
    def wire_correction_bytes(self) -> int:
        """Bytes that the provider puts on the wire."""
        return self.total.correction_bytes + self.correction_framing

    def __sub__(self, earlier: Cost) -> Cost:
        """Return the cost since `earlier`, a cost of the same session."""

        def minus(now: dict[str, Spent], then: dict[str, Spent]) -> dict[str, Spent]:
            rest = {name: spent - then.get(name, Spent()) for name, spent in now.items()}
            return {name: each for name, each in rest.items() if each != Spent() or each.trips}

        return Cost(
            self.total - earlier.total,
            minus(self.by_protocol, earlier.by_protocol),
            minus(self.by_layer, earlier.by_layer),
            tuple(a - b for a, b in zip(self.framing, earlier.framing, strict=True)),
            self.correction_framing - earlier.correction_framing,
            dict(self.forms),
            self.security,
        )

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [
            ("", "rounds", "trips", "bytes sent a party", "correction bytes")
        ]
        for title, part in (("protocol", self.by_protocol), ("layer", self.by_layer)):
            if title == "layer" and set(part) <= {"-"}:
                continue
            rows += [(title, *[""] * 4)]
            rows += [_row(f"  {name}", spent) for name, spent in part.items()]
        rows += [_row("total", self.total)]
        widths = [max(len(row[k]) for row in rows) for k in range(5)]
        lines = []
        for row in rows:
            numbers = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            lines.append("  ".join([row[0].ljust(widths[0]), *numbers]).rstrip())
        if self.forms:
            lines.append("relu")
            lines += [f"  {name}  {said}" for name, said in self.forms.items()]
        if self.security != "semi-honest":
            lines.append(f"security  {self.security}")
        return "\n".join(lines)


def _row(name: str, spent: Spent) -> tuple[str, str, str, str, str]:
    """Return a row of the table that printing a cost gives."""
    counts = (spent.rounds, spent.trips, spent.bytes_sent, spent.correction_bytes)
    rounds, trips, sent, corrections = (f"{count:,}" for count in counts)
    return name, rounds, trips, sent, corrections


def _panels(spent: list[Spent], sent: str) -> list[Panel]:
    """Return the panels of bars that :meth:`Cost.plot` draws, a value for each layer or protocol."""
    most = max((max(s.bytes_sent, s.correction_bytes) for s in spent), default=0)
    unit, size = ("MB", 1e6) if most >= 1e5 else ("kB", 1e3)
    panels: list[Panel] = [
        ("rounds", [("", [float(s.rounds) for s in spent])]),
        (
            unit,
            [
                (sent, [s.bytes_sent / size for s in spent]),
                ("from the provider", [s.correction_bytes / size for s in spent]),
            ],
        ),
    ]
    # Time is kept by layer only, and only while a layer runs.
    longest = max((s.seconds for s in spent), default=0.0)
    if longest:
        unit, size = ("seconds", 1.0) if longest >= 1 else ("milliseconds", 1e-3)
        panels.append((unit, [("", [s.seconds / size if s.seconds else None for s in spent])]))
    return panels


class Ledger:
    """Books every round and byte under the protocol and the layer that runs."""

    def __init__(self, parties: int) -> None:
        self._parties = parties
        self._sent: dict[tuple[str, str], list[int]] = {}
        self._other: dict[tuple[str, str], Spent] = {}
        # The sums of all that is booked, since they are asked for far more often than the parts.
        self._total, self._all_sent = Spent(), [0] * parties
        # The parties' clocks, in trips: now, when the last round began, and when the last party asked for
        # corrections.
        self._clocks, self._began, self._asked = [0] * parties, [0] * parties, 0
        self._protocol = "-"
        self._layer = "-"
        self._seconds: dict[str, float] = {}
        self._framing = [0] * parties
        self._correction_framing = 0
        self._forms: dict[str, str] = {}
        # What the session's parties are trusted to do, for the report.
        self.security = "semi-honest"

    def _key(self) -> tuple[str, str]:
        key = (self._protocol, self._layer)
        if key not in self._other:
            self._other[key] = Spent()
            self._sent[key] = [0] * self._parties
        return key

    @property
    def step(self) -> str:
        """The layer and the protocol that run, for errors."""
        names = [f"layer {self._layer}" if self._layer != "-" else "", self._protocol.strip("-")]
        return " ".join(name for name in names if name)

    @property
    def rounds(self) -> int:
        """Rounds up to now."""
        return self._total.rounds

    def where(self) -> str:
        """Return the number of the round, and the layer and protocol, for errors."""
        step = self.step
        return f"round {self.rounds}{f' ({step})' if step else ''}"

    def add_round(
        self,
        sent: Sequence[int],
        framing: Sequence[int],
        *,
        to: int | None = None,
        continued: bool = False,
    ) -> None:
        """Book one round: party i sends ``sent[i]`` bytes of contents and ``framing[i]`` of framing.

        A party without framing sends nothing. The others wait for the messages, or `to` alone. If
        `continued`, they belong to the round before, whose message is sent in pieces.
        """
        key, clocks = self._key(), self._clocks
        if not continued:
            self._other[key].rounds += 1
            self._total.rounds += 1
            self._began = clocks.copy()
        totals, all_sent, all_framing = self._sent[key], self._all_sent, self._framing
        for party, count in enumerate(sent):
            totals[party] += count
            all_sent[party] += count
            all_framing[party] += framing[party]
        if continued or to is not None or len(clocks) != 2 or not all(framing):
            self._arrive(framing, to)
        else:  # two tell each other, as in most rounds
            first, second = clocks
            clocks[0] = first if first > second else second + 1
            clocks[1] = second if second > first else first + 1
        self._add_trips(key)

    def _arrive(self, framing: Sequence[int], to: int | None) -> None:
        """Put forward the clocks of those who get messages of the round that runs."""
        clocks, began = self._clocks, self._began
        for party, count in enumerate(framing):
            if not count:
                continue
            comes = began[party] + 1
            for other, clock in enumerate(clocks):
                if clock < comes and other != party and to in (None, other):
                    clocks[other] = comes

    def _add_trips(self, key: tuple[str, str]) -> None:
        """Book the trips by which the clock that is ahead has grown."""
        trips = max(self._clocks) - self._total.trips
        if trips:
            self._total.trips += trips
            self._other[key].trips += trips

    def add_framing(self, party: int, count: int) -> None:
        """Book bytes of framing that `party` sends; -1 is the last party."""
        self._framing[party] += count

    def add_correction(self, count: int, framing: int) -> None:
        """Book a correction of `count` bytes from the provider, and the bytes of its framing."""
        self._other[self._key()].correction_bytes += count
        self._total.correction_bytes += count
        self._correction_framing += framing

    def book_form(self, said: str) -> None:
        """Book what form a protocol has taken in the layer that runs, and why."""
        self._forms[self._layer] = said

    def wait_for_correction(self) -> None:
        """Note that the last party waits for a correction: there and back since it was asked for."""
        comes = self._asked + 2
        if self._clocks[-1] < comes:
            self._clocks[-1] = comes
            self._add_trips(self._key())

    def ask(self) -> None:
        """Note that the last party now asks for corrections that it will need."""
        self._asked = self._clocks[-1]

    def add_at_once(self, others: Sequence[Ledger]) -> None:
        """Book ledgers of sessions that ran in parallel: the sum of their bytes, the most rounds."""
        for ledger in others:
            self._forms |= ledger._forms
            for key, sent in ledger._sent.items():
                mine = self._sent.setdefault(key, [0] * self._parties)
                self._sent[key] = [a + b for a, b in zip(mine, sent, strict=True)]
                spent = self._other.setdefault(key, Spent())
                spent.correction_bytes += ledger._other[key].correction_bytes
            self._all_sent = [a + b for a, b in zip(self._all_sent, ledger._all_sent, strict=True)]
            self._total.correction_bytes += ledger._total.correction_bytes
        longest = max(others, key=lambda ledger: ledger.rounds)
        for key, spent in longest._other.items():
            self._other[key].rounds += spent.rounds
        self._total.rounds += longest.rounds
        # All of them begin when all parties are ready.
        latest = max(others, key=lambda ledger: ledger._total.trips)
        for key, spent in latest._other.items():
            self._other[key].trips += spent.trips
        begin = self._total.trips
        self._clocks = [begin + clock for clock in latest._clocks]
        self._total.trips = begin + latest._total.trips

    def protocol(self, name: str) -> AbstractContextManager[None]:
        """Book under `name`, unless a protocol runs already: costs go to the outermost protocol."""
        return _Protocol(self, name)

    def layer(self, name: str) -> AbstractContextManager[None]:
        """Book under the layer `name`, with the time it takes."""
        return _Layer(self, name)

    def total(self) -> Spent:
        """Return the sum of everything, without seconds."""
        sent = tuple(self._all_sent) if self._other else ()
        most = max(sent, default=0)
        now = self._total
        return Spent(now.rounds, most, now.correction_bytes, sent=sent, trips=now.trips)

    def cost(self) -> Cost:
        """Sum up."""

        def collect(which: int) -> dict[str, Spent]:
            spent: dict[str, Spent] = {}
            sent: dict[str, list[int]] = {}
            for key, other in self._other.items():
                name = key[which]
                spent[name] = spent.get(name, Spent()) + other
                sums = sent.get(name, [0] * self._parties)
                sent[name] = [a + b for a, b in zip(sums, self._sent[key], strict=True)]
            for name, sums in sent.items():
                spent[name].bytes_sent, spent[name].sent = max(sums), tuple(sums)
                spent[name].seconds = self._seconds.get(name, 0.0) if which == 1 else 0.0
            return spent

        return Cost(
            self.total(),
            collect(0),
            collect(1),
            tuple(self._framing),
            self._correction_framing,
            dict(self._forms),
            self.security,
        )


class _Protocol:
    # A class: contextlib's generators take thrice the time, and every protocol enters one of these.
    __slots__ = ("_ledger", "_name", "_outer")

    def __init__(self, ledger: Ledger, name: str) -> None:
        self._ledger, self._name = ledger, name

    def __enter__(self) -> None:
        self._outer = self._ledger._protocol
        if self._outer == "-":
            self._ledger._protocol = self._name

    def __exit__(self, *error: object) -> None:
        self._ledger._protocol = self._outer


class _Layer:
    __slots__ = ("_ledger", "_name", "_outer", "_start")

    def __init__(self, ledger: Ledger, name: str) -> None:
        self._ledger, self._name = ledger, name

    def __enter__(self) -> None:
        self._outer, self._ledger._layer = self._ledger._layer, self._name
        self._start = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        seconds, ledger = time.perf_counter() - self._start, self._ledger
        ledger._layer = self._outer
        ledger._seconds[self._name] = ledger._seconds.get(self._name, 0.0) + seconds
