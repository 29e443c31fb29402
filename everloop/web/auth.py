"""The one layer of sign-in under everything: it finds the principal, and guards what a browser could be tricked into.

A request proves itself by a Bearer token, Basic (a key as password, or user and password), `x-api-key`, `api-key`, or a session's cookie. On a
server bound to loopback a request with no key is the local user: then it must come from this machine, not through a proxy, and its Host must
be a loopback name (a page that rebinds its DNS name to 127.0.0.1 is refused). What a browser adds by itself (a cookie, being on this machine)
is honoured only for requests that our own pages made: Origin and Sec-Fetch-Site are checked.

What each role may use is a table (see rights.py), enforced here and again in the facades.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import quote, urlsplit

from everloop.core.errors import EverloopError, Forbidden, Unauthorized
from everloop.core.principal import Principal, local_principal
from everloop.core.settings import is_loopback
from everloop.web.problems import send_error
from everloop.web.rights import SAFE, Rights
from everloop.workspace.workspace import Workspace

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

NO_KEY = {"none", "local", "unused", "not-needed", "empty", "no-key", "sk-no-key-required"}
"""Keys that mean "no key": some clients insist on sending one. Honoured on loopback alone."""
COOKIE = "everloop_session"
PROJECT_COOKIE = "everloop_project"
_WANTED = {
    name.encode(): name
    for name in (
        "authorization",
        "x-api-key",
        "api-key",
        "cookie",
        "host",
        "origin",
        "sec-fetch-site",
        "sec-fetch-mode",
        "x-everloop-project",
        "x-mlflow-workspace",
        "x-forwarded-for",
        "forwarded",
        "accept",
        "x-csrf-token",
    )
}
LOCAL = local_principal()
IN_PROCESS = "testclient"
"""The client address of an app that is called with no socket; a real connection has an IP address here."""


class SignIn:
    """Raw ASGI middleware; sets scope["everloop.who"] (Principal) and, for a session, scope["everloop.csrf"]."""

    def __init__(self, app: Any, ws: Workspace, rights: Rights) -> None:
        self.app, self.ws, self.rights = app, ws, rights
        self.local = is_loopback(ws.settings.host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sign in, then hand on; a refusal is answered here."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = {_WANTED[name]: value.decode("latin-1") for name, value in scope["headers"] if name in _WANTED}
        method = scope.get("method", "CONNECT")
        try:
            if self.rights.is_public(method, scope["path"]):
                _own_page(method, headers)
            else:
                who = await self._who(scope, method, headers)
                scope["everloop.who"] = who
                self.rights.need(who, method, scope["path"])
        except EverloopError as error:
            await _refuse(scope, receive, send, error, headers)
            return
        await self.app(scope, receive, send)

    async def caller(self, path: str, metadata: dict[str, str], address: str) -> Principal:
        """The principal of a call that came by another way than HTTP, as for POST `path`: headers by name, the caller's address. Raises why it may not."""
        headers = {name: value for name, value in metadata.items() if name in _WANTED.values() and name not in ("cookie", "origin", "host")}
        scope = {"type": "http", "method": "POST", "path": path, "client": (address, 0)}
        who = await self._who(scope, "POST", {**headers, "host": "localhost"})  # a browser cannot call like this, so there is no name to rebind
        self.rights.need(who, "POST", path)
        return who

    async def _who(self, scope: Scope, method: str, headers: dict[str, str]) -> Principal:
        who, wished = await self._proved(scope, method, headers)
        project = headers.get("x-everloop-project") or headers.get("x-mlflow-workspace") or wished
        return await self.ws.identity.in_project(who, project) if project and project != who.project else who

    async def _proved(self, scope: Scope, method: str, headers: dict[str, str]) -> tuple[Principal, str]:
        """The principal, and the project that a browser's cookie wishes for."""
        identity = self.ws.identity
        key, user = credentials(headers)
        if key and not (self.local and key.lower() in NO_KEY):
            if user is None:
                return await identity.by_key(key), ""
            return await identity.by_password(user, key, _client(scope)), ""
        cookies = _cookies(headers)
        session = await identity.by_session(cookies[COOKIE]) if cookies.get(COOKIE) else None
        if session is not None:
            who, csrf = session
            _own_page(method, headers, csrf)
            scope["everloop.csrf"] = csrf
            return who, ""
        self._need_local(scope, headers)
        _own_page(method, headers)
        return LOCAL, cookies.get(PROJECT_COOKIE, "")

    def _need_local(self, scope: Scope, headers: dict[str, str]) -> None:
        """Refuse a request without a key unless it comes from this machine by a loopback name, through nothing in between."""
        if not self.local:
            raise Unauthorized("This server needs an API key or a sign-in.", "Send the key as `Authorization: Bearer ev_...`, or sign in at /login.")
        client = _client(scope)
        if client == IN_PROCESS and _hostname(headers.get("host", "")) == "testserver":
            return
        if (client != IN_PROCESS and not _loopback(client)) or "x-forwarded-for" in headers or "forwarded" in headers:
            raise Unauthorized("A request that was forwarded needs an API key.", "Make one with: everloop keys create NAME --role editor")
        if not _loopback(_hostname(headers.get("host", ""))):
            raise Forbidden(
                f"The Host {headers.get('host', '')!r} is not this machine.",
                "Without a key, call the server as 127.0.0.1 or localhost, or send a key.",
            )


def credentials(headers: dict[str, str]) -> tuple[str, str | None]:
    """(secret, user): user is None where the secret is a key or token; ("", None) where nothing was sent. Unauthorized if it does not parse."""
    kind, _, rest = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return rest.strip(), None
    if kind.lower() == "basic":
        try:
            user, _, password = base64.b64decode(rest, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise Unauthorized("The Authorization header is not valid Basic.") from None
        if user.startswith("ev_") and not password:
            return user, None
        return (password, None) if password.startswith(("ev_", "evt_")) else (password, user)
    if kind:
        raise Unauthorized(f"The Authorization scheme {kind[:20]!r} is not known here.", "Use Bearer or Basic.")
    return headers.get("x-api-key") or headers.get("api-key") or "", None


def _own_page(method: str, headers: dict[str, str], csrf: str = "") -> None:
    """Refuse what another site's page asks the browser to do. (A program that is no browser sends neither header.)"""
    site, origin, host = headers.get("sec-fetch-site"), headers.get("origin"), headers.get("host", "")
    if method in SAFE:
        if site == "cross-site" and headers.get("sec-fetch-mode") not in (None, "navigate"):
            raise Forbidden("A page of another site may not read from here.", "Open it from everloop's own pages, or use an API key.")
        return
    foreign = site not in (None, "same-origin", "none") or (origin is not None and urlsplit(origin).netloc != host)
    unknown = bool(csrf) and site is None and origin is None and headers.get("x-csrf-token") != csrf
    if foreign or unknown:
        raise Forbidden("A page of another site may not change anything here.", "Use everloop's own pages, or an API key.")


def _cookies(headers: dict[str, str]) -> dict[str, str]:
    if "cookie" not in headers:
        return {}
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(headers["cookie"]).items()}
    except CookieError:
        return {}


@lru_cache(maxsize=1024)
def _hostname(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


_loopback = lru_cache(maxsize=1024)(is_loopback)


def _client(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


async def _refuse(scope: Scope, receive: Receive, send: Send, error: EverloopError, headers: dict[str, str]) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 4401 if isinstance(error, Unauthorized) else 4403})
        return
    page = scope["method"] == "GET" and (scope["path"] == "/" or scope["path"].startswith("/ui")) and "text/html" in headers.get("accept", "")
    if page and isinstance(error, Unauthorized):
        back = scope["path"] + (f"?{scope['query_string'].decode('latin-1')}" if scope.get("query_string") else "")
        where = f"/login?next={quote(back, safe='')}".encode()
        await send({"type": "http.response.start", "status": 303, "headers": [(b"location", where), (b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
        return
    await send_error(scope, send, error)
