"""What a project's redaction takes out never reaches the disk, whichever way it came in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from everloop.core.clock import new_span_id, new_trace_id
from everloop.core.principal import local_principal
from everloop.core.settings import Settings
from everloop.core.types import Span
from everloop.web.app import create_app

EMAIL, CARD, KEY = "zqann.smith@example.com", "4111 1111 1111 1111", "AKIA7Q2XKZ4M9PLR8T5V"
MARKS = (EMAIL, CARD, KEY, "zqsecretname")
RULES = [{"check": "pii", "stage": "input", "action": "redact"}, {"check": "secrets", "stage": "output", "action": "redact"}]


def app(home: Path) -> TestClient:
    return TestClient(create_app(Settings(home=home, workers=0, fsync=False)), base_url="http://127.0.0.1:7600")


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with app(tmp_path) as client:
        made = client.post("/api/v1/assets", json={"kind": "policy", "name": "private", "manifest": {"rules": RULES}})
        assert made.status_code == 201, made.text
        yield client


def otlp(client: TestClient, question: str, user: str = "ann") -> str:
    trace = new_trace_id()
    texts = {"user.id": user, "input.value": question, "llm.input_messages.0.message.content": question, "openinference.span.kind": "LLM"}
    span = {
        "traceId": trace,
        "spanId": new_span_id(),
        "name": f"ask {question[:60]}",
        "startTimeUnixNano": "1000000000000",
        "endTimeUnixNano": "1000500000000",
    }
    span["attributes"] = [{"key": key, "value": {"stringValue": value}} for key, value in texts.items()]  # type: ignore[assignment]
    span["events"] = [
        {"name": "exception", "timeUnixNano": "1000400000000", "attributes": [{"key": "exception.message", "value": {"stringValue": question}}]}
    ]  # type: ignore[assignment]
    sent = client.post("/v1/traces", json={"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})
    assert sent.status_code == 200, sent.text
    return trace


def on_disk(home: Path) -> list[str]:
    """Which of MARKS stand in which file of the home."""
    files = [(file, file.read_bytes()) for file in home.rglob("*") if file.is_file()]
    return [f"{mark} in {file.name}" for file, data in files for mark in MARKS if mark.encode() in data]


def test_every_way_in_is_redacted_before_the_log(client: TestClient, tmp_path: Path) -> None:
    set_to = client.put("/api/v1/redaction", json={"policy": "private", "drop": ["name"], "hash": ["city"]})
    assert set_to.status_code == 200 and set_to.json()["policy"] == "policy:private@1"
    sent = otlp(client, f"mail {EMAIL}, card {CARD}, key {KEY}", user=EMAIL)
    root = client.get(f"/api/v1/traces/{sent}").json()["spans"][0]
    assert "[email]" in root["inputs"] and "[card]" in root["inputs"] and "[aws_key]" in root["inputs"]
    told = root["attributes"]["everloop.redacted"]
    assert told["email"] >= 4 and told["card"] >= 3 and root["attributes"]["everloop.redacted.policy"] == "policy:private@1"
    assert root["user"].startswith("h-") and client.get("/api/v1/traces", params={"user": root["user"]}).json()["items"]

    assert client.post("/api/v1/erasures", json={"user": EMAIL, "dry_run": True}).json()["traces"] == 1  # a hashed user is found by the id

    trace = new_trace_id()
    row = {"name": "zqsecretname", "city": "Rome", "age": 41, "note": f"call {EMAIL}"}
    span = Span(
        trace,
        new_span_id(),
        None,
        "credit",
        "PREDICT",
        1000,
        2000,
        "ok",
        {"everloop.endpoint": "credit"},
        [],
        {k: [v] for k, v in row.items()},
        {"p": 0.5},
    )
    prediction = {"prediction_id": f"{trace}-0", "at": 1.0, "endpoint": "credit", "features": row, "outputs": {"p": 0.5}}
    client.app.state.workspace.traces.record(local_principal(), [span], [prediction])  # type: ignore[attr-defined]
    whole = client.get(f"/api/v1/traces/{trace}").json()
    features = whole["predictions"][0]["features"]
    assert (
        set(features) == {"city", "age", "note"}
        and features["age"] == 41
        and features["city"].startswith("h-")
        and features["note"] == "call [email]"
    )
    assert whole["spans"][0]["inputs"]["city"] == [features["city"]] and whole["spans"][0]["attributes"]["everloop.redacted"]["dropped"] == 1

    client.post("/api/v1/scores", json={"subject": trace, "name": "thumbs", "value": 1, "why": f"said {EMAIL}"})
    experiment = client.post("/api/2.0/mlflow/experiments/create", json={"name": "mine"}).json()["experiment_id"]
    info = {"trace_id": f"tr-{new_trace_id()}", "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}}}
    info |= {
        "request_time": "2026-01-01T00:00:00Z",
        "state": "OK",
        "request_preview": EMAIL,
        "tags": {"who": EMAIL},
        "trace_metadata": {"mlflow.trace.user": EMAIL},
    }
    started = client.post("/api/3.0/mlflow/traces", json={"trace": {"trace_info": info}})
    assert started.status_code == 200, started.text
    client.portal.call(client.app.state.workspace.telemetry.flush)  # type: ignore[union-attr, attr-defined]
    assert client.get(f"/api/v1/traces/{trace}").json()["scores"][0]["why"] == "said [email]"
    assert on_disk(tmp_path) == []


def test_it_holds_after_a_restart_and_ends_when_it_is_taken_away(tmp_path: Path) -> None:
    with app(tmp_path) as first:
        first.post("/api/v1/assets", json={"kind": "policy", "name": "private", "manifest": {"rules": RULES}})
        assert first.put("/api/v1/redaction", json={"policy": "private"}).status_code == 200
    with app(tmp_path) as again:
        trace = otlp(again, f"mail {EMAIL}")
        assert "[email]" in again.get(f"/api/v1/traces/{trace}").json()["spans"][0]["inputs"]
        assert again.delete("/api/v1/redaction").status_code == 204
        trace = otlp(again, "mail nobody@example.com")
        assert again.get(f"/api/v1/traces/{trace}").json()["spans"][0]["inputs"] == "mail nobody@example.com"
        actions = [row["action"] for row in again.get("/api/v1/audit").json()["items"]]
        assert {"redaction.set", "redaction.clear"} <= set(actions)


def test_a_policy_that_redacts_nothing_is_refused_and_texts_can_be_tried(client: TestClient) -> None:
    client.post(
        "/api/v1/assets", json={"kind": "policy", "name": "strict", "manifest": {"rules": [{"check": "pii", "stage": "input", "action": "block"}]}}
    )
    refused = client.put("/api/v1/redaction", json={"policy": "strict"})
    assert refused.status_code == 400 and "redacts nothing" in refused.text
    tried: Any = client.post("/api/v1/redaction/try", json={"text": f"mail {EMAIL}", "policy": "private"}).json()
    assert tried == {"text": "mail [email]", "found": {"email": 1}, "policy": "policy:private@1"}
