"""Errors as answers: RFC 9457 problem+json, or the shape that a protocol declares for its paths.

A protocol module may have `error_shapes = {"/api/2.0/mlflow": shape}` where `shape(error) -> JSON body`; then errors found before its own code
runs (sign-in, limits, no such route, bugs) are answered in that shape under that path. Where it is not JSON, or follows the request's own
encoding: `error_bodies = {"/v1/traces": write}` with `write(error, content type of the request) -> (content type, bytes)`. Where a browser
asks for a page (`/ui`), the error is a page: the UI says how it looks by `error_page(request, error) -> HTML`.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from everloop.core.errors import BadInput, Busy, EverloopError, NoSpace, NotFound, TooLarge, Unauthorized

log = logging.getLogger("everloop.web")

Shape = Callable[[EverloopError], dict[str, Any]]
Scope = dict[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class MethodNotAllowed(EverloopError):
    """The path is there, the method is not."""

    status, code, exit_code = 405, "method-not-allowed", 2


class _Http(EverloopError):
    """An HTTPException of the framework."""


_BY_STATUS: dict[int, type[EverloopError]] = {404: NotFound, 405: MethodNotAllowed, 413: TooLarge, 400: BadInput, 401: Unauthorized}


def unexpected(error: BaseException) -> EverloopError:
    """A full disk as NoSpace; a bug as an error that tells its id and nothing else: the log has the rest under the same id."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return NoSpace(f"The disk is full or cannot be written: {error.strerror}.", "Free some space and try again.", retry_after=10.0)
    id = os.urandom(6).hex()
    log.error("unexpected error %s", id, exc_info=error)
    return EverloopError("Something went wrong in the server.", f"Its log has the details under id {id}.", id=id)


def headers_of(error: EverloopError) -> dict[str, str]:
    """Headers that go with an error: how to sign in, when to come back."""
    if isinstance(error, Unauthorized):
        return {"www-authenticate": 'Bearer realm="everloop"'}
    if isinstance(error, Busy):
        return {"retry-after": str(max(1, round(error.retry_after)))}
    allow = error.details.get("allow")
    return {"allow": str(allow)} if isinstance(error, MethodNotAllowed) and allow else {}


def answer(scope: Scope, error: EverloopError) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body for an error of a request."""
    path, state = scope.get("path", ""), scope["app"].state
    shapes: dict[str, Shape] = state.error_shapes
    if state.error_page is not None and wants_page(scope):
        return error.status, {"content-type": "text/html; charset=utf-8", **headers_of(error)}, state.error_page(Request(scope), error).encode()
    write = next((w for prefix, w in state.error_bodies.items() if path.startswith(prefix)), None)
    if write is not None:
        asked = next((value.decode("latin-1") for name, value in scope.get("headers", ()) if name == b"content-type"), "")
        kind, raw = write(error, asked)
        return error.status, {"content-type": kind, **headers_of(error)}, raw
    shape = next((s for prefix, s in shapes.items() if path.startswith(prefix)), None)
    body = error.problem() if shape is None else shape(error)
    kind = "application/problem+json" if shape is None else "application/json"
    return error.status, {"content-type": kind, **headers_of(error)}, orjson.dumps(body, default=str)


def wants_page(scope: Scope) -> bool:
    """Whether a request is a browser's for a page: of the UI, or of signing in and out."""
    path = scope.get("path", "")
    if not (path in ("/", "/ui") or path.startswith(("/ui/", "/session/", "/oidc/", "/logout"))):
        return False
    return any(name == b"accept" and b"text/html" in value for name, value in scope.get("headers", ()))


async def send_error(scope: Scope, send: Send, error: EverloopError) -> None:
    """Answer an error from below the framework."""
    status, headers, body = answer(scope, error)
    raw = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": [*raw, (b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": b"" if scope.get("method") == "HEAD" else body})


def install(app: FastAPI) -> None:
    """Let every error of the app be answered by `answer`."""
    app.state.error_shapes = {}
    app.state.error_bodies = {}
    app.state.error_page = None

    def respond(request: Request, error: EverloopError) -> Response:
        status, headers, body = answer(dict(request.scope), error)
        return Response(body, status, headers)

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, EverloopError)
        if error.status == 500:
            log.error("%s %s: %s", request.method, request.url.path, error, exc_info=error)
        return respond(request, error)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return respond(request, validation_error(list(error.errors())))

    async def framework(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return respond(request, http_error(request, error))

    app.add_exception_handler(EverloopError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, framework)


def validation_error(found: list[Any]) -> BadInput:
    """What a request's validation found, as one sentence and a list of fields."""
    fields = [{"field": ".".join(str(p) for p in e.get("loc", ())), "problem": str(e.get("msg", ""))} for e in found]
    told = "; ".join(f"{f['field']}: {f['problem']}" for f in fields[:5])
    return BadInput(f"The request cannot be used: {told}.", "See /api/v1/openapi.json for what this route takes.", fields=fields)


def http_error(request: Request, error: HTTPException) -> EverloopError:
    """An error of the framework as one of ours, saying what was looked for."""
    where = f"{request.method} {request.url.path}"
    if error.status_code == 404:
        hint = "Go on from the navigation, or search." if wants_page(dict(request.scope)) else "See /api/v1/openapi.json for the routes there are."
        return NotFound(f"There is nothing at {where}.", hint)
    if error.status_code == 405:
        allow = (error.headers or {}).get("Allow", "")
        return MethodNotAllowed(f"{request.url.path} does not take {request.method}.", f"It takes: {allow}." if allow else "", allow=allow)
    made = _BY_STATUS.get(error.status_code, _Http)(str(error.detail))
    made.status = error.status_code
    return made
