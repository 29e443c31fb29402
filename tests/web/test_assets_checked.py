"""Prompts, policies and suites are checked on their way in, whoever brings them; feedback needs a trace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from everloop.core.settings import Settings
from everloop.web.app import create_app


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(home=tmp_path, workers=0, fsync=False)), base_url="http://127.0.0.1:7600", client=("127.0.0.1", 5)) as client:
        yield client


def put(client: TestClient, kind: str, manifest: dict[str, Any]) -> Any:
    return client.post("/api/v1/assets", json={"kind": kind, "name": "x", "manifest": manifest})


def test_nothing_wrong_is_registered(client: TestClient) -> None:
    cases = client.post("/api/v1/objects", content=b'{"question": "a"}\n{"question": "a"}\n').json()
    wrong = {
        "prompt": {"messages": [{"role": "system", "content": "{{ x"}]},
        "policy": {"rules": [{"check": "nothing"}]},
        "suite": {"task": "chat", "cases": cases},
    }
    for kind, manifest in wrong.items():
        answer = put(client, kind, manifest)
        assert answer.status_code == 400, (kind, answer.text)
        assert client.get(f"/api/v1/assets/{kind}/x").status_code == 404
    assert put(client, "suite", {"task": "chat", "cases": {"digest": "0" * 64}}).status_code == 404


def test_the_same_prompt_from_everywhere_is_the_same_version(client: TestClient) -> None:
    short = put(client, "prompt", {"messages": [{"role": "user", "content": "{{ question }}"}]}).json()
    assert short["manifest"]["variables"] == ["question"]
    assert put(client, "prompt", short["manifest"]).json()["version"] == 1


def test_a_suite_keeps_its_cases_complete(client: TestClient) -> None:
    cases = client.post("/api/v1/objects", content=b'{"question": "a"}\n\n{"question": "b", "kind": "harmful"}\n').json()
    made = put(client, "suite", {"task": "chat", "cases": cases}).json()["manifest"]
    assert made["count"] == 2 and made["kinds"] == {"answerable": 1, "harmful": 1} and made["cases"]["digest"] != cases["digest"]
    assert len(client.get(f"/api/v1/objects/{made['cases']['digest']}").content.splitlines()) == 2


def test_a_chat_release_needs_its_variables(client: TestClient) -> None:
    put(client, "prompt", {"messages": [{"role": "system", "content": "Speak {{ language }}."}]})
    body: dict[str, Any] = {"name": "r", "kind": "chat", "pins": {"prompt": "prompt:x"}}
    answer = client.post("/api/v1/releases", json=body)
    assert answer.status_code == 400 and "'language' in message 1 (system)" in answer.json()["detail"]
    assert client.post("/api/v1/releases", json={**body, "params": {"variables": {"language": "Welsh"}}}).status_code == 201


def test_feedback_needs_a_trace_and_a_thumb(client: TestClient) -> None:
    trace = "ab" * 16
    assert client.post(f"/api/v1/traces/{trace}/feedback", json={"value": 1}).status_code == 404
    assert client.post(f"/api/v1/traces/{trace}/feedback", json={"value": 5}).status_code == 400
