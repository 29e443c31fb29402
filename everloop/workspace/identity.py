"""Who: authenticate keys, passwords, sessions and the short tokens of workers; projects and keys."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import orjson
import sqlalchemy as sa

from everloop.core.errors import Forbidden, NotFound, Unauthorized
from everloop.core.principal import DEFAULT_PROJECT, SYSTEM, Principal, Role
from everloop.store import identity as store
from everloop.store.schema import projects

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace

TOKEN_PREFIX = "evt_"
CACHE_KEYS = 10_000
CACHE_SECONDS = 30.0


class SignIn(Protocol):
    """How a person proves who they are. Passwords are the first implementation; OpenID Connect fits the same two methods."""

    name: str

    async def check(self, proof: dict[str, str]) -> str | None:
        """The user's name if the proof holds, else None."""


class Passwords:
    """Sign-in by a password kept as scrypt."""

    name = "password"

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws

    async def check(self, proof: dict[str, str]) -> str | None:
        """The user's name if the password is right."""
        row = await self.ws.records.read(SYSTEM, lambda tx: store.check_password(tx, proof.get("user", ""), proof.get("password", "")))
        return str(row["name"]) if row else None


class Identity:
    """Facade over identity's records. Found keys are cached for seconds, so a hot path pays a dict look-up."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws
        self._cache: dict[str, tuple[float, Principal]] = {}
        self._secret = b""
        self.sign_in: SignIn = Passwords(ws)

    async def start(self) -> None:
        """Read (or make) the home's secret; make the first admin if EVERLOOP_ADMIN_PASSWORD says so."""
        self._secret = _secret(self.ws)
        password = os.environ.get("EVERLOOP_ADMIN_PASSWORD")
        if password and not await self.way_in():
            await self.ws.records.write(SYSTEM, lambda tx: store.create_user(tx, "admin", password, site_admin=True))

    async def way_in(self) -> bool:
        """Whether a site admin or an admin key exists."""
        return await self.ws.records.read(SYSTEM, store.any_way_in)

    async def by_key(self, key: str) -> Principal:
        """The principal of an API key or a minted token; Unauthorized if it is unknown, revoked or expired."""
        now = self.ws.clock.now()
        cached = self._cache.get(key)
        if cached is not None and cached[0] > now:
            return cached[1]
        if key.startswith(TOKEN_PREFIX):
            return self._by_token(key, now)
        row = await self.ws.records.read(SYSTEM, lambda tx: store.find_key(tx, key))
        if row is None:
            raise Unauthorized("The API key is unknown, revoked or expired.", "Make one with: everloop keys create NAME --role editor")
        who = Principal(f"key:{row['name']}", row["project"], Role.of(row["role"]))
        if len(self._cache) >= CACHE_KEYS:
            self._cache.clear()
        until = now + CACHE_SECONDS
        self._cache[key] = (min(until, row["expires_at"]) if row["expires_at"] is not None else until, who)
        return who

    async def by_password(self, user: str, password: str, project: str | None = None) -> Principal:
        """The principal of a user, in `project` or their first one; Unauthorized if the proof fails."""
        name = await self.sign_in.check({"user": user, "password": password})
        if name is None:
            raise Unauthorized("The user name or the password is wrong.")
        return await self.of_user(name, project)

    async def of_user(self, name: str, project: str | None = None) -> Principal:
        """A signed-in user as principal of a project; Forbidden if they are no member of it."""
        row, roles = await self.ws.records.read(
            SYSTEM, lambda tx: (tx.row(sa.select(store.users).where(store.users.c.name == name)), store.roles_of(tx, name))
        )
        if row is None or row["disabled_at"] is not None:
            raise Unauthorized("The user is unknown or disabled.")
        chosen = project or (DEFAULT_PROJECT if row["site_admin"] or DEFAULT_PROJECT in roles else next(iter(roles), None))
        if chosen is None or not (row["site_admin"] or chosen in roles):
            raise Forbidden(f"{name} is no member of {f'project {chosen!r}' if chosen else 'any project'}.", "Ask an admin to add you.")
        role = Role.admin if row["site_admin"] else Role.of(roles[chosen])
        return Principal(f"user:{name}", chosen, role, kind="person", site_admin=bool(row["site_admin"]))

    async def login(self, user: str, password: str) -> dict[str, str]:
        """Open a session of the UI: {"token", "csrf"}."""
        who = await self.by_password(user, password)
        return await self.ws.records.write(who, lambda tx: store.open_session(tx, user, who.project))

    async def by_session(self, token: str) -> tuple[Principal, str] | None:
        """The principal of a session and its CSRF token, or None."""
        row = await self.ws.records.read(SYSTEM, lambda tx: store.find_session(tx, token))
        if row is None:
            return None
        return await self.of_user(row["user"], row["project"]), str(row["csrf"])

    async def logout(self, token: str) -> None:
        """Close a session."""
        await self.ws.records.write(SYSTEM, lambda tx: store.close_session(tx, token))

    def mint(self, who: Principal, seconds: float) -> str:
        """A token for `who` that is good for `seconds`, signed by the home's secret (HMAC-SHA256); it survives a restart of the server."""
        body = orjson.dumps([who.name, who.project, who.role.name, who.kind, self.ws.clock.now() + seconds])
        return TOKEN_PREFIX + _b64(body) + "." + _b64(self._sign(body))

    async def in_project(self, who: Principal, project: str) -> Principal:
        """`who` in another project: site admins anywhere, others only where they are; NotFound if there is no such project."""
        if project == who.project:
            return who
        if not who.site_admin:
            if who.kind == "person":
                return await self.of_user(who.name.removeprefix("user:"), project)
            raise Forbidden(f"{who.name} belongs to project {who.project!r}, not to {project!r}.", "Use a key of that project.")
        row = await self.ws.records.read(SYSTEM, lambda tx: tx.row(sa.select(projects.c.name).where(projects.c.name == project)))
        if row is None:
            raise NotFound(f"There is no project {project!r}.", "Make it with: everloop projects create NAME")
        return replace(who, project=project)

    async def create_key(self, who: Principal, name: str, role: str = "editor", expires_days: float | None = None) -> dict[str, Any]:
        """A new key of who's project; nobody makes a key with a higher role than their own."""
        who.need(Role.admin, "create a key")
        wanted = Role.of(role)
        expires = self.ws.clock.now() + expires_days * 86_400 if expires_days else None
        return await self.ws.records.write(who, lambda tx: store.create_key(tx, name, wanted, expires))

    async def keys(self, who: Principal) -> list[dict[str, Any]]:
        """Keys of the project (admin)."""
        return await self.ws.records.read(who.need(Role.admin, "list keys"), store.list_keys)

    async def revoke_key(self, who: Principal, id: str) -> None:
        """Revoke a key; it stops working at once."""
        who.need(Role.admin, "revoke a key")
        await self.ws.records.write(who, lambda tx: store.revoke_key(tx, id))
        self._cache.clear()

    async def create_user(self, who: Principal, name: str, password: str, role: str = "editor", site_admin: bool = False) -> dict[str, Any]:
        """A new user with a role in who's project (site admins only may make site admins)."""
        who.need(Role.admin, "create a user")
        if site_admin and not who.site_admin:
            raise Forbidden("Only a site admin makes site admins.")
        wanted = Role.of(role)

        def work(tx: Any) -> dict[str, Any]:
            made = store.create_user(tx, name, password, site_admin)
            store.set_member(tx, name, wanted)
            return made

        return await self.ws.records.write(who, work)

    async def projects(self, who: Principal) -> list[dict[str, Any]]:
        """Projects that who may act in."""
        rows = await self.ws.records.read(who, store.list_projects)
        if who.site_admin:
            return rows
        mine = (
            await self.ws.records.read(who, lambda tx: store.roles_of(tx, who.name.removeprefix("user:")))
            if who.kind == "person"
            else {who.project: ""}
        )
        return [row for row in rows if row["name"] in mine]

    async def create_project(self, who: Principal, name: str) -> dict[str, Any]:
        """A new project (site admin)."""
        if not who.site_admin:
            raise Forbidden(f"{who.name} is no site admin; only one makes projects.")
        return await self.ws.records.write(who, lambda tx: store.create_project(tx, name))

    def _by_token(self, token: str, now: float) -> Principal:
        body, _, signature = token.removeprefix(TOKEN_PREFIX).partition(".")
        try:
            raw = _unb64(body)
            right = hmac.compare_digest(self._sign(raw), _unb64(signature))
            name, project, role, kind, until = orjson.loads(raw) if right else (None,) * 5
        except ValueError:
            right = False
        if not right or until <= now:
            raise Unauthorized("The token is wrong or has expired.")
        return Principal(name, project, Role.of(role), kind=kind)

    def _sign(self, body: bytes) -> bytes:
        return hmac.digest(self._secret, body, hashlib.sha256)


def _secret(ws: Workspace) -> bytes:
    path = ws.home / "secret"
    if not path.exists():
        fresh = ws.home / f"secret.{os.getpid()}"
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
        os.replace(fresh, path)
    return path.read_bytes()


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
