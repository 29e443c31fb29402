"""Signing in and out in a browser: a page of its own, so that it works before anything else does."""

from __future__ import annotations

import html
from typing import Any
from urllib.parse import urlencode, urlsplit

from fastapi import APIRouter, Body, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse

from everloop.core.errors import BadInput, EverloopError, Unauthorized
from everloop.store.identity import SESSION_SECONDS
from everloop.web.auth import COOKIE, PROJECT_COOKIE
from everloop.web.deps import Who, Ws, check_csrf, csrf_token

router = APIRouter(include_in_schema=False)


@router.get("/login")
async def login_page(ws: Ws, request: Request, next: str = "/ui") -> HTMLResponse:
    """The sign-in page."""
    provider = request.app.state.oidc.provider.issuer if request.app.state.oidc else ""
    return HTMLResponse(_page(safe_next(next), provider=provider))


@router.post("/login")
async def login(request: Request, ws: Ws) -> Response:
    """Sign in with user and password; back to where one came from."""
    form = await request.form()
    back = safe_next(str(form.get("next", "/ui")))
    try:
        opened = await ws.identity.login(str(form.get("user", "")), str(form.get("password", "")), _address(request))
    except Unauthorized as error:
        return HTMLResponse(_page(back, error.what), 401)
    except EverloopError as error:
        return HTMLResponse(_page(back, str(error)), error.status)
    answer = RedirectResponse(back, 303)
    set_session(request, answer, opened["token"])
    return answer


@router.post("/api/v1/login")
async def login_json(request: Request, ws: Ws, body: dict[str, Any] = Body()) -> Response:
    """Sign in: {user, password}; sets the session's cookie and answers {csrf, project}."""
    if not isinstance(body.get("user"), str) or not isinstance(body.get("password"), str):
        raise BadInput("A user and a password are needed.", 'Send {"user": "ann", "password": "..."}.')
    opened = await ws.identity.login(body["user"], body["password"], _address(request))
    answer = JSONResponse({"csrf": opened["csrf"], "project": opened["project"]})
    set_session(request, answer, opened["token"])
    return answer


@router.post("/logout")
@router.post("/api/v1/logout")
async def logout(who: Who, ws: Ws, request: Request) -> Response:
    """Sign out: the session is over on the server, not only forgotten by the browser."""
    token = request.cookies.get(COOKIE)
    if token:
        await ws.identity.logout(token)
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE)
    return answer


@router.post("/session/project")
async def switch_project(who: Who, ws: Ws, request: Request) -> Response:
    """Act in another project from now on (form: project, next)."""
    form = await request.form()
    check_csrf(request, form)
    project = str(form.get("project", ""))
    if not project:
        raise BadInput("The field 'project' is missing.")
    await ws.identity.in_project(who, project)
    answer = RedirectResponse(safe_next(str(form.get("next", "/ui"))), 303)
    if csrf_token(request):
        await ws.identity.switch_session(request.cookies[COOKIE], project)
    else:
        answer.set_cookie(PROJECT_COOKIE, project, httponly=True, samesite="lax")
    return answer


def set_session(request: Request, answer: Response, token: str, secure: bool = False) -> None:
    """Give the browser its session: not readable by scripts, not sent with other sites' requests."""
    secure = secure or request.url.scheme == "https"
    answer.set_cookie(COOKIE, token, max_age=int(SESSION_SECONDS), httponly=True, samesite="lax", secure=secure)


def safe_next(path: str) -> str:
    """`path` if it is one of this site, else /ui: a sign-in never sends one elsewhere."""
    plain = path.startswith("/") and not path.startswith(("//", "/\\")) and not any(ord(c) < 32 for c in path)
    return path if plain else "/ui"


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _page(back: str, problem: str = "", provider: str = "") -> str:
    told = f'<p class="error" role="alert">{html.escape(problem)}</p>' if problem else ""
    where = html.escape(urlencode({"next": back}), quote=True)
    other = f'<p><a href="/oidc/start?{where}">Sign in with {html.escape(urlsplit(provider).netloc)}</a></p>' if provider else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>Sign in - everloop</title><link rel="stylesheet" href="/static/everloop.css"><link rel="icon" href="/static/icon.svg" type="image/svg+xml">
</head><body class="signin"><main><h1>everloop</h1><p class="note">Sign in to the workspace.</p>{told}
<form method="post" action="/login"><input type="hidden" name="next" value="{html.escape(back, quote=True)}">
<p><label for="user">User</label><input id="user" name="user" autocomplete="username" required autofocus></p>
<p><label for="password">Password</label><input id="password" name="password" type="password" autocomplete="current-password" required></p>
<p><button type="submit" class="primary">Sign in</button></p></form>{other}</main></body></html>"""


rights = {
    "public": (
        "GET /login",
        "POST /login",
        "POST /api/v1/login",
    ),
    "any": (
        "POST /logout",
        "POST /api/v1/logout",
        "POST /session/project",
    ),
}
"""Who may use which route: see web/rights.py."""
