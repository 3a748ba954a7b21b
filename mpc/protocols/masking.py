"""Masking: each array is opened under a one-time mask, at most once.

1. Party i takes lambda_i = PRG(k_i, id); the provider can expand lambda = sum lambda_i.
2. Delta = open(x - lambda), kept with the array and used in every product that the array takes part in.
An input of party j takes a mask that j knows: lambda_j = PRG(k_j, id), the other parties' shares of
lambda being zero. Then j alone sends Delta, and products skip the shares that are zero. The other parties
see Delta alone, under a mask of which they know nothing, however many of them collude.
Cost: 1 round for all tensors masked together; 8 (n - 1) bytes an element, from every party or
from the owner alone; no correction.
A data set is opened in pieces of rows, a round each, and shares of its mask are not kept: a batch of
rows expands the shares of its own rows when it needs them.

Source: Beaver 1991; the mask kept with the wire, and known to an input's owner, as in ABY2.0
(Patra, Schneider, Suresh, Yalame 2021, section 3.1) and Turbospeedz (Ben-Efraim, Nielsen, Omri
2019).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import MaskRef, Opening, Part
from mpc.core.cost import Spent
from mpc.core.errors import SessionError
from mpc.core.known import Mask, expand_mask
from mpc.core.runtime import Runtime
from mpc.core.secret_value import SecretValue

__all__ = ["cost", "mask_ahead", "mask_data", "mask_together", "rows_at_once"]

Words = NDArray[np.uint64]


def _holders(session: Runtime, x: SecretValue) -> tuple[int | None, tuple[int, ...]]:
    """Return the owner of an input, else None, and the rows of the party axis with a share of the mask."""
    owner = None if x.plaintext is None else x.plaintext.owner
    return owner, tuple(k for k, party in enumerate(session.here) if owner in (None, party))


def cost(parties: int, size: int, pieces: int = 1) -> Spent:
    """Declare the cost of masking, `size` elements from the party that sends most."""
    return Spent(pieces, 8 * (parties - 1) * size, 0)


def mask_together(*tensors: SecretValue) -> list[Mask]:
    """Return the mask of every tensor, opening in one round those that have none yet.

    Raises
    ------
    SessionError
        In a session without a provider, where no tensor has a mask.
    """
    if tensors and tensors[0].session.pair is not None:
        raise SessionError(
            "masks need a provider, and the session has none: go by session.pair, or call mask_ahead"
            " if masking only saves rounds"
        )
    fresh = list({id(x): x for x in tensors if x.mask is None}.values())
    if fresh:
        _mask(fresh)
    return [x.mask for x in tensors if x.mask is not None]


def mask_ahead(*tensors: SecretValue) -> None:
    """Mask tensors in one round, so that products of them need none; nothing without a provider."""
    if tensors and tensors[0].session.pair is None:
        mask_together(*tensors)


def _message(x: SecretValue, lam: Words, rows: slice | None = None) -> tuple[Words, Opening]:
    """Return the message x - lambda for an opening, of all of x or of some rows."""
    words = x.shares if x.plaintext is None else x.plaintext.encoded
    words = words if rows is None else words[:, rows]
    return words - lam, "sum" if x.plaintext is None else x.plaintext.owner


def _mask(fresh: list[SecretValue]) -> None:
    session = fresh[0].session
    session.check_open()
    hidden: list[tuple[MaskRef, tuple[int, ...], Words]] = []
    messages: list[tuple[Words, Opening]] = []
    for x in fresh:
        owner, rows = _holders(session, x)
        ref = MaskRef(session.fresh_id(), Part(x.shape), owner=owner)
        lam = expand_mask(session, ref, rows)
        hidden.append((ref, rows, lam))
        messages.append(_message(x, lam))
    for x, (ref, rows, lam), delta in zip(fresh, hidden, session.open(*messages), strict=True):
        x.set_mask(Mask(ref, rows, lam, delta))


def rows_at_once(x: SecretValue) -> int:
    """Return how many rows :func:`mask_data` opens in a piece."""
    # Bytes of a row of a piece: shares, mask and message of each party, and the opened row.
    row = 8 * (3 * x.session.size + 1) * max(1, x.size // max(1, len(x)))
    return max(1, x.session.memory_limit // (4 * row))


def mask_data(x: SecretValue) -> None:
    """Mask a data set whose batches of rows are used again and again.

    Every batch is then a view that needs no opening. Memory beside the data and Delta stays within the
    session's memory limit.
    """
    if x.mask is not None or not x.size or x.session.pair is not None:
        return
    session = x.session
    owner, rows = _holders(session, x)
    ref = MaskRef(session.fresh_id(), Part(x.shape), owner=owner)
    delta = np.empty((min(1, len(session.here)), *x.shape), np.uint64)
    some = rows_at_once(x)
    with session.protocol("masking"):
        for start in range(0, len(x), some):
            piece = slice(start, start + some)
            lam = expand_mask(session, ref.view(("index", (piece,))), rows)
            (opened,) = session.open(_message(x, lam, piece))
            delta[:, piece] = opened
    x.set_mask(Mask(ref, rows, session, delta))
