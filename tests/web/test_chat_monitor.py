"""A monitor of a chat endpoint over a real app: calls are watched, thumbs down start the pipeline, and it says what it learnt from."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from everloop.core.principal import local_principal
from everloop.core.settings import Settings
from everloop.core.types import Span
from everloop.web.app import create_app

WHO = local_principal()
DAY = 86_400.0
NOW = 1_700_000_000.0


@pytest.mark.parametrize("change", ["thumbs", "failures"])
def test_a_chat_endpoint_is_watched(tmp_path: Path, change: str) -> None:
    with TestClient(create_app(Settings(home=tmp_path, workers=0, fsync=False)), base_url="http://127.0.0.1:7600", client=("127.0.0.1", 5)) as client:
        ws = client.app.state.workspace  # type: ignore[attr-defined]
        assert client.put("/api/v1/endpoints/tutor", json={"kind": "chat", "spec": {"release": "tutor"}}).status_code == 200
        step = {"name": "one", "call": "everloop.build.credit:week"}
        assert client.put("/api/v1/pipelines/rebuild", json={"steps": [step]}).status_code == 200
        prompt = {"messages": [{"role": "user", "content": "{{ question }}"}], "syntax": "jinja2", "variables": ["question"]}
        client.post("/api/v1/assets", json={"kind": "prompt", "name": "tutor", "manifest": prompt})
        release = {"name": "tutor", "kind": "chat", "pins": {"prompt": "prompt:tutor@1"}, "params": {"engine": {"name": "extractive"}}}
        made = client.post("/api/v1/releases", json=release)
        assert made.status_code == 201, made.text
        client.put("/api/v1/assets/release/tutor/aliases/champion", json={"version": 1})
        spec = {"min_rows": 40, "window_days": 1, "on_fail": {"pipeline": "rebuild"}}
        kept = client.put("/api/v1/monitors/tutor", json={"endpoint": "tutor", "spec": spec, "enabled": False}).json()
        assert [c["check"] for c in kept["spec"]["checks"]][:2] == ["failure_rate", "latency_p95_ms"]
        wrong = client.put("/api/v1/monitors/tutor", json={"endpoint": "tutor", "spec": {**spec, "checks": [{"check": "drift"}]}})
        assert wrong.status_code == 400 and "watches rows of a predict endpoint" in wrong.json()["detail"]

        spans, thumbs = [], []
        for day in range(9):  # day 0 is the last one
            for i in range(60):
                at = NOW - (day + 1) * DAY + 600 * i + 1
                bad = day == 0 and i % 3 == 0
                attributes = {"everloop.endpoint": "tutor", "everloop.release": "release:tutor@1", "llm.cost.total": 0.002 + 0.0001 * (i % 5)}
                attributes |= {"everloop.blocked": True} if i % 20 == 7 else {"everloop.refused": True} if i % 10 == 3 else {}
                status = "error" if bad and change == "failures" else "ok"
                start = int(at * 1e9)
                trace = f"{day:016x}{i:016x}"
                spans.append(Span(trace, f"{i + 1:016x}", None, "tutor", "CHAIN", start, start + (100 + 7 * (i % 11)) * 10**6, status, attributes))
                if i % 2 == 0:
                    down = i % 10 == 2 or (day == 0 and change == "thumbs")
                    thumbs.append({"subject": trace, "name": "thumbs", "value": -1 if down else 1})
        client.portal.call(ws.traces.add, WHO, spans)  # type: ignore[union-attr]
        assert client.post("/api/v1/scores", json={"scores": thumbs}).status_code == 201

        calm = client.post("/api/v1/monitors/tutor/tick", json={"at": NOW - DAY}).json()
        assert calm["verdict"] == "pass" and calm["run"] is None, calm["why"]
        seen = {s["name"]: s for s in calm["scores"]}
        assert seen["blocked_rate"]["value"] == 3 / 60 and seen["refusal_rate"]["value"] == 6 / 60 and seen["cost_per_call"]["value"] > 0.002
        found = client.post("/api/v1/monitors/tutor/tick", json={"at": NOW}).json()
        name = {"thumbs": "thumbs_down_rate", "failures": "failure_rate"}[change]
        assert found["verdict"] == "fail" and [s["name"] for s in found["scores"] if s["verdict"] == "fail"] == [name], found
        assert "learnt from 8 earlier windows" in found["why"]
        assert (found["run"] is not None) is (change == "thumbs")
        assert client.get("/api/v1/alerts").json()["items"][0]["monitor"] == "tutor"
