"""Errors as HTTP responses: status codes and problem details (RFC 9457)."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any

from mpc.core.errors import (
    ArgumentError,
    DtypeError,
    LimitError,
    PeerError,
    RangeError,
    SessionError,
    ShapeError,
    SottoError,
)

__all__ = ["HttpError", "as_problem"]

# Default of Retry-After.
_RETRY_SECONDS = 5


class HttpError(SottoError):
    """An error response.

    Parameters
    ----------
    status : int
    detail : str
        Text for the sender of the request alone: it may contain a value of the request.
    kind : str
        The error in one word, for programs and for the log.
    retry : int, optional
        Seconds after which the request may be repeated.
    """

    def __init__(self, status: int, detail: str, kind: str, retry: int | None = None) -> None:
        super().__init__(f"{status} {kind}")
        self.status, self.detail, self.kind, self.retry = status, detail, kind, retry

    def body(self) -> dict[str, Any]:
        """Return the problem details, as JSON has them."""
        return {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "error": self.kind,
        }


def as_problem(error: Exception) -> HttpError:
    """Return the error response for an exception of a handler."""
    kind = type(error).__name__
    if isinstance(error, HttpError):
        return error
    if isinstance(error, LimitError):
        wait = None if error.retry_after is None else math.ceil(error.retry_after)
        return HttpError(429, str(error), kind, wait)
    if isinstance(error, (PeerError, SessionError)):
        return HttpError(503, str(error), kind, _RETRY_SECONDS)
    if isinstance(error, (ArgumentError, DtypeError, RangeError, ShapeError)):
        return HttpError(422, str(error), kind)
    if isinstance(error, MemoryError):
        return HttpError(503, "the gateway has no memory for this now", kind, _RETRY_SECONDS)
    # Without its text, which may hold secrets.
    return HttpError(500, f"{kind}, a bug: please report it", kind)
