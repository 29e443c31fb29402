"""Who may come in: API keys, users with passwords, memberships, sign-in sessions. Keys and passwords are kept only as digests.

A key is `ev_` and 256 random bits, so one SHA-256 is enough to keep it by; passwords go through scrypt (RFC 7914; N=2^15, r=8, p=1).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from typing import Any

import sqlalchemy as sa

from everloop.core.errors import BadInput, Conflict, NotFound
from everloop.core.limits import PASSWORD_CHARS
from everloop.core.principal import Role
from everloop.core.refs import check_name
from everloop.store import audit
from everloop.store.records import Tx
from everloop.store.schema import keys, members, projects, sessions, users

KEY_PREFIX = "ev_"
SESSION_SECONDS = 12 * 3600.0
_SCRYPT = {"n": 2**15, "r": 8, "p": 1, "maxmem": 64 * 1024 * 1024}


def digest(secret: str) -> str:
    """SHA-256 (hex) of a key or session token."""
    return hashlib.sha256(secret.encode()).hexdigest()


def create_key(tx: Tx, name: str, role: Role, expires_at: float | None = None) -> dict[str, Any]:
    """A new key of the transaction's project. The answer is the only time that the key itself is seen."""
    check_name(name, "key's name")
    if tx.row(sa.select(keys.c.id).where(keys.c.project == tx.project, keys.c.name == name, keys.c.revoked_at.is_(None), _live(tx))):
        raise Conflict(
            f"There is a key {name!r} in project {tx.project!r} already.", "Records name a key by its name: choose another, or revoke that one."
        )
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    row = {
        "id": tx.clock.new_id(),
        "project": tx.project,
        "name": name,
        "role": role.name,
        "digest": digest(key),
        "hint": key[:7] + "...",
        "created_at": tx.now,
        "created_by": tx.who.name,
        "expires_at": expires_at,
        "revoked_at": None,
    }
    tx.run(keys.insert().values(**row))
    audit.record(tx, "key.create", f"key:{row['id']}", name=name, role=role.name, expires_at=expires_at)
    return {**_shown_key(row), "key": key}


def list_keys(tx: Tx) -> list[dict[str, Any]]:
    """Keys of the project, newest first; never the keys themselves."""
    return [_shown_key(row) for row in tx.rows(sa.select(keys).where(keys.c.project == tx.project).order_by(keys.c.created_at.desc()))]


def revoke_key(tx: Tx, id: str) -> str:
    """Revoke by id or name; answers the digest (for caches). NotFound if there is no such key."""
    row = tx.row(sa.select(keys).where(keys.c.project == tx.project, sa.or_(keys.c.id == id, keys.c.name == id), keys.c.revoked_at.is_(None)))
    if row is None:
        raise NotFound(f"There is no valid key {id!r} in project {tx.project!r}.", "List them with: everloop keys list")
    tx.run(keys.update().where(keys.c.id == row["id"]).values(revoked_at=tx.now))
    audit.record(tx, "key.revoke", f"key:{row['id']}", name=row["name"])
    return str(row["digest"])


def find_key(tx: Tx, key_digest: str) -> dict[str, Any] | None:
    """The row of a valid key in any project by its SHA-256, or None if it is unknown, revoked or expired."""
    return tx.row(sa.select(keys).where(keys.c.digest == key_digest, keys.c.revoked_at.is_(None), _live(tx)))


def persons(tx: Tx, name: str, seen: frozenset[str] = frozenset()) -> set[str]:
    """The people behind a principal's name in the transaction's project: of a key, whoever made it (through keys that made keys); else itself.

    A name may have been several keys, one after another: all their makers count. A key that the local user made stands for itself, since no
    person's name is known.
    """
    if not name.startswith("key:") or name in seen:
        return {name}
    makers = {row["created_by"] for row in tx.rows(sa.select(keys.c.created_by).where(keys.c.project == tx.project, keys.c.name == name[4:]))}
    found = {one for maker in makers for one in persons(tx, maker, seen | {name})}
    return {one for one in found if one.startswith("user:")} | {name}


def any_way_in(tx: Tx) -> bool:
    """Whether a site admin or a valid admin key exists, so that a server others can reach may start."""
    admins = tx.value(sa.select(sa.func.count()).select_from(users).where(users.c.site_admin, users.c.disabled_at.is_(None)))
    return bool(admins) or bool(
        tx.value(sa.select(sa.func.count()).select_from(keys).where(keys.c.role == "admin", keys.c.revoked_at.is_(None), _live(tx)))
    )


def create_user(tx: Tx, name: str, kept: str, site_admin: bool = False) -> dict[str, Any]:
    """A new user; `kept` is from `hash_password` ("" where no password signs in). Conflict if the name is taken."""
    check_name(name, "user's name")
    if tx.row(sa.select(users.c.name).where(users.c.name == name)):
        raise Conflict(f"There is a user {name!r} already.")
    tx.run(users.insert().values(name=name, password=kept, site_admin=site_admin, created_at=tx.now))
    audit.record(tx, "user.create", f"user:{name}", site_admin=site_admin)
    return {"name": name, "site_admin": site_admin, "created_at": tx.now}


def set_member(tx: Tx, user: str, role: Role) -> None:
    """Give a user a role in the transaction's project."""
    if not tx.row(sa.select(users.c.name).where(users.c.name == user)):
        raise NotFound(f"There is no user {user!r}.")
    tx.upsert(members, {"project": tx.project, "user": user, "role": role.name})
    audit.record(tx, "member.set", f"user:{user}", role=role.name)


def find_user(tx: Tx, name: str) -> dict[str, Any] | None:
    """A user's whole row (with the kept password), or None."""
    return tx.row(sa.select(users).where(users.c.name == name))


def list_users(tx: Tx) -> list[dict[str, Any]]:
    """All users by name; never their passwords."""
    return tx.rows(sa.select(users.c.name, users.c.site_admin, users.c.created_at, users.c.disabled_at).order_by(users.c.name))


def set_password(tx: Tx, name: str, kept: str) -> None:
    """Replace a user's password (`kept` is from `hash_password`); their sessions end. NotFound if there is no such user."""
    if not tx.run(users.update().where(users.c.name == name).values(password=kept)):
        raise NotFound(f"There is no user {name!r}.")
    tx.run(sessions.delete().where(sessions.c.user == name))
    audit.record(tx, "user.password", f"user:{name}")


def disable_user(tx: Tx, name: str) -> None:
    """No sign-in any more; sessions end. NotFound if there is no such user."""
    if not tx.run(users.update().where(users.c.name == name, users.c.disabled_at.is_(None)).values(disabled_at=tx.now)):
        raise NotFound(f"There is no user {name!r} who could be disabled.")
    tx.run(sessions.delete().where(sessions.c.user == name))
    audit.record(tx, "user.disable", f"user:{name}")


def list_members(tx: Tx) -> list[dict[str, Any]]:
    """Users with a role in the project, by name."""
    return tx.rows(sa.select(members.c.user, members.c.role).where(members.c.project == tx.project).order_by(members.c.user))


def remove_member(tx: Tx, user: str) -> None:
    """Take a user's role away. NotFound if they have none."""
    if not tx.run(members.delete().where(members.c.project == tx.project, members.c.user == user)):
        raise NotFound(f"{user!r} is no member of project {tx.project!r}.")
    audit.record(tx, "member.remove", f"user:{user}")


def roles_of(tx: Tx, user: str) -> dict[str, str]:
    """Projects that a user is a member of: {project: role}."""
    return {row["project"]: row["role"] for row in tx.rows(sa.select(members).where(members.c.user == user).order_by(members.c.project))}


def open_session(tx: Tx, user: str, project: str) -> dict[str, str]:
    """A new sign-in: {"token", "csrf"}; the token is kept only as its digest."""
    token, csrf = secrets.token_urlsafe(32), secrets.token_urlsafe(24)
    tx.run(
        sessions.insert().values(digest=digest(token), user=user, project=project, csrf=csrf, created_at=tx.now, expires_at=tx.now + SESSION_SECONDS)
    )
    tx.run(sessions.delete().where(sessions.c.expires_at < tx.now))
    return {"token": token, "csrf": csrf}


def find_session(tx: Tx, token: str) -> dict[str, Any] | None:
    """The session behind a token with its user's row merged in, or None."""
    joined = sa.select(sessions, users.c.site_admin).join(users, users.c.name == sessions.c.user)
    row = tx.row(joined.where(sessions.c.digest == digest(token), sessions.c.expires_at > tx.now, users.c.disabled_at.is_(None)))
    return row


def switch_session(tx: Tx, token: str, project: str) -> None:
    """Let a session act in another project (the caller has checked that it may)."""
    tx.run(sessions.update().where(sessions.c.digest == digest(token)).values(project=project))


def close_session(tx: Tx, token: str) -> None:
    """Sign out."""
    tx.run(sessions.delete().where(sessions.c.digest == digest(token)))


def create_project(tx: Tx, name: str) -> dict[str, Any]:
    """A new project. Conflict if the name is taken."""
    check_name(name, "project's name")
    if tx.row(sa.select(projects.c.name).where(projects.c.name == name)):
        raise Conflict(f"There is a project {name!r} already.")
    row = {"name": name, "created_at": tx.now, "created_by": tx.who.name, "settings": {}}
    tx.run(projects.insert().values(**row))
    audit.record(tx, "project.create", f"project:{name}")
    return row


def list_projects(tx: Tx) -> list[dict[str, Any]]:
    """All projects by name."""
    return tx.rows(sa.select(projects).order_by(projects.c.name))


def hash_password(password: str) -> str:
    """`scrypt$salt$hash`, both base64; takes some 60 ms. BadInput for a password that is too short or too long."""
    low, high = PASSWORD_CHARS
    if not low <= len(password) <= high:
        raise BadInput(f"The password has {len(password)} characters; {low} to {high} are needed.")
    salt = os.urandom(16)
    return f"scrypt${base64.b64encode(salt).decode()}${base64.b64encode(_scrypt(password, salt)).decode()}"


def password_matches(password: str, kept: str) -> bool:
    """Whether a password is the one kept, in constant time."""
    kind, _, rest = kept.partition("$")
    if kind != "scrypt":
        return False
    salt, _, expected = rest.partition("$")
    return hmac.compare_digest(_scrypt(password, base64.b64decode(salt)), base64.b64decode(expected))


def _live(tx: Tx) -> sa.ColumnElement[bool]:
    return sa.or_(keys.c.expires_at.is_(None), keys.c.expires_at > tx.now)


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, dklen=32, **_SCRYPT)


def _shown_key(row: dict[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in ("id", "project", "name", "role", "hint", "created_at", "created_by", "expires_at", "revoked_at")}


NOBODY = "scrypt$" + base64.b64encode(b"0" * 16).decode() + "$" + base64.b64encode(b"0" * 32).decode()
"""What an unknown user's password is compared with, so that it takes as long; nothing matches it."""
