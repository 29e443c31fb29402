"""Keys and members of the project, for its admins."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from everloop.core.errors import BadInput
from everloop.core.principal import Role
from everloop.web.deps import check_csrf
from everloop.web.ui.page import Page, View

router = APIRouter(include_in_schema=False)
rights = {"admin": ("GET /ui/settings", "POST /ui/settings/keys", "POST /ui/settings/keys/{id}/revoke")}
"""Who may use which route: see web/rights.py."""


@router.get("/ui/settings")
async def settings(page: Page) -> Response:
    """Keys and members."""
    return await _settings(page)


@router.post("/ui/settings/keys")
async def create_key(page: Page, request: Request) -> Response:
    """A new key; this answer is the only place where it is seen."""
    form = await request.form()
    check_csrf(request, form)
    days = str(form.get("expires_days", "")).strip()
    if days and not (days.isdigit() and 1 <= int(days) <= 3650):
        raise BadInput(f"The days until it expires are {days!r}.", "Give 1 to 3650, or nothing.")
    made = await page.ws.identity.create_key(
        page.who, str(form.get("name", "")).strip(), str(form.get("role", "editor")), float(days) if days else None
    )
    return await _settings(page, made)


@router.post("/ui/settings/keys/{id}/revoke")
async def revoke_key(page: Page, request: Request, id: str) -> Response:
    """A key stops working at once."""
    form = await request.form()
    check_csrf(request, form)
    await page.ws.identity.revoke_key(page.who, id)
    return page.back("/ui/settings")


async def _settings(page: View, made: dict[str, Any] | None = None) -> Response:
    page.who.need(Role.admin, "see keys and members")
    keys, members = await page.ws.identity.keys(page.who), await page.ws.identity.members(page.who)
    return await page.render("settings.html", "Keys and members", keys=keys, members=members, made=made, roles=[r.name for r in Role])
