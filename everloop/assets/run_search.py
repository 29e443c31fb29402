"""Searching runs: MLflow's filter and order over params, tags, metrics, datasets and attributes, as SQL on the records."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from everloop.assets import experiments, run_filter, runs
from everloop.core.errors import BadInput
from everloop.core.limits import PAGE_ROWS, RUN_PAGE_MAX
from everloop.store.records import Tx
from everloop.store.schema import run_inputs, run_metrics, run_params, run_tags
from everloop.store.schema import runs as table

IDS = 10_000
"""Ids that one statement names."""
_TABLES = {"metric": run_metrics, "param": run_params, "tag": run_tags}


def search(
    tx: Tx,
    filter: str = "",
    *,
    experiment_ids: list[str] | None = None,
    experiment: str | None = None,
    view: str = "active",
    order_by: list[str] | None = None,
    limit: int = PAGE_ROWS,
    offset: int = 0,
    parent: str | None = None,
    kind: str | None = None,
    pipeline: str | None = None,
    text: str = "",
    points: bool = False,
) -> tuple[list[dict[str, Any]], bool]:
    """(runs that fit, whether there are more). Newest start first when no order is told.

    What fits is told as to `fitting`; `points` as in `runs.show`.
    """
    statement = fitting(
        tx, filter, experiment_ids=experiment_ids, experiment=experiment, view=view, parent=parent, kind=kind, pipeline=pipeline, text=text
    )
    statement = _ordered(statement.with_only_columns(table.c.id), order_by or [])
    limit = max(0, min(limit, RUN_PAGE_MAX))
    ids = [row["id"] for row in tx.rows(statement.limit(limit + 1).offset(offset))]  # ordered without the wide columns
    rows = {row["id"]: row for start in range(0, limit, IDS) for row in tx.rows(_these(tx, ids[:limit][start : start + IDS]))}
    return runs.show(tx, [rows[id] for id in ids[:limit]], points), len(ids) > limit


def _these(tx: Tx, ids: list[str]) -> Any:
    return runs.select().where(table.c.project == tx.project, table.c.id.in_(ids))


def fitting(
    tx: Tx,
    filter: str = "",
    *,
    experiment_ids: list[str] | None = None,
    experiment: str | None = None,
    view: str = "active",
    parent: str | None = None,
    kind: str | None = None,
    pipeline: str | None = None,
    text: str = "",
) -> Any:
    """The select of runs that fit, in no order; BadInput for a filter or view that cannot be.

    `experiment` is a name; `experiment_ids` ids; neither means all. `view` is active, deleted or all. `parent`, `kind` and `pipeline` must be
    equal; `text` is part of the name.
    """
    if view not in experiments.VIEWS:
        raise BadInput(f"There is no view {view!r}.", f"Views: {', '.join(experiments.VIEWS)}.")
    statement = runs.select().where(table.c.project == tx.project)
    if view != "all":
        statement = statement.where(table.c.deleted_at.is_(None) if view == "active" else table.c.deleted_at.is_not(None))
    if experiment is not None:
        found = experiments.find(tx, experiment)
        default = experiments.DEFAULT_ID if experiment.lower() == "default" else ""
        statement = statement.where(table.c.experiment == (found["id"] if found else default))
    if experiment_ids is not None:
        statement = statement.where(table.c.experiment.in_([str(id) for id in experiment_ids]))
    if parent is not None:
        statement = statement.where(table.c.parent == parent)
    if kind is not None:
        statement = statement.where(table.c.kind == kind)
    if pipeline is not None:
        statement = statement.where(table.c.pipeline == pipeline)
    if text:
        statement = statement.where(table.c.name.icontains(text, autoescape=True))
    for clause in run_filter.parse(filter, run_filter.RUNS):
        statement = statement.where(_condition(tx, clause))
    return statement


def _condition(tx: Tx, clause: run_filter.Clause) -> Any:
    dialect = tx.conn.dialect.name
    if clause.entity == "attribute":
        return _attribute(clause, dialect)
    if clause.entity == "dataset":
        columns = {"name": run_inputs.c.name, "digest": run_inputs.c.digest, "context": run_inputs.c.context}
        if clause.key not in columns:
            raise BadInput(f"There is no attribute {clause.key!r} of a dataset.", "Attributes: name, digest, context.")
        where = [run_inputs.c.project == table.c.project, run_inputs.c.run == table.c.id]
        return sa.exists().where(*where, run_filter.condition(columns[clause.key], clause.op, clause.value, dialect))
    side = _TABLES[clause.entity]
    where = [side.c.project == table.c.project, side.c.run == table.c.id, side.c.key == clause.key]
    if clause.op == "IS NULL":
        return ~sa.exists().where(*where)
    if clause.op == "IS NOT NULL":
        return sa.exists().where(*where)
    fits = run_filter.condition(side.c.value, clause.op, clause.value, dialect)
    if clause.entity == "metric" and clause.op == "!=":
        fits = sa.or_(fits, side.c.special == "nan")  # nan is unlike every number
    return sa.exists().where(*where, fits)


def _attribute(clause: run_filter.Clause, dialect: str) -> Any:
    value = clause.value
    if clause.key in ("started_at", "ended_at"):
        return run_filter.moment(table.c[clause.key], clause.op, run_filter.seconds(value))
    if clause.key == "user":
        return run_filter.condition(_user(), clause.op, value, dialect)
    if clause.key == "status":
        value = tuple(v.lower() for v in value) if isinstance(value, tuple) else value.lower()
    if clause.key == "lifecycle_stage":
        return run_filter.condition(_lifecycle(), clause.op, value, dialect)
    if clause.key == "artifact_uri":
        where = "mlflow-artifacts:/" + table.c.experiment + "/" + table.c.id + "/artifacts"
        return run_filter.condition(where, clause.op, value, dialect)
    return run_filter.condition(table.c[clause.key], clause.op, value, dialect)


def _lifecycle() -> Any:
    return sa.case((table.c.deleted_at.is_(None), "active"), else_="deleted")


def _user() -> Any:
    """The user of a run: whom the client named, else who made it."""

    def tag(key: str) -> Any:
        return (
            sa.select(run_tags.c.value)
            .where(run_tags.c.project == table.c.project, run_tags.c.run == table.c.id, run_tags.c.key == key)
            .scalar_subquery()
        )

    return sa.func.coalesce(tag("mlflow.user"), tag(runs.CLIENT_USER), table.c.created_by)


def _ordered(statement: Any, order_by: list[str]) -> Any:
    """Values first, then nan, then runs that lack the key, whichever way the values run; ties by newest start, then by id."""
    named = False
    for text in order_by:
        entity, key, ascending = run_filter.parse_order(text, run_filter.RUNS)
        if entity == "attribute":
            if key == "artifact_uri":
                key = "id"
            named = named or key == "started_at"
            column = _lifecycle() if key == "lifecycle_stage" else _user() if key == "user" else table.c[key]
            statement = statement.order_by(sa.case((column.is_(None), 1), else_=0))
        elif entity in _TABLES:
            side = _TABLES[entity].alias()
            on = sa.and_(side.c.project == table.c.project, side.c.run == table.c.id, side.c.key == key)
            statement = statement.outerjoin(side, on)
            column = side.c.value
            rank = [(side.c.key.is_(None), 2)]
            if entity == "metric":
                rank.append((side.c.special == "nan", 1))
            statement = statement.order_by(sa.case(*rank, else_=0))
        else:
            raise BadInput(f"Runs cannot be ordered by {text!r}.", "Order by metrics., params., tags. or attributes.")
        statement = statement.order_by(column.asc() if ascending else column.desc())
    if not named:
        statement = statement.order_by(table.c.started_at.desc())
    return statement.order_by(table.c.id)
