"""The outermost layer: a request id, security headers, and an answer to bugs that tells an id and nothing else."""

from __future__ import annotations

import itertools
import os
import re
from typing import Any

from everloop.web.problems import log, send_error, unexpected
from everloop.web.refusals import Refusals

_ID = re.compile(rb"[A-Za-z0-9_.-]{8,64}")
_COMMON = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_PAGE = (
    b"default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; "
    b"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
PAGE_HEADERS = [*_COMMON, (b"content-security-policy", _PAGE), (b"cache-control", b"no-store")]
"""Of pages: scripts and forms of our own origin only; not kept by the browser, so signing out leaves nothing behind."""
DATA_HEADERS = [*_COMMON, (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox")]
"""Of everything else: bytes that users put here never run as a page of ours."""
STATIC_HEADERS = [*_COMMON, (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")]
PAGES = ("/ui", "/login", "/logout", "/session/", "/oidc/")


class Frame:
    """Raw ASGI middleware round everything else."""

    def __init__(self, app: Any, refusals: Refusals) -> None:
        self.app, self.refusals = app, refusals
        self._prefix = os.urandom(5).hex()
        self._count = itertools.count(1)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Hand on; every answer gets the headers, every refusal is noted."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        id = self._request_id(scope)
        scope["everloop.request_id"] = id.decode()
        path = scope["path"]
        extra = PAGE_HEADERS if path == "/" or path.startswith(PAGES) else STATIC_HEADERS if path.startswith("/static/") else DATA_HEADERS
        started = False

        async def answering(message: dict[str, Any]) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = list(message.get("headers", ()))
                names = {name for name, _ in headers}
                headers += [pair for pair in extra if pair[0] not in names]
                headers.append((b"x-request-id", id))
                message["headers"] = headers
                if message["status"] in (401, 403):
                    self.refusals.note(scope, message["status"])
            await send(message)

        try:
            await self.app(scope, receive, answering)
        except Exception as error:
            if started:
                log.exception("request %s to %s broke off", id.decode(), path)
                raise
            await send_error(scope, answering, unexpected(error))

    def _request_id(self, scope: dict[str, Any]) -> bytes:
        for name, value in scope["headers"]:
            if name == b"x-request-id" and _ID.fullmatch(value):
                return bytes(value)
        return f"{self._prefix}-{next(self._count):x}".encode()
