"""The auditor as a service: it computes a part of what the provider deals again.

All computing parties of a session connect to it, and :mod:`mpc.provider.audit` says what they tell each
other; :mod:`mpc.provider.announced` what counts where one of them may lie. It hears nothing from the
provider and tells it nothing, and no opened value ever comes here.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import chain, islice, product
from pathlib import Path
from typing import Any

from mpc.core import wire
from mpc.core.correlation import Correlation
from mpc.core.errors import (
    AuditError,
    ConfigurationError,
    FrameError,
    PeerClosedError,
    PeerError,
    PeerTimeoutError,
    ShapeError,
)
from mpc.core.events import record
from mpc.core.frames import Kind
from mpc.core.watching import MALICIOUS, SEMI_HONEST
from mpc.parties.configuration import Configuration, Member
from mpc.parties.handshake import audit_terms
from mpc.provider.announced import OpenedKeys, Tellers, compare_inputs
from mpc.provider.audit import (
    CORRECTION_KEY_BYTES,
    MASK_KEY_BYTES,
    TAG_BYTES,
    CorrectionTag,
    Needed,
    Recomputation,
    blocks_needed,
    draw,
    runs_of,
    tag_key,
)
from mpc.provider.evidence import Evidence
from mpc.provider.meetings import Meeting, MeetingService
from mpc.provider.signed import hashes_of, own_hashes, statement
from mpc.transport.certificates import presented
from mpc.transport.connection import Connection, exchange, wait
from mpc.transport.signatures import Signer, is_signed
from ring.streams import fresh_key

__all__ = ["AuditorService"]

_LARGEST_MESSAGE = 1 << 23
_LARGEST_HASHES = 1 << 20
# Of requests of parts that wait for a verdict. The last party's keys come behind them, so all are read.
_MOST_PENDING_BYTES = 1 << 28
_PART_BYTES = 1 << 10
# Of a part, as a frame of requests may have.
_MOST_RUNS = 512
_LOOK_SECONDS = 0.25
# When the service is to stop, a session in which nothing comes for so long is ended.
_STOP_SECONDS = 3.0
# How long parties may take to leave a session that is over.
_LEAVE_SECONDS = 5.0


class AuditorService(MeetingService):
    """Serves sessions until it is closed.

    Parameters
    ----------
    read : Configuration
    sock : socket, optional
        A socket that listens at the auditor's address already.
    memory_limit : int, default=2**30
        Bytes of one correlation; larger ones are refused.
    sessions : int, default=64
        The most sessions at once.
    evidence : Path, optional
        A folder for evidence, where the provider signs what it deals.
    """

    role = "auditor"

    def __init__(
        self,
        read: Configuration,
        *,
        sock: socket.socket | None = None,
        memory_limit: int = 1 << 30,
        sessions: int = 64,
        evidence: Path | None = None,
    ) -> None:
        self.limit, self.evidence = memory_limit // 8, evidence
        self.member(read)
        if evidence is not None:
            if not read.audit_signed:
                raise ConfigurationError(
                    f"evidence is of what the provider has signed: {read.path} needs signed = true in"
                    " [auditor], at all"
                )
            if not evidence.is_dir():
                raise ConfigurationError(f"{evidence} must be a folder, for evidence")
            self._sign(read, b"")
        super().__init__(read, sock=sock, sessions=sessions)

    @staticmethod
    def member(read: Configuration) -> Member:
        """Return the auditor's entry in the configuration."""
        if read.auditor is None:
            raise read.lacks_auditor()
        return read.auditor

    def terms(self) -> dict[str, Any]:
        """Return the terms on which the auditor and every party must agree."""
        return {
            **super().terms(),
            "auditor": audit_terms(self.read),
            "security": self.read.security,
        }

    def health(self) -> dict[str, Any]:
        """Return the state, and how many parts were announced, audited and found wrong."""
        counts = {name: self.counted(name) for name in ("parts", "audited", "wrong")}
        told = {**super().health(), "rate": f"{self.read.audit_rate:g}", **counts}
        if self.read.security != SEMI_HONEST:
            told["security"] = self.read.security
        return told

    def figures(self) -> dict[str, int]:
        """Return the figures that metrics show of this service, beside those counted from events."""
        counts = {name: self.counted(name) for name in ("parts", "audited", "wrong")}
        return {**super().figures(), **counts}

    def hold(self, meeting: Meeting, connections: Mapping[str, Connection]) -> None:
        """Audit a session until its parties have left."""
        names = tuple(connections)
        key = meeting.keys[names[-1]]
        watched = any(terms.get("security") == MALICIOUS for terms in meeting.terms.values())
        security = MALICIOUS if watched else SEMI_HONEST
        tellers = Tellers(self.me, names, security, self.read.audit_signed)
        if watched:
            self._compare_inputs(connections)
            key = fresh_key()
            for name in names:
                connections[name].post_bytes(Kind.KEYS, key if name in tellers.receivers else b"")
        _Auditing(self, meeting, connections, tag_key(key), tellers).run()

    def _compare_inputs(self, connections: Mapping[str, Connection]) -> None:
        """Hear from watched parties which input keys the provider has given them, and compare."""
        for connection in connections.values():
            connection.expect_bytes([Kind.KEYS], _LARGEST_HASHES)
        exchange(connections.values(), self.read.timeouts.connect)
        compare_inputs({name: each.take().data.tobytes() for name, each in connections.items()})

    def _sign(self, read: Configuration, message: bytes) -> tuple[bytes, bytes]:
        """Return the auditor's certificate and its signature of a message."""
        member = self.member(read)
        assert member.key is not None
        certificate = presented(member.certificates, member.key).der
        return certificate, Signer(member.key).sign(message)

    def keep(self, evidence: Evidence) -> str:
        """Sign evidence and write it, if there is a folder for it; return its path."""
        if self.evidence is None:
            return ""
        try:
            certificate, signature = self._sign(self.read, evidence.found)
        except ConfigurationError as error:
            return f"not written: {error}"
        signed = replace(evidence, auditor=certificate, auditor_signature=signature)
        try:
            return str(signed.write(self.evidence))
        except OSError as error:
            return f"not written: {error.strerror}"

    def reported(self, meeting: Meeting) -> dict[str, int]:
        """Return what the log says of a session that has ended."""
        return {name: meeting.counts[name] for name in ("parts", "audited", "wrong")}


@dataclass
class _Part:
    """A part whose corrections are bound, until the parties are told of it."""

    # Of its first run, and the tags and the places of the runs that a coin has fallen for.
    number: int
    frame: bytes
    last: int
    tags: bytes
    picked: tuple[int, ...]
    # Hashes of keys, digest of the corrections and signatures, where the provider signs.
    signed: tuple[bytes, ...]
    # Of each run that is picked.
    runs: list[list[tuple[int, Correlation]]] = field(default_factory=list)
    needed: list[Needed] = field(default_factory=list)


class _Auditing:
    """Parts in, keys in, verdicts out, for one session and in one thread."""

    def __init__(
        self,
        service: AuditorService,
        meeting: Meeting,
        connections: Mapping[str, Connection],
        key: bytes,
        tellers: Tellers,
    ) -> None:
        self._service, self._meeting, self._connections = service, meeting, connections
        self._names = tuple(connections)
        self._here = list(connections)
        self._rate = service.read.audit_rate
        self._key, self._tellers = key, tellers
        self._recomputation = Recomputation(len(connections))
        self._signs = service.read.audit_signed
        # Those that hold when the session begins: a long session outlives a renewal.
        provider = service.read.provider
        self._certificates = () if provider is None else provider.accepted
        self._parts: deque[_Part] = deque()
        # Keys that were asked for the first part.
        self._opened = OpenedKeys(self._names, tellers.roles)
        self._asked_at = 0.0
        self._pending_bytes = 0
        self._last = 0
        # Up to which id parts are cleared, and up to which the parties know of it.
        self._cleared = self._told = 0
        self._over = False
        self._until = float("inf")

    def run(self) -> None:
        """Audit until all parties have left."""
        for connection in self._connections.values():
            connection.expect_bytes([Kind.AUDIT], _LARGEST_MESSAGE)
        quiet_since, problem = time.monotonic(), None
        while self._here:
            if self._receive():
                quiet_since = time.monotonic()
            if not self._over:
                problem = self._go_on()
            now = time.monotonic()
            if now > self._until:
                break
            self._look(now)
            if self._service.stopping and not self._over:
                if now >= min(self._service.deadline, quiet_since + _STOP_SECONDS):
                    raise PeerClosedError(f"{self._service.me} shuts down")
        if problem is not None:
            raise problem

    def _look(self, now: float) -> None:
        """Give up a party that does not open what it was asked for."""
        limit = self._service.read.timeouts.answer
        if (
            not self._over
            and self._parts
            and self._parts[0].needed
            and now > self._asked_at + limit
        ):
            late = " and ".join(self._opened.late)
            raise PeerTimeoutError(
                f"{late} did not open keys to {self._service.me} within {limit:g} s"
            )

    # What comes.

    def _receive(self) -> bool:
        """Move frames, and take in those that have come; return whether any has."""
        here = {name: self._connections[name] for name in self._here}
        try:
            ready = wait(tuple(here.values()), _LOOK_SECONDS)
        except PeerError:
            ready = self._left_behind(here)
        for name, connection in here.items():
            if connection in ready:
                self._take(name, connection)
        return bool(ready)

    def _left_behind(self, here: Mapping[str, Connection]) -> list[Connection]:
        """Find who has left, and return the connections of the others whose frames have arrived."""
        ready = []
        for name, connection in here.items():
            try:
                connection.advance()
            except FrameError:
                raise
            except PeerError:
                self._leave(name)
                continue
            if connection.arrived:
                ready.append(connection)
        return ready

    def _leave(self, name: str) -> None:
        """Tell the others that a party has left: what it does not open any more is not checked."""
        self._here.remove(name)
        if not self._over:
            self._over = True
            self._until = time.monotonic() + self._service.read.timeouts.party
            self._tell(("left", name))

    def _take(self, name: str, connection: Connection) -> None:
        try:
            message = wire.decode(connection.take().data.data)
        except ShapeError:
            message = None
        connection.expect_bytes([Kind.AUDIT], _LARGEST_MESSAGE)
        if type(message) is not tuple or not message:
            raise FrameError(f"{name} sent a message that is malformed")
        what, *rest = message
        kinds = [type(value) for value in rest]
        if what == "part" and kinds == self._tellers.kinds(name):
            self._announced(name, *rest)
        elif what == "keys" and kinds == [bytes, bytes] * len(self._tellers.roles[name]):
            self._open(name, *rest)
        else:
            raise FrameError(f"{name} sent a message that is malformed")

    def _announced(self, name: str, *said: Any) -> None:
        """Take in what a party announces; draw when all have who announce parts."""
        part = self._tellers.add(name, *said)
        if part is None:
            self._check_room(name)
        else:
            self._bind(self._names[-1], part.frame, part.last, part.tags, *part.signed)

    def _check_room(self, name: str) -> None:
        if self._pending_bytes + self._tellers.waiting_bytes > _MOST_PENDING_BYTES:
            raise FrameError(f"{name} announced more parts than can wait for a verdict")

    def _bind(self, name: str, frame: bytes, last: int, tags: bytes, *signed: bytes) -> None:
        """Draw whether to audit a part, or each run of it, now that its corrections are bound."""
        runs, rest = divmod(len(tags), TAG_BYTES)
        if not 1 <= runs <= (1 if self._signs else _MOST_RUNS) or rest:
            raise FrameError(f"{name} sent tags that are malformed")
        if last <= self._last:
            raise FrameError(f"{name} announced a part whose ids were announced already")
        self._last = last
        self._pending_bytes += _size(frame, tags, *signed)
        self._check_room(name)
        counts = self._meeting.counts
        picked = draw(self._rate, runs)
        part = _Part(counts["parts"], frame, last, tags, picked, signed)
        self._parts.append(part)
        counts["parts"] += runs
        if self._signs:
            self._show_hashes(part)

    def _open(self, name: str, *keys: bytes) -> None:
        needed = self._parts[0].needed if self._parts else []
        if not needed or name in self._opened:
            raise FrameError(f"{name} sent keys that it was not asked for")
        opened = tuple(zip(keys[::2], keys[1::2], strict=True))
        for role, (masks, corrections) in zip(self._tellers.roles[name], opened, strict=True):
            of = needed[role]
            if (len(masks), len(corrections)) != (
                MASK_KEY_BYTES * len(of.masks),
                CORRECTION_KEY_BYTES * len(of.corrections),
            ):
                raise FrameError(f"{name} sent keys of other blocks than it was asked for")
        self._opened.add(name, opened)

    # What goes.

    def _tell(self, message: tuple[Any, ...]) -> None:
        data = wire.encode(message)
        for name in self._here:
            self._post(name, data)

    def _send(self, name: str, message: tuple[Any, ...]) -> None:
        self._post(name, wire.encode(message))

    def _post(self, name: str, data: bytes) -> None:
        connection = self._connections[name]
        connection.post_bytes(Kind.AUDIT, data)
        try:
            connection.push()
        except PeerError:
            pass  # found when it is received from

    def _go_on(self) -> AuditError | None:
        """Decide on the first parts, as far as it goes; return what was found wrong."""
        while self._parts:
            part = self._parts[0]
            if part.picked:
                if not part.needed:
                    self._ask(part)
                if self._opened.late:
                    break
                if (wrong := self._wrong(part)) is not None:
                    return self._convict(*wrong)
            self._parts.popleft()
            self._pending_bytes -= _size(part.frame, part.tags, *part.signed)
            self._cleared = part.last
        self._clear()
        return None

    def _clear(self) -> None:
        if self._cleared > self._told:
            self._told = self._cleared
            self._tell(("clear", self._told))

    def _ask(self, part: _Part) -> None:
        """Ask all parties for the keys that a part's corrections follow from."""
        # The last party opens keys for the first part that it holds to be open.
        self._clear()
        first, part.runs = self._requests(part)
        if first <= self._cleared:
            raise self._other_ids()
        part.needed = blocks_needed(list(chain.from_iterable(part.runs)), len(self._names))
        self._asked_at = time.monotonic()
        for name in self._here:
            self._send(name, ("open", part.tags, part.picked, *self._blocks_of(name, part.needed)))

    def _blocks_of(self, name: str, needed: Sequence[Needed]) -> list[tuple[int, ...]]:
        """Return the blocks of masks and of corrections of each role of which a party has the keys."""
        roles = self._tellers.roles[name]
        return [each for role in roles for each in (needed[role].masks, needed[role].corrections)]

    def _requests(self, part: _Part) -> tuple[int, list[list[tuple[int, Correlation]]]]:
        """Return the first id of a part, and the requests of the runs that are picked."""
        try:
            first, end, runs = runs_of(
                part.frame, self._service.limit, len(part.tags) // TAG_BYTES, part.picked or (0,)
            )
        except ShapeError as error:
            last = self._names[-1]
            raise FrameError(f"{last} announced requests that are malformed: {error}") from None
        if end != part.last:
            raise self._other_ids()
        return first, runs

    def _other_ids(self) -> FrameError:
        return FrameError(f"{self._names[-1]} announced a part of other ids than its requests have")

    def _show_hashes(self, part: _Part) -> None:
        """Show each party the hashes of its keys that the provider has signed, of every part.

        Otherwise a provider could sign other hashes wherever it deals wrongly, and be accused of nothing.
        """
        needed = blocks_needed(self._requests(part)[1][0], len(self._names))
        for name in self._here:
            # Who gets corrections has compared its own.
            if name not in self._tellers.receivers:
                roles = self._tellers.roles[name]
                hashes = b"".join(own_hashes(part.signed[0], needed, role) for role in roles)
                self._send(name, ("signed", *self._blocks_of(name, needed), hashes))

    def _wrong(self, part: _Part) -> tuple[int, int, str] | None:
        """Compute a part's corrections again, and compare; return ids and evidence if they are wrong."""
        opened = self._opened.take()
        self._meeting.counts["audited"] += len(part.picked)
        signer = b"", b""
        if self._signs:
            # Before anything is computed: masks that follow from forged keys must not get into the cache.
            signer = self._signer_of(part)
            self._compare_keys(part, opened)
        digest, asked = sha256(), list(chain.from_iterable(part.runs))
        with closing(self._recomputation.corrections(asked, part.needed, opened)) as computed:
            for k, run in zip(part.picked, part.runs, strict=True):
                tag = CorrectionTag(self._key, part.number + k)
                for words in islice(computed, len(run)):
                    tag.add(words)
                    if self._signs:
                        digest.update(words.astype("<u8", copy=False).data)
                if tag.end() != part.tags[k * TAG_BYTES : (k + 1) * TAG_BYTES]:
                    said = digest.digest()
                    shown = self._evidence(part, said, *signer) if self._signs else ""
                    return run[0][0], run[-1][0], shown
        return None

    def _compare_keys(self, part: _Part, opened: Sequence[tuple[bytes, bytes]]) -> None:
        """Compare the keys that were opened with those that the provider has signed."""
        hashes, *_ = part.signed
        for party, (name, keys) in enumerate(zip(self._names, opened, strict=True)):
            cut = (_cut(keys[0], MASK_KEY_BYTES), _cut(keys[1], CORRECTION_KEY_BYTES))
            if own_hashes(hashes, part.needed, party) != hashes_of([cut]):
                raise FrameError(f"the provider has signed other keys than {name} has opened")

    def _signer_of(self, part: _Part) -> tuple[bytes, bytes]:
        """Return the provider's certificate that a part is signed with, and the signature."""
        hashes, digest, *signatures = part.signed
        said = statement(self._meeting.id, part.number, part.frame, hashes, digest)
        for signature, certificate in product(signatures, self._certificates):
            if is_signed(said, signature, [certificate]):
                return certificate, signature
        raise self._not_signed()

    def _not_signed(self) -> FrameError:
        last = self._names[-1]
        return FrameError(
            f"{last} sent a signature that is not the provider's, of what it has dealt"
        )

    def _evidence(self, part: _Part, follows: bytes, certificate: bytes, signature: bytes) -> str:
        """Write evidence, unless the last party has not told what it was sent."""
        hashes, digest, *_ = part.signed
        if digest == follows:
            raise self._not_signed()
        evidence = Evidence(
            part.number, self._meeting.id, part.frame, hashes, digest, follows, certificate,
            signature,
        )  # fmt: skip
        return self._service.keep(evidence)

    def _convict(self, first: int, last: int, evidence: str) -> AuditError:
        """Tell all parties that the provider has dealt wrongly, and wait for them to leave."""
        self._meeting.counts["wrong"] += 1
        self._tell(("wrong", first, last))
        self._over = True
        self._until = time.monotonic() + _LEAVE_SECONDS
        session = self._meeting.id.hex()[:8]
        record(
            "audit", warning=True, session=session, first=first, last=last,
            evidence=evidence or "-",
        )  # fmt: skip
        return AuditError(f"the provider has dealt wrongly for ids {first} to {last}")


def _size(*held: bytes) -> int:
    """Return about how many bytes a part takes while it waits."""
    return _PART_BYTES + sum(map(len, held))


def _cut(keys: bytes, size: int) -> list[bytes]:
    return [keys[k : k + size] for k in range(0, len(keys), size)]
