"""OTLP metrics and logs: both encodings, partial success, figures out of every type of metric, records beside their trace, GenAI's events in its messages."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest, ExportMetricsServiceResponse
from starlette.testclient import TestClient

from everloop.core.errors import Busy, NoSpace
from everloop.core.settings import Settings
from everloop.store.intake import Intake
from everloop.web.app import create_app
from tests.protocols.test_otlp import GENAI, PROTOBUF, flush, request

T0 = 1_790_000_000 * 10**9
SECOND = 10**9
JSON = {"content-type": "application/json"}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(home=tmp_path, workers=0, fsync=False)), base_url="http://127.0.0.1:7600") as client:
        yield client


def exported(name: str, unit: str = "") -> tuple[ExportMetricsServiceRequest, Any]:
    """A request with one metric, and that metric."""
    body = ExportMetricsServiceRequest()
    resource = body.resource_metrics.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    return body, resource.scope_metrics.add().metrics.add(name=name, unit=unit)


def label(point: Any, **attributes: str) -> Any:
    for key, value in attributes.items():
        point.attributes.add(key=key.replace("__", ".")).value.string_value = value
    return point


def send(client: TestClient, path: str, body: Any) -> Any:
    answer = client.post(path, content=body.SerializeToString(), headers=PROTOBUF)
    assert answer.status_code == 200, answer.text
    flush(client)
    return answer.content


def series(client: TestClient, name: str, **params: Any) -> Any:
    answer = client.get("/api/v1/otel/metrics/series", params={"name": name, **params})
    assert answer.status_code == 200, answer.text
    return answer.json()


def values(found: Any) -> list[float]:
    (one,) = found["items"]
    return [value for _, value in one["points"]]


def test_a_gauge_and_a_counter_of_either_temporality(client: TestClient) -> None:
    body, metric = exported("queue.length")
    for i, value in enumerate((1.0, 3.0, 8.0)):
        label(metric.gauge.data_points.add(time_unix_nano=T0 + i * 10 * SECOND, as_double=value), queue="a")
    send(client, "/v1/metrics", body)
    send(client, "/v1/metrics", body)  # sent again: nothing changes
    assert client.get("/api/v1/otel/metrics").json()["items"][0]["points"] == 3
    assert values(series(client, "queue.length", bucket_s=20)) == [2.0, 8.0]
    assert values(series(client, "queue.length", figure="max", bucket_s=3600)) == [8.0]

    for temporality, told in ((2, (5, 9, 2)), (1, (5, 4, 2))):  # the running total begins anew at its third point
        body, metric = exported(f"requests.{temporality}", "1")
        metric.sum.aggregation_temporality, metric.sum.is_monotonic = temporality, True
        for i, value in enumerate(told):
            label(metric.sum.data_points.add(time_unix_nano=T0 + i * 10 * SECOND, start_time_unix_nano=T0 - SECOND, as_int=value), route="/x")
        send(client, "/v1/metrics", body)
        found = series(client, f"requests.{temporality}", bucket_s=10)
        assert (found["figure"], values(found)) == ("increase", [5, 4, 2])
        assert values(series(client, f"requests.{temporality}", since=str(T0 / SECOND + 5), bucket_s=10)) == [4, 2]  # what came before is not counted
        assert values(series(client, f"requests.{temporality}", figure="rate", where="route=/x", bucket_s=10)) == [0.5, 0.4, 0.2]
    assert series(client, "requests.1", where="route=/y")["items"] == []


def test_histograms_of_both_kinds_and_summaries(client: TestClient) -> None:
    body, metric = exported("latency", "s")
    metric.histogram.aggregation_temporality = 2
    for i, counts in enumerate(([10, 0, 0], [10, 90, 0])):
        metric.histogram.data_points.add(
            time_unix_nano=T0 + i * 60 * SECOND,
            start_time_unix_nano=T0 - 1,
            count=sum(counts),
            sum=sum(counts),
            bucket_counts=counts,
            explicit_bounds=[1, 2],
        )
    send(client, "/v1/metrics", body)
    assert values(series(client, "latency", figure="count", bucket_s=60)) == [10, 90]
    assert values(series(client, "latency", figure="p50", bucket_s=60)) == [0.5, 1.5]
    assert values(series(client, "latency", figure="p50", bucket_s=3600)) == [pytest.approx(1 + 40 / 90)]

    body, metric = exported("size")
    metric.exponential_histogram.aggregation_temporality = 2
    fine = metric.exponential_histogram.data_points.add(time_unix_nano=T0, start_time_unix_nano=1, count=2, sum=6, scale=1)
    fine.positive.offset, fine.positive.bucket_counts[:] = 2, [1, 1]
    coarse = metric.exponential_histogram.data_points.add(time_unix_nano=T0 + 60 * SECOND, start_time_unix_nano=1, count=4, sum=70, scale=0)
    coarse.positive.offset, coarse.positive.bucket_counts[:] = 1, [2, 0, 0, 0, 2]  # both old values fall into (2, 4], the new ones into (32, 64]
    send(client, "/v1/metrics", body)
    found = values(series(client, "size", figure="p50", bucket_s=60))
    assert 2 <= found[0] <= 4 and found[1] == 48

    body, metric = exported("gc")
    point = metric.summary.data_points.add(time_unix_nano=T0, start_time_unix_nano=1, count=4, sum=8)
    point.quantile_values.add(quantile=0.5, value=1.5)
    send(client, "/v1/metrics", body)
    assert values(series(client, "gc")) == [2] and values(series(client, "gc", figure="p50")) == [1.5]

    answer = client.get("/api/v1/otel/metrics/series", params={"name": "gc", "figure": "increase"})
    assert answer.status_code == 400 and "p50" in answer.json()["hint"]
    assert client.get("/api/v1/otel/metrics/series", params={"name": "nothing"}).status_code == 404
    (raw,) = client.get("/api/v1/otel/metrics/points", params={"name": "gc"}).json()["items"]
    assert raw["buckets"] == {"quantiles": [[0.5, 1.5]]} and raw["resource"] == {"service.name": "shop"}


def test_genai_client_metrics_are_understood_in_old_and_new_names(client: TestClient) -> None:
    for provider, model in (("gen_ai__provider__name", "gen_ai__request__model"), ("gen_ai__system", "gen_ai__response__model")):
        names = {provider: "openai", model: "gpt-4o-mini", "gen_ai__operation__name": "chat"}
        body, metric = exported("gen_ai.client.token.usage", "{token}")
        metric.histogram.aggregation_temporality = 1
        for side, total in (("input", 900), ("output", 80)):
            label(metric.histogram.data_points.add(time_unix_nano=T0, count=2, sum=total), gen_ai__token__type=side, **names)
        send(client, "/v1/metrics", body)
        body, metric = exported("gen_ai.client.operation.duration", "s")
        metric.histogram.aggregation_temporality = 1
        label(metric.histogram.data_points.add(time_unix_nano=T0, count=2, sum=3, bucket_counts=[0, 2, 0], explicit_bounds=[1, 2]), **names)
        send(client, "/v1/metrics", body)
    (row,) = client.get("/api/v1/otel/genai").json()["items"]
    assert (row["model"], row["provider"], row["operation"], row["service"]) == ("gpt-4o-mini", "openai", "chat", "shop")
    assert (row["calls"], row["tokens_in"], row["tokens_out"], row["avg_s"], row["p50_s"]) == (4, 1800, 160, 1.5, 1.5)


def test_bad_points_and_records_are_counted_and_the_others_kept(client: TestClient) -> None:
    body, metric = exported("m")
    metric.gauge.data_points.add(as_double=1)  # no time
    metric.gauge.data_points.add(time_unix_nano=2**63, as_double=1)
    metric.gauge.data_points.add(time_unix_nano=T0, as_double=7)
    metric.gauge.data_points.add(time_unix_nano=T0 + 1, flags=1)  # a gap is no value, and no fault
    told = ExportMetricsServiceResponse.FromString(send(client, "/v1/metrics", body)).partial_success
    assert told.rejected_data_points == 2 and "no time" in told.error_message
    assert values(series(client, "m")) == [7]

    logs = ExportLogsServiceRequest()
    scope = logs.resource_logs.add().scope_logs.add()
    scope.log_records.add(trace_id=b"short", time_unix_nano=T0)
    scope.log_records.add(time_unix_nano=T0).body.string_value = "kept"
    told_logs = ExportLogsServiceResponse.FromString(send(client, "/v1/logs", logs)).partial_success
    assert told_logs.rejected_log_records == 1 and "trace_id" in told_logs.error_message

    record = {"timeUnixNano": str(T0), "traceId": "zz", "body": {"stringValue": "x"}}
    packed = gzip.compress(json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}).encode())
    answer = client.post("/v1/logs", content=packed, headers={**JSON, "content-encoding": "gzip"})
    assert answer.json() == {"partialSuccess": {"rejectedLogRecords": "1", "errorMessage": "A log record's trace_id is not 16 bytes."}}
    for path in ("/v1/metrics", "/v1/logs"):
        assert client.post(path, content=b"\xff\xff", headers=PROTOBUF).status_code == 400
        assert client.post(path, content=b"[1]", headers=JSON).status_code == 400
        assert client.post(path, content=b'{"resourceLogs": 3, "resourceMetrics": 3}', headers=JSON).status_code == 400
        assert client.post(path, content=b"x", headers={"content-type": "text/plain"}).status_code == 415
        assert client.post(path, content=gzip.compress(bytes(70 * 2**20)), headers={**PROTOBUF, "content-encoding": "gzip"}).status_code == 413


def json_logs(*records: dict[str, Any]) -> dict[str, Any]:
    service = [{"key": "service.name", "value": {"stringValue": "shop"}}]
    return {"resourceLogs": [{"resource": {"attributes": service}, "scopeLogs": [{"scope": {"name": "app"}, "logRecords": list(records)}]}]}


def record(event: str, body: Any, trace: str, span: str, at: int, **more: Any) -> dict[str, Any]:
    return {"timeUnixNano": str(at), "eventName": event, "body": body, "traceId": trace, "spanId": span, "severityNumber": 9, **more}


def fields(**given: str) -> dict[str, Any]:
    return {"kvlistValue": {"values": [{"key": key, "value": {"stringValue": value}} for key, value in given.items()]}}


def test_records_stand_with_their_trace_and_genai_events_are_its_messages(client: TestClient) -> None:
    trace, span = os.urandom(16), os.urandom(8)
    silent = {key: value for key, value in GENAI.items() if "messages" not in key}
    choice = {
        "kvlistValue": {
            "values": [{"key": "index", "value": {"intValue": "0"}}, {"key": "message", "value": fields(role="assistant", content="forty-two")}]
        }
    }
    at = 10**18
    sent = json_logs(
        record("gen_ai.choice", choice, trace.hex(), span.hex(), at + 2),
        record("gen_ai.user.message", fields(content="the quokka question"), trace.hex(), span.hex(), at + 1),
        record("", {"stringValue": "cache missed"}, trace.hex(), span.hex(), at + 3, severityNumber=17, severityText="ERROR"),
        record(
            "gen_ai.evaluation.result",
            {},
            trace.hex(),
            span.hex(),
            at + 4,
            attributes=[
                {"key": "gen_ai.evaluation.name", "value": {"stringValue": "relevance"}},
                {"key": "gen_ai.evaluation.score.value", "value": {"doubleValue": 0.75}},
            ],
        ),
    )
    for _ in range(2):  # before the span, and once more: neither matters
        assert client.post("/v1/logs", json=sent).json() == {}
    send(client, "/v1/traces", request(silent, trace, span))
    found = client.get(f"/api/v1/traces/{trace.hex()}").json()
    (told,) = found["spans"]
    assert told["inputs"] == [{"role": "user", "content": "the quokka question"}]
    assert told["outputs"] == [{"role": "assistant", "content": "forty-two", "index": 0}]
    assert [one["event"] for one in found["logs"]] == ["gen_ai.user.message", "gen_ai.choice", None, "gen_ai.evaluation.result"]
    assert [(s["name"], s["value"]) for s in found["scores"]] == [("relevance", 0.75)]
    (listed,) = client.get("/api/v1/traces", params={"text": "quokka"}).json()["items"]
    assert listed["trace_id"] == trace.hex() and "quokka" in json.dumps(listed["inputs"]) and "forty-two" in json.dumps(listed["outputs"])

    errors = client.get("/api/v1/otel/logs", params={"level": "error", "text": "CACHE", "where": "resource.service.name=shop"}).json()["items"]
    assert [(one["body"], one["level"], one["trace_id"]) for one in errors] == [("cache missed", "ERROR", trace.hex())]
    first = client.get("/api/v1/otel/logs", params={"limit": 3}).json()
    rest = client.get("/api/v1/otel/logs", params={"limit": 3, "cursor": first["next"]}).json()
    assert len(first["items"]) == 3 and len(rest["items"]) == 1 and rest["next"] is None


def test_newer_events_hold_all_messages_in_one_record(client: TestClient) -> None:
    trace, span = os.urandom(16), os.urandom(8)
    attributes = [
        {"key": "gen_ai.system_instructions", "value": {"stringValue": json.dumps([{"type": "text", "content": "be brief"}])}},
        {"key": "gen_ai.input.messages", "value": {"stringValue": json.dumps([{"role": "user", "parts": [{"type": "text", "content": "why?"}]}])}},
        {"key": "gen_ai.output.messages", "value": {"arrayValue": {"values": [fields(role="assistant", content="because")]}}},
    ]
    details = record("gen_ai.client.inference.operation.details", {}, trace.hex(), span.hex(), 10**18, attributes=attributes)
    assert client.post("/v1/logs", json=json_logs(details)).status_code == 200
    send(client, "/v1/traces", request({key: value for key, value in GENAI.items() if "messages" not in key}, trace, span))
    (told,) = client.get(f"/api/v1/traces/{trace.hex()}").json()["spans"]
    assert [one["role"] for one in told["inputs"]] == ["system", "user"] and told["outputs"] == [{"role": "assistant", "content": "because"}]


def test_too_much_under_way_is_refused_before_it_is_read(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    ws = client.app.state.workspace  # type: ignore[attr-defined]
    ws.telemetry.intake = Intake(most=100_000)
    body, metric = exported("m")
    metric.gauge.data_points.add(time_unix_nano=T0, as_double=1)
    with ws.telemetry.intake.room(20_000):
        answer = client.post("/v1/metrics", content=body.SerializeToString() + b"\x12\x00" * 5_000, headers=PROTOBUF)
        assert answer.status_code == 429 and answer.headers["retry-after"] == "1"
    assert ws.telemetry.intake.held == 0
    big = client.post("/v1/metrics", content=body.SerializeToString() + b"\x12\x00" * 500_000, headers=PROTOBUF)
    assert big.status_code == 200 and ws.telemetry.intake.held == 0  # one alone may be larger than all of it

    for error in (Busy("the disk is slow", retry_after=4), NoSpace("full", retry_after=10)):

        def refuse(*_args: Any, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(ws.telemetry.log, "append", refuse)
        answer = client.post("/v1/metrics", content=body.SerializeToString(), headers=PROTOBUF)
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) == error.retry_after  # an exporter tries 503 again, 507 never


def test_logs_and_metrics_grow_old(client: TestClient) -> None:
    body, metric = exported("m")
    metric.gauge.data_points.add(time_unix_nano=T0 - 10**17, as_double=1)
    send(client, "/v1/metrics", body)
    client.post("/v1/logs", json=json_logs({"timeUnixNano": str(T0 - 10**17), "body": {"stringValue": "old"}}))
    for what in ("metrics", "logs"):
        assert client.put(f"/api/v1/retention/{what}", json={"older": "1d", "action": "delete", "of": what}).status_code < 300
    done = client.post("/api/v1/retention/run").json()["rules"]
    assert {one["of"]: one["rows"] for one in done} == {"metrics": 1, "logs": 1}
    assert client.get("/api/v1/otel/metrics").json()["items"] == [] and client.get("/api/v1/otel/logs").json()["items"] == []
