"""The layer that bounds request bodies: BODY_BYTES, or UPLOAD_BYTES where bytes are streamed to disk."""

from __future__ import annotations

import re
from typing import Any

from everloop.core.errors import TooLarge
from everloop.core.limits import BODY_BYTES, UPLOAD_BYTES
from everloop.web.problems import send_error

UPLOADS = (
    "/api/v1/objects",
    "/api/v1/datasets",
    *(f"{api}/{number}/mlflow-artifacts/" for api in ("/api", "/ajax-api") for number in ("2.0", "3.0")),
)
"""Paths whose bodies are streamed to disk, never held in memory whole."""
_QUESTIONS = ("/api/v1/objects/missing", "/api/v1/objects/lists", "/api/v1/objects/fetch", "/api/v1/objects/gc", "/api/v1/objects/verify")
"""JSON about objects, read into memory."""
_RUN_FILES = re.compile(r"/api/v1/runs/[^/]+/artifacts/.+")


def body_limit(path: str) -> int:
    """Bytes that a request to `path` may carry."""
    if path in _QUESTIONS:
        return BODY_BYTES
    return UPLOAD_BYTES if path.startswith(UPLOADS) or _RUN_FILES.fullmatch(path) else BODY_BYTES


class BodyLimit:
    """Answers 413 to a body over its limit, by its Content-Length or, where that is missing, as it arrives."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = body_limit(scope["path"])
        told = {name: value for name, value in scope["headers"] if name in (b"content-length", b"transfer-encoding")}
        length = told.get(b"content-length")
        if length is None and not told and scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
        elif length is None:
            await self._counted(scope, receive, send, limit)
        elif not length.isdigit() or int(length) > limit:
            await send_error(scope, send, _too_large(scope["path"], limit))
        else:
            await self.app(scope, receive, send)

    async def _counted(self, scope: dict[str, Any], receive: Any, send: Any, limit: int) -> None:
        seen, over, started = 0, False, False

        async def counting() -> dict[str, Any]:
            nonlocal seen, over
            message: dict[str, Any] = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > limit:
                    over = True
                    raise _too_large(scope["path"], limit)
            return message

        async def answering(message: dict[str, Any]) -> None:
            nonlocal started
            if not over or started:
                started = started or message["type"] == "http.response.start"
                await send(message)

        try:
            await self.app(scope, counting, answering)
        except TooLarge:
            if not over:
                raise
        if over and not started:
            await send_error(scope, send, _too_large(scope["path"], limit))


def _too_large(path: str, limit: int) -> TooLarge:
    return TooLarge(f"The body sent to {path} is over {limit} bytes.", "Put large files by POST /api/v1/objects and register them by digest.")
