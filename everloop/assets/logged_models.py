"""Logged models: what a client logged as a model of a run, before (or without) registering it as an asset. Their files are run_artifacts."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from everloop.assets import experiments, run_filter, run_metrics
from everloop.core.errors import BadInput, NotFound
from everloop.core.limits import PAGE_ROWS
from everloop.store import audit
from everloop.store.records import Tx
from everloop.store.schema import logged_models, model_metrics

STATUSES = ("pending", "ready", "failed")
GRAMMAR = run_filter.Grammar(
    "logged models",
    {
        "name": ("name", "list"),
        "model_id": ("id", "list"),
        "model_type": ("kind", "list"),
        "status": ("status", "list"),
        "source_run_id": ("run", "list"),
        "experiment_id": ("experiment", "list"),
        **dict.fromkeys(("creation_timestamp", "creation_time"), ("created_at", "number")),
        **dict.fromkeys(("last_updated_timestamp", "last_updated_time"), ("updated_at", "number")),
    },
    {
        **dict.fromkeys(("attribute", "attributes", "attr"), "attribute"),
        **dict.fromkeys(("metric", "metrics"), "metric"),
        **dict.fromkeys(("param", "params", "parameter"), "param"),
        **dict.fromkeys(("tag", "tags"), "tag"),
    },
    {"metric": "number", "param": "list", "tag": "list"},
)


def create(
    tx: Tx,
    experiment: str,
    name: str,
    kind: str = "",
    run: str | None = None,
    params: dict[str, str] | None = None,
    tags: dict[str, str] | None = None,
) -> dict[str, Any]:
    """A new logged model, pending until `update` says it is ready; NotFound for an unknown experiment, BadInput for a bad name."""
    if experiments.get(tx, experiment)["deleted_at"] is not None:
        raise BadInput(f"The experiment {experiment} must be in the 'active' state; it is deleted.", "Restore it first.")
    id = f"m-{tx.clock.new_id()}"
    name = name or f"model-{id[-6:]}"
    if len(name) > 500 or any(c in name for c in "/:.%\"'"):
        raise BadInput(f"Invalid model name ('{name}') provided.", "Model name must be a non-empty string without / : . % \" '.")
    row = {
        "project": tx.project,
        "id": id,
        "experiment": experiment,
        "run": run or None,
        "name": name,
        "kind": kind or "",
        "status": "pending",
        "params": dict(params or {}),
        "tags": dict(tags or {}),
        "created_at": tx.now,
        "updated_at": tx.now,
        "created_by": tx.who.name,
        "deleted_at": None,
    }
    tx.run(logged_models.insert().values(**row))
    return {**row, "metrics": []}


def get(tx: Tx, id: str) -> dict[str, Any]:
    """One logged model with its metrics; NotFound if there is none or it is deleted."""
    row = tx.row(sa.select(logged_models).where(*_is(tx, id), logged_models.c.deleted_at.is_(None)))
    if row is None:
        raise NotFound(f"Logged model with ID '{id}' not found.")
    return _with_metrics(tx, [row])[0]


def update(
    tx: Tx, id: str, *, status: str | None = None, tags: dict[str, str | None] | None = None, params: dict[str, str] | None = None
) -> dict[str, Any]:
    """Change status, tags (None removes one; NotFound if there is none such) or add params; answers the model."""
    row = get(tx, id)
    values: dict[str, Any] = {}
    if status is not None:
        if status not in STATUSES:
            raise BadInput(f"There is no status {status!r} of a logged model.", f"Statuses: {', '.join(STATUSES)}.")
        values |= {"status": status, "updated_at": tx.now}
    if tags:
        for key, value in tags.items():
            if value is None and key not in row["tags"]:
                raise NotFound(f"No tag with key {key!r} found for model with ID {id!r}.")
        values["tags"] = {k: v for k, v in {**row["tags"], **tags}.items() if v is not None}
    if params:
        for key, value in params.items():
            if row["params"].get(key, value) != value:
                raise BadInput(
                    f"The param {key!r} of logged model {id} is {row['params'][key]!r} and cannot become {value!r}.", "Params are set once."
                )
        values["params"] = {**row["params"], **params}
    if values:
        tx.run(logged_models.update().where(*_is(tx, id)).values(**values))
    return {**row, **values}


def delete(tx: Tx, id: str) -> None:
    """Put a logged model out of sight."""
    get(tx, id)
    tx.run(logged_models.update().where(*_is(tx, id)).values(deleted_at=tx.now))
    audit.record(tx, "logged_model.delete", f"logged-model:{id}")


def put_metrics(tx: Tx, run: str, points: list[tuple[str, run_metrics.Point, str, str]]) -> None:
    """Tie metric points to logged models: [(model id, point, data set's name, its digest)]. Unknown models are NotFound."""
    rows = []
    for model in {one[0] for one in points}:
        get(tx, model)
    for model, point, name, digest in points:
        stored, special = run_metrics.stored(point.value)
        row = {
            "project": tx.project,
            "model": model,
            "key": point.key,
            "run": run,
            "step": point.step,
            "dataset_name": name,
            "dataset_digest": digest,
        }
        rows.append({**row, "value": stored, "special": special, "at": point.at})
    tx.upsert(model_metrics, rows)


def search(
    tx: Tx,
    experiment_ids: list[str],
    filter: str = "",
    order_by: list[tuple[str, bool, str, str]] | None = None,
    datasets: list[tuple[str, str]] | None = None,
    limit: int = PAGE_ROWS,
    offset: int = 0,
) -> tuple[list[dict[str, Any]], bool]:
    """(logged models of these experiments that fit, whether there are more). `order_by` is [(field, ascending, data set's name, its digest)], the
    last two for a metric, or ""; metrics in the filter count only on `datasets` [(name, digest)] where told, and with `datasets` and no metric in
    the filter those fit that have any metric on them."""
    statement = sa.select(logged_models).where(
        logged_models.c.project == tx.project, logged_models.c.experiment.in_(experiment_ids), logged_models.c.deleted_at.is_(None)
    )
    clauses = run_filter.parse(filter, GRAMMAR)
    for clause in clauses:
        statement = statement.where(_condition(tx, clause, datasets))
    if datasets and not any(clause.entity == "metric" for clause in clauses):
        statement = statement.where(sa.exists().where(*_of_model(), _on(datasets)))
    for field, ascending, *dataset in order_by or []:
        column = _order(field, *dataset)
        statement = statement.order_by(sa.case((column.is_(None), 1), else_=0), column.asc() if ascending else column.desc())
    statement = statement.order_by(logged_models.c.created_at.desc(), logged_models.c.id.desc())
    rows = tx.rows(statement.limit(limit + 1).offset(offset))
    return _with_metrics(tx, rows[:limit]), len(rows) > limit


def _condition(tx: Tx, clause: run_filter.Clause, datasets: list[tuple[str, str]] | None) -> Any:
    dialect = tx.conn.dialect.name
    if clause.entity == "metric":
        where = [*_of_model(), model_metrics.c.key == clause.key, *([_on(datasets)] if datasets else [])]
        return sa.exists().where(*where, run_filter.condition(model_metrics.c.value, clause.op, clause.value, dialect))
    if clause.entity in ("param", "tag"):
        column = run_filter.member(logged_models.c.params if clause.entity == "param" else logged_models.c.tags, clause.key, dialect)
        return run_filter.condition(column, clause.op, clause.value, dialect)
    value = run_filter.seconds(clause.value) if clause.key.endswith("_at") else clause.value
    if clause.key == "status":
        value = tuple(v.lower() for v in value) if isinstance(value, tuple) else value.lower()
    return run_filter.condition(logged_models.c[clause.key], clause.op, value, dialect)


def _of_model() -> list[Any]:
    return [model_metrics.c.project == logged_models.c.project, model_metrics.c.model == logged_models.c.id]


def _on(datasets: list[tuple[str, str]]) -> Any:
    """That a metric is on one of these data sets [(name, digest or "" for any)]."""
    c = model_metrics.c
    return sa.or_(*[sa.and_(c.dataset_name == name, *([c.dataset_digest == digest] if digest else [])) for name, digest in datasets])


def _order(field: str, dataset: str = "", digest: str = "") -> Any:
    """The column to sort by; of a metric its newest point, on a data set where told. BadInput for what cannot be sorted by."""
    entity, key, _ = run_filter.parse_order(field, GRAMMAR)
    if entity == "attribute":
        return logged_models.c[key]
    if entity != "metric":
        raise BadInput(f"Invalid order by field name: {field}. Only metrics are supported.", "Sort by an attribute, or by metrics.NAME.")
    c = model_metrics.c
    where = [c.key == key, *([c.dataset_name == dataset] if dataset else []), *([c.dataset_digest == digest] if digest else [])]
    return sa.select(c.value).where(*_of_model(), *where).order_by(c.at.desc(), c.step.desc(), c.run).limit(1).scalar_subquery()


def _is(tx: Tx, id: str) -> list[Any]:
    return [logged_models.c.project == tx.project, logged_models.c.id == id]


def _with_metrics(tx: Tx, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: dict[str, list[dict[str, Any]]] = {row["id"]: [] for row in rows}
    c = model_metrics.c
    for one in tx.rows(sa.select(model_metrics).where(c.project == tx.project, c.model.in_(list(found))).order_by(c.at, c.key)):
        number = one["value"] if one["special"] is None else run_metrics.SPECIAL_TEXT[one["special"]]
        found[one["model"]].append({**{k: one[k] for k in ("key", "run", "step", "at", "dataset_name", "dataset_digest")}, "value": number})
    return [{**row, "metrics": found[row["id"]]} for row in rows]
