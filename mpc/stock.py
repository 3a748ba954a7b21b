"""What sessions of two parties alone make ahead of a program, in memory or in a file of each party."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpc.core.errors import ArgumentError, DtypeError, SessionError
from mpc.core.runtime import Runtime
from mpc.two_party import joint, stock
from mpc.two_party.prepared import Correlation

__all__ = ["SessionWithStock"]


class SessionWithStock(Runtime):
    """The part of a session that makes ahead what programs take of two parties alone."""

    def without_parties(self, last_id: int = 0, source: Any = None, *, ahead: bool = False) -> Any:
        """Return a session of the same parties where nobody lives, see :class:`mpc.Session`."""
        raise NotImplementedError

    def prepare_ahead(
        self,
        program: Callable[[Any], object],
        times: int = 1,
        *,
        path: str | Path | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Make ahead what `program` takes of two parties alone, to run faster so many times.

        Both parties call it with the same program. Each piece of what has been made is used once, and
        what is used up is made within the calls again, with one warning in the log.

        Parameters
        ----------
        program : callable
            Called with a session where no party lives, as by :meth:`plan`; ``planned.twin(x)`` stands
            there for an array x of this session. Matrix products with such an array on the right, one
            matrix or a stack of them, and convolutions with such kernels are made ahead as well: masks
            of rows or images, and their products. They serve that array alone.
        times : int, default=1
        path : path, optional
            Of this party's stock file, for :meth:`use_stock` in this or a later session. Default: it is
            kept in memory for this session. Of mode 600: keep it like a key, and never copy it.
        progress : callable, optional
            With `path`: called after every piece with how many times of it have been made.

        Raises
        ------
        SessionError
            In a session with a provider, who deals what programs take.
        StockError
            If a party cannot write its file, and neither keeps one then; or if the program asks for
            workers, which take nothing of what is made ahead.
        ArgumentError
            If `times` is no positive whole number.

        Examples
        --------
        >>> import mpc
        >>> with mpc.Session(provider=None) as s:
        ...     w = s.share([[1.5, -2.0], [0.5, 4.0]], owner="alice")
        ...     def program(p):
        ...         return (p.share([[1.0, 2.0]], owner="bob") @ p.twin(w)).relu().reveal()
        ...     s.prepare_ahead(program, times=2)
        ...     s.plan(program).cost.rounds
        10
        """
        if type(times) is not int or times < 1:
            raise ArgumentError(f"times must be a positive whole number, got {times!r}")
        needs = self._needs(program)
        if path is None:
            joint.make_ahead(self, needs, times)
        else:
            stock.write(self, _place(path), needs, times, progress)

    def use_stock(self, path: str | Path, program: Callable[[Any], object]) -> None:
        """Take from this party's stock file what programs need, until the session ends.

        Both parties call it, once for each stock. What is taken is recorded in the file first, and
        never taken again.

        Parameters
        ----------
        path : path
            As written by :meth:`prepare_ahead`.
        program : callable
            As for :meth:`prepare_ahead`: it says which arrays of this session are those that masks
            were made for. Their values must be the same, which their owner's file knows.

        Raises
        ------
        StockError
            At both parties: if a file is missing, damaged, cut short, a copy, an old one that was put
            back, open in another process, of another program, weights, parties or format, or not made
            together with the other party's.
        SessionError
            In a session with a provider.

        Notes
        -----
        3 rounds. Each call that is prepared (a model's evaluation is) writes to the disk once.
        """
        stock.use(self, _place(path), self._needs(program))

    def _needs(self, program: Callable[[Any], object]) -> list[Correlation]:
        self.check_open()
        if self.pair is None:
            raise SessionError(
                "stocks are for two parties alone, mpc.Session(provider=None): here the provider deals"
                " what a program takes"
            )
        if not callable(program):
            raise DtypeError(f"program must take a session, got {program!r}")
        planned = self.without_parties(self.last_id, ahead=True)
        planned.range_policy.quiet = True
        planned.pair.for_stock = True
        program(planned)
        needs: list[Correlation] = planned.pair.taken
        return needs


def _place(path: object) -> Path:
    if not isinstance(path, (str, Path)):
        raise DtypeError(f"path must be a str or a Path, got {path!r}")
    return Path(path)
