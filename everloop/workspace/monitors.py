"""Monitors: checks over windows of live traffic; one that fails starts a pipeline, and says so on the record."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import orjson
import sqlalchemy as sa

from everloop.assets import aliases
from everloop.core.errors import BadInput, EverloopError, NotFound
from everloop.core.limits import MONITOR_ROWS, PAGE_ROWS
from everloop.core.principal import SYSTEM, Principal, Role
from everloop.core.refs import check_name
from everloop.store import audit
from everloop.store.schema import alerts, monitors, runs, scores

if TYPE_CHECKING:
    from everloop.loop.watch import Look
    from everloop.workspace.workspace import Workspace

DAY = 86_400.0
LOOK_SECONDS = 30.0
"""How often the server looks for monitors that are due."""
WAIT_SECONDS = 60.0
"""When a monitor that found nothing live looks again."""
_log = logging.getLogger("everloop.monitors")


class Monitors:
    """Facade over loop/ and the monitors' records."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws
        self._ticking: dict[tuple[str, str], asyncio.Lock] = {}

    async def on_start(self) -> None:
        """Look for due monitors from now on."""
        self.ws.spawn(self._loop())

    async def put(self, who: Principal, name: str, endpoint: str, spec: dict[str, Any], enabled: bool = True) -> dict[str, Any]:
        """Declare (or change) a monitor of an endpoint."""
        from everloop.loop.watch import full_spec

        who.need(Role.editor, "declare a monitor")
        check_name(name)
        watched = await self.ws.endpoints.get(who, endpoint)
        full = await asyncio.to_thread(full_spec, spec, watched["kind"])
        if full["on_fail"]:
            await self.ws.pipelines.get(who, full["on_fail"]["pipeline"])
        await self.ws.records.write(who, lambda tx: put(tx, name, endpoint, full, enabled))
        return await self.get(who, name)

    async def list(self, who: Principal) -> list[dict[str, Any]]:
        """All monitors with what they last saw."""
        statement = sa.select(monitors).where(monitors.c.project == who.project).order_by(monitors.c.name)
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: tx.rows(statement))

    async def get(self, who: Principal, name: str) -> dict[str, Any]:
        """One monitor; NotFound if there is none of that name."""
        statement = sa.select(monitors).where(monitors.c.project == who.project, monitors.c.name == name)
        row = await self.ws.records.read(who.need(Role.viewer), lambda tx: tx.row(statement))
        if row is None:
            raise NotFound(f"There is no monitor {name!r} in project {who.project!r}.", "List them with: everloop monitors list")
        return row

    async def looks(self, who: Principal, name: str, limit: int = PAGE_ROWS) -> list[dict[str, Any]]:
        """The monitor's scores, newest first: each with the window it is about in details."""
        statement = sa.select(scores).where(scores.c.project == who.project, scores.c.subject == f"monitor:{name}")
        return await self.ws.records.read(
            who.need(Role.viewer), lambda tx: tx.rows(statement.order_by(scores.c.at.desc(), scores.c.name).limit(limit))
        )

    async def alerts(self, who: Principal, monitor: str | None = None, limit: int = PAGE_ROWS) -> list[dict[str, Any]]:
        """Alarms, newest first."""
        statement = sa.select(alerts).where(alerts.c.project == who.project)
        if monitor:
            statement = statement.where(alerts.c.monitor == monitor)
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: tx.rows(statement.order_by(alerts.c.at.desc()).limit(limit)))

    async def tick(self, who: Principal, name: str, at: float | None = None) -> dict[str, Any]:
        """Look at the window that ends `at` (epoch seconds of event time; default now), and act if the monitor calls for it.

        Answers {"monitor", "verdict", "why", "act", "scores", "window", "alert", "run"}; `run` is the pipeline run it started.
        """
        who.need(Role.editor, "tick a monitor")
        monitor = await self.get(who, name)
        async with self._ticking.setdefault((who.project, name), asyncio.Lock()):
            until = at if at is not None else self.ws.clock.now()
            look = await self._look(who, monitor, until)
            if look is None:
                return await self._wait(who, monitor)
            alert = await self._act(who, monitor, look, until) if look.verdict == "fail" else None
            saved = [s.to_json() for s in look.scores]
            state = {
                "verdict": look.verdict,
                "why": look.why,
                "until": until,
                "window": dict(look.window),
                "scores": saved,
                "alarm_at": until if alert and alert.get("run") else (monitor["state"] or {}).get("alarm_at"),
            }
            await self.ws.records.write(who, lambda tx: _keep(tx, monitor, state, self._every(monitor)))
            return {
                "monitor": name,
                "verdict": look.verdict,
                "why": look.why,
                "act": look.act,
                "scores": saved,
                "window": dict(look.window),
                "alert": alert["id"] if alert else None,
                "run": alert["run"] if alert else None,
            }

    async def _wait(self, who: Principal, monitor: dict[str, Any]) -> dict[str, Any]:
        """Nothing is live yet: that is no look. The next one comes soon, so that the monitor never says so when something has come live."""
        before = {key: value for key, value in (monitor["state"] or {}).items() if key not in ("scores", "error")}
        why = f"Nothing is live behind {monitor['endpoint']}, so there is nothing to look at."
        if not before.get("verdict"):
            before["why"] = f"It has not looked yet: nothing was live behind {monitor['endpoint']}. It looks within a minute of a promotion."
        soon = self.ws.clock.now() + WAIT_SECONDS
        await self.ws.records.write(who, lambda tx: _keep(tx, monitor, before, soon))
        answer = {"monitor": monitor["name"], "verdict": "inconclusive", "why": why, "act": False, "scores": [], "window": {}}
        return {**answer, "alert": None, "run": None}

    async def _look(self, who: Principal, monitor: dict[str, Any], until: float) -> Look | None:
        from everloop.loop import watch

        spec = monitor["spec"]
        endpoint = await self.ws.endpoints.get(who, monitor["endpoint"])
        live = next((part for part in endpoint["live"] if part["ref"]), None)
        if live is None:
            return None
        since = until - spec["window_days"] * DAY
        looked = {watch.over(await asyncio.to_thread(watch.make_check, item)) for item in watch.checks_of(spec, endpoint["kind"])}
        calls, earlier = await self._calls(who, monitor, since, until, "texts" in looked) if looked != {"rows"} else ({}, [])
        if "rows" not in looked:
            window = watch.chat_window(calls, earlier, since, until)
            return await _in_thread(watch.judge, spec, window)
        rows = (await self.ws.traces.predictions(who, monitor["endpoint"], since, until))[:MONITOR_ROWS]
        labelled = await self.ws.traces.predictions(who, monitor["endpoint"], until - spec["label_window_days"] * DAY, until, release=live["ref"])
        model, reference = await self._reference(who, live["ref"])
        inputs = model["signature"]["inputs"]
        numeric = [i["name"] for i in inputs if i["type"] in ("number", "integer")]
        window = await asyncio.to_thread(
            watch.predictive_window,
            rows,
            labelled[-MONITOR_ROWS:],
            reference,
            numeric=numeric,
            categorical=[i["name"] for i in inputs if i["name"] not in numeric],
            task=model["task"],
            positive=model.get("positive"),
            since=since,
            until=until,
            calls=calls,
            earlier=earlier,
        )
        return await _in_thread(watch.judge, spec, window)

    async def _calls(
        self, who: Principal, monitor: dict[str, Any], since: float, until: float, texts: bool
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Columns of the window's calls, and of the windows before it that have enough calls, newest first."""
        from everloop.loop import watch
        from everloop.loop.alarms import EARLIER

        name, length, fewest = monitor["endpoint"], until - since, int(monitor["spec"]["min_rows"])
        now = await self.ws.traces.calls(who, name, since, until, limit=MONITOR_ROWS, texts=texts)
        before = await self.ws.traces.calls(who, name, since - EARLIER * length, since, limit=MONITOR_ROWS)
        windows: list[list[dict[str, Any]]] = [[] for _ in range(EARLIER)]
        for call in before:
            windows[min(EARLIER - 1, int((since - call["at"]) / length))].append(call)
        return watch.call_columns(now), [watch.call_columns(window) for window in windows if len(window) >= max(1, fewest)]

    async def _reference(self, who: Principal, release: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """The live model's manifest, and what it showed on its holdout when it passed its gate."""
        asset = await self.ws.assets.get(who, release)
        model = (await self.ws.assets.get(who, asset["manifest"]["pins"]["model"]))["manifest"]
        moves = await self.ws.records.read(who, lambda tx: aliases.history(tx, "release", asset["name"]))
        id = next((m["decision"] for m in moves if m["to_version"] == asset["version"] and m["decision"]), None)
        if id is None:
            raise BadInput(
                f"{release} came live without a gate, so there is no reference to compare with.",
                "Declare a gate with a suite, and promote through it.",
            )
        decision = await self.ws.gates.decision(who, id)
        evidence = orjson.loads(await self.ws.assets.get_object(who, decision["evidence"]))["candidate"]
        suite = await self.ws.assets.get(who, decision["spec"]["suite_ref"])
        evidence["features"] = await self.ws.data.columns(who, suite["manifest"]["dataset"])
        return model, evidence

    async def _act(self, who: Principal, monitor: dict[str, Any], look: Look, until: float) -> dict[str, Any]:
        """Open an alert; start the pipeline unless the monitor is cooling down or one is under way."""
        spec, state = monitor["spec"], monitor["state"] or {}
        run, note = None, ""
        on_fail = spec["on_fail"]
        if look.act and on_fail:
            cooling = state.get("alarm_at") is not None and 0 <= until - state["alarm_at"] < spec["cooldown_days"] * DAY
            busy = await self.ws.records.read(who, lambda tx: _under_way(tx, on_fail["pipeline"]))
            if cooling:
                note = "; it started one within the cooldown, so none now"
            elif busy:
                note = f"; run {busy} is under way already"
            else:
                acting = Principal(f"pipeline:{on_fail['pipeline']}", who.project, Role.editor, kind="pipeline")
                params = {**(on_fail.get("params") or {}), "until": until, "reason": f"monitor {monitor['name']}: {look.why}"}
                run = (await self.ws.pipelines.start(acting, on_fail["pipeline"], params, trigger=f"monitor:{monitor['name']}"))["id"]
        row = {
            "id": self.ws.clock.new_id(),
            "project": who.project,
            "monitor": monitor["name"],
            "at": self.ws.clock.now(),
            "event_at": until,
            "what": look.why + note,
            "scores": [s.to_json() for s in look.scores],
            "run": run,
            "state": "open",
        }
        await self.ws.records.write(who, lambda tx: _alarm(tx, row))
        return row

    def _every(self, monitor: dict[str, Any]) -> float:
        from everloop.work.schedule import next_at

        return float(next_at(f"every {monitor['spec']['every']}", self.ws.clock.now()))

    async def _loop(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look_at_due()
            except Exception:
                _log.exception("monitors: looking for those that are due failed; it goes on")

    async def look_at_due(self) -> None:
        """Tick every monitor that is due. One that fails is told of in its state, and keeps no other from its look."""
        due = sa.select(monitors).where(monitors.c.enabled, monitors.c.next_at <= self.ws.clock.now())
        for row in await self.ws.records.read(SYSTEM, lambda tx: tx.rows(due)):
            acting = Principal(f"monitor:{row['name']}", row["project"], Role.editor, kind="pipeline")
            try:
                await self.tick(acting, row["name"])
            except Exception as error:
                told = str(error) if isinstance(error, EverloopError) else f"{type(error).__name__}: {error}"
                _log.warning("monitor %s: %s", row["name"], told, exc_info=not isinstance(error, EverloopError))
                await self.ws.records.write(
                    acting, lambda tx, row=row, told=told: _keep(tx, row, {**(row["state"] or {}), "error": told}, self._every(row))
                )


async def _in_thread(judge: Any, spec: Any, window: Any) -> Any:
    """Run an async judge whose work is mostly numeric in a thread, so that the event loop stays free."""
    return await asyncio.to_thread(lambda: asyncio.run(judge(spec, window)))


def put(tx: Any, name: str, endpoint: str, spec: dict[str, Any], enabled: bool) -> None:
    """Keep a monitor's full spec; what it last saw stays."""
    before = tx.row(sa.select(monitors).where(monitors.c.project == tx.project, monitors.c.name == name))
    tx.upsert(
        monitors,
        {
            "project": tx.project,
            "name": name,
            "endpoint": endpoint,
            "spec": spec,
            "enabled": enabled,
            "state": before["state"] if before else {},
            "next_at": tx.now,
            "updated_at": tx.now,
            "updated_by": tx.who.name,
        },
    )
    audit.record(tx, "monitor.put", f"monitor:{name}", endpoint=endpoint, spec=spec, enabled=enabled)


def _keep(tx: Any, monitor: dict[str, Any], state: dict[str, Any], next_at: float) -> None:
    tx.run(monitors.update().where(monitors.c.project == tx.project, monitors.c.name == monitor["name"]).values(state=state, next_at=next_at))
    for s in state.get("scores") or []:
        number = s["value"] if isinstance(s["value"], int | float) and not isinstance(s["value"], bool) else None
        low, high = s["interval"] or (None, None)
        details = {**s["details"], "window": state.get("window")}
        tx.run(
            scores.insert().values(
                id=tx.clock.new_id(),
                project=tx.project,
                subject=f"monitor:{monitor['name']}",
                name=s["name"],
                value=number,
                text=None if number is not None or s["value"] is None else str(s["value"]),
                verdict=s["verdict"],
                n=s["n"],
                low=low,
                high=high,
                source=s["source"],
                why=s["why"],
                details=details,
                at=state.get("until", tx.now),
                by=tx.who.name,
            )
        )


def _alarm(tx: Any, row: dict[str, Any]) -> None:
    tx.run(alerts.insert().values(**row))
    audit.record(tx, "monitor.alarm", f"monitor:{row['monitor']}", what=row["what"], run=row["run"])


def _under_way(tx: Any, pipeline: str) -> str | None:
    statement = (
        sa.select(runs.c.id)
        .where(runs.c.project == tx.project, runs.c.pipeline == pipeline, runs.c.kind == "pipeline", runs.c.status.in_(("running", "scheduled")))
        .limit(1)
    )
    return tx.value(statement)
