"""Errors as RFC 9457 problem documents; what was not foreseen is logged under an id and tells the caller nothing else."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from everloop.core.clock import new_span_id
from everloop.core.errors import Busy, EverloopError

_log = logging.getLogger("everloop.web")


def problem(error: EverloopError) -> JSONResponse:
    """The answer to an error that everloop raises on purpose."""
    headers = {"retry-after": str(max(1, round(error.retry_after)))} if isinstance(error, Busy) else None
    return JSONResponse(error.problem(), error.status, headers, media_type="application/problem+json")


def install(app: FastAPI) -> None:
    """Teach an app to answer every error as a problem."""

    @app.exception_handler(EverloopError)
    async def ours(_request: Request, error: EverloopError) -> JSONResponse:
        return problem(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        found = [{"where": ".".join(map(str, e["loc"])), "what": e["msg"]} for e in error.errors()]
        said = "; ".join(f"{f['where']}: {f['what']}" for f in found[:5])
        body = {
            "type": "urn:everloop:error:bad-input",
            "title": "BadInput",
            "status": 400,
            "detail": f"The request cannot be used: {said}.",
            "details": found,
        }
        return JSONResponse(body, 400, media_type="application/problem+json")

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "http")
        what = f"There is nothing at {request.method} {request.url.path}." if error.status_code in (404, 405) else str(error.detail)
        body = {"type": f"urn:everloop:error:{code}", "title": str(error.detail), "status": error.status_code, "detail": what}
        return JSONResponse(body, error.status_code, dict(error.headers or {}), media_type="application/problem+json")

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> JSONResponse:
        id = new_span_id()
        _log.exception("error %s at %s %s", id, request.method, request.url.path, exc_info=error)
        body = {
            "type": "urn:everloop:error:internal",
            "title": "Internal error",
            "status": 500,
            "detail": f"Something went wrong in the server; its log has it under {id}.",
        }
        return JSONResponse(body, 500, media_type="application/problem+json")
