"""Runs: executions with params, tags, metric series and named files. Functions of a transaction; what hot paths need is in run_metrics.

A run's dict: {"id", "name", "kind", "status", "experiment" (name), "experiment_id", "parent", "pipeline", "params", "metrics" (latest
values), "tags", "started_at", "ended_at", "created_by", "error", "code", "environment", "deleted_at"}. A metric that is not a finite
number is the text "NaN", "Infinity" or "-Infinity", so that JSON can carry it (`float` reads all three).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa

from everloop.assets import catalog, experiments, lineage, run_metrics
from everloop.assets.run_series import Columns
from everloop.core.errors import BadInput, Conflict, EverloopError, NotFound
from everloop.core.limits import RUN_KEY_CHARS, RUN_VALUE_CHARS
from everloop.store import audit
from everloop.store.prepared import Prepared, upsert
from everloop.store.records import Tx
from everloop.store.schema import edges, run_artifacts, run_params, run_tags, runs
from everloop.store.schema import experiments as experiment_table
from everloop.store.schema import run_metrics as latest

KINDS = ("training", "evaluation", "pipeline", "step", "index", "batch", "ingest", "custom")
STATUSES = ("running", "scheduled", "finished", "failed", "killed")
ENDED = ("finished", "failed", "killed")
NAME_CHARS = 500
CLIENT_USER, ARTIFACTS = "everloop.client_user", "everloop.artifact_uri"
"""Tags that keep the user a client named, and where a run's files are if its experiment has a place of its own."""
HIDDEN = (CLIENT_USER, ARTIFACTS)
"""Tags that a protocol does not show."""


def create(
    tx: Tx,
    name: str,
    kind: str = "custom",
    *,
    experiment: str = experiments.DEFAULT_NAME,
    experiment_id: str | None = None,
    parent: str | None = None,
    pipeline: str | None = None,
    id: str | None = None,
    status: str = "running",
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, Any] | None = None,
    code: dict[str, Any] | None = None,
    environment: dict[str, Any] | None = None,
    started_at: float | None = None,
) -> dict[str, Any]:
    """Start a run. `experiment` is a name, made where missing; `experiment_id` wins over it and must exist. An empty name gets one.

    Raises BadInput for a kind or status that is not known or a deleted experiment, NotFound for an unknown experiment_id or parent,
    Conflict if `id` is taken.
    """
    if kind not in KINDS:
        raise BadInput(f"There is no kind of run called {kind!r}.", f"Kinds: {', '.join(KINDS)}.")
    _check_status(status)
    inside = _step(tx) if kind not in ("pipeline", "step") else None
    if inside is not None:
        parent, pipeline, code = parent or inside["id"], pipeline or inside["pipeline"], {**inside["code"], **(code or {})}
    if parent:
        must_exist(tx, parent)
    if experiment_id is not None:
        found = experiments.get(tx, experiment_id)
        if found["deleted_at"] is not None:
            raise BadInput(f"The experiment {experiment_id} must be in the 'active' state. Current state is deleted.", "Restore it first.")
        if experiment_id == experiments.DEFAULT_ID:
            experiments.ensure_default(tx)
        location = found["tags"].get(experiments.LOCATION)
    else:
        experiment_id, location = experiments.ensure(tx, experiment), None
    if id is not None and tx.value(sa.select(runs.c.id).where(*_is(tx, id))):
        raise Conflict(f"There is a run {id!r} already.")
    id = id or tx.clock.new_id()
    if location:
        tags = {**(tags or {}), ARTIFACTS: f"{location.rstrip('/')}/{id}/artifacts"}
    row = {
        "project": tx.project,
        "id": id,
        "experiment": experiment_id,
        "name": (name or f"{kind}-{id[-6:]}")[:NAME_CHARS],
        "kind": kind,
        "status": status,
        "parent": parent,
        "pipeline": pipeline,
        "code": code or {},
        "environment": environment or {},
        "error": "",
        "started_at": tx.now if started_at is None else started_at,
        "ended_at": None,
        "created_by": tx.who.name,
        "deleted_at": None,
    }
    tx.run(runs.insert(), [row])
    failed = log_many(tx, [Entry(id, {}, params or {}, tags or {})])[0]
    if failed is not None:
        raise failed
    _tie(tx, row, inside)
    return row


def _step(tx: Tx) -> dict[str, Any] | None:
    """The run of the pipeline's step that acts, or None where no step does."""
    if not tx.who.run:
        return None
    return tx.row(sa.select(runs.c.id, runs.c.pipeline, runs.c.code).where(*_is(tx, tx.who.run)))


def _tie(tx: Tx, row: Mapping[str, Any], inside: Mapping[str, Any] | None) -> None:
    """A new run's edges: it read its code, and inside a step what the step read by then."""
    target = f"run:{row['id']}"
    if row["code"].get("asset"):
        lineage.link(tx, str(catalog.resolve(tx, row["code"]["asset"])), target, "read")
    if inside is not None:
        t = edges
        read = sa.select(t.c.source).where(t.c.project == tx.project, t.c.target == f"run:{inside['id']}", t.c.relation == "read")
        for one in tx.rows(read):
            lineage.link(tx, one["source"], target, "read")


def get(tx: Tx, id: str, points: bool = False) -> dict[str, Any]:
    """A run with params, latest metrics and tags; NotFound if there is none. `points` as in `show`."""
    row = tx.row(select().where(*_is(tx, id)))
    if row is None:
        raise NotFound(f"Run with id={id} not found.", "Find it with: everloop runs list")
    return show(tx, [row], points)[0]


class Entry(NamedTuple):
    """What one request logs to a run: metric series (checked, by key), params, tags, and where it is told a new name."""

    run: str
    series: Mapping[str, Columns] = {}
    params: Mapping[str, Any] = {}
    tags: Mapping[str, Any] = {}
    name: str = ""


def log(
    tx: Tx,
    id: str,
    params: Mapping[str, Any] | None = None,
    points: list[run_metrics.Point] | None = None,
    tags: Mapping[str, Any] | None = None,
) -> None:
    """Add params, metric points and tags to a run that is not deleted, all or nothing. NotFound, BadInput, Conflict (a param changed)."""
    failed = log_many(tx, [Entry(id, run_metrics.columns_of(points or []), params or {}, tags or {})])[0]
    if failed is not None:
        raise failed


def log_many(tx: Tx, entries: list[Entry]) -> list[EverloopError | None]:
    """`log` for several requests at once: for each None, or the error that it alone ends with (then nothing of it is kept).

    What they share costs once: a run is looked up once, and points of one series are one row.
    """
    standing: dict[str, EverloopError | None] = {}
    series: dict[tuple[str, str], Columns] = {}
    merged: set[tuple[str, str]] = set()
    params: dict[tuple[str, str], str] = {}
    tags: dict[tuple[str, str], str] = {}
    names: dict[str, str] = {}
    answers: list[EverloopError | None] = []
    for run, given, new_params, new_tags, name in entries:
        try:
            if run not in standing:
                standing[run] = _standing(tx, run)
            failed = standing[run]
            if failed is not None:
                raise failed
            fresh = _fresh(tx, run, new_params, params)
            tagged = {(run, _key("tag", k)): _text("tag", k, v) for k, v in new_tags.items()}
        except EverloopError as error:
            answers.append(error)
            continue
        params |= fresh
        tags |= tagged
        if name:
            names[run] = name[:NAME_CHARS]
        for key, columns in given.items():
            _merge(series, merged, (run, key), columns)
        answers.append(None)
    run_metrics.add_columns(tx, series)
    if params:
        _PUT_PARAM.many(tx, [(tx.project, run, key, value) for (run, key), value in params.items()])
    if tags:
        _PUT_TAG.many(tx, [(tx.project, run, key, value) for (run, key), value in tags.items()])
    for run, name in names.items():
        tx.run(runs.update().where(*_is(tx, run)).values(name=name))
    return answers


def _standing(tx: Tx, run: str) -> EverloopError | None:
    """Why nothing can be logged to a run; None where it can."""
    try:
        active(tx, run)
    except EverloopError as error:
        return error
    return None


def _merge(series: dict[tuple[str, str], Columns], merged: set[tuple[str, str]], place: tuple[str, str], columns: Columns) -> None:
    """Add columns to those that are there; what an entry holds stays as it is, for it may be tried again alone."""
    have = series.get(place)
    if have is None:
        series[place] = columns
        return
    if place not in merged:
        merged.add(place)
        have = series[place] = Columns(list(have.at), list(have.step), list(have.value))
    for all_of_them, more in zip(have, columns, strict=True):
        all_of_them.extend(more)


def _fresh(tx: Tx, run: str, params: Mapping[str, Any], waiting: Mapping[tuple[str, str], str]) -> dict[tuple[str, str], str]:
    """Params that are new to a run, by (run, key): the same value again is fine, another value is a Conflict naming both."""
    found: dict[tuple[str, str], str] = {}
    for key, given in params.items():
        value, place = _text("param", _key("param", key), given), (run, key)
        have = waiting.get(place)
        if have is None:
            row = _PARAM.row(tx, tx.project, run, key)
            have = None if row is None else row[0]
        if have is None:
            found[place] = value
        elif have != value:
            raise Conflict(
                f"Changing param values is not allowed. Param with key='{key}' was already logged with value='{have}' "
                f"for run ID='{run}'. Attempted logging new value '{value}'.",
                "Params are set once; log what changes as a metric or a tag.",
            )
    return found


def delete_tag(tx: Tx, id: str, key: str) -> None:
    """Remove a tag; NotFound if the run has none such."""
    active(tx, id)
    if not tx.run(run_tags.delete().where(run_tags.c.project == tx.project, run_tags.c.run == id, run_tags.c.key == key)):
        raise NotFound(f"No tag with name: {key} in run with id {id}.")


def update(
    tx: Tx,
    id: str,
    *,
    status: str | None = None,
    ended_at: float | None = None,
    name: str | None = None,
    error: str | None = None,
    code: dict[str, Any] | None = None,
    environment: dict[str, Any] | None = None,
) -> None:
    """Change what may change of a run: its status, end, name, error, code and environment. A status that is an end sets `ended_at` where not given."""
    active(tx, id)
    values: dict[str, Any] = {}
    if status is not None:
        values["status"] = _check_status(status)
        values["ended_at"] = (ended_at if ended_at is not None else tx.now) if status in ENDED else None
    elif ended_at is not None:
        values["ended_at"] = ended_at
    if name:
        values["name"] = name[:NAME_CHARS]
    if error is not None:
        values["error"] = error
    if code is not None:
        known = tx.value(sa.select(runs.c.code).where(*_is(tx, id))) or {}
        values["code"] = {**known, **code}  # a client adds what it sees of its machine; the code asset of a step stays
    if environment is not None:
        values["environment"] = environment
    if values:
        tx.run(runs.update().where(*_is(tx, id)).values(**values))


def delete(tx: Tx, id: str) -> None:
    """Mark a run deleted; it and all it holds can be restored. A run deleted twice stays so."""
    must_exist(tx, id)
    tx.run(runs.update().where(*_is(tx, id)).values(deleted_at=tx.now))
    audit.record(tx, "run.delete", f"run:{id}")


def restore(tx: Tx, id: str) -> None:
    """Bring a deleted run back."""
    must_exist(tx, id)
    tx.run(runs.update().where(*_is(tx, id)).values(deleted_at=None))
    audit.record(tx, "run.restore", f"run:{id}")


def put_artifact(tx: Tx, id: str, path: str, digest: str, size: int, owned: bool = True) -> dict[str, Any]:
    """Name an object as the file `path` of a run (replacing what was called so); BadInput for a path that leaves the run's folder.

    `owned` False: `id` is not a run's but another folder's (a logged model's), which the caller has checked. It is noted `by` whom the file is:
    whoever wrote these bytes first, so that sending them again makes them nobody else's.
    """
    if owned:
        active(tx, id)
    key = {"project": tx.project, "run": id, "path": check_path(path)}
    c = run_artifacts.c
    before = tx.value(sa.select(c.by).where(*(c[name] == value for name, value in key.items()), c.digest == digest))
    row = {"path": path, "digest": digest, "size": size, "at": tx.now, "by": before or tx.who.name}
    tx.upsert(run_artifacts, {**key, **row})
    return row


def artifacts(tx: Tx, id: str, under: str = "", owned: bool = True) -> list[dict[str, Any]]:
    """All files of a run, or those below a folder, sorted: [{"path", "digest", "size", "at", "by"}]. The run must exist (`owned` as above)."""
    if owned:
        must_exist(tx, id)
    statement = sa.select(*(run_artifacts.c[name] for name in ("path", "digest", "size", "at", "by")))
    statement = statement.where(run_artifacts.c.project == tx.project, run_artifacts.c.run == id)
    if under:
        folder = check_path(under) + "/"
        statement = statement.where(run_artifacts.c.path >= folder, run_artifacts.c.path < folder[:-1] + "0")
    return tx.rows(statement.order_by(run_artifacts.c.path))


def artifact(tx: Tx, id: str, path: str) -> dict[str, Any]:
    """One file of a run; NotFound if the run has none such."""
    row = tx.row(
        sa.select(run_artifacts).where(run_artifacts.c.project == tx.project, run_artifacts.c.run == id, run_artifacts.c.path == check_path(path))
    )
    if row is None:
        raise NotFound(f"The run {id} has no file {path!r}.", "List them with: everloop runs artifacts ID")
    return row


def delete_artifacts(tx: Tx, id: str, path: str) -> int:
    """Forget a file, or all below a folder; how many. The bytes stay while anything else names them."""
    path = check_path(path)
    where = sa.or_(run_artifacts.c.path == path, sa.and_(run_artifacts.c.path >= path + "/", run_artifacts.c.path < path + "0"))
    count = tx.run(run_artifacts.delete().where(run_artifacts.c.project == tx.project, run_artifacts.c.run == id, where))
    audit.record(tx, "run.artifacts.delete", f"run:{id}", path=path, files=count)
    return count


def check_path(path: str) -> str:
    """A relative path with forward slashes that stays in its folder; BadInput otherwise."""
    parts = path.split("/")
    if (
        not path
        or len(path) > NAME_CHARS
        or "\\" in path
        or any(p in ("", ".", "..") or any(ord(c) < 32 for c in p) for p in parts)
        or ":" in parts[0]
    ):
        raise BadInput(f"Invalid path: {path!r} is not a path of a file in a run.", "Use folder/name with forward slashes; not .. or a drive.")
    return path


def show(tx: Tx, rows: list[dict[str, Any]], points: bool = False) -> list[dict[str, Any]]:
    """Rows of `runs` (selected by `select`) as run dicts with params, tags and latest metrics, in the same order.

    With `points`, a run's "points" are the latest point of each series as (key, value, step, at).
    """
    if not rows:
        return []
    ids = [row["id"] for row in rows]
    keep = (
        "id",
        "name",
        "kind",
        "status",
        "parent",
        "pipeline",
        "started_at",
        "ended_at",
        "created_by",
        "error",
        "code",
        "environment",
        "deleted_at",
    )
    shown: dict[str, dict[str, Any]] = {}
    for row in rows:
        shown[row["id"]] = {
            **{key: row[key] for key in keep},
            "experiment": row["experiment_name"] or experiments.DEFAULT_NAME,
            "experiment_id": row["experiment"],
            "params": {},
            "metrics": {},
            "tags": {},
            **({"points": []} if points else {}),
        }
    for table, into in ((run_params, "params"), (run_tags, "tags")):
        statement = sa.select(table.c.run, table.c.key, table.c.value).where(table.c.project == tx.project, table.c.run.in_(ids))
        for run, key, value in tx.conn.execute(statement.order_by(table.c.key)):
            shown[run][into][key] = value
    statement = sa.select(latest.c.run, latest.c.key, latest.c.value, latest.c.special, latest.c.step, latest.c.at)
    for run, key, value, special, step, at in tx.conn.execute(
        statement.where(latest.c.project == tx.project, latest.c.run.in_(ids)).order_by(latest.c.key)
    ):
        number = value if special is None else run_metrics.SPECIAL_TEXT[special]
        shown[run]["metrics"][key] = number
        if points:
            shown[run]["points"].append((key, number, step, at))
    return [shown[id] for id in ids]


def select() -> Any:
    """A select of runs with the name of their experiment, for `show`."""
    join = sa.and_(experiment_table.c.project == runs.c.project, experiment_table.c.id == runs.c.experiment)
    return sa.select(runs, experiment_table.c.name.label("experiment_name")).select_from(runs.outerjoin(experiment_table, join))


def _is(tx: Tx, id: str) -> list[Any]:
    return [runs.c.project == tx.project, runs.c.id == id]


def must_exist(tx: Tx, id: str) -> float | None:
    """When the run was deleted (None: it was not); NotFound if there is no such run."""
    row = _DELETED_AT.row(tx, tx.project, id)
    if row is None:
        raise NotFound(f"Run with id={id} not found.", "Find it with: everloop runs list")
    deleted: float | None = row[0]
    return deleted


_DELETED_AT = Prepared(
    sa.select(runs.c.deleted_at).where(runs.c.project == sa.bindparam("in_project"), runs.c.id == sa.bindparam("of_run")), "in_project", "of_run"
)
_PARAM = Prepared(
    sa.select(run_params.c.value).where(*(run_params.c[name] == sa.bindparam(name) for name in ("project", "run", "key"))), "project", "run", "key"
)
_PUT_PARAM = Prepared(run_params.insert(), *(c.name for c in run_params.columns))
_PUT_TAG = Prepared(lambda dialect: upsert(run_tags, dialect), *(c.name for c in run_tags.columns))


def active(tx: Tx, id: str) -> None:
    """NotFound if there is no such run, BadInput if it is deleted."""
    if must_exist(tx, id) is not None:
        raise BadInput(f"The run {id} must be in the 'active' state. Current state is deleted.", "Restore it first.")


def _check_status(status: str) -> str:
    if status not in STATUSES:
        raise BadInput(f"There is no status {status!r} of a run.", f"Statuses: {', '.join(STATUSES)}.")
    return status


def _key(what: str, key: Any) -> str:
    if not isinstance(key, str) or not key or len(key) > RUN_KEY_CHARS:
        shown = key[:80] + "..." if isinstance(key, str) and len(key) > 80 else key
        raise BadInput(
            f"{shown!r} cannot be the key of a {what}: it has {len(str(key))} characters.", f"Use text of 1 to {RUN_KEY_CHARS} characters."
        )
    return key


def _text(what: str, key: str, value: Any) -> str:
    text = value if isinstance(value, str) else orjson.dumps(value, default=str).decode() if isinstance(value, dict | list) else str(value)
    if len(text) > RUN_VALUE_CHARS:
        raise BadInput(f"The {what} {key!r} is {len(text)} characters long; at most {RUN_VALUE_CHARS} are allowed.", "Log it as an artifact.")
    return text
