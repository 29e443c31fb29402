"""Who: authenticate keys, passwords, sessions and the short tokens of workers; projects, users and keys.

What was found is remembered for seconds and forgotten at once when it changes here, so a hot path pays a digest and a dict look-up, and a
revoked key stops at once (at another replica on the same records: within REMEMBER_SECONDS).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import orjson
import sqlalchemy as sa

from everloop.core.errors import BadInput, Forbidden, NotFound, Unauthorized
from everloop.core.principal import DEFAULT_PROJECT, SYSTEM, Principal, Role
from everloop.store import federated
from everloop.store import identity as store
from everloop.store.schema import projects
from everloop.store.secret import home_secret
from everloop.workspace.passwords import Passwords, SignIn

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace

TOKEN_PREFIX = "evt_"
REMEMBER = 10_000
"""Keys, sessions or passwords remembered at most."""
REMEMBER_SECONDS = 5.0
PASSWORD_SECONDS = 60.0
"""A right password sent with each request (Basic) is checked by scrypt once in this time."""
T = TypeVar("T")


class _Memory(Generic[T]):
    """Values by digest for some seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._kept: dict[bytes, tuple[float, T]] = {}

    def get(self, key: bytes, now: float) -> T | None:
        """What is remembered, or None."""
        found = self._kept.get(key)
        return found[1] if found is not None and found[0] > now else None

    def put(self, key: bytes, value: T, now: float, until: float | None = None) -> T:
        """Remember and answer a value, no longer than `until`."""
        if len(self._kept) >= REMEMBER:
            self._kept.clear()
        end = now + self.seconds
        self._kept[key] = (end if until is None else min(end, until), value)
        return value

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()


class Identity:
    """Facade over identity's records."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws
        self._keys: _Memory[Principal] = _Memory(REMEMBER_SECONDS)
        self._sessions: _Memory[tuple[Principal, str]] = _Memory(REMEMBER_SECONDS)
        self._members: _Memory[Principal] = _Memory(REMEMBER_SECONDS)
        self._passwords: _Memory[str] = _Memory(PASSWORD_SECONDS)
        self._secret = b""
        self.sign_in: SignIn = Passwords(ws)

    async def on_start(self) -> None:
        """Read (or make) the home's secret; make the first admin if EVERLOOP_ADMIN_PASSWORD says so and there is no way in yet."""
        self._secret = home_secret(self.ws.home)
        password = os.environ.get("EVERLOOP_ADMIN_PASSWORD")
        if password and not await self.way_in():
            kept = store.hash_password(password)
            await self.ws.records.write(SYSTEM, lambda tx: store.create_user(tx, "admin", kept, site_admin=True))

    async def way_in(self) -> bool:
        """Whether a site admin or an admin key exists."""
        return await self.ws.records.read(SYSTEM, store.any_way_in)

    # Finding out who asks

    async def by_key(self, key: str) -> Principal:
        """The principal of an API key or a minted token; Unauthorized if it is unknown, revoked or expired."""
        now = self.ws.clock.now()
        if key.startswith(TOKEN_PREFIX):
            return self._by_token(key, now)
        digest = hashlib.sha256(key.encode()).digest()
        known = self._keys.get(digest, now)
        if known is not None:
            return known
        row = await self.ws.records.read(SYSTEM, lambda tx: store.find_key(tx, digest.hex()))
        if row is None:
            raise Unauthorized("The API key is unknown, revoked or expired.", "Make one with: everloop keys create NAME --role editor")
        who = Principal(f"key:{row['name']}", row["project"], Role.of(row["role"]))
        return self._keys.put(digest, who, now, row["expires_at"])

    async def by_password(self, user: str, password: str, address: str = "") -> Principal:
        """The principal of a user in their first project; Unauthorized for a wrong proof, TooMany after several from one `address`."""
        now = self.ws.clock.now()
        digest = hmac.digest(self._secret, f"{user}\0{password}".encode(), hashlib.sha256)
        name = self._passwords.get(digest, now)
        if name is None:
            name = await self.sign_in.check({"user": user, "password": password, "address": address})
            if name is None:
                raise Unauthorized("The user name or the password is wrong.")
            self._passwords.put(digest, name, now)
        return await self.of_user(name)

    async def of_user(self, name: str, project: str | None = None) -> Principal:
        """A signed-in user as principal of a project; Forbidden if they are no member of it."""
        now = self.ws.clock.now()
        place = f"{name}\0{project or ''}".encode()
        known = self._members.get(place, now)
        if known is not None:
            return known
        row, roles = await self.ws.records.read(SYSTEM, lambda tx: (store.find_user(tx, name), store.roles_of(tx, name)))
        if row is None or row["disabled_at"] is not None:
            raise Unauthorized("The user is unknown or disabled.")
        chosen = project or (DEFAULT_PROJECT if row["site_admin"] or DEFAULT_PROJECT in roles else next(iter(roles), None))
        if chosen is None or not (row["site_admin"] or chosen in roles):
            raise Forbidden(f"{name} is no member of {f'project {chosen!r}' if chosen else 'any project'}.", "Ask an admin to add you.")
        if row["site_admin"] and chosen not in roles:
            await self._need_project(chosen)
        role = Role.admin if row["site_admin"] else Role.of(roles[chosen])
        who = Principal(f"user:{name}", chosen, role, kind="person", site_admin=bool(row["site_admin"]))
        return self._members.put(place, who, now)

    async def in_project(self, who: Principal, project: str) -> Principal:
        """`who` in another project: site admins anywhere, users where they are members, keys only in their own; NotFound if there is none."""
        if project == who.project:
            return who
        if who.kind == "person":
            return await self.of_user(who.name.removeprefix("user:"), project)
        if not who.site_admin:
            raise Forbidden(f"{who.name} belongs to project {who.project!r}, not to {project!r}.", "Use a key of that project.")
        await self._need_project(project)
        return replace(who, project=project)

    async def _need_project(self, project: str) -> None:
        if await self.ws.records.read(SYSTEM, lambda tx: tx.value(sa.select(projects.c.name).where(projects.c.name == project))) is None:
            raise NotFound(f"There is no project {project!r}.", "Make it with: everloop projects create NAME")

    # Sessions of browsers

    async def login(self, user: str, password: str, address: str = "") -> dict[str, str]:
        """Open a session of the UI: {"token", "csrf", "project"}."""
        return await self.open_session(await self.by_password(user, password, address))

    async def open_session(self, who: Principal) -> dict[str, str]:
        """A session for a user who has proved who they are: {"token", "csrf", "project"}."""
        opened = await self.ws.records.write(who, lambda tx: store.open_session(tx, who.name.removeprefix("user:"), who.project))
        return {**opened, "project": who.project}

    async def sign_in_by_provider(
        self, issuer: str, subject: str, wished: str, groups: set[str], mapping: Mapping[str, Mapping[str, str]]
    ) -> dict[str, str]:
        """A session for a subject that an identity provider has vouched for (the caller has checked its token).

        The user is made at the first sign-in, and has the roles that the groups bring by `mapping`. Forbidden if they have none in any project.
        """

        def work(tx: Any) -> str:
            name = federated.find_or_make(tx, issuer, subject, wished)
            federated.follow_groups(tx, name, groups, mapping)
            return name

        name = await self.ws.records.write(SYSTEM, work)
        self.forget()
        return await self.open_session(await self.of_user(name))

    async def by_session(self, token: str) -> tuple[Principal, str] | None:
        """The principal of a session and its CSRF token, or None if it is unknown or over."""
        now = self.ws.clock.now()
        digest = hashlib.sha256(token.encode()).digest()
        known = self._sessions.get(digest, now)
        if known is not None:
            return known
        row = await self.ws.records.read(SYSTEM, lambda tx: store.find_session(tx, token))
        if row is None:
            return None
        try:
            who = await self.of_user(row["user"], row["project"])
        except (Forbidden, NotFound):  # taken out of the project meanwhile: another one, if there is one
            who = await self.of_user(row["user"])
        return self._sessions.put(digest, (who, str(row["csrf"])), now, row["expires_at"])

    async def switch_session(self, token: str, project: str) -> None:
        """Let a session act in another project (the caller has asked `in_project`)."""
        await self.ws.records.write(SYSTEM, lambda tx: store.switch_session(tx, token, project))
        self._sessions.clear()

    async def logout(self, token: str) -> None:
        """Close a session."""
        await self.ws.records.write(SYSTEM, lambda tx: store.close_session(tx, token))
        self._sessions.clear()

    # Short tokens of workers

    def mint(self, who: Principal, seconds: float) -> str:
        """A token for `who` that is good for `seconds`, signed by the home's secret (HMAC-SHA256); it survives a restart of the server.

        It carries project and role, and never more: a site admin's token is an admin's of one project.
        """
        body = orjson.dumps([who.name, who.project, who.role.name, who.kind, self.ws.clock.now() + seconds, who.run])
        return TOKEN_PREFIX + _b64(body) + "." + _b64(self._sign(body))

    def _by_token(self, token: str, now: float) -> Principal:
        body, _, signature = token.removeprefix(TOKEN_PREFIX).partition(".")
        try:
            raw = _unb64(body)
            right = hmac.compare_digest(self._sign(raw), _unb64(signature))
        except ValueError:
            right = False
        if right:
            name, project, role, kind, until, run = [*orjson.loads(raw), ""][:6]
            if until > now:
                return Principal(name, project, Role.of(role), kind=kind, run=run)
        raise Unauthorized("The token is wrong or has expired.")

    def seal(self, purpose: str, text: str) -> str:
        """A proof that this server said `text` for `purpose`; whoever has it can change neither. It survives a restart."""
        return hmac.new(self._secret, f"seal\0{purpose}\0{text}".encode(), hashlib.sha256).hexdigest()

    def sealed(self, purpose: str, text: str, proof: str) -> bool:
        """Whether `proof` is the seal of this text for this purpose."""
        return hmac.compare_digest(self.seal(purpose, text).encode(), proof.encode())

    def _sign(self, body: bytes) -> bytes:
        return hmac.digest(self._secret, body, hashlib.sha256)

    # Keys

    async def create_key(self, who: Principal, name: str, role: str = "editor", expires_days: float | None = None) -> dict[str, Any]:
        """A new key of who's project, with `key`, which is not shown again. Nobody makes a key with a higher role than their own."""
        wanted = Role.of(role)
        who.need(Role.admin, "create a key")
        expires = self.ws.clock.now() + expires_days * 86_400 if expires_days else None
        return await self.ws.records.write(who, lambda tx: store.create_key(tx, name, wanted, expires))

    async def keys(self, who: Principal) -> list[dict[str, Any]]:
        """Keys of the project (admin)."""
        return await self.ws.records.read(who.need(Role.admin, "list keys"), store.list_keys)

    async def revoke_key(self, who: Principal, id: str) -> None:
        """Revoke a key by id or name; it stops working at once."""
        who.need(Role.admin, "revoke a key")
        await self.ws.records.write(who, lambda tx: store.revoke_key(tx, id))
        self._keys.clear()

    # Users and members

    async def create_user(self, who: Principal, name: str, password: str, role: str = "editor", site_admin: bool = False) -> dict[str, Any]:
        """A new user with a role in who's project (site admins only may make site admins)."""
        wanted = Role.of(role)
        who.need(Role.admin, "create a user")
        _for_people(wanted)
        if site_admin:
            _need_site_admin(who, "make a site admin")
        kept = await asyncio.to_thread(store.hash_password, password)

        def work(tx: Any) -> dict[str, Any]:
            made = store.create_user(tx, name, kept, site_admin)
            store.set_member(tx, name, wanted)
            return {**made, "role": wanted.name, "project": tx.project}

        return await self.ws.records.write(who, work)

    async def users(self, who: Principal) -> list[dict[str, Any]]:
        """All users, by name (site admin)."""
        _need_site_admin(who, "list all users")
        return await self.ws.records.read(who, store.list_users)

    async def set_password(self, who: Principal, name: str, new: str, old: str | None = None) -> None:
        """Change one's own password (with the old one), or anyone's (site admin). Their sessions end."""
        if who.name == f"user:{name}":
            if old is None or await self.sign_in.check({"user": name, "password": old, "address": "own"}) is None:
                raise Forbidden("The old password is missing or wrong.", "Send both: old and new.")
        else:
            _need_site_admin(who, "change another user's password")
        kept = await asyncio.to_thread(store.hash_password, new)
        await self.ws.records.write(who, lambda tx: store.set_password(tx, name, kept))
        self.forget()

    async def disable_user(self, who: Principal, name: str) -> None:
        """No sign-in any more, sessions end (site admin); not oneself, so that one admin stays."""
        _need_site_admin(who, "disable a user")
        if who.name == f"user:{name}":
            raise BadInput("One cannot disable oneself.", "Ask another site admin.")
        await self.ws.records.write(who, lambda tx: store.disable_user(tx, name))
        self.forget()

    async def members(self, who: Principal) -> list[dict[str, Any]]:
        """Users with a role in the project (admin)."""
        return await self.ws.records.read(who.need(Role.admin, "list members"), store.list_members)

    async def set_member(self, who: Principal, user: str, role: str) -> dict[str, Any]:
        """Give a user a role in the project (admin)."""
        wanted = Role.of(role)
        who.need(Role.admin, "change a member's role")
        _for_people(wanted)
        await self.ws.records.write(who, lambda tx: store.set_member(tx, user, wanted))
        self.forget()
        return {"user": user, "project": who.project, "role": wanted.name}

    async def remove_member(self, who: Principal, user: str) -> None:
        """Take a user's role in the project away (admin)."""
        who.need(Role.admin, "remove a member")
        await self.ws.records.write(who, lambda tx: store.remove_member(tx, user))
        self.forget()

    # Projects

    async def projects(self, who: Principal) -> list[dict[str, Any]]:
        """Projects that who may act in."""
        rows = await self.ws.records.read(who.need(Role.caller), store.list_projects)
        if who.site_admin:
            return rows
        mine = {who.project: who.role.name}
        if who.kind == "person":
            mine |= await self.ws.records.read(who, lambda tx: store.roles_of(tx, who.name.removeprefix("user:")))
        return [row for row in rows if row["name"] in mine]

    async def create_project(self, who: Principal, name: str) -> dict[str, Any]:
        """A new project (site admin)."""
        _need_site_admin(who, "make a project")
        return await self.ws.records.write(who, lambda tx: store.create_project(tx, name))

    def forget(self) -> None:
        """Forget what was found: something about users has changed."""
        for memory in (self._keys, self._sessions, self._members, self._passwords):
            memory.clear()


def _need_site_admin(who: Principal, what: str) -> None:
    if not who.site_admin:
        raise Forbidden(f"{who.name} is no site admin; only one may {what}.", "Sign in as a site admin, or call from the server's machine.")


def _for_people(role: Role) -> None:
    if role is Role.caller:
        raise BadInput("The role caller is for keys: a person with it would see nothing.", "Choose viewer, editor, approver or admin.")


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
