"""Who am I; keys, users, members and projects."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Body, Request

from everloop.core.errors import BadInput
from everloop.web.deps import Who, Ws, csrf_token

router = APIRouter(prefix="/api/v1", tags=["identity"])


@router.get("/me")
async def me(who: Who, request: Request) -> dict[str, Any]:
    """Who this request acts as; `csrf` for those who signed in with a browser."""
    told = {"name": who.name, "project": who.project, "role": who.role.name, "kind": who.kind, "site_admin": who.site_admin}
    csrf = csrf_token(request)
    return {**told, "csrf": csrf} if csrf else told


@router.get("/keys")
async def list_keys(who: Who, ws: Ws) -> dict[str, Any]:
    """Keys of the project (admin); never the keys themselves."""
    return {"items": await ws.identity.keys(who), "next": None}


@router.post("/keys", status_code=201)
async def create_key(who: Who, ws: Ws, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """A new key: {name, role?, expires_days?}. The answer is the only time the key is seen."""
    days = body.get("expires_days")
    if days is not None and (isinstance(days, bool) or not isinstance(days, (int, float)) or not 0 < days < 36_500):
        raise BadInput(f"expires_days is {days!r}; a number of days above 0 is needed.")
    return await ws.identity.create_key(who, _text(body, "name"), str(body.get("role", "editor")), days)


@router.delete("/keys/{id}", status_code=204)
async def revoke_key(who: Who, ws: Ws, id: str) -> None:
    """Revoke a key by id or name; it stops working at once."""
    await ws.identity.revoke_key(who, id)


@router.get("/projects")
async def list_projects(who: Who, ws: Ws) -> dict[str, Any]:
    """Projects that one may act in."""
    return {"items": await ws.identity.projects(who), "next": None}


@router.post("/projects", status_code=201)
async def create_project(who: Who, ws: Ws, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """A new project (site admin): {name}."""
    return await ws.identity.create_project(who, _text(body, "name"))


@router.get("/members")
async def list_members(who: Who, ws: Ws) -> dict[str, Any]:
    """Users with a role in the project (admin)."""
    return {"items": await ws.identity.members(who), "next": None}


@router.put("/members/{user}")
async def set_member(who: Who, ws: Ws, user: str, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Give a user a role in the project (admin): {role}."""
    return await ws.identity.set_member(who, user, _text(body, "role"))


@router.delete("/members/{user}", status_code=204)
async def remove_member(who: Who, ws: Ws, user: str) -> None:
    """Take a user's role in the project away (admin)."""
    await ws.identity.remove_member(who, user)


@router.get("/users")
async def list_users(who: Who, ws: Ws) -> dict[str, Any]:
    """All users (site admin)."""
    return {"items": await ws.identity.users(who), "next": None}


@router.post("/users", status_code=201)
async def create_user(who: Who, ws: Ws, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """A new user with a role in the project (admin): {name, password, role?, site_admin?}."""
    name, password = _text(body, "name"), _text(body, "password")
    return await ws.identity.create_user(who, name, password, str(body.get("role", "editor")), body.get("site_admin") is True)


@router.post("/users/{name}/password", status_code=204)
async def set_password(who: Who, ws: Ws, name: str, body: dict[str, Any] = Body()) -> None:
    """Change a password: one's own with {old, new}, anyone's as site admin with {new}."""
    await ws.identity.set_password(who, name, _text(body, "new"), body.get("old"))


@router.delete("/users/{name}", status_code=204)
async def disable_user(who: Who, ws: Ws, name: str) -> None:
    """Disable a user (site admin): no sign-in any more, sessions end. The name stays on what they did."""
    await ws.identity.disable_user(who, name)


def _text(body: dict[str, Any], field: str) -> str:
    value = body.get(field)
    if not isinstance(value, str) or not value:
        raise BadInput(f"The field {field!r} is missing.", f'Send {{"{field}": "..."}}.')
    return value


rights = {
    "any": (
        "GET /api/v1/me",
        "GET /api/v1/projects",
        "POST /api/v1/users/{name}/password",
    ),
    "admin": (
        "GET /api/v1/keys",
        "POST /api/v1/keys",
        "DELETE /api/v1/keys/{id}",
        "GET /api/v1/members",
        "PUT /api/v1/members/{user}",
        "DELETE /api/v1/members/{user}",
        "POST /api/v1/users",
    ),
    "site": (
        "POST /api/v1/projects",
        "GET /api/v1/users",
        "DELETE /api/v1/users/{name}",
    ),
}
"""Who may use which route: see web/rights.py."""
