"""Pipelines' verbs: declare, start, look, cancel, schedule; and the worker's side of the queue."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from everloop.assets import catalog, runs
from everloop.core.errors import BadInput, NotFound
from everloop.core.limits import PAGE_ROWS, TASK_TOKEN_SECONDS, WORK_POLL_SECONDS
from everloop.core.principal import SYSTEM, Principal, Role
from everloop.core.refs import check_name
from everloop.store import audit
from everloop.store.records import Tx
from everloop.store.schema import pipelines, schedules
from everloop.work import queue
from everloop.work.params import refuse_credentials
from everloop.work.schedule import next_at
from everloop.work.supervisor import Supervisor

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace

TICK_SECONDS = 1.0
log = logging.getLogger(__name__)


class Pipelines:
    """Facade over pipelines, schedules and the queue."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws
        self._news = asyncio.Event()
        self._loop: asyncio.Task[Any] | None = None
        self._supervisor: Supervisor | None = None

    async def on_start(self) -> None:
        """Start the scheduler and, where settings allow workers, their supervisor."""
        if self.ws.settings.workers > 0:
            who = Principal("worker", SYSTEM.project, Role.editor, kind="worker")
            self._supervisor = Supervisor(
                self.ws.settings.url,
                self.ws.settings.workers,
                lambda: self.ws.identity.mint(who, TASK_TOKEN_SECONDS),
                self.ws.clock.now,
                str(self.ws.home / "workers.log"),
            )
        self._loop = self.ws.spawn(self._tick_forever())

    async def on_stop(self) -> None:
        """Stop the scheduler and the workers."""
        if self._loop is not None:
            self._loop.cancel()
        if self._supervisor is not None:
            await asyncio.to_thread(self._supervisor.stop)

    async def put(self, who: Principal, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        """Declare a pipeline (see `work.queue.check`); spec["schedule"], if given, makes the schedule of the same name."""
        who.need(Role.editor, "change a pipeline")
        check_name(name)
        queue.check(spec)

        return await self.ws.records.write(who, lambda tx: put(tx, name, spec))

    async def list(self, who: Principal) -> dict[str, Any]:
        """All pipelines by name."""
        found = sa.select(pipelines).where(pipelines.c.project == who.project).order_by(pipelines.c.name)
        return {"items": await self.ws.records.read(who.need(Role.viewer), lambda tx: tx.rows(found)), "next": None}

    async def get(self, who: Principal, name: str) -> dict[str, Any]:
        """One pipeline; NotFound if there is none."""
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: _get(tx, name))

    async def start(self, who: Principal, name: str, params: Mapping[str, Any] | None = None, trigger: str = "manual") -> dict[str, Any]:
        """Start a run of pipeline `name`; answers the run."""
        who.need(Role.editor, "start a pipeline")
        run = await self.ws.records.write(who, lambda tx: _start(tx, name, dict(params or {}), trigger))
        self._wake()
        return run

    async def state(self, who: Principal, run_id: str) -> dict[str, Any]:
        """A pipeline run and its steps: {"run", "tasks": [{"step", "state", "attempts", "result", "error", "started_at", "ended_at"}]}."""
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: {"run": runs.get(tx, run_id), "tasks": queue.state(tx, run_id)})

    async def cancel(self, who: Principal, run_id: str) -> dict[str, Any]:
        """End a pipeline run; answers its state."""
        who.need(Role.editor, "cancel a pipeline run")

        def work(tx: Tx) -> dict[str, Any]:
            run = runs.get(tx, run_id)
            if run["kind"] != "pipeline":
                raise BadInput(f"The run {run_id} is no pipeline run but {run['kind']}.")
            if queue.cancel(tx, run_id):
                audit.record(tx, "pipeline.cancel", f"run:{run_id}")
            return {"run": runs.get(tx, run_id), "tasks": queue.state(tx, run_id)}

        return await self.ws.records.write(who, work)

    async def runs(self, who: Principal, name: str | None = None, limit: int = PAGE_ROWS, cursor: str | None = None) -> dict[str, Any]:
        """Pipeline runs, newest first; those of one pipeline if `name` is given."""
        return await self.ws.runs.search(who, "", None, limit, cursor, kind="pipeline", pipeline=name)

    async def schedules(self, who: Principal) -> dict[str, Any]:
        """All schedules by name."""
        found = sa.select(schedules).where(schedules.c.project == who.project).order_by(schedules.c.name)
        return {"items": await self.ws.records.read(who.need(Role.viewer), lambda tx: tx.rows(found)), "next": None}

    async def put_schedule(
        self, who: Principal, name: str, pipeline: str, cron: str, params: dict[str, Any] | None = None, enabled: bool = True
    ) -> dict[str, Any]:
        """Start `pipeline` by `cron` (see `work.schedule.next_at`), with params."""
        who.need(Role.editor, "change a schedule")
        check_name(name)

        def work(tx: Tx) -> dict[str, Any]:
            put_schedule(tx, name, pipeline, cron, params or {}, enabled)
            return _schedule(tx, name)

        return await self.ws.records.write(who, work)

    async def run_now(self, who: Principal, name: str, at: float | None = None) -> dict[str, Any]:
        """Start what a schedule starts, now, as if it were `at`; answers the run."""
        who.need(Role.editor, "run a schedule")

        def work(tx: Tx) -> dict[str, Any]:
            plan = _schedule(tx, name)
            return _start(tx, plan["pipeline"], {**plan["params"], "scheduled_at": tx.now if at is None else at}, f"schedule:{name}")

        run = await self.ws.records.write(who, work)
        self._wake()
        return run

    async def lease(self, who: Principal, owner: str, wait: float = 0.0) -> dict[str, Any] | None:
        """The next task for a worker, with a token to act as its pipeline; waits up to `wait` seconds for one (not while the server drains), holding no thread."""
        who.need(Role.editor, "work for pipelines")
        everywhere = who.kind == "worker"
        until = time.monotonic() + min(wait, WORK_POLL_SECONDS)
        while True:
            news = self._news
            if await self.ws.records.read(who, lambda tx: queue.due(tx, everywhere)):
                task = await self.ws.records.write(who, lambda tx: queue.lease(tx, owner, everywhere))
                if task is not None:
                    acting = Principal(f"pipeline:{task['pipeline']}", task["project"], Role.editor, kind="pipeline", run=task["step_run"])
                    return {**task, "token": self.ws.identity.mint(acting, TASK_TOKEN_SECONDS)}
            left = until - time.monotonic()
            if left <= 0 or self.ws.draining:
                return None
            try:
                await asyncio.wait_for(news.wait(), min(left, TICK_SECONDS))
            except TimeoutError:
                continue

    async def heartbeat(self, who: Principal, id: str, owner: str) -> dict[str, Any]:
        """Renew a lease: {"lease_until"}."""
        who.need(Role.editor, "work for pipelines")
        return {"lease_until": await self.ws.records.write(who, lambda tx: queue.heartbeat(tx, id, owner))}

    async def complete(self, who: Principal, id: str, owner: str, result: Any) -> None:
        """A step is done."""
        who.need(Role.editor, "work for pipelines")
        await self.ws.records.write(who, lambda tx: queue.complete(tx, id, owner, result))
        self._wake()

    async def fail(self, who: Principal, id: str, owner: str, error: str, retry: bool = True) -> dict[str, Any]:
        """A step failed: {"state": ready (tried again) or failed}."""
        who.need(Role.editor, "work for pipelines")
        return {"state": await self.ws.records.write(who, lambda tx: queue.fail(tx, id, owner, error, retry))}

    async def release(self, who: Principal, id: str, owner: str) -> None:
        """A worker that is stopped gives its task back."""
        who.need(Role.editor, "work for pipelines")
        await self.ws.records.write(who, lambda tx: queue.release(tx, id, owner))
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                await self.tick()
            except Exception:
                log.exception("pipelines: the scheduler's tick failed; it goes on")

    async def tick(self) -> None:
        """Start what is due; start workers if tasks are ready."""
        due = sa.select(schedules).where(schedules.c.enabled, schedules.c.next_at <= self.ws.clock.now())
        for plan in await self.ws.records.read(SYSTEM, lambda tx: tx.rows(due)):
            who = Principal(f"pipeline:{plan['pipeline']}", plan["project"], Role.editor, kind="pipeline")
            await self.ws.records.write(who, lambda tx, name=plan["name"]: _fire(tx, name))  # type: ignore[misc]
            self._wake()
        if self._supervisor is not None:
            ready = await self.ws.records.read(SYSTEM, lambda tx: queue.due(tx, everywhere=True))
            await asyncio.to_thread(self._supervisor.tick, ready)


def put(tx: Tx, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Keep a checked spec as pipeline `name`, and its schedule if it has one; NotFound for code that is not there."""
    if spec.get("code"):
        catalog.resolve(tx, spec["code"])
    before = tx.value(sa.select(pipelines.c.spec).where(pipelines.c.project == tx.project, pipelines.c.name == name))
    if before != spec:  # what is put again as it is was not changed: gates ask since when a pipeline stands
        tx.upsert(pipelines, {"project": tx.project, "name": name, "spec": spec, "updated_at": tx.now, "updated_by": tx.who.name})
        audit.record(tx, "pipeline.put", f"pipeline:{name}")
    if spec.get("schedule"):
        put_schedule(tx, name, name, spec["schedule"], {}, True)
    return _get(tx, name)


def _get(tx: Tx, name: str) -> dict[str, Any]:
    row = tx.row(sa.select(pipelines).where(pipelines.c.project == tx.project, pipelines.c.name == name))
    if row is None:
        raise NotFound(f"There is no pipeline {name!r} in project {tx.project!r}.", "List them with: everloop pipelines list")
    return row


def _schedule(tx: Tx, name: str) -> dict[str, Any]:
    row = tx.row(sa.select(schedules).where(schedules.c.project == tx.project, schedules.c.name == name))
    if row is None:
        raise NotFound(f"There is no schedule {name!r} in project {tx.project!r}.", "List them with: everloop schedule list")
    return row


def put_schedule(tx: Tx, name: str, pipeline: str, cron: str, params: dict[str, Any], enabled: bool) -> None:
    """Start `pipeline` by `cron` from now on; NotFound if there is none of that name, BadInput for a cron that does not parse."""
    _get(tx, pipeline)
    refuse_credentials(params)
    row = {"project": tx.project, "name": name, "pipeline": pipeline, "cron": cron, "params": params, "enabled": enabled}
    tx.upsert(schedules, {**row, "next_at": next_at(cron, tx.now), "updated_at": tx.now, "updated_by": tx.who.name})
    audit.record(tx, "schedule.put", f"schedule:{name}", pipeline=pipeline, cron=cron, enabled=enabled)


def _start(tx: Tx, name: str, params: dict[str, Any], trigger: str) -> dict[str, Any]:
    spec = _get(tx, name)["spec"]
    code = {"asset": str(catalog.resolve(tx, spec["code"]))} if spec.get("code") else {}
    run = runs.create(tx, "", "pipeline", pipeline=name, params=params, tags={"trigger": trigger}, code=code)
    queue.enqueue(tx, run["id"], spec, params)
    audit.record(tx, "pipeline.start", f"pipeline:{name}", run=run["id"], trigger=trigger)
    return runs.get(tx, run["id"])


def _fire(tx: Tx, name: str) -> None:
    """Start a due schedule's run once and move it on: fires missed while the server was away are one, and the audit says how many."""
    plan = _schedule(tx, name)
    if not plan["enabled"] or plan["next_at"] > tx.now:
        return
    following, missed, last = next_at(plan["cron"], plan["next_at"]), 0, plan["next_at"]
    while following <= tx.now and missed < 1000:
        last, following, missed = following, next_at(plan["cron"], following), missed + 1
    if following <= tx.now:
        following = next_at(plan["cron"], tx.now)
    run = _start(tx, plan["pipeline"], {**plan["params"], "scheduled_at": last}, f"schedule:{name}")
    if missed:
        audit.record(tx, "schedule.missed", f"schedule:{name}", missed=missed, run=run["id"])
    where = (schedules.c.project == tx.project, schedules.c.name == name)
    tx.run(schedules.update().where(*where).values(next_at=following, last_at=tx.now, last_run=run["id"]))
