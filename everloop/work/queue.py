"""The durable queue: tasks are rows, leased with a heartbeat; a result is stored in the transaction that makes dependants ready.

Steps are at-least-once: a worker that dies loses its lease and another takes the task over. Works alike on SQLite (one writer)
and PostgreSQL (`FOR UPDATE SKIP LOCKED`). All functions run inside a records transaction.
"""

from __future__ import annotations

import hashlib
from graphlib import CycleError, TopologicalSorter
from typing import Any

import orjson
import sqlalchemy as sa

from everloop.assets import catalog, runs
from everloop.core.errors import BadInput, Conflict, EverloopError, NotFound
from everloop.core.limits import LEASE_SECONDS, TASK_ATTEMPTS, TASK_RETRY_SECONDS
from everloop.core.refs import Ref
from everloop.store.records import Tx
from everloop.store.schema import runs as run_rows
from everloop.store.schema import tasks
from everloop.work.params import refuse_credentials

OWN_STEPS = ("everloop.build.", "everloop.loop.")
"""Modules whose functions may be steps without a code asset."""
CACHED = "cache"
ENDED = ("done", "failed", "skipped", "cancelled")


def check(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps of a pipeline's spec, each whole; BadInput for no steps, a name twice, an unknown `after`, a cycle, a call not allowed."""
    steps = spec.get("steps")
    if not isinstance(steps, list) or not steps or not all(isinstance(s, dict) and s.get("name") and s.get("call") for s in steps):
        raise BadInput("A pipeline needs steps.", 'Each is {"name": "train", "call": "module:function", "after": [], "params": {}}.')
    names = [s["name"] for s in steps]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise BadInput(f"The step {twice[0]!r} is there twice.", "Give each step a name of its own.")
    for step in steps:
        unknown = [a for a in step.get("after") or [] if a not in names]
        if unknown:
            raise BadInput(f"The step {step['name']!r} comes after {unknown[0]!r}, which is no step.", f"Steps: {', '.join(names)}.")
        check_call(step["call"], spec.get("code"))
        refuse_credentials(step.get("params"), f"params of step {step['name']!r}")
    refuse_credentials(spec.get("params"))
    try:
        TopologicalSorter({s["name"]: s.get("after") or [] for s in steps}).prepare()
    except CycleError as error:
        raise BadInput(f"The steps wait for each other: {' -> '.join(error.args[1])}.", "Remove one `after`.") from None
    return steps


def check_call(call: str, code: str | None) -> tuple[str, str]:
    """(module, function) of a step's call; BadInput if it is neither everloop's own nor comes with a code asset."""
    module, _, function = call.partition(":")
    if not module or not function.isidentifier():
        raise BadInput(f"{call!r} is not a step.", "Write it as module:function.")
    if not code and not module.startswith(OWN_STEPS):
        raise BadInput(f"The step {call!r} is not everloop's own, and no code comes with the pipeline.", "Name a code asset: code:NAME@1")
    return module, function


def enqueue(tx: Tx, run: str, spec: dict[str, Any], params: dict[str, Any]) -> None:
    """Queue all steps of a pipeline run; those that wait for nothing are ready at once."""
    refuse_credentials(params)
    code = str(catalog.resolve(tx, spec["code"])) if spec.get("code") else None
    for step in check(spec):
        after = list(step.get("after") or [])
        tx.run(
            tasks.insert().values(
                id=tx.clock.new_id(),
                project=tx.project,
                run=run,
                step=step["name"],
                state="waiting" if after else "ready",
                call=step["call"],
                code=code,
                params={**(spec.get("params") or {}), **(step.get("params") or {}), **params},
                after=after,
                error="",
                attempts=0,
                key=CACHED if step.get("cache") else "",
                created_at=tx.now,
                by=tx.who.name,
            )
        )


def due(tx: Tx, everywhere: bool = False) -> bool:
    """Whether a lease would find something: a cheap read."""
    return tx.value(_due(tx, everywhere).with_only_columns(tasks.c.id).limit(1)) is not None


def lease(tx: Tx, owner: str, everywhere: bool = False) -> dict[str, Any] | None:
    """The oldest task that is ready (or whose lease ran out), now `owner`'s for LEASE_SECONDS, or None.

    Answers the task with "inputs" (results of the steps before), "pipeline" and "step_run" (its own run, a child of the pipeline's).
    A step that says cache=True and was done before with the same call, code, params and inputs is done at once, with that result.
    """
    while True:
        task = tx.row(_due(tx, everywhere).order_by(tasks.c.created_at, tasks.c.id).limit(1).with_for_update(skip_locked=True))
        if task is None:
            return None
        at = Tx(tx.conn, tx.who.in_project(task["project"]), tx.now, tx.clock)
        if task["state"] == "leased":
            _end_step_run(at, task, "killed", "the worker's lease ran out")
            if task["attempts"] >= TASK_ATTEMPTS:
                _finally_failed(at, task, f"tried {task['attempts']} times; each time the worker was lost")
                continue
        inputs = {r["step"]: _unwrap(r["result"]) for r in _of_run(at, task["run"]) if r["step"] in task["after"]}
        if task["key"]:
            task["key"] = _cache_key(at, task, inputs)
            earlier = tx.row(
                sa.select(tasks.c.result).where(tasks.c.project == task["project"], tasks.c.key == task["key"], tasks.c.state == "done").limit(1)
            )
            if earlier is not None:
                _done(at, task, _unwrap(earlier["result"]))
                continue
        task |= {"state": "leased", "owner": owner, "lease_until": tx.now + LEASE_SECONDS, "attempts": task["attempts"] + 1, "started_at": tx.now}
        _set(at, task["id"], **{k: task[k] for k in ("state", "owner", "lease_until", "attempts", "started_at", "key")})
        pipeline = tx.value(sa.select(run_rows.c.pipeline).where(run_rows.c.project == task["project"], run_rows.c.id == task["run"]))
        code = {"asset": task["code"], "entry": task["call"]}
        runs.create(at, task["step"], "step", parent=task["run"], pipeline=pipeline, id=step_run(task), code=code)
        return {**task, "inputs": inputs, "pipeline": pipeline, "step_run": step_run(task)}


def heartbeat(tx: Tx, id: str, owner: str) -> float:
    """Renew a lease; answers until when (epoch seconds). Conflict if it is no longer `owner`'s."""
    task = _owned(tx, id, owner)
    until = tx.now + LEASE_SECONDS
    _set(tx, task["id"], lease_until=until)
    return until


def complete(tx: Tx, id: str, owner: str, result: Any) -> None:
    """Store a step's result and make ready what waited for it; saying it twice is fine. Conflict if the lease was lost."""
    task = _get(tx, id)
    if task["state"] == "done" and task["owner"] == owner:
        return
    task = _owned(tx, id, owner)
    _end_step_run(tx, task, "finished")
    _done(tx, task, result)


def fail(tx: Tx, id: str, owner: str, error: str, retry: bool = True) -> str:
    """A step failed: it is tried again after a while, or, the last time (or where `retry` is False), its run fails. Answers the state."""
    task = _owned(tx, id, owner)
    _end_step_run(tx, task, "failed", error)
    if retry and task["attempts"] < TASK_ATTEMPTS:
        _set(tx, id, state="ready", owner=None, lease_until=tx.now + TASK_RETRY_SECONDS * 2 ** (task["attempts"] - 1), error=error)
        return "ready"
    _finally_failed(tx, task, error)
    return "failed"


def release(tx: Tx, id: str, owner: str) -> None:
    """Give a task back untried: its worker was told to stop."""
    task = _owned(tx, id, owner)
    _end_step_run(tx, task, "killed", "the worker was stopped")
    _set(tx, id, state="ready", owner=None, lease_until=None)


def cancel(tx: Tx, run: str) -> int:
    """End a pipeline run: what has not ended is cancelled, a worker's result for it is refused. Answers how many tasks."""
    left = [t for t in _of_run(tx, run, lock=True) if t["state"] not in ENDED]
    for task in left:
        if task["state"] == "leased":
            _end_step_run(tx, task, "killed", "cancelled")
        _set(tx, task["id"], state="cancelled", owner=None, ended_at=tx.now)
    if left:
        runs.update(tx, run, status="killed", error="cancelled")
    return len(left)


def state(tx: Tx, run: str) -> list[dict[str, Any]]:
    """The steps of a pipeline run in order, with the steps they come after, state, attempts, result, error and times."""
    keys = ("step", "after", "state", "attempts", "result", "error", "started_at", "ended_at")
    return [{**{k: task[k] for k in keys}, "result": _unwrap(task["result"])} for task in _of_run(tx, run)]


def step_run(task: dict[str, Any]) -> str:
    """The id of the run that records this attempt of a step."""
    return hashlib.sha256(f"{task['id']}/{task['attempts']}".encode()).hexdigest()[:32]


def _unwrap(stored: Any) -> Any:
    """A result as the step gave it. It is stored as {"value": ...}: SQLite turns a bare JSON number in a column into a number."""
    return stored["value"] if stored else None


def _due(tx: Tx, everywhere: bool) -> sa.Select[Any]:
    ready = sa.and_(tasks.c.state == "ready", sa.or_(tasks.c.lease_until.is_(None), tasks.c.lease_until <= tx.now))
    lost = sa.and_(tasks.c.state == "leased", tasks.c.lease_until <= tx.now)
    found = sa.select(tasks).where(sa.or_(ready, lost))
    return found if everywhere else found.where(tasks.c.project == tx.project)


def _of_run(tx: Tx, run: str, lock: bool = False) -> list[dict[str, Any]]:
    found = sa.select(tasks).where(tasks.c.project == tx.project, tasks.c.run == run).order_by(tasks.c.created_at, tasks.c.id)
    return tx.rows(found.with_for_update() if lock else found)


def _get(tx: Tx, id: str) -> dict[str, Any]:
    task = tx.row(sa.select(tasks).where(tasks.c.project == tx.project, tasks.c.id == id).with_for_update())
    if task is None:
        raise NotFound(f"There is no task {id!r} in this project.")
    return task


def _owned(tx: Tx, id: str, owner: str) -> dict[str, Any]:
    task = _get(tx, id)
    if task["state"] != "leased" or task["owner"] != owner:
        raise Conflict(f"The step {task['step']!r} is {task['state']} and no longer this worker's.", "Drop the result; lease another task.")
    return task


def _set(tx: Tx, id: str, **values: Any) -> None:
    tx.run(tasks.update().where(tasks.c.project == tx.project, tasks.c.id == id).values(**values))


def _done(tx: Tx, task: dict[str, Any], result: Any) -> None:
    """Store the result, then make dependants ready. All tasks of the run are locked, so two parents that end at once see each other."""
    _of_run(tx, task["run"], lock=True)
    _set(tx, task["id"], state="done", result={"value": result}, error="", ended_at=tx.now, lease_until=None, key=task["key"])
    rows = _of_run(tx, task["run"])
    done = {r["step"] for r in rows if r["state"] == "done"}
    for row in rows:
        if row["state"] == "waiting" and done.issuperset(row["after"]):
            _set(tx, row["id"], state="ready")
    if len(done) == len(rows):
        runs.update(tx, task["run"], status="finished")


def _finally_failed(tx: Tx, task: dict[str, Any], error: str) -> None:
    rows = _of_run(tx, task["run"], lock=True)
    _set(tx, task["id"], state="failed", error=error, ended_at=tx.now, lease_until=None)
    for row in rows:
        if row["id"] != task["id"] and row["state"] in ("waiting", "ready"):
            _set(tx, row["id"], state="skipped", error=f"the step {task['step']!r} failed", ended_at=tx.now)
    runs.update(tx, task["run"], status="failed", error=f"{task['step']}: {error}")


def _end_step_run(tx: Tx, task: dict[str, Any], status: str, error: str = "") -> None:
    runs.update(tx, step_run(task), status=status, error=error)


def _cache_key(tx: Tx, task: dict[str, Any], inputs: dict[str, Any]) -> str:
    code = catalog.get(tx, task["code"])["digest"] if task["code"] else ""
    params = {k: _exact(tx, v) for k, v in task["params"].items()}
    return hashlib.sha256(orjson.dumps([task["call"], code, params, inputs], option=orjson.OPT_SORT_KEYS)).hexdigest()


def _exact(tx: Tx, value: Any) -> Any:
    """A reference in a param as the exact version it means now, so that a moved alias is another call."""
    if not isinstance(value, str) or ":" not in value:
        return value
    try:
        return str(catalog.resolve(tx, Ref.parse(value)))
    except EverloopError:
        return value
