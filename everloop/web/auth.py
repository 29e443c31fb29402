"""The one layer of sign-in under everything: it finds the principal, bounds the body, and guards a loopback server from other sites' pages.

A request proves itself by a Bearer token, Basic (key as password, or user and password), `x-api-key`, `api-key`, or the UI's cookie. On a
server bound to loopback, a request with no key is the local user of the default project: then its Host must be a loopback name (so that a
page which rebinds its DNS name to 127.0.0.1 is refused) and a browser's request from another site may not change anything.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from everloop.core.errors import BadInput, EverloopError, Forbidden, TooLarge, Unauthorized
from everloop.core.limits import BODY_BYTES, UPLOAD_BYTES
from everloop.core.principal import Principal, local_principal
from everloop.core.settings import is_loopback
from everloop.web.problems import problem
from everloop.workspace.workspace import Workspace

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PUBLIC = {("GET", "/health"), ("GET", "/version")}
"""Routes that answer without a principal."""
UPLOADS = ("/api/v1/objects", "/api/v1/datasets", "/api/2.0/mlflow-artifacts/")
"""Paths whose bodies stream to disk and may be as large as UPLOAD_BYTES."""
NO_KEY = {"none", "local", "unused", "not-needed"}
"""Keys that mean "no key": some clients insist on sending one. Honoured on loopback alone."""
SAFE = {"GET", "HEAD", "OPTIONS"}
COOKIE = "everloop"
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"),
]


class Auth:
    """Raw ASGI middleware; sets scope["everloop.who"] to a Principal."""

    def __init__(self, app: Any, ws: Workspace) -> None:
        self.app, self.ws = app, ws
        self.local = is_loopback(ws.settings.host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sign in, then hand on; a refusal is answered here."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        try:
            limit = UPLOAD_BYTES if scope["path"].startswith(UPLOADS) else BODY_BYTES
            _declared_length(headers, limit)
            if (scope["method"], scope["path"]) not in PUBLIC:
                scope["everloop.who"] = await self._who(scope, headers)
        except EverloopError as error:
            await problem(error)(scope, receive, _with_headers(send))  # type: ignore[arg-type]
            return
        await self.app(scope, _bounded(receive, limit), _with_headers(send))

    async def _who(self, scope: Scope, headers: dict[str, str]) -> Principal:
        who = await self._proved(scope, headers)
        project = headers.get("x-everloop-project")
        return await self.ws.identity.in_project(who, project) if project else who

    async def _proved(self, scope: Scope, headers: dict[str, str]) -> Principal:
        identity = self.ws.identity
        key, user = _credentials(headers)
        if key and not (self.local and key in NO_KEY):
            return await identity.by_password(user, key) if user and not key.startswith("ev") else await identity.by_key(key)
        cookie = _cookie(headers)
        session = await identity.by_session(cookie) if cookie else None
        if session is not None:
            who, csrf = session
            scope["everloop.csrf"] = csrf
            _same_site(scope, headers)
            return who
        if not self.local:
            raise Unauthorized("This server needs an API key or a sign-in.", "Send it as: Authorization: Bearer KEY")
        if not is_loopback(_host(headers)):
            raise Forbidden(f"The Host {headers.get('host')!r} is not this machine.", "Without a key, call it as 127.0.0.1 or localhost.")
        _same_site(scope, headers)
        return local_principal()


def _credentials(headers: dict[str, str]) -> tuple[str, str]:
    kind, _, rest = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return rest.strip(), ""
    if kind.lower() == "basic":
        try:
            user, _, password = base64.b64decode(rest, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise Unauthorized("The Authorization header is not valid Basic.") from None
        return password, user
    return headers.get("x-api-key") or headers.get("api-key") or "", ""


def _cookie(headers: dict[str, str]) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def _host(headers: dict[str, str]) -> str:
    return urlsplit(f"//{headers.get('host', '')}").hostname or ""


def _same_site(scope: Scope, headers: dict[str, str]) -> None:
    if scope["method"] in SAFE:
        return
    origin = headers.get("origin")
    foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site") or (origin is not None and urlsplit(origin).netloc != headers.get("host"))
    if foreign:
        raise Forbidden("A page of another site may not change anything here.", "Call with an API key instead.")


def _declared_length(headers: dict[str, str], limit: int) -> None:
    text = headers.get("content-length", "0")
    if not text.isdigit():
        raise BadInput(f"Content-Length is {text!r}.")
    if int(text) > limit:
        raise TooLarge(f"The body is {text} bytes; at most {limit} are allowed here.")


def _bounded(receive: Receive, limit: int) -> Receive:
    seen = 0

    async def bounded() -> MutableMapping[str, Any]:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise TooLarge(f"The body is over {limit} bytes.")
        return message

    return bounded


def _with_headers(send: Send) -> Send:
    async def wrapped(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            have = {k.lower() for k, _ in message.get("headers", ())}
            message["headers"] = [*message.get("headers", ()), *[h for h in HEADERS if h[0] not in have]]
        await send(message)

    return wrapped
