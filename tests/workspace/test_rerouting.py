"""What an endpoint serves changes by decisions alone: no editor leads its users round a gate, and one release that fails stops no other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from everloop.core.errors import EverloopError, Forbidden
from everloop.core.principal import Principal, Role, local_principal
from everloop.core.settings import Settings
from everloop.core.types import Answer, Chat
from everloop.store.schema import monitors
from everloop.workspace.workspace import Workspace

WHO = local_principal()
EDITOR, APPROVER = Principal("key:e", "default", Role.editor), Principal("user:p", "default", Role.approver)
GATE = {"requirements": ["error_rate <= 0.1"], "approval": "always", "confidence": 0.99}


def within(tmp_path: Path, work: Callable[[Workspace], Awaitable[Any]]) -> None:
    async def run() -> None:
        ws = Workspace(Settings(home=tmp_path, workers=0, fsync=False))
        await ws.start()
        try:
            await work(ws)
        finally:
            await ws.stop()

    asyncio.run(run())


async def release(ws: Workspace, name: str, alias: str, text: str) -> str:
    prompt = {"messages": [{"role": "system", "content": text}], "syntax": "jinja2", "variables": []}
    await ws.assets.register(WHO, "prompt", name, prompt)
    made = await ws.assets.release(WHO, name, "chat", {"prompt": f"prompt:{name}"}, {"engine": {"name": "extractive"}})
    await ws.assets.move_alias(WHO, made["ref"], alias)
    return str(made["ref"])


def test_an_editor_changes_no_setting_of_a_standing_gate_by_leaving_it_out(tmp_path: Path) -> None:
    async def work(ws: Workspace) -> None:
        await ws.gates.declare(WHO, "release", "r", "champion", GATE)
        with pytest.raises(Forbidden, match="change the gate of release:r@champion"):
            await ws.gates.declare(EDITOR, "release", "r", "champion", {"requirements": GATE["requirements"]})
        stands = await ws.gates.get(WHO, "release", "r", "champion")
        assert stands is not None and stands["spec"]["approval"] == "always" and stands["spec"]["confidence"] == 0.99
        await ws.gates.declare(EDITOR, "release", "r", "champion", GATE)  # the same again is no change
        await ws.gates.declare(APPROVER, "release", "r", "champion", {"requirements": GATE["requirements"]})

    within(tmp_path, work)


def test_an_editor_sends_no_users_round_a_gate(tmp_path: Path) -> None:
    async def work(ws: Workspace) -> None:
        for name, alias in (("r", "champion"), ("r", "other"), ("easy", "champion")):
            await release(ws, name, alias, alias)
        await ws.endpoints.put(EDITOR, "r", "chat", {"release": "r"})
        await ws.endpoints.put(EDITOR, "r", "chat", {"release": "r", "split": [{"alias": "other"}]})  # no gate stands yet
        await ws.endpoints.put(EDITOR, "r", "chat", {"release": "r"})
        await ws.gates.declare(WHO, "release", "r", "champion", GATE)
        half = [{"alias": "champion", "weight": 50}, {"alias": "other", "weight": 50}]
        for spec in ({"release": "easy"}, {"release": "r", "split": [{"alias": "other"}]}, {"release": "r", "split": half}):
            with pytest.raises(Forbidden, match="send users of the endpoint r, whose release a gate guards, elsewhere"):
                await ws.endpoints.put(EDITOR, "r", "chat", spec)
            with pytest.raises(EverloopError, match="elsewhere"):
                await ws.declare.apply(EDITOR, [{"what": "endpoint", "name": "r", "spec": {"kind": "chat", **spec}}])
        assert await ws.endpoints.live(WHO, "r") == ("chat", ["release:r@1"])
        await ws.endpoints.put(EDITOR, "r", "chat", {"release": "r", "limits": {"timeout_s": 5}, "shadow": "other"})
        await ws.endpoints.put(APPROVER, "r", "chat", {"release": "r", "split": half})
        with pytest.raises(Forbidden):
            await ws.endpoints.put(EDITOR, "r", "chat", {"release": "r", "split": [{**half[0], "weight": 10}, half[1]]})
        await ws.endpoints.put(EDITOR, "r", "chat", {"release": "r", "split": [half[0], {**half[1], "weight": 5}]})  # back to the champion

    within(tmp_path, work)


def test_a_release_that_does_not_load_keeps_no_other_from_its_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(ws: Workspace) -> None:
        first = await release(ws, "r", "champion", "one")
        broken = await release(ws, "r", "beside", "two")
        build = ws.endpoints._build

        async def failing(who: Principal, ref: str) -> Any:
            if ref == broken:
                raise EverloopError("it does not load")
            return await build(who, ref)

        monkeypatch.setattr(ws.endpoints, "_build", failing)
        ws.endpoints._releases.clear()
        await ws.endpoints.put(WHO, "r", "chat", {"release": "r", "shadow": "beside"})
        answer: Answer
        answer, _ = await ws.endpoints.chat(WHO, "r", Chat([{"role": "user", "content": "hi"}], {}, False))
        assert str(answer.release) == first
        third = await release(ws, "r", "champion", "three")
        assert await ws.endpoints.live(WHO, "r") == ("chat", [third])
        with pytest.raises(EverloopError, match="does not load"):
            await ws.endpoints.put(WHO, "r", "chat", {"release": "r", "split": [{"alias": "beside"}]})

    within(tmp_path, work)


def test_a_monitor_that_fails_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(ws: Workspace) -> None:
        await release(ws, "r", "champion", "one")
        await ws.endpoints.put(WHO, "r", "chat", {"release": "r"})
        for name in ("a", "b"):
            await ws.monitors.put(WHO, name, "r", {})
        await ws.records.write(WHO, lambda tx: tx.run(monitors.update().values(next_at=0.0)))
        looked: list[str] = []

        async def tick(who: Principal, name: str, at: float | None = None) -> dict[str, Any]:
            looked.append(name)
            raise ZeroDivisionError("no window")

        monkeypatch.setattr(ws.monitors, "tick", tick)
        await ws.monitors.look_at_due()
        assert sorted(looked) == ["a", "b"]
        told = await ws.monitors.get(WHO, "a")
        assert told["state"]["error"] == "ZeroDivisionError: no window" and told["next_at"] > 0

        beaten = asyncio.Event()
        asked = 0

        async def failing() -> None:
            nonlocal asked
            asked += 1
            if asked > 1:
                beaten.set()
            raise OSError("disk")

        monkeypatch.setattr(ws.monitors, "look_at_due", failing)
        monkeypatch.setattr("everloop.workspace.monitors.LOOK_SECONDS", 0.01)
        ws.spawn(ws.monitors._loop())
        await asyncio.wait_for(beaten.wait(), 5)

    within(tmp_path, work)
