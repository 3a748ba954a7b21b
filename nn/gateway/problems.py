"""Errors as HTTP tells them: problem details (RFC 9457) with the status code that fits."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from mpc.core.errors import (
    ArgumentError,
    DtypeError,
    PeerError,
    RangeError,
    SessionError,
    ShapeError,
    SottoError,
)

__all__ = ["HttpError", "as_problem"]

# Where nothing says when to come back.
_RETRY_SECONDS = 5


class HttpError(SottoError):
    """What a request is answered with that cannot be served.

    Parameters
    ----------
    status : int
    detail : str
        For whoever asks, and for nobody else: it may name one of the values that were sent.
    kind : str
        The error in one word, for a program. It goes into the log.
    retry : int, optional
        Seconds after which it is worth trying again.
    """

    def __init__(self, status: int, detail: str, kind: str, retry: int | None = None) -> None:
        super().__init__(f"{status} {kind}")
        self.status, self.detail, self.kind, self.retry = status, detail, kind, retry

    def body(self) -> dict[str, Any]:
        """Return the problem's details."""
        return {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "error": self.kind,
        }


def as_problem(error: Exception) -> HttpError:
    """Return what an error from asking the parties means to whoever has asked."""
    kind = type(error).__name__
    if isinstance(error, HttpError):
        return error
    if isinstance(error, (PeerError, SessionError)):
        return HttpError(503, str(error), kind, _RETRY_SECONDS)
    if isinstance(error, (ArgumentError, DtypeError, RangeError, ShapeError)):
        return HttpError(422, str(error), kind)
    if isinstance(error, MemoryError):
        return HttpError(503, "the gateway has no memory for this now", kind, _RETRY_SECONDS)
    # Its text is not ours, and could hold anything.
    return HttpError(500, f"{kind}, a bug: please report it", kind)
