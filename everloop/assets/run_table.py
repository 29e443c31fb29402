"""What a table of runs asks beyond a page of them: how many fit, which keys there are, and runs in groups with a metric's mean, least and greatest value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from everloop.assets import run_filter, run_search
from everloop.core.errors import BadInput
from everloop.core.limits import RUN_GROUPS, RUN_KEYS
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


def keys(tx: Tx) -> dict[str, list[dict[str, Any]]]:
    """The keys that runs of the project have: {"metrics": [{"key", "runs"}], "params", "tags"}, those of most runs first, RUN_KEYS of each at most."""
    found = {}
    for side, of in SIDES.items():
        many = sa.func.count().label("runs")
        statement = sa.select(of.c.key, many).where(of.c.project == tx.project).group_by(of.c.key)
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


def _grouped(statement: Any, by: str) -> tuple[Any, Any]:
    """The column whose values are the groups, and the statement with what it needs joined on."""
    if by == "experiment":
        return sa.func.coalesce(experiments.c.name, "default"), statement
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
