"""OTLP over HTTP: both encodings, partial success, errors in OTLP's shape, both dialects of attribute names."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from starlette.testclient import TestClient

from everloop.core.errors import Busy
from everloop.core.settings import Settings
from everloop.web.app import create_app

PROTOBUF = {"content-type": "application/x-protobuf"}
GENAI = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.response.model": "gpt-4o-mini",
    "gen_ai.usage.input_tokens": 100,
    "gen_ai.usage.output_tokens": 20,
    "gen_ai.conversation.id": "s1",
    "user.id": "ann",
    "gen_ai.input.messages": json.dumps([{"role": "user", "parts": [{"type": "text", "content": "what is a loan?"}]}]),
    "gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": [{"type": "text", "content": "borrowed money"}]}]),
}
OPENINFERENCE = {
    "openinference.span.kind": "LLM",
    "llm.provider": "openai",
    "llm.model_name": "gpt-4o-mini",
    "llm.token_count.prompt": 100,
    "llm.token_count.completion": 20,
    "session.id": "s1",
    "user.id": "ann",
    "llm.input_messages.0.message.role": "user",
    "llm.input_messages.0.message.content": "what is a loan?",
    "output.value": "borrowed money",
    "output.mime_type": "text/plain",
}
OLD_GENAI = {
    "gen_ai.operation.name": "chat",
    "gen_ai.system": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.usage.prompt_tokens": 100,
    "gen_ai.usage.completion_tokens": 20,
    "session.id": "s1",
    "user.id": "ann",
    "gen_ai.prompt.0.role": "user",
    "gen_ai.prompt.0.content": "what is a loan?",
    "gen_ai.completion.0.content": "borrowed money",
}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(home=tmp_path, workers=0, fsync=False)), base_url="http://127.0.0.1:7600") as client:
        yield client


def request(attributes: dict[str, Any], trace: bytes, span: bytes, parent: bytes = b"", name: str = "chat") -> ExportTraceServiceRequest:
    body = ExportTraceServiceRequest()
    resource = body.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    s = resource.scope_spans.add().spans.add(
        trace_id=trace, span_id=span, parent_span_id=parent, name=name, start_time_unix_nano=10**18, end_time_unix_nano=10**18 + 5 * 10**6
    )
    for key, value in attributes.items():
        place = s.attributes.add(key=key).value
        setattr(place, "int_value" if isinstance(value, int) else "string_value", value)
    return body


def flush(client: TestClient) -> None:
    assert client.portal is not None
    client.portal.call(client.app.state.workspace.telemetry.flush)  # type: ignore[attr-defined]


@pytest.mark.parametrize("attributes", [GENAI, OPENINFERENCE, OLD_GENAI], ids=["genai", "openinference", "old-genai"])
def test_every_dialect_is_understood(client: TestClient, attributes: dict[str, Any]) -> None:
    trace = os.urandom(16)
    answer = client.post("/v1/traces", content=request(attributes, trace, os.urandom(8)).SerializeToString(), headers=PROTOBUF)
    assert answer.status_code == 200 and answer.content == b""
    [span] = client.get(f"/api/v1/traces/{trace.hex()}").json()["spans"]
    assert (span["kind"], span["model"], span["provider"]) == ("LLM", "gpt-4o-mini", "openai")
    assert (span["tokens_in"], span["tokens_out"], span["session"], span["user"]) == (100, 20, "s1", "ann")
    assert span["cost"] == pytest.approx(100 * 0.15e-6 + 20 * 0.6e-6)
    assert "what is a loan?" in json.dumps(span["inputs"]) and "borrowed money" in json.dumps(span["outputs"])
    assert span["attributes"]["service.name"] == "shop"
    flush(client)
    assert client.get("/api/v1/traces", params={"text": "loan borrowed"}).json()["items"][0]["trace_id"] == trace.hex()


def json_span(**changes: Any) -> dict[str, Any]:
    span = {
        "traceId": os.urandom(16).hex(),
        "spanId": os.urandom(8).hex(),
        "name": "tool",
        "kind": 1,
        "startTimeUnixNano": "1000000000000000000",
        "endTimeUnixNano": 1000000000005000000,
        "status": {"code": 2, "message": "it broke"},
        "attributes": [
            {"key": "gen_ai.operation.name", "value": {"stringValue": "execute_tool"}},
            {"key": "n", "value": {"intValue": "7"}},
            {"key": "list", "value": {"arrayValue": {"values": [{"boolValue": True}]}}},
        ],
    }
    return {**span, **changes}


def test_json_gzip_and_bad_spans_are_counted(client: TestClient) -> None:
    good = json_span()
    spans = [good, json_span(traceId="00" * 16), json_span(spanId="abcd"), json_span(spanId="zz"), json_span(startTimeUnixNano=str(2**64))]
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()
    answer = client.post("/v1/traces", content=gzip.compress(body, mtime=0), headers={"content-type": "application/json", "content-encoding": "gzip"})
    assert (
        answer.status_code == 200
        and answer.json()["partialSuccess"]["rejectedSpans"] == "4"
        and "trace_id" in answer.json()["partialSuccess"]["errorMessage"]
    )
    [span] = client.get(f"/api/v1/traces/{good['traceId']}").json()["spans"]
    assert (span["kind"], span["status"], span["error"], span["attributes"]["n"], span["attributes"]["list"]) == (
        "TOOL",
        "error",
        "it broke",
        7,
        [True],
    )


def test_partial_success_in_protobuf(client: TestClient) -> None:
    answer = client.post("/v1/traces", content=request({}, b"short", os.urandom(8)).SerializeToString(), headers=PROTOBUF)
    told = ExportTraceServiceResponse.FromString(answer.content)
    assert answer.status_code == 200 and told.partial_success.rejected_spans == 1


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"\xff\xff\xff", PROTOBUF, 400),
        (b"{", {"content-type": "application/json"}, 400),
        (b'{"resourceSpans": 3}', {"content-type": "application/json"}, 400),
        (b"[]", {"content-type": "application/json"}, 400),
        (b"x", {**PROTOBUF, "content-encoding": "gzip"}, 400),
        (gzip.compress(b"\0" * 100, mtime=0)[:-9], {**PROTOBUF, "content-encoding": "gzip"}, 400),
        (b"x", {"content-type": "text/plain"}, 415),
        (gzip.compress(bytes(70 * 2**20)), {**PROTOBUF, "content-encoding": "gzip"}, 413),
    ],
)
def test_bodies_that_cannot_be_used(client: TestClient, body: bytes, headers: dict[str, str], status: int) -> None:
    answer = client.post("/v1/traces", content=body, headers=headers)
    assert answer.status_code == status
    if headers["content-type"] == "application/json":
        assert answer.json()["message"]
    else:
        assert answer.content[:1] == b"\x08"


def test_busy_tells_the_exporter_when_to_come_back(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_args: Any) -> None:
        raise Busy("full", retry_after=3)

    monkeypatch.setattr(client.app.state.workspace.telemetry.log, "append", busy)  # type: ignore[attr-defined]
    answer = client.post("/v1/traces", content=request({}, os.urandom(16), os.urandom(8)).SerializeToString(), headers=PROTOBUF)
    assert answer.status_code == 503 and answer.headers["retry-after"] == "3"


def test_the_project_comes_from_the_key_and_a_viewer_may_not_send(client: TestClient) -> None:
    client.post("/api/v1/projects", json={"name": "school"})
    made = {
        role: client.post("/api/v1/keys", json={"name": role, "role": role}, headers={"x-everloop-project": "school"}).json()["key"]
        for role in ("editor", "viewer")
    }
    trace = os.urandom(16)
    body = request({}, trace, os.urandom(8)).SerializeToString()
    assert client.post("/v1/traces", content=body, headers={**PROTOBUF, "authorization": f"Bearer {made['viewer']}"}).status_code == 403
    assert client.post("/v1/traces", content=body, headers={**PROTOBUF, "authorization": f"Bearer {made['editor']}"}).status_code == 200
    assert client.get(f"/api/v1/traces/{trace.hex()}").status_code == 404
    assert client.get(f"/api/v1/traces/{trace.hex()}", headers={"x-everloop-project": "school"}).status_code == 200
