"""What hostile and broken clients send: a clear answer, the rest of the batch kept, nothing run in a page, nothing that hangs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from starlette.testclient import TestClient

from everloop.core.settings import Settings
from everloop.web.app import create_app

PROTOBUF = {"content-type": "application/x-protobuf"}
SCRIPT = "<script>parent.zq()</script><img src=x onerror=zq()>"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    app = create_app(Settings(home=tmp_path_factory.mktemp("home"), workers=0, fsync=False))
    with TestClient(app, base_url="http://127.0.0.1:7600") as client:
        yield client


def request(*spans: dict[str, Any]) -> ExportTraceServiceRequest:
    made = ExportTraceServiceRequest()
    scope = made.resource_spans.add().scope_spans.add()
    for given in spans:
        span = scope.spans.add(trace_id=given.get("trace", os.urandom(16)), span_id=given.get("span", os.urandom(8)), name=given.get("name", "call"))
        span.start_time_unix_nano = given.get("start", time.time_ns())
        span.end_time_unix_nano = given.get("end", span.start_time_unix_nano + 1_000_000)
        for key, value in given.get("attributes", {}).items():
            span.attributes.add(key=key).value.string_value = value
    return made


def send(client: TestClient, body: bytes) -> ExportTraceServiceResponse:
    answer = client.post("/v1/traces", content=body, headers=PROTOBUF)
    assert answer.status_code == 200, answer.content
    return ExportTraceServiceResponse.FromString(answer.content)


def first(client: TestClient, trace: bytes) -> dict[str, Any]:
    answer = client.get(f"/api/v1/traces/{trace.hex()}")
    assert answer.status_code == 200, answer.text
    return answer.json()["spans"][0]  # type: ignore[no-any-return]


def test_texts_that_are_no_utf8_are_mended_and_the_batch_is_kept(client: TestClient) -> None:
    good, broken = os.urandom(16), os.urandom(16)
    body = request({"trace": good}, {"trace": broken, "name": "XXXX", "attributes": {"note": "say YYYY"}}).SerializeToString()
    told = send(client, body.replace(b"XXXX", b"a\xff\xfeb").replace(b"YYYY", b"\xc3\x28\xa0\xa1"))
    assert told.partial_success.rejected_spans == 0
    assert first(client, good)["name"] == "call"
    span = first(client, broken)
    assert span["name"].startswith("a\ufffd") and span["name"].endswith("b") and span["attributes"]["note"].startswith("say \ufffd(")


def test_bad_ids_and_odd_times_are_told_and_the_rest_is_kept(client: TestClient) -> None:
    good, early, late, backwards = (os.urandom(16) for _ in range(4))
    spans = [{"trace": good}, {"trace": b"short"}, {"span": bytes(8)}, {"trace": early, "start": 1}, {"trace": late, "start": 4_102_444_800 * 10**9}]
    told = send(client, request(*spans, {"trace": backwards, "start": time.time_ns(), "end": 5}).SerializeToString())
    assert told.partial_success.rejected_spans == 2 and "trace_id has 5 bytes" in told.partial_success.error_message
    assert [first(client, one)["name"] for one in (good, early, late, backwards)] == ["call"] * 4
    assert first(client, backwards)["ms"] == 0
    listed = client.get("/api/v1/traces", params={"limit": 10}).json()["items"]
    assert listed[0]["trace_id"] == late.hex() and client.get("/ui/traces", params={"range": "all"}).status_code == 200
    assert client.get("/api/v1/traces", params={"until": "1971-01-01T00:00:00Z"}).json()["items"][0]["trace_id"] == early.hex()


def test_ten_thousand_attributes_and_a_megabyte_of_text_come_back(client: TestClient) -> None:
    trace = os.urandom(16)
    many = {f"attribute.{i}": f"value {i}" for i in range(10_000)} | {"input.value": "long " * 200_000}
    send(client, request({"trace": trace, "attributes": many}).SerializeToString())
    span = first(client, trace)
    assert span["attributes"]["attribute.9999"] == "value 9999" and len(span["inputs"]) == 1_000_000
    assert client.get(f"/ui/traces/{trace.hex()}").status_code == 200


def test_a_hundred_megabytes_are_refused_in_words(client: TestClient) -> None:
    answer = client.post("/v1/traces", content=b"\0" * (100 * 2**20), headers=PROTOBUF)
    assert answer.status_code == 413 and b"byte" in answer.content.lower()


def test_scripts_in_messages_are_text_on_every_page(client: TestClient) -> None:
    trace = os.urandom(16)
    texts = {
        "input.value": SCRIPT,
        "output.value": SCRIPT,
        "session.id": SCRIPT,
        "user.id": SCRIPT,
        "llm.model_name": SCRIPT,
        "openinference.span.kind": "LLM",
    }
    texts |= {f"llm.input_messages.0.message.{key}": SCRIPT for key in ("role", "content")}
    send(client, request({"trace": trace, "name": SCRIPT, "attributes": texts}).SerializeToString())
    first(client, trace)
    pages = (f"/ui/traces/{trace.hex()}", "/ui/traces?range=all", "/ui/sessions?range=all", "/ui/traffic?range=all")
    for page in pages:
        answer = client.get(page)
        assert answer.status_code == 200 and "<script>parent" not in answer.text and "<img src=x" not in answer.text, page
        assert "script-src" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(.*a){25}", "^(([a-z])+.)+[A-Z]([a-z])+$"])
def test_a_regular_expression_cannot_hang_the_search(client: TestClient, pattern: str) -> None:
    send(client, request({"name": "a" * 5_000 + "!"}).SerializeToString())
    asked = {"locations": [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}], "filter": f"name RLIKE '{pattern}'"}
    started = time.monotonic()
    answer = client.post("/api/3.0/mlflow/traces/search", json=asked)
    assert answer.status_code in (200, 400) and time.monotonic() - started < 5
    assert client.get("/api/v1/traces", params={"text": f'"{pattern}" AND * OR ( NEAR'}).status_code == 200
