"""What a table of runs asks beyond a page of them: how many fit, which keys there are, and runs in groups with a metric's mean, least and greatest value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from everloop.assets import run_filter, run_search, runs
from everloop.assets.experiments import DEFAULT_NAME
from everloop.core.errors import BadInput
from everloop.core.limits import RUN_GROUPS, RUN_KEYS, RUNS_LOOKED_AT
from everloop.store.records import Tx
from everloop.store.schema import experiments, run_metrics, run_params, run_tags
from everloop.store.schema import runs as table

SIDES = {"metrics": run_metrics, "params": run_params, "tags": run_tags}
GROUPED = {"status": table.c.status, "kind": table.c.kind, "created_by": table.c.created_by, "pipeline": table.c.pipeline}
"""Attributes by which runs can be grouped, besides their experiment."""


def count(tx: Tx, filter: str = "", **more: Any) -> int:
    """How many runs fit; `more` as in `run_search.fitting`."""
    found = run_search.fitting(tx, filter, **more).with_only_columns(table.c.id)
    return int(tx.value(sa.select(sa.func.count()).select_from(found.subquery())) or 0)


def many(tx: Tx, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Runs by id, in the order asked, also deleted ones; NotFound for one that is not there."""
    rows = {row["id"]: row for row in tx.rows(runs.select().where(table.c.project == tx.project, table.c.id.in_(list(ids))))}
    for id in ids:
        if id not in rows:
            runs.must_exist(tx, id)
    return runs.show(tx, [rows[id] for id in ids])


def heads(tx: Tx, ids: Sequence[str], key: str) -> list[dict[str, Any]]:
    """Of each run its "id", "name" and "status", with "step" and "at" of the newest point of a metric (None: it has none); in the order asked.

    NotFound for a run that is not there.
    """
    on = sa.and_(run_metrics.c.project == table.c.project, run_metrics.c.run == table.c.id, run_metrics.c.key == key)
    columns = (table.c.id, table.c.name, table.c.status, run_metrics.c.step, run_metrics.c.at, run_metrics.c.value)
    statement = sa.select(*columns).select_from(table.outerjoin(run_metrics, on)).where(table.c.project == tx.project, table.c.id.in_(list(ids)))
    rows = {row["id"]: row for row in tx.rows(statement)}
    for id in ids:
        if id not in rows:
            runs.must_exist(tx, id)
    return [rows[id] for id in ids]


def keys(tx: Tx, filter: str = "", **more: Any) -> dict[str, list[dict[str, Any]]]:
    """The keys of the newest RUNS_LOOKED_AT runs that fit: {"metrics": [{"key", "runs"}], "params", "tags"}, those of most runs first.

    RUN_KEYS of each at most; `more` as in `run_search.fitting`.
    """
    newest = run_search.fitting(tx, filter, **more).with_only_columns(table.c.id).order_by(table.c.started_at.desc()).limit(RUNS_LOOKED_AT)
    ids = [row["id"] for row in tx.rows(newest)]
    found = {}
    for side, of in SIDES.items():
        many = sa.func.count().label("runs")
        statement = sa.select(of.c.key, many).where(of.c.project == tx.project, of.c.run.in_(ids)).group_by(of.c.key)
        found[side] = tx.rows(statement.order_by(many.desc(), of.c.key).limit(RUN_KEYS))
    return found


def groups(tx: Tx, by: str, metrics: Sequence[str] = (), filter: str = "", **more: Any) -> dict[str, Any]:
    """Runs that fit, in groups: {"items": [{"value", "runs", "metrics": {key: {"mean", "min", "max", "n"}}}], "more": bool}.

    `by` is `experiment`, `params.KEY`, `tags.KEY`, or an attribute of GROUPED; runs without it are the group whose value is None. The largest
    groups come first, RUN_GROUPS at most. Values that are not finite numbers do not count. BadInput for a `by` that cannot be.
    """
    statement = run_search.fitting(tx, filter, **more)
    value, statement = _grouped(statement, by)
    columns: list[Any] = [value.label("value"), sa.func.count().label("runs")]
    for i, key in enumerate(metrics):
        side = run_metrics.alias()
        on = sa.and_(side.c.project == table.c.project, side.c.run == table.c.id, side.c.key == key, side.c.special.is_(None))
        statement = statement.outerjoin(side, on)
        for name in ("avg", "min", "max", "count"):
            columns.append(getattr(sa.func, name)(side.c.value).label(f"{name}_{i}"))
    statement = statement.with_only_columns(*columns).group_by(value).order_by(sa.func.count().desc(), value).limit(RUN_GROUPS + 1)
    rows = tx.rows(statement)
    items = [
        {
            "value": row["value"],
            "runs": row["runs"],
            "metrics": {
                key: {"mean": row[f"avg_{i}"], "min": row[f"min_{i}"], "max": row[f"max_{i}"], "n": row[f"count_{i}"]}
                for i, key in enumerate(metrics)
            },
        }
        for row in rows[:RUN_GROUPS]
    ]
    return {"items": items, "more": len(rows) > RUN_GROUPS}


def values(
    tx: Tx, columns: Sequence[tuple[str, str]], limit: int, filter: str = "", ids: Sequence[str] | None = None, **more: Any
) -> list[dict[str, Any]]:
    """The newest `limit` runs that fit (or those of `ids`), with a few params, metrics and tags only: [{"id", "name", "status", "values"}].

    `values` has one for each of `columns` (side and key), None where the run has none; a metric that is not finite counts as none.
    """
    found = run_search.fitting(tx, filter, **more).with_only_columns(table.c.id, table.c.name, table.c.status)
    if ids is not None:
        found = found.where(table.c.id.in_(list(ids)))
    found = found.order_by(table.c.started_at.desc(), table.c.id).limit(limit)
    shown = {row["id"]: {**row, "values": [None] * len(columns)} for row in tx.rows(found)}
    inside = list(shown)
    for side, of in SIDES.items():
        places = {key: i for i, (one, key) in enumerate(columns) if one == side}
        if not places:
            continue
        statement = sa.select(of.c.run, of.c.key, of.c.value).where(of.c.project == tx.project, of.c.key.in_(list(places)), of.c.run.in_(inside))
        if side == "metrics":
            statement = statement.where(of.c.special.is_(None))
        for run, key, value in tx.conn.execute(statement):
            shown[run]["values"][places[key]] = value
    return list(shown.values())


def tree(tx: Tx, id: str, limit: int) -> list[dict[str, Any]]:
    """The runs in a run, and in those, `limit` at most: [{"id", "name", "kind", "status", "parent", "started_at", "ended_at", "depth"}], each after its parent."""
    c = table.c
    below: dict[str, list[dict[str, Any]]] = {}
    level, seen = [id], {id}
    while level and len(seen) <= limit:
        statement = sa.select(c.id, c.name, c.kind, c.status, c.parent, c.started_at, c.ended_at)
        statement = statement.where(c.project == tx.project, c.parent.in_(level), c.deleted_at.is_(None)).order_by(c.started_at, c.id)
        rows = [row for row in tx.rows(statement.limit(limit + 1 - len(seen))) if row["id"] not in seen]
        for row in rows:
            below.setdefault(row["parent"], []).append(row)
            seen.add(row["id"])
        level = [row["id"] for row in rows]
    found: list[dict[str, Any]] = []
    waiting = [(row, 1) for row in reversed(below.get(id, []))]
    while waiting:
        row, depth = waiting.pop()
        found.append({**row, "depth": depth})
        waiting += [(one, depth + 1) for one in reversed(below.get(row["id"], []))]
    return found


def _grouped(statement: Any, by: str) -> tuple[Any, Any]:
    """The column whose values are the groups, and the statement with what it needs joined on."""
    if by == "experiment":
        return sa.func.coalesce(experiments.c.name, DEFAULT_NAME), statement
    if by.removeprefix("attributes.") in GROUPED:
        return GROUPED[by.removeprefix("attributes.")], statement
    entity, _, key = by.partition(".")
    if entity not in ("params", "tags") or not key:
        known = ", ".join(("experiment", *GROUPED, "params.KEY", "tags.KEY"))
        raise BadInput(f"Runs cannot be grouped by {by!r}.", f"Group by one of: {known}.")
    side = SIDES[entity].alias()
    on = sa.and_(side.c.project == table.c.project, side.c.run == table.c.id, side.c.key == key)
    return side.c.value, statement.outerjoin(side, on)


def named(side: str, key: str) -> str:
    """A key as the filter language writes it: metrics.auc, params.`my key`; "" for a key that it cannot write."""
    tokens = run_filter.parse_order
    for quote in ("", "`", '"'):
        written = f"{side}.{quote}{key}{quote}"
        try:
            entity, read, _ = tokens(written, run_filter.RUNS)
        except BadInput:
            continue
        if read == key and entity == run_filter.RUNS.entities[side]:
            return written
    return ""


def quoted(value: str) -> str:
    """A text as a value of the filter language."""
    return "'" + value.replace("'", "''") + "'"
