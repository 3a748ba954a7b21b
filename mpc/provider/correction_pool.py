"""A worker pool for corrections, by joblib, for a provider with several cores.

A correction is a function of keys, id and sizes alone, so any worker may compute it, and another may
compute it again if one is lost. A task carries the keys of a session's masks, so workers must be
processes or threads of this machine: joblib's ``parallel_config`` may choose among these; a backend that
sends tasks to other machines, such as Dask, is refused.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc.core import joblib_processes
from mpc.core.errors import ArgumentError, SottoError
from mpc.core.events import record
from mpc.provider.dealer import Provider
from mpc.provider.requests import Request
from mpc.provider.watched import watched_provider
from ring import set_num_threads

__all__ = ["CorrectionPool"]

Words = NDArray[np.uint64]


class _Kept(threading.local):
    """The Provider objects of the last sessions, for each thread its own: they serve one thread."""

    def __init__(self) -> None:
        self.provider = lru_cache(maxsize=4)(Provider)
        self.watched = lru_cache(maxsize=4)(watched_provider)


_kept = _Kept()


@lru_cache(maxsize=1)
def _use_one_core(home: int) -> None:
    """In a process other than `home`, a worker, use one core."""
    if os.getpid() != home:
        set_num_threads(1)  # the other cores have workers of their own


def _deal(keys: tuple[bytes, ...], watched: bool, request: Request, limit: int, home: int) -> Words:
    """Compute one correction, in a worker, or in the process `home` if no worker is left."""
    _use_one_core(home)
    correlation = request.correlation(limit)
    out = np.empty(correlation.corrected_words, np.uint64)
    provider = _kept.watched(keys) if watched else _kept.provider(keys)
    provider.correct(request.id, correlation, out)
    return out


class CorrectionPool:
    """Workers that the sessions of a provider share.

    Parameters
    ----------
    workers : int
    limit : int
        The most words that one correction may have.

    Raises
    ------
    ArgumentError
        If joblib's active backend does not stay on this machine.

    Notes
    -----
    joblib's ``parallel_config`` holds for the thread that calls it. The backend is looked up here, in
    the thread that makes the pool; sessions run in other threads.
    """

    def __init__(self, workers: int, limit: int) -> None:
        from joblib import delayed  # here: one worker needs none of it
        from joblib.parallel import get_active_backend

        self.workers, self._limit = workers, limit
        self._backend, _ = get_active_backend()
        if not joblib_processes.stays_here(self._backend):
            raise ArgumentError(
                "workers of a provider must be on its own machine, since their tasks carry the keys of"
                f" all masks: joblib's 'loky' or 'threading', got {type(self._backend).__name__}"
            )
        self._options = joblib_processes.options()
        # A backend runs one Parallel at a time.
        self._turn = threading.Lock()
        # Processes take seconds to start, so start them before the first session.
        for _ in self._run([delayed(_use_one_core)(os.getpid()) for _ in range(workers)]):
            pass

    def _run(self, calls: list[Any]) -> Iterator[Any]:
        """Yield what calls return, in their order."""
        from joblib import Parallel

        # max_nbytes: no argument is written to a file. A new Parallel for each call: in one whose
        # results were not all taken, or that failed, late results can turn up in the next call
        # (joblib 1.5 and 1.6).
        run = Parallel(
            self.workers, return_as="generator", max_nbytes=None, backend=self._backend,
            **self._options,
        )  # fmt: skip
        results: Iterator[Any] = run(calls)
        return results

    def deal(
        self, keys: tuple[bytes, ...], requests: Sequence[Request], watched: bool = False
    ) -> Iterator[Words]:
        """Yield corrections in the order of `requests`, of which a call takes a few for each worker.

        The keys are those of the parties, or of the roles of parties that are `watched`.
        """
        from joblib import delayed

        dealt = 0
        with self._turn:
            calls = [
                delayed(_deal)(keys, watched, request, self._limit, os.getpid())
                for request in requests
            ]
            corrections = self._run(calls)
            try:
                for correction in corrections:
                    yield correction
                    dealt += 1
            except GeneratorExit:
                # The caller wants no more. Closing the generator would kill the workers: use it up.
                with suppress(Exception):
                    for _ in corrections:
                        pass
                raise
            except SottoError:
                raise
            except Exception as error:
                # A worker is lost: joblib starts others for the next call.
                record("workers", warning=True, problem=type(error).__name__)
        for request in requests[dealt:]:
            yield _deal(keys, watched, request, self._limit, os.getpid())


def check_workers(workers: object) -> int:
    """Return a number of workers, or raise ArgumentError."""
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ArgumentError(f"workers must be a positive number, got {workers!r}")
    return workers
