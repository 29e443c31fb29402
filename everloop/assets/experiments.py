"""Experiments: named groups of runs. Experiment "0", called Default, is always there."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from everloop.assets import run_filter
from everloop.core.errors import BadInput, Conflict, NotFound
from everloop.core.limits import PAGE_ROWS, RUN_PAGE_MAX
from everloop.store import audit
from everloop.store.records import Tx
from everloop.store.schema import experiments

DEFAULT_ID = "0"
DEFAULT_NAME = "Default"
NAME_CHARS = 500
LOCATION = "everloop.artifact_location"
"""The tag that keeps where an experiment's files go, if elsewhere than its default place."""
VIEWS = ("active", "deleted", "all")


def ensure_default(tx: Tx) -> None:
    """Make experiment "0" of the project where it is missing."""
    row = {"project": tx.project, "id": DEFAULT_ID, "name": DEFAULT_NAME, "tags": {}, "created_at": tx.now, "updated_at": tx.now, "deleted_at": None}
    tx.upsert(experiments, row, update=[])


def has_default(tx: Tx) -> bool:
    """Whether experiment "0" of the project has been made."""
    return tx.value(sa.select(experiments.c.id).where(experiments.c.project == tx.project, experiments.c.id == DEFAULT_ID)) is not None


def create(tx: Tx, name: str, tags: dict[str, str] | None = None) -> dict[str, Any]:
    """A new experiment; its id is the next number of the project. BadInput for a bad name, Conflict if the name is taken."""
    if not isinstance(name, str) or not name.strip() or len(name) > NAME_CHARS:
        raise BadInput(f"{name!r} cannot name an experiment.", f"Use 1 to {NAME_CHARS} characters.")
    ensure_default(tx)
    there = find(tx, name)
    if there is not None:
        state = "deleted; restore it, or choose another name" if there["deleted_at"] else "there already"
        raise Conflict(f"Experiment(name={name}) already exists: it is {state}.", id=there["id"])
    rows = tx.rows(sa.select(sa.func.max(sa.cast(experiments.c.id, sa.BigInteger)).label("top")).where(experiments.c.project == tx.project))
    row = {
        "id": str((rows[0]["top"] or 0) + 1),
        "name": name,
        "tags": dict(tags or {}),
        "created_at": tx.now,
        "updated_at": tx.now,
        "deleted_at": None,
    }
    tx.run(experiments.insert().values(project=tx.project, **row))
    audit.record(tx, "experiment.create", f"experiment:{row['id']}", name=name)
    return row


def find(tx: Tx, name: str) -> dict[str, Any] | None:
    """The experiment of exactly this name, deleted or not, or None."""
    return _row(tx, experiments.c.name == name)


def get(tx: Tx, id: str) -> dict[str, Any]:
    """The experiment of this id; NotFound if there is none."""
    row = _row(tx, experiments.c.id == str(id))
    if row is None:
        if str(id) == DEFAULT_ID:
            return {"id": DEFAULT_ID, "name": DEFAULT_NAME, "tags": {}, "created_at": tx.now, "updated_at": tx.now, "deleted_at": None}
        raise NotFound(f"No Experiment with id={id} exists.", "List them with: everloop experiments")
    return row


def ensure(tx: Tx, name: str) -> str:
    """The id of the experiment called `name`, made where missing; "default" in any case means experiment "0". Conflict if it is deleted."""
    there = find(tx, name)
    if there is not None:
        if there["deleted_at"]:
            raise Conflict(f"The experiment {name!r} is deleted.", f"Restore it (id {there['id']}), or use another name.")
        return str(there["id"])
    if name.lower() == DEFAULT_NAME.lower():
        ensure_default(tx)
        return DEFAULT_ID
    return str(create(tx, name)["id"])


def search(
    tx: Tx, filter: str = "", view: str = "active", order_by: list[str] | None = None, limit: int = PAGE_ROWS, offset: int = 0
) -> list[dict[str, Any]]:
    """Experiments that fit the filter (attributes name, creation_time, last_update_time in ms; tags), newest change first when not told."""
    statement = sa.select(experiments).where(experiments.c.project == tx.project, *_in_view(view))
    for clause in run_filter.parse(filter, run_filter.EXPERIMENTS):
        if clause.entity == "tag":
            column: Any = experiments.c.tags[clause.key].as_string()
        else:
            column = experiments.c[clause.key]
        timed = clause.entity == "attribute" and clause.key.endswith("_at")
        fits = (
            run_filter.moment(column, clause.op, clause.value)
            if timed
            else run_filter.condition(column, clause.op, clause.value, tx.conn.dialect.name)
        )
        statement = statement.where(fits)
    for text in order_by or ["last_update_time DESC"]:
        entity, key, ascending = run_filter.parse_order(text, run_filter.EXPERIMENTS)
        if entity != "attribute":
            raise BadInput(f"Experiments cannot be ordered by {text!r}.", "Order by name, creation_time or last_update_time.")
        statement = statement.order_by(experiments.c[key].asc() if ascending else experiments.c[key].desc())
    order = sa.cast(experiments.c.id, sa.BigInteger)
    return [_shown(row) for row in tx.rows(statement.order_by(order.desc()).limit(min(limit, RUN_PAGE_MAX)).offset(offset))]


def rename(tx: Tx, id: str, name: str) -> None:
    """Give an experiment another name; Conflict if it is taken, BadInput if the experiment is deleted."""
    _active(tx, id)
    if not name.strip() or len(name) > NAME_CHARS:
        raise BadInput(f"{name!r} cannot name an experiment.", f"Use 1 to {NAME_CHARS} characters.")
    there = find(tx, name)
    if there is not None and there["id"] != str(id):
        raise Conflict(f"Experiment(name={name}) already exists.", id=there["id"])
    _change(tx, id, name=name)
    audit.record(tx, "experiment.rename", f"experiment:{id}", name=name)


def delete(tx: Tx, id: str) -> None:
    """Mark an experiment deleted (its runs go out of sight with it); the default one cannot be deleted."""
    if str(id) == DEFAULT_ID:
        raise BadInput("Cannot delete the default experiment.", "It is where runs without an experiment go.")
    _active(tx, id)
    _change(tx, id, deleted_at=tx.now)
    audit.record(tx, "experiment.delete", f"experiment:{id}")


def restore(tx: Tx, id: str) -> None:
    """Bring a deleted experiment back; BadInput if it is not deleted."""
    if get(tx, id)["deleted_at"] is None:
        raise BadInput(f"Experiment with id={id} is not deleted.", "Nothing to restore.")
    _change(tx, id, deleted_at=None)
    audit.record(tx, "experiment.restore", f"experiment:{id}")


def tag(tx: Tx, id: str, tags: dict[str, str | None]) -> None:
    """Set tags of an experiment (None removes one; NotFound if it has none such). BadInput if the experiment is deleted."""
    have = _active(tx, id)["tags"]
    for key, value in tags.items():
        if value is None and key not in have:
            raise NotFound(f"No tag with name: {key} in experiment with id {id}")
    merged = {key: value for key, value in {**have, **tags}.items() if value is not None}
    ensure_default(tx)
    _change(tx, id, tags=merged)
    audit.record(tx, "experiment.tag", f"experiment:{id}", tags=tags)


def _active(tx: Tx, id: str) -> dict[str, Any]:
    row = get(tx, id)
    if row["deleted_at"] is not None:
        raise BadInput(f"The experiment {id} must be in the 'active' state. Current state is deleted.", "Restore it first.")
    return row


def _change(tx: Tx, id: str, **values: Any) -> None:
    tx.run(experiments.update().where(experiments.c.project == tx.project, experiments.c.id == str(id)).values(updated_at=tx.now, **values))


def _row(tx: Tx, where: Any) -> dict[str, Any] | None:
    row = tx.row(sa.select(experiments).where(experiments.c.project == tx.project, where))
    return _shown(row) if row else None


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in ("id", "name", "tags", "created_at", "updated_at", "deleted_at")}


def _in_view(view: str) -> list[Any]:
    if view not in VIEWS:
        raise BadInput(f"There is no view {view!r}.", f"Views: {', '.join(VIEWS)}.")
    return {"active": [experiments.c.deleted_at.is_(None)], "deleted": [experiments.c.deleted_at.is_not(None)], "all": []}[view]
