"""Work in threads for an event loop, with a limit on running and on waiting work."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from nn.gateway.problems import HttpError

__all__ = ["Turnstile"]

T = TypeVar("T")


class Turnstile:
    """Runs work in a limited number of threads; for use in one event loop.

    Parameters
    ----------
    at_once : int
        Threads at the same time.
    waiting : int
        Calls that may wait for a thread; further ones are refused.
    seconds : float
        Time of a call, waiting included. After it the call raises, but its thread runs on, and
        counts as running until it ends.

    Attributes
    ----------
    admitted : int
        Calls that wait or whose thread runs.
    """

    def __init__(self, at_once: int, waiting: int, seconds: float) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._places = at_once + waiting
        self.admitted = 0
        self._seconds = seconds

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread and return what it returns.

        Raises
        ------
        HttpError
            503 if too many calls wait, 504 if this one took too long.
        """
        if self.admitted >= self._places:
            raise HttpError(
                503, f"{self.admitted} requests are here already: try again", "Busy", retry=1
            )
        self.admitted += 1
        entered = False
        try:
            async with asyncio.timeout(self._seconds) as limit:
                await self._free.acquire()
                entered = True
                return await self._start(work)
        except TimeoutError:
            if not limit.expired():
                raise  # a TimeoutError of the work itself
            where = "the parties did not answer" if entered else "no place became free"
            raise HttpError(
                504, f"{where} within {self._seconds:g} s: try again", "TooSlow", retry=1
            ) from None
        finally:
            if not entered:
                self.admitted -= 1

    async def _start(self, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def leave(result: Any, error: BaseException | None) -> None:
            self._free.release()
            self.admitted -= 1
            if done.cancelled():
                return
            if error is None:
                done.set_result(result)
            else:
                done.set_exception(error)

        def run() -> None:
            result, error = None, None
            try:
                result = work()
            except Exception as failed:
                error = failed
            try:
                loop.call_soon_threadsafe(leave, result, error)
            except RuntimeError:
                pass  # the loop has ended

        # A daemon thread, so that waiting for a lost party does not keep the process from ending.
        try:
            threading.Thread(target=run, daemon=True).start()
        except RuntimeError:
            done.cancel()
            leave(None, None)
            raise HttpError(503, "no thread could be started", "Busy", retry=1) from None
        return await done
