"""What routes are handed: `who: Who` (the principal that the sign-in layer found) and `ws: Ws` (the workspace)."""

from __future__ import annotations

import hmac
from typing import Annotated, Any

from fastapi import Depends, Request

from everloop.core.clock import from_iso
from everloop.core.errors import Forbidden, Unauthorized
from everloop.core.principal import Principal
from everloop.workspace.workspace import Workspace


def get_who(request: Request) -> Principal:
    """The principal of the request; Unauthorized where nobody is signed in (public routes only)."""
    who = request.scope.get("everloop.who")
    if not isinstance(who, Principal):
        raise Unauthorized("Nobody is signed in.", "Send an API key as `Authorization: Bearer ev_...`, or sign in at /login.")
    return who


def get_ws(request: Request) -> Workspace:
    """The workspace of the app."""
    ws: Workspace = request.app.state.workspace
    return ws


def time_or_none(text: str | None) -> float | None:
    """A time of an address (ISO 8601 or epoch seconds) in epoch seconds; None where none is told."""
    return None if text is None else from_iso(text)


def csrf_token(request: Request) -> str:
    """The token that a form of this session sends back as the field `csrf` (empty where no session is: nothing to protect)."""
    return str(request.scope.get("everloop.csrf", ""))


def check_csrf(request: Request, form: Any) -> None:
    """Refuse a form that does not carry its session's token (Forbidden). The layer has checked the browser's Origin before."""
    expected = csrf_token(request)
    if expected and not hmac.compare_digest(expected, str(form.get("csrf", ""))):
        raise Forbidden("The form is not from this session.", "Load the page again and send the form once more.")


Who = Annotated[Principal, Depends(get_who)]
Ws = Annotated[Workspace, Depends(get_ws)]
