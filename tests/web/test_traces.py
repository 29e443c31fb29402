"""Traces, scores and figures over REST."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from everloop.core.clock import new_span_id, new_trace_id
from everloop.core.principal import Principal, Role, local_principal
from everloop.core.settings import Settings
from everloop.core.types import Span
from everloop.web.app import create_app


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(home=tmp_path, workers=0, fsync=False)), base_url="http://127.0.0.1:7600") as client:
        yield client


def send(client: TestClient, question: Any, who: Principal | None = None, start: float = 1000.0, **attributes: Any) -> str:
    trace = new_trace_id()
    span = Span(
        trace,
        new_span_id(),
        None,
        "tutor",
        "CHAIN",
        int(start * 1e9),
        int((start + 0.5) * 1e9),
        "ok",
        {"everloop.endpoint": "tutor", "everloop.release": "release:tutor@1", "llm.model_name": "gpt-4o-mini", "llm.token_count.prompt": 100}
        | attributes,
        inputs=question,
        outputs="yes",
    )
    assert client.portal is not None
    client.portal.call(client.app.state.workspace.traces.add, who or local_principal(), [span], [])  # type: ignore[attr-defined]
    return trace


def test_list_get_score_and_stats(client: TestClient) -> None:
    first, second = send(client, "what is a loan?"), send(client, "what is a bond?", start=2000.0)
    assert client.get(f"/api/v1/traces/{first}").json()["spans"][0]["cost"] > 0
    assert client.get(f"/api/v1/traces/{second}").status_code == 200
    items = client.get("/api/v1/traces", params={"endpoint": "tutor"}).json()["items"]
    assert [item["trace_id"] for item in items] == [second, first]
    assert [i["trace_id"] for i in client.get("/api/v1/traces", params={"text": "loan"}).json()["items"]] == [first]
    assert [i["trace_id"] for i in client.get("/api/v1/traces", params={"since": "1970-01-01T00:30:00Z"}).json()["items"]] == [second]
    page = client.get("/api/v1/traces", params={"limit": 1}).json()
    assert client.get("/api/v1/traces", params={"limit": 1, "cursor": page["next"]}).json()["items"][0]["trace_id"] == first
    made = client.post("/api/v1/scores", json={"scores": [{"subject": first, "name": "thumb", "value": 1, "why": "clear"}]})
    assert made.status_code == 201 and made.json() == {"added": 1}
    assert client.get(f"/api/v1/traces/{second}").json()["scores"] == []
    [bucket] = client.get("/api/v1/stats", params={"since": 900, "until": 1100, "bucket_s": 200}).json()["items"]
    assert bucket["count"] == 1 and bucket["p50_ms"] == pytest.approx(500) and bucket["tokens"] == 100
    assert client.get("/api/v1/stats/histogram", params={"edges_ms": [100, 1000]}).json()["counts"] == [0, 2, 0]


def test_a_blocked_call_is_told_from_one_that_went_well(client: TestClient) -> None:
    fine, blocked = send(client, "what is a loan?"), send(client, "how do I hurt", start=2000.0, **{"everloop.blocked": True})
    client.get(f"/api/v1/traces/{blocked}")
    listed = client.get("/api/v1/traces").json()["items"]
    assert [(t["trace_id"], t["blocked"], t["refused"]) for t in listed] == [(blocked, True, False), (fine, False, False)]
    assert [t["trace_id"] for t in client.get("/api/v1/traces", params={"status": "blocked"}).json()["items"]] == [blocked]
    assert "chip bad" in client.get(f"/ui/traces/{blocked}").text.partition("<h1>")[2].partition("</h1>")[0]
    assert "chip good" in client.get(f"/ui/traces/{fine}").text.partition("<h1>")[2].partition("</h1>")[0]


@pytest.mark.parametrize(
    "body", [{}, {"scores": 3}, {"scores": [{"subject": "x"}]}, {"scores": [{"subject": "x", "name": "n", "value": 1, "at": "soon"}]}]
)
def test_scores_that_cannot_be_used(client: TestClient, body: dict) -> None:
    answer = client.post("/api/v1/scores", json=body)
    assert answer.status_code == 400 and "score" in answer.json()["detail"].lower()


def test_another_project_sees_nothing_and_a_viewer_cannot_write(client: TestClient) -> None:
    trace = send(client, "secret plan", Principal("key:x", "other", Role.editor))
    assert client.get(f"/api/v1/traces/{trace}").status_code == 404
    assert client.get("/api/v1/traces", params={"text": "secret"}).json()["items"] == []
    key = client.post("/api/v1/keys", json={"name": "v", "role": "viewer"}).json()["key"]
    answer = client.post("/api/v1/scores", json={"subject": trace, "name": "n", "value": 1}, headers={"authorization": f"Bearer {key}"})
    assert answer.status_code == 403


@pytest.mark.parametrize("query", ["cursor=x", "since=soon", "limit=0"])
def test_bad_questions_say_why(client: TestClient, query: str) -> None:
    assert client.get(f"/api/v1/traces?{query}").status_code == 400


def test_the_sdk_and_the_tree(client: TestClient) -> None:
    from rich.console import Console

    from everloop.cli.traces import tree
    from everloop.client.traces import Traces

    class Http:
        def get(self, path: str, params: dict | None = None) -> dict:
            return client.get(path, params=params).json()

        def post(self, path: str, json: dict) -> dict:
            return client.post(path, json=json).json()

    trace = send(client, "what is [bold] a loan?")
    traces = Traces(Http())
    assert traces.labels([{"prediction_id": f"{trace}-0", "label": 1}, {"prediction_id": f"{trace}-1", "label": 0}]) == {"added": 2}
    traces.feedback(trace, True, "good")
    found = traces.get(trace)
    assert [t["trace_id"] for t in traces.iterate(limit=1)] == [trace]
    console = Console(width=200, record=True)
    console.print(tree(found))
    shown = console.export_text()
    assert "CHAIN tutor" in shown and "[bold]" in shown and "gpt-4o-mini" in shown
