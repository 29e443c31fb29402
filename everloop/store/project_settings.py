"""Settings of a project: one JSON value a name, in the project's own row."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from everloop.store.records import Tx
from everloop.store.schema import projects


def get(tx: Tx, name: str) -> Any:
    """A setting of the caller's project; None where it is not set."""
    row = tx.row(sa.select(projects.c.settings).where(projects.c.name == tx.project))
    return (row["settings"] or {}).get(name) if row else None


def put(tx: Tx, name: str, value: Any) -> None:
    """Set a setting, or take it away (None). A project that has no row yet gets one."""
    row = tx.row(sa.select(projects.c.settings).where(projects.c.name == tx.project))
    settings = {key: kept for key, kept in ((row["settings"] or {}) if row else {}).items() if key != name}
    if value is not None:
        settings[name] = value
    if row is None:
        tx.run(projects.insert().values(name=tx.project, created_at=tx.now, created_by=tx.who.name, settings=settings))
    else:
        tx.run(projects.update().where(projects.c.name == tx.project).values(settings=settings))


def everywhere(tx: Tx, name: str) -> dict[str, Any]:
    """A setting in every project that has it: {project: value}."""
    rows = tx.rows(sa.select(projects.c.name, projects.c.settings))
    return {row["name"]: row["settings"][name] for row in rows if (row["settings"] or {}).get(name) is not None}
