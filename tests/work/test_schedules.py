"""Schedules of the facade: due ones start once, missed fires are one and the audit says so."""

from __future__ import annotations

import asyncio
from pathlib import Path

from everloop.core.clock import FakeClock
from everloop.core.principal import Principal
from everloop.core.settings import Settings
from everloop.store import audit
from everloop.workspace.workspace import Workspace


def test_missed_fires_are_one_run(tmp_path: Path, who: Principal) -> None:
    async def work() -> None:
        clock = FakeClock(step=0.001)
        ws = Workspace(Settings(home=tmp_path, workers=0, fsync=False), clock)
        await asyncio.to_thread(ws.records.open)
        await ws.pipelines.put(who, "p", {"steps": [{"name": "a", "call": "everloop.build.x:a"}], "schedule": "every 1d"})
        await ws.pipelines.tick()
        assert (await ws.pipelines.runs(who))["items"] == []
        clock.time += 3.5 * 86_400
        await ws.pipelines.tick()
        await ws.pipelines.tick()
        assert len((await ws.pipelines.runs(who))["items"]) == 1
        missed = [r for r in await ws.records.read(who, audit.rows) if r["action"] == "schedule.missed"]
        assert [r["details"]["missed"] for r in missed] == [2]
        assert (await ws.pipelines.run_now(who, "p", 5.0))["params"]["scheduled_at"] == "5.0"
        await asyncio.to_thread(ws.records.close)

    asyncio.run(work())
