"""Corrections computed by joblib workers, for a provider with several cores or a cluster.

A correction follows from keys, id and sizes alone, so it does not matter which worker computes it,
nor that another computes it again when one is lost. joblib's own ``parallel_config`` says where the
workers run: processes of this machine by default.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc.errors import ArgumentError, SottoError
from mpc.events import record
from mpc.provider import Provider
from mpc.requests import Request
from ring import set_num_threads

__all__ = ["CorrectionPool"]

Words = NDArray[np.uint64]

# How often a worker looks whether its provider is still there.
_LOOK_SECONDS = 1.0


class _Kept(threading.local):
    """The providers of the last sessions. Each thread has its own: ciphers serve one at a time."""

    def __init__(self) -> None:
        self.provider = lru_cache(maxsize=4)(Provider)


_kept = _Kept()


@lru_cache(maxsize=1)
def _settle(home: int) -> None:
    """Make a process other than `home` a worker: of one core, and not outliving its provider."""
    if os.getpid() == home:
        return
    set_num_threads(1)  # the other cores have workers of their own
    if os.getppid() == home:
        threading.Thread(target=_end_with, args=(home,), daemon=True).start()


def _end_with(home: int) -> None:
    # joblib's workers wait for minutes when the process that has started them was killed.
    while os.getppid() == home:
        time.sleep(_LOOK_SECONDS)
    os._exit(1)


def _deal(keys: tuple[bytes, ...], request: Request, limit: int, home: int) -> Words:
    """Compute one correction, in a worker or for want of one in the process `home`."""
    _settle(home)
    correlation = request.correlation(limit)
    out = np.empty(correlation.corrected_words, np.uint64)
    _kept.provider(keys).correct(request.id, correlation, out)
    return out


class CorrectionPool:
    """Workers that the sessions of a provider share.

    Parameters
    ----------
    workers : int
    limit : int
        Words that one correction may take.

    Notes
    -----
    joblib keeps what ``parallel_config`` has set for the thread that calls it. The pool is made by
    the thread that makes the provider, so that is where it takes effect; sessions have threads of
    their own.
    """

    def __init__(self, workers: int, limit: int) -> None:
        from joblib import Parallel, delayed  # here: one worker needs none of it

        self.workers, self._limit = workers, limit
        self._parallel: Any = Parallel(n_jobs=workers, return_as="generator")
        # A Parallel does one thing at a time.
        self._turn = threading.Lock()
        # Processes take seconds to start, which nobody should wait for in a session.
        for _ in self._parallel(delayed(_settle)(os.getpid()) for _ in range(workers)):
            pass

    def deal(self, keys: tuple[bytes, ...], requests: Sequence[Request]) -> Iterator[Words]:
        """Yield corrections in the order of the requests; `requests` should be a few a worker."""
        from joblib import delayed

        dealt = 0
        with self._turn:
            calls = [
                delayed(_deal)(keys, request, self._limit, os.getpid()) for request in requests
            ]
            corrections = self._parallel(calls)
            try:
                for correction in corrections:
                    yield correction
                    dealt += 1
            except SottoError:
                raise
            except Exception as error:
                # A worker is lost: joblib starts others for the next call.
                record("workers", warning=True, problem=type(error).__name__)
            finally:
                corrections.close()
        for request in requests[dealt:]:
            yield _deal(keys, request, self._limit, os.getpid())


def check_workers(workers: object) -> int:
    """Return a number of workers, or raise ArgumentError."""
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ArgumentError(f"workers must be a positive number, got {workers!r}")
    return workers
