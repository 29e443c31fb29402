"""The audit record: who did what to what, each row's hash covering the one before it, per project.

Changing or removing a row breaks every hash after it; `verify` says where. (A writer of the database file could recompute the whole
chain: export its head regularly to somewhere else, `head` is for that.)
"""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
import sqlalchemy as sa

from everloop.store.records import Tx
from everloop.store.schema import audit

GENESIS = "0" * 64
ACTORS = ("user", "key", "pipeline", "monitor")
"""How names of principals begin."""


def record(tx: Tx, action: str, subject: str, **details: Any) -> None:
    """Append one row to the project's chain: `action` such as `alias.move`, `subject` a reference or id."""
    previous = head(tx)
    row = {
        "project": tx.project,
        "at": tx.now,
        "by": tx.who.name,
        "action": action,
        "subject": subject,
        "details": orjson.loads(orjson.dumps(details, default=str)),
        "previous": previous,
    }
    tx.run(audit.insert().values(**row, hash=_hash(row)))


def head(tx: Tx) -> str:
    """The hash of the project's newest row (GENESIS when there is none)."""
    found = tx.value(sa.select(audit.c.hash).where(audit.c.project == tx.project).order_by(audit.c.seq.desc()).limit(1))
    return str(found) if found else GENESIS


def rows(
    tx: Tx,
    subject: str | None = None,
    limit: int = 100,
    before: int | None = None,
    *,
    by: str | None = None,
    action: str | None = None,
    since: float | None = None,
) -> list[dict[str, Any]]:
    """Newest first; `before` is a seq to page on.

    `subject` without a version means all versions (`gate:` subjects too); `by` is a principal or its name alone; `action` one or a family (`gate`).
    """
    statement = sa.select(audit).where(audit.c.project == tx.project).order_by(audit.c.seq.desc()).limit(limit)
    if subject:
        exact = audit.c.subject == subject
        statement = statement.where(exact if "@" in subject else sa.or_(exact, audit.c.subject.startswith(f"{subject}@", autoescape=True)))
    if by:
        statement = statement.where(audit.c.by == by if ":" in by else sa.or_(audit.c.by == by, audit.c.by.in_([f"{kind}:{by}" for kind in ACTORS])))
    if action:
        statement = statement.where(sa.or_(audit.c.action == action, audit.c.action.startswith(f"{action}.", autoescape=True)))
    if since is not None:
        statement = statement.where(audit.c.at >= since)
    if before:
        statement = statement.where(audit.c.seq < before)
    return tx.rows(statement)


def verify(tx: Tx) -> dict[str, Any]:
    """Walk the whole chain: {"ok", "rows", "head", "broken_at"} where broken_at is the seq of the first row that does not fit."""
    previous, count = GENESIS, 0
    for row in tx.conn.execute(sa.select(audit).where(audit.c.project == tx.project).order_by(audit.c.seq)).mappings():
        body = {key: row[key] for key in ("project", "at", "by", "action", "subject", "details", "previous")}
        if row["previous"] != previous or row["hash"] != _hash(body):
            return {"ok": False, "rows": count, "head": previous, "broken_at": row["seq"]}
        previous, count = row["hash"], count + 1
    return {"ok": True, "rows": count, "head": previous, "broken_at": None}


def _hash(row: dict[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(row, option=orjson.OPT_SORT_KEYS)).hexdigest()
