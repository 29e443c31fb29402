"""Signing in by OpenID Connect: authorization code with PKCE (S256), state, nonce. Off unless EVERLOOP_OIDC_ISSUER and _CLIENT_ID are set.

1. /oidc/start remembers a fresh state, nonce and verifier for OIDC_MINUTES, ties them to this browser by a cookie, and leads to the provider;
2. /oidc/callback takes the state (once), redeems the code, checks the id token, finds or makes the user, follows the groups' roles, and opens
   a session as a password would. Where one came from is kept here, never in a parameter of the callback.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import html
import secrets
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from everloop.core.errors import BadInput, EverloopError, Forbidden, NotFound, Unauthorized
from everloop.core.limits import OIDC_MINUTES, OIDC_PENDING
from everloop.core.principal import Role
from everloop.core.settings import Settings
from everloop.web.deps import Ws
from everloop.web.oidc_provider import Provider
from everloop.web.signin import safe_next, set_session

router = APIRouter(include_in_schema=False)
BROWSER = "everloop_oidc"
"""The cookie that ties a sign-in under way to the browser that began it."""


@dataclass
class _Pending:
    nonce: str
    verifier: str
    browser: str
    back: str
    until: float


class Oidc:
    """The configured provider, and sign-ins under way."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.provider = Provider(settings)
        self.mapping = mapping_of(settings.oidc_roles)
        self.redirect = (settings.public_url or settings.url).rstrip("/") + "/oidc/callback"
        self._pending: dict[str, _Pending] = {}

    async def begin(self, back: str, now: float) -> tuple[str, str]:
        """(where to send the browser, what its cookie holds)."""
        found = await self.provider.discover()
        self._pending = {state: one for state, one in self._pending.items() if one.until > now}
        if len(self._pending) >= OIDC_PENDING:
            self._pending.pop(next(iter(self._pending)))
        state, nonce, verifier, browser = (secrets.token_urlsafe(32) for _ in range(4))
        self._pending[state] = _Pending(nonce, verifier, browser, back, now + OIDC_MINUTES * 60)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        query = {
            "response_type": "code",
            "client_id": self.settings.oidc_client_id,
            "redirect_uri": self.redirect,
            "scope": self.settings.oidc_scopes,
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        where = found["authorization_endpoint"]
        return f"{where}{'&' if '?' in where else '?'}{urlencode(query)}", browser

    async def finish(self, query: Any, browser: str, now: float) -> tuple[dict[str, Any], str]:
        """(claims of the id token, where to go back to). Unauthorized for a state that is unknown, used, too old or another browser's."""
        pending = self._pending.pop(str(query.get("state", "")), None)
        if pending is None or pending.until <= now or not hmac.compare_digest(pending.browser.encode(), browser.encode()):
            raise Unauthorized("This sign-in is unknown, was used already, or took too long.", "Begin once more at /login.")
        if query.get("error"):
            raise Unauthorized(f"The identity provider did not sign you in: {str(query['error'])[:80]}.", "Begin once more at /login.")
        if query.get("iss") and str(query["iss"]).rstrip("/") != self.provider.issuer:
            raise Unauthorized("The answer is from another identity provider.", "Begin once more at /login.")
        if not query.get("code"):
            raise Unauthorized("The identity provider sent no code.", "Begin once more at /login.")
        token = await self.provider.redeem(str(query["code"]), pending.verifier, self.redirect)
        return await self.provider.claims(token, pending.nonce), pending.back


def configured(settings: Settings) -> Oidc | None:
    """The provider if one is set; BadInput where only half is."""
    if not settings.oidc_issuer:
        return None
    if not settings.oidc_client_id:
        raise BadInput("EVERLOOP_OIDC_ISSUER is set and EVERLOOP_OIDC_CLIENT_ID is not.", "Register everloop at the provider, and set both.")
    return Oidc(settings)


def mapping_of(text: str) -> dict[str, dict[str, str]]:
    """`risk=credit:editor, risk=school:viewer, root=*:admin` as {group: {project: role}}; `*:admin` makes a site admin. BadInput otherwise."""
    mapping: dict[str, dict[str, str]] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        group, equals, right = part.rpartition("=")
        project, colon, role = right.rpartition(":")
        if not (group.strip() and equals and colon and project.strip()):
            raise BadInput(f"EVERLOOP_OIDC_ROLES has {part!r}.", "Write group=project:role, separated by commas: risk=credit:editor, root=*:admin")
        found = Role.of(role.strip())
        if found is Role.caller or (project.strip() == "*" and found is not Role.admin):
            raise BadInput(f"EVERLOOP_OIDC_ROLES has {part!r}.", "* goes with admin alone, and caller is for keys.")
        mapping.setdefault(group.strip(), {})[project.strip()] = found.name
    return mapping


def _oidc(request: Request) -> Oidc:
    found: Oidc | None = request.app.state.oidc
    if found is None:
        raise NotFound("Signing in by an identity provider is not set up here.", "Set EVERLOOP_OIDC_ISSUER and EVERLOOP_OIDC_CLIENT_ID.")
    return found


@router.get("/oidc/start")
async def start(request: Request, ws: Ws, next: str = "/ui") -> Response:
    """Lead the browser to the identity provider."""
    oidc = _oidc(request)
    where, browser = await oidc.begin(safe_next(next), ws.clock.now())
    answer = RedirectResponse(where, 303)
    secure = request.url.scheme == "https" or oidc.redirect.startswith("https:")
    answer.set_cookie(BROWSER, browser, max_age=int(OIDC_MINUTES * 60), httponly=True, samesite="lax", secure=secure, path="/oidc/")
    return answer


@router.get("/oidc/callback")
async def callback(request: Request, ws: Ws) -> Response:
    """The provider sends the browser back here: check all, then open a session."""
    oidc = _oidc(request)
    try:
        claims, back = await oidc.finish(request.query_params, request.cookies.get(BROWSER, ""), ws.clock.now())
        groups = claims.get(oidc.settings.oidc_groups) or []
        told = {str(g) for g in groups} if isinstance(groups, list) else {str(groups)}
        wished = next((str(claims[c]) for c in ("preferred_username", "email", "name", "sub") if claims.get(c)), "user")
        opened = await ws.identity.sign_in_by_provider(str(claims["iss"]), str(claims["sub"]), wished, told, oidc.mapping)
        answer: Response = RedirectResponse(back, 303)
        set_session(request, answer, opened["token"], oidc.redirect.startswith("https:"))
    except Forbidden as error:
        answer = _told(error, 403)
    except EverloopError as error:
        answer = _told(error, error.status)
    answer.delete_cookie(BROWSER, path="/oidc/")
    return answer


def _told(error: EverloopError, status: int) -> HTMLResponse:
    said = f'<p class="error" role="alert">{html.escape(error.what)}</p><p>{html.escape(error.hint)}</p><p><a href="/login">Sign in</a></p>'
    head = '<meta charset="utf-8"><title>Sign in - everloop</title><link rel="stylesheet" href="/static/everloop.css">'
    page = f'<!doctype html><html lang="en"><head>{head}</head><body class="signin"><main><h1>everloop</h1>{said}</main></body></html>'
    return HTMLResponse(page, status)


rights = {"public": ("GET /oidc/start", "GET /oidc/callback")}
"""Who may use which route: see web/rights.py."""
