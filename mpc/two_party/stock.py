"""A stock of two parties: both write their files at the same time, and agree on them when they use them.

Writing: both contribute to a random id, make everything in pieces, and give the files their names when both
are whole. Using: each opens its file, and they exchange whether it will do, id, serial and positions.
- Different ids: refused, at both.
- Serials that differ by one: a process has ended between its record and the other's. Both go on behind
  whatever either has taken.
- Serials that differ by more: somebody has put back an old file. Refused, at both, by name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc.core.errors import ArgumentError, StockError
from mpc.core.runtime import Runtime
from mpc.two_party.channel import exchange
from mpc.two_party.mask_products import Factor, Masks
from mpc.two_party.prepared import Correlation
from mpc.two_party.stock_file import ID_BYTES, StockFile, StockWriter

__all__ = ["use", "write"]

Words = NDArray[np.uint64]


def _both(session: Runtime, problem: str, words: Sequence[int] = ()) -> list[int]:
    """Tell the other party words, and whether there is a problem; return what it says.

    Raises
    ------
    StockError
        If either has one; only its own party learns which.
    """
    mine = np.array([[bool(problem), *words]], np.uint64)
    flag, *theirs = exchange(session.pair.channel, mine)[0].tolist()
    if problem:
        raise StockError(problem)
    if flag:
        raise StockError(f"{_other(session)} cannot use its file of the stock, and says there why")
    return theirs


def _other(session: Runtime) -> str:
    return session.parties[1 - session.here[0]]


def _check_apart(session: Runtime) -> None:
    if session.me is None:
        raise ArgumentError(
            "path is for a session of one party, mpc.Session(me=...): a stock file is one party's"
        )


def _of(session: Runtime, needs: Iterable[Correlation]) -> tuple[list[Factor], list[str]]:
    """Return the matrices of a program's masks, and the digests of this party's own."""
    factors = list(dict.fromkeys(n.factor for n in needs if isinstance(n, Masks)))
    digests = []
    for factor in factors:
        matrix, _ = factor.words(session.pair)
        digests.append(sha256(matrix.astype("<u8").data).hexdigest() if len(matrix) else "")
    return factors, digests


def _about(session: Runtime) -> dict[str, Any]:
    return {
        "parties": list(session.parties), "party": session.me,
        "frac_bits": session.format.frac_bits, "int_bits": session.format.int_bits,
    }  # fmt: skip


def write(
    session: Runtime, path: Path, needs: Sequence[Correlation], times: int,
    progress: Callable[[int], None] | None,
) -> None:  # fmt: skip
    """Make so many times what a program needs, into a new file of each party.

    Parameters
    ----------
    progress : callable, optional
        Called after every piece with how many times of it have been made.
    """
    _check_apart(session)
    pair, problem, writer = session.pair, "", None
    mine = np.frombuffer(os.urandom(ID_BYTES), np.uint64)
    theirs = exchange(pair.channel, mine[None])[0]
    first, second = (mine, theirs) if session.here[0] == 0 else (theirs, mine)
    id = sha256(b"sotto stock" + first.tobytes() + second.tobytes()).digest()[:ID_BYTES]
    try:
        writer = StockWriter(path, id, _about(session), *_of(session, needs))
    except StockError as error:
        problem = str(error)
    try:
        _both(session, problem)
        assert writer is not None
        # A transfer leaves about two bytes at each party.
        each = 2 * sum(sum(need.cost.transfers) for need in needs)
        most = max(1, session.memory_limit // max(1, each))
        for start in range(0, times, most):
            count = min(most, times - start)
            with session.protocol("prepared"):
                for made in pair.make(replace(need, words=count * need.words) for need in needs):
                    writer.add(*made)
            if progress is not None:
                progress(count)
        # Neither gives its file a name before the other has all.
        _both(session, "")
        try:
            writer.finish()
        except StockError as error:
            problem = str(error)
        try:
            _both(session, problem)
        except StockError:
            if not problem:
                path.unlink()
            raise
    finally:
        if writer is not None:
            writer.close()


def use(session: Runtime, path: Path, needs: Sequence[Correlation]) -> None:
    """Take from both parties' files what programs need, from now on."""
    _check_apart(session)
    other, file, problem = _other(session), None, ""
    try:
        file = StockFile(path, *_of(session, needs), _about(session))
    except StockError as error:
        problem = str(error)
    try:
        mine = [0] * 4
        if file is not None:
            mine = [*np.frombuffer(file.id, "<u8").tolist(), file.serial, len(file.positions)]
        theirs = _both(session, problem, mine)
        assert file is not None
        if theirs[:2] != mine[:2]:
            raise StockError(
                f"stock {path} and {other}'s were not made together: each is useless without its own"
            )
        behind = theirs[2] - mine[2]
        if abs(behind) > 1:
            whose = f"stock {path} is" if behind > 0 else f"{other}'s stock is"
            raise StockError(
                f"{whose} {abs(behind)} times behind the other party's: an old file was put back, and"
                " what it holds has been used. Make a new one"
            )
        positions = np.array([file.positions], np.uint64)
        merged = np.maximum(positions, exchange(session.pair.channel, positions))
        try:
            file.go_on(max(theirs[2], mine[2]) + 1, merged[0].tolist())
        except StockError as error:
            problem = str(error)
        _both(session, problem)
    except BaseException:
        if file is not None:
            file.close()
        raise
    session.at_end(file.close)
    session.pair.prepared.reservoirs.append(file)
    session.pair.prepared.last()
