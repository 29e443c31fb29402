"""Users whom an identity provider vouches for. A user is tied to (issuer, subject), never to a name that the provider lets people choose:
nobody becomes the local `admin` by being called so elsewhere.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from everloop.core.errors import Unauthorized
from everloop.core.principal import Role
from everloop.store import audit, identity
from everloop.store.records import Tx
from everloop.store.schema import members, projects, users

KIND = "oidc$"
"""Begins what is kept in place of a password; no password matches it."""
SITE = "*"
"""In a mapping of groups, in place of a project: a site admin."""
_NOT_A_NAME = re.compile(r"[^\w. -]+")


def binding(issuer: str, subject: str) -> str:
    """What ties a user to a provider's subject."""
    return KIND + hashlib.sha256(f"{issuer}\0{subject}".encode()).hexdigest()


def find_or_make(tx: Tx, issuer: str, subject: str, wished: str) -> str:
    """The name of the user tied to a subject; made at the first sign-in, without any right. Unauthorized if they are disabled."""
    tie = binding(issuer, subject)
    row = tx.row(sa.select(users).where(users.c.password == tie))
    if row is not None:
        if row["disabled_at"] is not None:
            raise Unauthorized(f"The user {row['name']!r} is disabled.")
        return str(row["name"])
    plain = _NOT_A_NAME.sub("-", wished).strip(" .-")[:60] or "user"
    name = plain
    if identity.find_user(tx, name) is not None:
        name = f"{plain}-{tie[-8:]}"
    identity.create_user(tx, name, tie)
    return name


def follow_groups(tx: Tx, user: str, groups: set[str], mapping: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Give a user the roles that their groups bring ({group: {project: role}}), and take those away that they brought before and no longer do.

    Only projects that the mapping names are touched, and being site admin only where it names SITE. Answers the roles it brought.
    """
    wanted: dict[str, Role] = {}
    for group in groups:
        for project, role in mapping.get(group, {}).items():
            wanted[project] = max(wanted.get(project, Role.viewer), Role.of(role))
    there = set(tx.conn.execute(sa.select(projects.c.name)).scalars())
    for project in sorted({p for roles in mapping.values() for p in roles if p != SITE}):
        held = tx.value(sa.select(members.c.role).where(members.c.project == project, members.c.user == user))
        within = Tx(tx.conn, tx.who.in_project(project), tx.now, tx.clock)
        if project in wanted and project in there:
            if held != wanted[project].name:
                identity.set_member(within, user, wanted[project])
        elif held is not None:
            identity.remove_member(within, user)
    if any(SITE in roles for roles in mapping.values()):
        row: Any = identity.find_user(tx, user)
        if bool(row["site_admin"]) != (SITE in wanted):
            tx.run(users.update().where(users.c.name == user).values(site_admin=SITE in wanted))
            audit.record(tx, "user.site_admin", f"user:{user}", site_admin=SITE in wanted)
    return {project: role.name for project, role in wanted.items()}
