"""Figures over traces by model, user or endpoint, guardrails and sessions: by REST, and as pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from everloop.core.settings import Settings
from everloop.web.app import create_app
from everloop.web.ui.messages import messages


@pytest.fixture
def http(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(home=tmp_path, workers=0, fsync=False)), base_url="http://127.0.0.1") as client:
        yield client


def pairs(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    kind = {str: "stringValue", bool: "boolValue", int: "intValue", float: "doubleValue"}
    return [{"key": k, "value": {kind[type(v)]: v}} for k, v in attributes.items()]


def send(http: TestClient, spans: list[dict[str, Any]]) -> None:
    body = {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}
    assert http.post("/v1/traces", json=body).status_code == 200


def chat(n: int, ms: int, session: str, *, user: str = "ana", model: str = "gpt-4o-mini", failed: bool = False, **more: Any) -> list[dict[str, Any]]:
    """A chain with one LLM span that streamed."""
    at = 1_790_000_000_000_000_000 + n * 60_000_000_000
    about = {"session.id": session, "user.id": user, "everloop.endpoint": "tutor", "input.value": f"question {n}", "output.value": "answer"}
    whole = {"traceId": f"{n + 1:032x}", "startTimeUnixNano": str(at), "endTimeUnixNano": str(at + ms * 1_000_000)}
    llm = {"openinference.span.kind": "LLM", "llm.model_name": model, "llm.token_count.prompt": 100, "llm.token_count.completion": 10}
    return [
        {**whole, "spanId": f"{2 * n + 1:016x}", "name": "chat", "status": {"code": 2 if failed else 1}, "attributes": pairs(about | more)},
        {
            **whole,
            "spanId": f"{2 * n + 2:016x}",
            "parentSpanId": f"{2 * n + 1:016x}",
            "name": "llm",
            "attributes": pairs(llm | {"gen_ai.response.time_to_first_chunk": 0.25}),
        },
    ]


def test_a_breakdown_counts_each_call_and_token_once(http: TestClient) -> None:
    for n in range(20):
        model = "gpt-4o-mini" if n % 4 else "gpt-4o"
        send(http, chat(n, 100 * (n + 1), f"s{n % 3}", user=f"u{n % 2}", model=model, failed=n == 7, **{"everloop.blocked": n == 3}))
    for n, value in ((1, 1), (2, -1), (4, 1), (2, 1)):
        assert http.post(f"/api/v1/traces/{n + 1:032x}/feedback", json={"value": value}).status_code == 201
    (tutor,) = http.get("/api/v1/stats/breakdown", params={"by": "endpoint"}).json()["items"]
    assert (tutor["key"], tutor["calls"], tutor["errors"], tutor["blocked"]) == ("tutor", 20, 1, 1)
    assert (tutor["tokens_in"], tutor["tokens_out"], tutor["first_ms"]) == (2000, 200, 250)
    assert tutor["p50_ms"] == pytest.approx(1050) and tutor["p999_ms"] == pytest.approx(1998.1)
    assert (tutor["up"], tutor["down"]) == (3, 0) and tutor["thumbs_up"]["interval"][0] == pytest.approx(0.4385, abs=1e-3)  # the last thumb counts
    models = {m["key"]: m for m in http.get("/api/v1/stats/breakdown", params={"by": "model"}).json()["items"]}
    assert {k: m["calls"] for k, m in models.items()} == {"gpt-4o-mini": 15, "gpt-4o": 5}
    assert models["gpt-4o"]["cost"] == pytest.approx(5 * (100 * 2.5e-6 + 10 * 10e-6))
    users = http.get("/api/v1/stats/breakdown", params={"by": "user", "since": "1790000000", "until": "1790000239"}).json()["items"]
    assert [(u["key"], u["calls"]) for u in users] == [("u0", 2), ("u1", 2)]
    refused = http.get("/api/v1/stats/breakdown", params={"by": "attributes"})
    assert refused.status_code == 400 and "endpoint, release" in refused.text


def test_a_trace_with_several_roots_and_calls_of_a_model_counts_its_tokens_and_thumb_once(http: TestClient) -> None:
    root, llm = chat(0, 100, "s")
    send(http, [root, llm, {**llm, "spanId": "c" * 16}, {**root, "spanId": "d" * 16}])
    assert http.post(f"/api/v1/traces/{1:032x}/feedback", json={"value": 1}).status_code == 201
    for by, calls in (("user", 1), ("endpoint", 1), ("model", 2)):
        (one,) = http.get("/api/v1/stats/breakdown", params={"by": by}).json()["items"]
        assert (one["calls"], one["tokens_in"], one["tokens_out"], one["up"]) == (calls, 200, 20, 1), by


def test_sessions_by_page_and_as_conversation(http: TestClient) -> None:
    for n in range(12):
        send(http, chat(n, 100, f"lesson/{n // 3} <b>", user=f"u{n // 6}"))
    http.get(f"/api/v1/traces/{12:032x}")  # written a moment ago: waits until it can be seen
    first = http.get("/api/v1/sessions", params={"limit": 3}).json()
    assert [(s["session"], s["traces"], s["user"]) for s in first["items"]] == [(f"lesson/{i} <b>", 3, f"u{i // 2}") for i in (3, 2, 1)]
    assert first["items"][0]["tokens"] == 330 and first["items"][0]["endpoints"] == ["tutor"]
    rest = http.get("/api/v1/sessions", params={"limit": 3, "cursor": first["next"]}).json()
    assert [s["session"] for s in rest["items"]] == ["lesson/0 <b>"] and rest["next"] is None
    assert http.get("/api/v1/sessions", params={"cursor": "nonsense"}).status_code == 400
    listed = http.get("/ui/sessions").text
    assert "lesson%2F3%20%3Cb%3E" in listed and "<b>" not in listed
    page = http.get("/ui/sessions/lesson%2F3%20%3Cb%3E").text
    assert page.index("question 9") < page.index("question 10") < page.index("question 11") and "question 8" not in page
    traffic = http.get("/ui/traffic", params={"by": "user"}).text
    assert "u0" in traffic and "1,320" in traffic.replace("\u202f", ",")


@pytest.mark.parametrize(
    "value, expected",
    [
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}, [("user", "hi")]),
        (
            {"choices": [{"message": {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}}]},
            [("assistant", "calls f({})")],
        ),
        (
            [{"role": "user", "parts": [{"type": "text", "content": "hi"}, {"type": "tool_call_response", "response": "sunny"}]}],
            [("user", "hi\nanswer of the tool: sunny")],
        ),
        ({"messages": [[{"lc": 1, "type": "constructor", "kwargs": {"type": "human", "content": "hi"}}]]}, [("user", "hi")]),
        ({"generations": [[{"text": "yes", "message": {"lc": 1, "kwargs": {"type": "ai", "content": "yes"}}}]]}, [("assistant", "yes")]),
        ({"type": "ai", "data": {"content": "yes"}}, [("assistant", "yes")]),
        ({"age": [1, 2]}, None),
        ([1, 2], None),
    ],
)
def test_messages_of_all_writers(value: Any, expected: list[tuple[str, str]] | None) -> None:
    read = messages(value)
    assert (None if read is None else [(m["role"], m["text"]) for m in read]) == expected
