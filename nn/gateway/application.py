"""The gateway as an ASGI application: its paths, requests and responses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from mpc.core.events import record
from nn.gateway.asking import ANSWERS, Answer, Asking
from nn.gateway.bodies import JSON, MEDIA_TYPES, NPY, read_rows, write_npy
from nn.gateway.guard import HEADERS, check_origin
from nn.gateway.openapi import description
from nn.gateway.problems import HttpError, as_problem
from nn.gateway.turnstile import Turnstile

__all__ = ["Limits", "application"]

_PAGE = {"/": "index.html", "/page.css": "page.css", "/page.js": "page.js", "/icon.svg": "icon.svg"}
# Memory of the bodies of all requests together, at most, as a multiple of the largest body.
_BODIES = 8
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


@dataclass(frozen=True)
class Limits:
    """Limits of a request, and of all requests together.

    Attributes
    ----------
    body : int, default=2**24
        Bytes of a body.
    rows : int, default=10000
        Rows of a request.
    seconds : float, default=60
        For the body to arrive, and again for the answer.
    at_once : int, default=4
        Requests for which the parties are asked at the same time.
    waiting : int, default=64
        Further requests that may wait.
    """

    body: int = 1 << 24
    rows: int = 10_000
    seconds: float = 60.0
    at_once: int = 4
    waiting: int = 64


def application(
    asking: Asking, limits: Limits, listens: str, names: frozenset[str] = frozenset()
) -> ASGIApp:
    """Return the gateway as an ASGI application.

    Parameters
    ----------
    asking : Asking
    limits : Limits
    listens : str
        Host of the address at which the gateway listens.
    names : frozenset of str
        Further host names under which browsers may reach it.
    """
    paths = _Paths(asking, limits)
    routes = [Route(path, paths.page, methods=["GET"]) for path in _PAGE]
    routes += [
        Route("/v1/openapi.json", paths.openapi, methods=["GET"]),
        Route("/v1/health/live", paths.live, methods=["GET"]),
        Route("/v1/health/ready", paths.ready, methods=["GET"]),
        Route("/v1/models", paths.models, methods=["GET"]),
        Route("/v1/models/{model}", paths.model, methods=["GET"]),
        Route("/v1/models/{model}/predict", paths.predict, methods=["POST"]),
    ]
    handlers: Any = {HTTPException: _refused, Exception: _failed}
    return _Guarded(Starlette(routes=routes, exception_handlers=handlers), listens, names)


class _Guarded:
    """The application behind the check of a request's origin; adds the headers of every response."""

    def __init__(self, inner: ASGIApp, listens: str, names: frozenset[str]) -> None:
        self._inner, self._listens, self._names = inner, listens, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        begin, status = time.monotonic(), 0

        async def with_headers(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"], *((k.encode(), v.encode()) for k, v in HEADERS.items()),
                ]  # fmt: skip
            await send(message)

        request = Request(scope)
        try:
            check_origin(request.headers, self._listens, self._names)
        except HttpError as problem:
            await _problem_response(problem)(scope, receive, with_headers)
        else:
            try:
                await self._inner(scope, receive, with_headers)
            except Exception:
                # Starlette raises an error again after its handler has answered, for logs.
                if not status:
                    raise
        record(
            "http", warning=status >= 500, method=scope["method"], status=status,
            path=scope["path"][:100], seconds=time.monotonic() - begin,
        )  # fmt: skip


def _problem_response(problem: HttpError) -> Response:
    headers = {} if problem.retry is None else {"Retry-After": str(problem.retry)}
    if problem.status in (408, 413):
        headers["Connection"] = "close"  # more of the body may be on its way
    return JSONResponse(
        problem.body(), problem.status, headers, media_type="application/problem+json"
    )


async def _refused(request: Request, error: Exception) -> Response:
    """Answer a request for a path or method that does not exist."""
    assert isinstance(error, HTTPException)
    response = _problem_response(HttpError(error.status_code, error.detail, "Path"))
    response.headers.update(error.headers or {})
    return response


async def _failed(request: Request, error: Exception) -> Response:
    return _problem_response(as_problem(error))


Handler = Callable[["_Paths", Request], Awaitable[Response]]


def _answering(handler: Handler) -> Handler:
    """Wrap a handler: its errors become problem responses."""

    async def answer(self: _Paths, request: Request) -> Response:
        try:
            return await handler(self, request)
        except ClientDisconnect:
            return Response(status_code=400)  # the client has gone
        except Exception as error:
            problem = as_problem(error)
            record(
                "problem", warning=problem.status >= 500, me=self.asking.me,
                status=problem.status, problem=problem.kind,
            )  # fmt: skip
            return _problem_response(problem)

    return answer


class _Paths:
    """The handlers of the paths."""

    def __init__(self, asking: Asking, limits: Limits) -> None:
        self.asking, self._limits = asking, limits
        # Bytes of all bodies in memory.
        self._held = 0
        self._turnstile = Turnstile(limits.at_once, limits.waiting, limits.seconds)
        folder = resources.files("nn.gateway") / "page"
        self._files = {path: (folder / name).read_bytes() for path, name in _PAGE.items()}

    async def page(self, request: Request) -> Response:
        path = request.url.path
        return Response(
            self._files[path], media_type=_TYPES[_PAGE[path].rpartition(".")[2]],
        )  # fmt: skip

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(description(self._limits.body, self._limits.rows))

    async def live(self, request: Request) -> Response:
        return JSONResponse({"live": True, "me": self.asking.me})

    @_answering
    async def ready(self, request: Request) -> Response:
        found = await self._turnstile.run(self.asking.look)
        ready = all(each.ready for each in found)
        return JSONResponse(
            {"ready": ready, "parties": {each.name: each.trouble or "ready" for each in found}},
            200 if ready else 503,
            None if ready else {"Retry-After": "5"},
        )

    @_answering
    async def models(self, request: Request) -> Response:
        names = await self._turnstile.run(self.asking.models)
        asking = self.asking
        return JSONResponse(
            {
                "me": asking.me, "parties": asking.parties, "provider": asking.provider,
                "models": names,
            }
        )  # fmt: skip

    @_answering
    async def model(self, request: Request) -> Response:
        name = request.path_params["model"]
        return JSONResponse(await self._turnstile.run(lambda: self.asking.describe(name)))

    @_answering
    async def predict(self, request: Request) -> Response:
        kind, media_wanted, detailed = _wanted(request)
        name = request.path_params["model"]
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media not in MEDIA_TYPES:
            read_rows(media, b"", 0)  # raises before the body is read
        data = bytearray()
        try:
            await self._receive(request, data)

            def work() -> Response:
                rows = read_rows(media, bytes(data), self._limits.rows)
                binary = media_wanted == NPY
                answer = self.asking.answer(name, kind, rows, detailed=detailed, one_array=binary)
                if binary and isinstance(answer.values, np.ndarray):
                    return Response(write_npy(answer.values), media_type=NPY)
                return JSONResponse(_as_json(name, answer))

            return await self._turnstile.run(work)
        finally:
            self._held -= len(data)

    async def _receive(self, request: Request, data: bytearray) -> None:
        """Receive the body into `data`, and count the bytes of all bodies in memory."""
        most = self._limits.body
        stated = request.headers.get("content-length", "0")
        try:
            async with asyncio.timeout(self._limits.seconds):
                if not stated.isdigit() or int(stated) <= most:
                    async for piece in request.stream():
                        data += piece
                        self._held += len(piece)
                        if len(data) > most:
                            break
                        if self._held > _BODIES * most:
                            raise HttpError(
                                503, "too many bodies are here already: try again", "Busy", retry=1
                            )
                    else:
                        return
        except TimeoutError:
            raise HttpError(
                408, f"the body did not arrive within {self._limits.seconds:g} s", "SlowBody"
            ) from None
        raise HttpError(413, f"a body may have at most {most} bytes", "TooLarge")


def _wanted(request: Request) -> tuple[str | None, str, bool]:
    """Return the kind of answer, its media type, and whether details are wanted."""
    unknown = set(request.query_params) - {"answer", "details"}
    if unknown:
        raise HttpError(
            400, f"a query has answer and details alone, got {min(unknown)[:100]!r}", "Query"
        )
    kind = request.query_params.get("answer")
    if kind is not None and kind not in ANSWERS:
        raise HttpError(
            400, f"answer must be one of {', '.join(ANSWERS)}, got {kind[:100]!r}", "Query"
        )
    details = request.query_params.get("details", "false")
    if details not in ("true", "false"):
        raise HttpError(400, f"details must be true or false, got {details[:100]!r}", "Query")
    wanted = [
        part.partition(";")[0].strip() for part in request.headers.get("accept", "").split(",")
    ]
    if NPY in wanted:
        return kind, NPY, False
    if not {"", "*/*", "application/*", JSON} & set(wanted):
        raise HttpError(406, f"answers are {JSON} or {NPY}", "Accept")
    return kind, JSON, details == "true"


def _as_json(model: str, answer: Answer) -> dict[str, Any]:
    values = answer.values
    body: dict[str, Any] = {
        "model": model,
        "answer": answer.kind,
        "rows": answer.rows,
        "result": {name: found.tolist() for name, found in values.items()}
        if isinstance(values, dict)
        else values.tolist(),
    }
    if answer.kind in ("scores", "probabilities") and answer.classes is not None:
        body["classes"] = answer.classes.tolist()
    if answer.cost is not None and answer.exchange is not None:
        rounds, sent = answer.cost
        body["details"] = {
            "seconds": round(answer.seconds, 4),
            "rounds": rounds,
            "bytes_between_parties": sent,
            "parties": [
                {
                    "name": each.party,
                    "got": "a seed" if each.seed else "words",
                    "bytes_sent": each.sent,
                    "bytes_received": each.received,
                    # Share of the first row; hexadecimal, since JavaScript's numbers end at 2^53.
                    "share": _hexadecimal(each.first_row),
                }
                for each in answer.exchange.parties
            ],
        }
    return body


def _hexadecimal(words: NDArray[np.uint64]) -> list[str]:
    return [f"{word:016x}" for word in words.tolist()]
