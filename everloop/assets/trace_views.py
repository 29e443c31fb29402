"""Saved views of the table of traces: a name and the address's query that shows it; a project's, shared by its members. Functions of a transaction."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from everloop.core.errors import BadInput, NotFound, TooLarge
from everloop.core.limits import SAVED_VIEWS, VIEW_CHARS
from everloop.store import audit
from everloop.store.records import Tx
from everloop.store.schema import documents

KIND = "trace-view"


def put(tx: Tx, name: str, query: str) -> dict[str, Any]:
    """Keep a view under a name; one that is there is replaced. BadInput for a name that is empty or too long, TooLarge for too many."""
    name = name.strip()
    if not 1 <= len(name) <= 100 or "/" in name:
        raise BadInput("A view's name has 1 to 100 characters and no slash.", "For example: slow answers of the tutor")
    if len(query) > VIEW_CHARS:
        raise TooLarge(f"The view has {len(query):,} characters; at most {VIEW_CHARS:,} are kept.")
    there = [row["name"] for row in listed(tx)]
    if name not in there and len(there) >= SAVED_VIEWS:
        raise TooLarge(f"The project has {SAVED_VIEWS} saved views already.", "Remove one that nobody uses.")
    tx.run(sa.delete(documents).where(*_which(tx, name)))
    row = {"project": tx.project, "kind": KIND, "name": name, "body": {"query": query}, "updated_at": tx.now, "updated_by": tx.who.name}
    tx.run(documents.insert().values(**row))
    audit.record(tx, "view.save", f"view:{name}", query=query)
    return {"name": name, "query": query, "at": tx.now, "by": tx.who.name}


def listed(tx: Tx) -> list[dict[str, Any]]:
    """The project's views by name: {"name", "query", "at", "by"}."""
    rows = tx.rows(sa.select(documents).where(documents.c.project == tx.project, documents.c.kind == KIND).order_by(documents.c.name))
    return [{"name": r["name"], "query": r["body"]["query"], "at": r["updated_at"], "by": r["updated_by"]} for r in rows]


def remove(tx: Tx, name: str) -> None:
    """Take a view away; NotFound where there is none of that name."""
    if name not in [row["name"] for row in listed(tx)]:
        raise NotFound(f"There is no saved view {name!r}.", "The views are listed above the table of traces.")
    tx.run(sa.delete(documents).where(*_which(tx, name)))
    audit.record(tx, "view.remove", f"view:{name}")


def _which(tx: Tx, name: str) -> tuple[Any, ...]:
    return documents.c.project == tx.project, documents.c.kind == KIND, documents.c.name == name
