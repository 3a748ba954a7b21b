"""Masking: each array is opened under a one-time mask, at most once.

1. Party i takes lambda_i = PRG(k_i, id); the provider can expand lambda = sum lambda_i.
2. Delta = open(x - lambda), kept with the array and used in every product that the array takes part in.
An input of party j takes a mask that j knows: lambda_j = PRG(k_j, id), the other parties' shares of
lambda being zero. Then j alone sends Delta, and products skip the shares that are zero. The other parties
see Delta alone, under a mask of which they know nothing, however many of them collude.
Cost: 1 round for all tensors masked together; 8 (n - 1) bytes an element, from every party or
from the owner alone; no correction.
For products with an operand that party j gave, and that has its mask, an array in shares without a mask is
opened to party j alone:
1. Party i != j takes lambda_i = PRG(k_i, id), and sends x_i - lambda_i to party j. Party j sends nothing.
2. Party j adds them to x_j. Its new share is x - lambda, lambda being the sum of the lambda_i, and the
   share of party i is lambda_i: a sharing of x in which the provider knows all shares but that of j.
Party j sees x under the masks of all others, so it learns nothing unless all of them collude with it; the
others see nothing. Nobody may open x - lambda to a party other than j: between two parties, lambda is what
the other one holds. So for a product with any other operand, x is masked afresh as above.
Cost: 1 round, 8 bytes an element to party j; none for further products with what party j gave.
Watched parties (:mod:`mpc.core.watching`) mask an input when it is shared, and under words of every role: a
mask that is the owner's alone would be known to its watcher.
A data set is opened in pieces of rows, a round each, and shares of its mask are not kept: a batch of
rows expands the shares of its own rows when it needs them. Its mask has a key of its own, and so have
those of a model's weights (:mod:`mpc.core.keys`).

Source: Beaver 1991; the mask kept with the wire, and known to an input's owner, as in ABY2.0
(Patra, Schneider, Suresh, Yalame 2021, section 3.1) and Turbospeedz (Ben-Efraim, Nielsen, Omri
2019).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import MaskRef, Opening, Part
from mpc.core.cost import Spent
from mpc.core.errors import SessionError
from mpc.core.known import Mask, Plaintext, expand_mask
from mpc.core.runtime import Runtime
from mpc.core.secret_value import SecretValue
from mpc.core.watching import input_id

__all__ = [
    "cost", "mask_ahead", "mask_and_ask", "mask_data", "mask_input", "mask_to", "mask_together",
    "rows_at_once",
]  # fmt: skip

Words = NDArray[np.uint64]
Asked = TypeVar("Asked")


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
        ref = MaskRef(session.fresh_id(x.kept), Part(x.shape), owner=owner)
        lam = expand_mask(session, ref, rows)
        hidden.append((ref, rows, lam))
        messages.append(_message(x, lam))
    for x, (ref, rows, lam), delta in zip(fresh, hidden, session.open(*messages), strict=True):
        x.set_mask(Mask(ref, rows, lam, delta))


def mask_and_ask(x: SecretValue, ask: Callable[[MaskRef], Asked]) -> tuple[Mask, Asked]:
    """Return the mask of x, and what `ask` returns for a reference to it, before x is opened.

    For correlated randomness about the mask: what a provider sends comes while x is opened.
    """
    if x.mask is not None:
        return x.mask, ask(x.mask.ref)
    session = x.session
    owner, rows = _holders(session, x)
    ref = MaskRef(session.fresh_id(x.kept), Part(x.shape), owner=owner)
    asked = ask(ref)
    lam = expand_mask(session, ref, rows)
    (delta,) = session.open(_message(x, lam))
    mask = Mask(ref, rows, lam, delta)
    x.set_mask(mask)
    return mask, asked


def mask_input(plaintext: Plaintext) -> Mask:
    """Return the mask of an input of a watched party, which opens it under its input keys: 1 round."""
    base = plaintext.base
    session, owner, shape = base.session, base.owner, base.encoded.shape[1:]
    watch = session.watch
    assert watch is not None
    ref = MaskRef(input_id(owner, base.id), Part(shape))
    rows = tuple(range(len(session.here)))
    lam = expand_mask(session, ref, rows)
    delta = base.encoded
    if len(delta):
        delta = delta - watch.whole_mask(owner, ref.id, shape)
    with session.protocol("masking"):
        delta = session.give(owner, delta)
    return Mask(ref, rows, lam, delta)


def mask_to(x: SecretValue, party: int) -> MaskRef:
    """Return the mask under which one party alone sees x, opening x to it unless that was done before.

    x holds neither a mask nor a plaintext. From now on the shares of the other parties are this mask, and
    the share of `party` is what it sees.
    """
    if x.sided is not None and x.sided.without == party:
        return x.sided
    session, shares = x.session, x.shares
    ref = MaskRef(session.fresh_id(x.kept), Part(x.shape), without=party)
    others = tuple(row for row, number in enumerate(session.here) if number != party)
    lam = expand_mask(session, ref, others)
    message = shares.copy()
    for row, mask in zip(others, lam, strict=True):
        message[row, ...] -= mask
    opened = session.open_to(party, message)
    for row, mask in zip(others, lam, strict=True):
        message[row, ...] = mask
    if party in session.here:
        message[session.here.index(party), ...] = opened[0]
    x.set_sided(ref, message)
    return ref


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
    ref = MaskRef(session.fresh_id(kept=True), Part(x.shape), owner=owner)
    delta = np.empty((min(1, len(session.here)), *x.shape), np.uint64)
    some = rows_at_once(x)
    with session.protocol("masking"):
        for start in range(0, len(x), some):
            piece = slice(start, start + some)
            lam = expand_mask(session, ref.view(("index", (piece,))), rows)
            (opened,) = session.open(_message(x, lam, piece))
            delta[:, piece] = opened
    x.set_mask(Mask(ref, rows, session, delta))
