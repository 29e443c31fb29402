"""Looks of the judges: a rule that fails leaves the others alone, and none runs twice at once."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from everloop.workspace import judges


def test_a_rule_that_fails_does_not_let_another_run_twice_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "LOOK_SECONDS", 0.01)
    running, most, failed = 0, 0, 0

    async def read(*_: Any) -> dict[str, Any]:
        return {"default": {"bad": {"enabled": True}, "slow": {"enabled": True}}}

    async def flush() -> None:
        return None

    async def run_due(project: str, name: str, spec: Any, now: float) -> int:
        nonlocal running, most, failed
        if name == "bad":
            failed += 1
            raise RuntimeError("this rule cannot run")
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.1)
        running -= 1
        return 0

    async def look() -> None:
        ws: Any = SimpleNamespace(records=SimpleNamespace(read=read), clock=SimpleNamespace(now=lambda: 0.0), telemetry=SimpleNamespace(flush=flush))
        facade = judges.Judges(ws)
        monkeypatch.setattr(facade, "run_due", run_due)
        task = asyncio.create_task(facade._look())
        await asyncio.sleep(0.35)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(look())
    assert most == 1
    assert failed > 1
