"""Makes the components of a session, for parties in one process or in several, the source among them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpc.core.cost import Ledger
from mpc.core.errors import ArgumentError, DtypeError, PartyError
from mpc.core.interfaces import CorrelationSource
from mpc.core.keys import fresh_streams, pair_streams, party_streams
from mpc.core.network import Network
from mpc.core.ranges import RangePolicy
from mpc.core.secret_value import SecretValue
from mpc.core.setup import Setup
from mpc.core.watching import (
    MALICIOUS,
    PARTIES,
    Watch,
    holders,
    input_key,
    input_streams,
    role_streams,
    roles_of,
    salt_stream,
)
from mpc.parties.configuration import Configuration
from mpc.parties.joining import Links
from mpc.parties.without_provider import check_two
from mpc.protocols import range_check
from mpc.provider.audit import tag_key
from mpc.provider.audit_link import AuditLink, LastPartyLink, WatchedLink
from mpc.provider.dealer import Provider
from mpc.provider.remote import RemoteProvider
from mpc.provider.sources import FromKeys, InProcess
from mpc.provider.watched import COPIES, WatchedSource, watched_provider
from mpc.transport.local import LocalTransport
from mpc.transport.remote import RemoteTransport
from mpc.transport.watched import RemoteWatched
from mpc.two_party.joint import OwnShares
from ring import FixedPoint, Stream, fresh_key
from ring.streams import StreamBlocks

__all__ = [
    "DEFAULT",
    "PROVIDER",
    "agreed",
    "check_provider",
    "check_watched",
    "joined",
    "local",
    "policy",
]


PROVIDER = "crypto"
"""What `provider` is in a session with a crypto provider."""
DEFAULT = "default"
"""What `provider` is by default: as PROVIDER, or with ``me=`` as the configuration says."""


def agreed(program: str | None, ranges: str) -> str | None:
    """Return the text on which all parties must agree: the program, and the range policy's mode."""
    return program if ranges == "warn" else f"{program or ''}, ranges={ranges}"


def _check_parties(parties: Iterable[str] | Path) -> tuple[str, ...]:
    if isinstance(parties, (str, Path)):
        raise DtypeError(
            f"parties must be a sequence of names, got the string {str(parties)!r}; the path of a"
            " configuration goes with me="
        )
    try:
        names = tuple(parties)
    except TypeError:
        raise DtypeError(f"parties must be a sequence of names, got {parties!r}") from None
    for name in names:
        if not isinstance(name, str) or not name:
            raise PartyError(f"parties must be names, got {name!r}")
    if len(names) < 2:
        raise PartyError(
            f"parties must name at least two computing parties, got {len(names)}: {names}"
        )
    for k, name in enumerate(names):
        if name in names[:k]:
            raise PartyError(f"parties must be different, got {name!r} twice")
    return names


def policy(
    ranges: str, here: tuple[int, ...], warned: set[tuple[str, int, str]] | None = None
) -> RangePolicy:
    """Return what a session does where the bounds do not prove that a result fits."""
    return RangePolicy(
        ranges, _values_of if here else None, range_check.inside, range_check.within, warned
    )


def _values_of(x: SecretValue) -> NDArray[np.int64]:
    """Return the encoded values of an array, in the clear, where all parties live in this process.

    For checks of ranges alone, see :mod:`mpc.core.ranges`: modulo 2^64 a value out of range looks like
    any other. Nothing else may call this.
    """
    if x.pending is not None:
        return x.pending.values().view(np.int64)
    x, cross_term = x.split_cross_term()
    total = np.zeros(x.shape, np.uint64)
    for _, words in x.addends():
        total += words
    if cross_term is not None:
        total += x.session.source.value(cross_term).reshape(x.shape)
    return total.view(np.int64)


def local(
    parties: Iterable[str] | Path,
    frac_bits: int | None,
    int_bits: int | None,
    memory_limit: int,
    ranges: str,
    provider: str | None = DEFAULT,
    transfers: str = "softspoken",
    network: Network | None = None,
    watched: bool = False,
) -> Setup:
    """Return the setup of a session whose parties all live in this process, with fresh keys.

    If they are `watched`, it computes what their processes would, in lock step and each role once: what is
    opened, and what it costs. A party that deviates is not in it, so checks compare nothing.
    """
    names = _check_parties(parties)
    if watched:
        check_watched(names, provider)
    fixed_point = FixedPoint(
        16 if frac_bits is None else frac_bits, 15 if int_bits is None else int_bits
    )
    source: CorrelationSource
    each, provider_keys = fresh_streams(len(names))
    streams, here = dict(enumerate(each)), tuple(range(len(names)))
    watch = None
    if watched:
        streams = {role: role_streams(key, len(names)) for role, key in enumerate(provider_keys)}
        inputs = {j: input_streams(provider_keys, j) for j in here}
        watch = Watch(None, inputs, {role: Stream(fresh_key()) for role in here})
    if provider is None:
        check_two(names)
        source = OwnShares(transfers)
    elif watched:
        source = InProcess(streams, len(names), watched_provider(provider_keys), COPIES)
    else:
        source = InProcess(streams, len(names), Provider(provider_keys))
    return Setup(
        parties=names, here=here, format=fixed_point, memory_limit=memory_limit, streams=streams,
        source=source, transport=LocalTransport(), ledger=Ledger(len(names)),
        range_policy=policy(ranges, here), network=network, watch=watch,
    )  # fmt: skip


def check_watched(names: tuple[str, ...], provider: str | None) -> None:
    """Raise unless these parties, with this provider, can watch one another."""
    if len(names) < PARTIES:
        raise PartyError(
            f"security='malicious' is for three computing parties or more, got {len(names)}:"
            f" {', '.join(names)}; a third one need not own any data"
        )
    if provider is None:
        raise ArgumentError(
            "security='malicious' needs a crypto provider, got provider=None: leave it out"
        )


def check_provider(read: Configuration, provider: str | None) -> None:
    """Raise ArgumentError if a session is asked for with a provider where there is none, or without."""
    if provider != DEFAULT and (provider is None) != (read.provider is None):
        has = "has none" if read.provider is None else "names one"
        raise ArgumentError(
            f"provider with me= is what the configuration says: {read.path} {has}, got {provider!r}"
        )


def joined(read: Configuration, me: str, links: Links, ranges: str = "warn") -> Setup:
    """Return the setup of a session of party `me`, over connections whose handshake is done."""
    number, limits = read.names.index(me), read.timeouts
    ledger = Ledger(len(read.names))
    if links.watched is not None:
        return _watched(read, number, links, links.watched, ledger, ranges)
    link, key = links.provider, links.provider_key
    source: CorrelationSource
    background: RemoteProvider | AuditLink | None = None
    audit: AuditLink | None = None
    if link is None or key is None:
        streams = {number: pair_streams(links.pair_keys)}
        source = OwnShares(read.transfers)
    elif number == len(read.names) - 1:
        streams = {number: party_streams(key, links.pair_keys)}
        last = None
        if links.auditor is not None and links.auditor_key is not None:
            audit = last = LastPartyLink(
                links.auditor, link.peer, streams, limits.party, tag_key(links.auditor_key),
                len(read.names),
            )  # fmt: skip
            if read.audit_signed:
                last.check_signatures(links.session, read.members[link.peer].accepted)
        source = background = RemoteProvider(streams, link, limits.answer, ledger, last)
    else:
        streams = {number: party_streams(key, links.pair_keys)}
        if links.auditor is not None:
            audit = background = AuditLink(links.auditor, link.peer, streams, limits.party)
        source = FromKeys(streams, link, ledger.where, audit)
    transport = RemoteTransport(
        number, links.peers, link, limits.party, ledger.where, background, links.auditor
    )
    if audit is not None:
        audit.explain = transport.last_words
    return Setup(
        parties=read.names, here=(number,), format=read.format, memory_limit=links.memory_limit,
        streams=streams, source=source, transport=transport, ledger=ledger,
        range_policy=policy(ranges, (number,)), session_id=links.session, network=links.network,
    )  # fmt: skip


def _watched(
    read: Configuration,
    me: int,
    links: Links,
    keys: tuple[bytes, ...],
    ledger: Ledger,
    ranges: str,
) -> Setup:
    """Return the setup of a watched party, with the key of the next role and its other input keys."""
    link, own, limits = links.provider, links.provider_key, read.timeouts
    assert link is not None and own is not None
    watched, *last_inputs = keys
    parties = len(read.names)
    here = roles_of(me, MALICIOUS, parties)
    before, after = (me - 1) % parties, here[1]
    salts = {me: salt_stream(links.pair_keys[before]), after: salt_stream(links.pair_keys[after])}
    streams = {
        role: role_streams(key, parties) for role, key in zip(here, (own, watched), strict=True)
    }
    # Of the roles that this party does not hold, its input keys alone.
    inputs = [
        *(StreamBlocks(input_key(key, me)) for key in (own, watched)),
        *(StreamBlocks(key) for key in last_inputs),
    ]
    audit = None
    if links.auditor is not None and links.auditor_key is not None:
        audit = WatchedLink(
            links.auditor, link.peer, streams, limits.party, tag_key(links.auditor_key), parties,
            read.audit_signed,
        )  # fmt: skip
        if read.audit_signed and me in holders(parties):
            audit.check_signatures(links.session, read.members[link.peer].accepted)
    source = WatchedSource(streams, link, limits.answer, ledger, parties, audit)
    transport = RemoteWatched(
        me, links.peers, links.pair_keys, link, limits.party, ledger.where, source, links.auditor
    )
    if audit is not None:
        audit.explain = transport.last_words
    return Setup(
        parties=read.names, here=here, format=read.format, memory_limit=links.memory_limit,
        streams=streams, source=source, transport=transport, ledger=ledger,
        range_policy=policy(ranges, here), session_id=links.session, network=links.network,
        watch=Watch(me, {me: inputs}, salts),
    )  # fmt: skip
