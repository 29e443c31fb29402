"""Producers whose pickles and code a project may load, each an admin's explicit word; kept as documents of kind `trust`."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from everloop.core.errors import BadInput, NotFound
from everloop.store import audit
from everloop.store.records import Tx
from everloop.store.schema import documents

KIND = "trust"
UNKNOWN = "unknown"
"""Producer of a file of which nobody noted who wrote it (before that was kept): anybody who might edit may have, so it is trusted only by this name."""


def add(tx: Tx, producer: str, why: str = "") -> dict[str, Any]:
    """Trust a producer, as records name it (`key:ci`, `user:ann`, `local`, `pipeline:weekly`). BadInput for an empty name or a pattern."""
    if not producer.strip() or "*" in producer:
        raise BadInput(f"{producer!r} is no producer.", "Name one principal as the record has it: key:ci, user:ann, local.")
    body = {"why": why, "at": tx.now, "by": tx.who.name}
    row = {"project": tx.project, "kind": KIND, "name": producer, "body": body, "updated_at": tx.now, "updated_by": tx.who.name}
    tx.upsert(documents, row)
    audit.record(tx, "trust.add", producer, why=why)
    return {"producer": producer, **body}


def remove(tx: Tx, producer: str, why: str = "") -> None:
    """Trust a producer no longer; NotFound if it was not trusted."""
    if not is_trusted(tx, producer):
        raise NotFound(f"{producer!r} is not trusted.", "List who is: everloop models trusted")
    tx.run(documents.delete().where(documents.c.project == tx.project, documents.c.kind == KIND, documents.c.name == producer))
    audit.record(tx, "trust.remove", producer, why=why)


def listed(tx: Tx) -> list[dict[str, Any]]:
    """Who is trusted: [{"producer", "why", "at", "by"}], by name."""
    rows = tx.rows(
        sa.select(documents.c.name, documents.c.body).where(documents.c.project == tx.project, documents.c.kind == KIND).order_by(documents.c.name)
    )
    return [{"producer": row["name"], **row["body"]} for row in rows]


def is_trusted(tx: Tx, producer: str) -> bool:
    """Whether this producer's pickles and code may be loaded."""
    where = [documents.c.project == tx.project, documents.c.kind == KIND, documents.c.name == producer]
    return tx.value(sa.select(documents.c.name).where(*where)) is not None
