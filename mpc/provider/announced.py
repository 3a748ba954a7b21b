"""What the auditor is told of parts: by the last party alone, or by all parties, if they watch one another.

Among semi-honest parties the last one announces a part, and each opens keys of its own. One of watched
parties may lie to the auditor, so that nothing counts that only one of them says:

0. When the session begins, each says SHA-256 of the input keys (:mod:`mpc.core.watching`) that it has been
   given, or that follow from the keys of its roles. Each is known to an owner and two more, and if they
   do not all say the same, no session begins: else a provider could change an input by giving its
   owner another key, and no correction would be wrong.
1. Every party announces each part, as it has asked the provider for it: the last one by its requests, the
   others by SHA-256 of them. Two get corrections; once they have all of a part they send its tags, under a
   key that the auditor has sent both of them and nobody else. Where the provider signs parts they
   send its signature, too, each as it came.
2. When all have announced a part, the auditor compares: the same requests, the same tags. Others end the
   session, and accuse nobody. So a provider cannot deal the two different corrections and see by the
   session's end whether it mattered; and who lies of what it has got is no witness against the provider.
   Only then the coin is drawn.
3. Of each role both its processes open the keys, for the part that comes next of those which they have
   announced, and for no other blocks. Other keys end the session, before anything is computed from them.

One of two who say the same is honest, as long as one party alone deviates: it has got these corrections
from the provider, shares these keys with it, and has asked for this part. So whoever finds that other
corrections follow from the keys knows that the provider has dealt wrongly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

from mpc.core.errors import FrameError
from mpc.core.watching import MALICIOUS, holders, known_inputs, roles_of

__all__ = ["Announced", "OpenedKeys", "Tellers", "compare_inputs"]

_DIGEST_BYTES = 32
_KEPT_BYTES = 1 << 10

Keys = tuple[bytes, bytes]


def compare_inputs(said: Mapping[str, bytes]) -> None:
    """Compare what all parties have said of input keys, see :func:`mpc.core.watching.said_of_inputs`.

    Raises
    ------
    FrameError
        If two have said different things of one key, or one has said too much or too little.
    """
    found: dict[tuple[int, int], tuple[str, bytes]] = {}
    for party, (name, hashes) in enumerate(said.items()):
        known = known_inputs(party, len(said))
        if len(hashes) != _DIGEST_BYTES * len(known):
            raise FrameError(f"{name} sent hashes of other input keys than it has")
        for k, place in enumerate(known):
            mine = hashes[k * _DIGEST_BYTES : (k + 1) * _DIGEST_BYTES]
            other, theirs = found.setdefault(place, (name, mine))
            if mine != theirs:
                raise FrameError(
                    f"{other} and {name} have different keys of one role's inputs: one of them deviates,"
                    " or the provider has given them different ones"
                )


class Announced(NamedTuple):
    """A part, as the parties have announced it.

    Attributes
    ----------
    frame : bytes
        The requests; SHA-256 of them by parties other than the last.
    last : int
        The last id.
    tags : bytes
        Of each run of corrections; of a party that gets none, nothing.
    signed : tuple of bytes
        Hashes of keys, digest of the corrections and signature, where the provider signs; the signatures
        of all who got one, where all have announced it.
    """

    frame: bytes
    last: int
    tags: bytes
    signed: tuple[bytes, ...]

    @property
    def kept_bytes(self) -> int:
        """About how many bytes it takes while it waits."""
        return _KEPT_BYTES + sum(map(len, (self.frame, self.tags, *self.signed)))


class Tellers:
    """Who announces parts, and what they have announced that others have not yet.

    Parameters
    ----------
    me : str
        The auditor, for errors.
    names : sequence of str
        Of all parties.
    security : {"semi-honest", "malicious"}
    signs : bool
        Whether the provider signs each part.

    Attributes
    ----------
    receivers : tuple of str
        Who gets corrections.
    roles : dict of str to tuple of int
        The roles of which a party has the keys.
    """

    def __init__(self, me: str, names: Sequence[str], security: str, signs: bool) -> None:
        watched = security == MALICIOUS
        self._me, self._signs = me, signs
        self.receivers = tuple(names[k] for k in holders(len(names))) if watched else (names[-1],)
        self.roles = {
            name: roles_of(party, security, len(names)) for party, name in enumerate(names)
        }
        self._last = names[-1]
        self._waiting: dict[str, deque[Announced]] = {
            name: deque() for name in (names if watched else self.receivers)
        }
        self.waiting_bytes = 0

    def kinds(self, name: str) -> list[type] | None:
        """Return the types of what a party announces; None if it announces nothing."""
        if name not in self._waiting:
            return None
        return [bytes, int, bytes, *([bytes] * 3 if self._signs and name in self.receivers else [])]

    def add(
        self, name: str, frame: bytes, last: int, tags: bytes, *signed: bytes
    ) -> Announced | None:
        """Take in what a party announces next; return the part that all have announced by now.

        Raises
        ------
        FrameError
            If not all have announced the same.
        """
        said = Announced(frame, last, tags, signed)
        if len(self._waiting) == 1:
            return said
        self._waiting[name].append(said)
        self.waiting_bytes += said.kept_bytes
        if not all(self._waiting.values()):
            return None
        each = {teller: parts.popleft() for teller, parts in self._waiting.items()}
        self.waiting_bytes -= sum(part.kept_bytes for part in each.values())
        part = each[self._last]
        self._compare(each, part)
        # What one of two says of the signature alone could shield the provider.
        signatures = (signature for name in self.receivers for signature in each[name].signed[2:])
        return part._replace(signed=(*part.signed[:2], *signatures))

    def _compare(self, each: dict[str, Announced], part: Announced) -> None:
        asked = sha256(part.frame).digest()
        for name, other in each.items():
            if name != self._last and (other.frame, other.last) != (asked, part.last):
                raise FrameError(
                    f"{name} and {self._last} have told {self._me} of different requests: one of them"
                    " deviates"
                )
            if name not in self.receivers and other.tags:
                raise FrameError(f"{name} sent {self._me} tags of corrections that it does not get")
            same = (other.tags, other.signed[:2]) == (part.tags, part.signed[:2])
            if name in self.receivers and not same:
                raise FrameError(
                    f"{name} and {self._last} have told {self._me} of different corrections: one of them"
                    " deviates, or the provider has dealt them different ones"
                )


class OpenedKeys:
    """The keys that were opened for a part.

    Parameters
    ----------
    names : sequence of str
        Of all parties.
    roles : dict of str to tuple of int
        The roles of which a party has the keys.
    """

    def __init__(self, names: Sequence[str], roles: dict[str, tuple[int, ...]]) -> None:
        self._names, self._roles = names, roles
        self._opened: dict[str, tuple[Keys, ...]] = {}

    def add(self, name: str, keys: tuple[Keys, ...]) -> None:
        """Enter a party's keys, of each of its roles."""
        self._opened[name] = keys

    def __contains__(self, name: str) -> bool:
        return name in self._opened

    @property
    def late(self) -> list[str]:
        """The parties whose keys are not here."""
        return [name for name in self._names if name not in self._opened]

    def take(self) -> list[Keys]:
        """Return the keys of each role, and drop them.

        Raises
        ------
        FrameError
            If two parties have opened different keys of a role.
        """
        found: dict[int, tuple[str, Keys]] = {}
        opened, self._opened = self._opened, {}
        for name in self._names:
            for role, keys in zip(self._roles[name], opened[name], strict=True):
                other, same = found.setdefault(role, (name, keys))
                if keys != same:
                    raise FrameError(
                        f"{other} and {name} have opened different keys of one role: one of them"
                        " deviates, or the provider has given them different ones"
                    )
        return [found[role][1] for role in sorted(found)]
