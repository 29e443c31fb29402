"""`kill -9` of the server at random moments while clients send spans, points, records and scores: what was acknowledged is there, once.

A sender whose request was not answered sends it again, as exporters do, so that what is there twice would show. EVERLOOP_KILLS says how often (default 3).
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from everloop.store.telemetry import Telemetry
from tests.conftest import free_port
from tests.protocols.test_mlflow_kill import start

PROTOBUF, JSON = "application/x-protobuf", "application/json"
EACH = 20


def spans(ids: list[str]) -> tuple[str, str, bytes]:
    body = ExportTraceServiceRequest()
    scope = body.resource_spans.add().scope_spans.add()
    for id in ids:
        scope.spans.add(
            trace_id=os.urandom(16), span_id=bytes.fromhex(id), name="s", start_time_unix_nano=time.time_ns(), end_time_unix_nano=time.time_ns()
        )
    return "/v1/traces", PROTOBUF, body.SerializeToString()


def points(ids: list[str]) -> tuple[str, str, bytes]:
    body = ExportMetricsServiceRequest()
    metric = body.resource_metrics.add().scope_metrics.add().metrics.add(name="m")
    for id in ids:
        metric.gauge.data_points.add(time_unix_nano=time.time_ns(), as_double=1).attributes.add(key="id").value.string_value = id
    return "/v1/metrics", PROTOBUF, body.SerializeToString()


def records(ids: list[str]) -> tuple[str, str, bytes]:
    body = ExportLogsServiceRequest()
    scope = body.resource_logs.add().scope_logs.add()
    for id in ids:
        scope.log_records.add(time_unix_nano=time.time_ns(), trace_id=os.urandom(16)).body.string_value = id
    return "/v1/logs", PROTOBUF, body.SerializeToString()


def scores(ids: list[str]) -> tuple[str, str, bytes]:
    return "/api/v1/scores", JSON, json.dumps({"scores": [{"subject": id * 2, "name": "n", "value": 1} for id in ids]}).encode()


SENT: dict[str, tuple[Callable[[list[str]], tuple[str, str, bytes]], str]] = {
    "spans": (spans, "SELECT span_id FROM spans"),
    "metrics": (points, "SELECT json_extract_string(attributes, '$.id') FROM metrics"),
    "logs": (records, "SELECT json_extract_string(body, '$') FROM logs"),
    "scores": (scores, "SELECT left(subject, 16) FROM scores"),
}


class Sender(threading.Thread):
    """Sends one kind of record until it is told to stop; over a killed server, the same request once more (but scores: each is a new one)."""

    def __init__(self, kind: str, port: int) -> None:
        super().__init__(daemon=True)
        self.kind, self.port, self.stop = kind, port, False
        self.acknowledged: list[str] = []

    def run(self) -> None:
        made = None
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        while not self.stop:
            if made is None:
                ids = [os.urandom(8).hex() for _ in range(EACH)]
                made = SENT[self.kind][0](ids)
            try:
                connection.request("POST", made[0], made[2], {"content-type": made[1]})
                answer = connection.getresponse()
                answer.read()
                if answer.status < 300:
                    self.acknowledged += ids
                    made = None
            except (OSError, http.client.HTTPException):
                connection.close()
                made = None if self.kind == "scores" else made
                time.sleep(0.02)


@pytest.mark.check
@pytest.mark.timeout(1800)
def test_nothing_acknowledged_is_lost_or_doubled(tmp_path: Path) -> None:
    kills, port, dice = int(os.environ.get("EVERLOOP_KILLS", "3")), free_port(), random.Random(5)
    server = start(tmp_path, port)
    senders = [Sender(kind, port) for kind in ("spans", "spans", "metrics", "logs", "scores")]
    for sender in senders:
        sender.start()
    for _ in range(kills):
        time.sleep(dice.uniform(0.0, 0.8))
        server.send_signal(signal.SIGKILL)
        server.wait()
        server = start(tmp_path, port)
    for sender in senders:
        sender.stop = True
    for sender in senders:
        sender.join(30)
    server.terminate()
    assert server.wait(60) == 0
    store = Telemetry(tmp_path, fsync=False).open()
    try:
        store.flush_sync(120)
        told = {}
        for kind, (_, question) in SENT.items():
            there = Counter(row[0] for row in store.query_sync(lambda con, q=question: con.execute(q).fetchall()))
            acknowledged = {id for sender in senders if sender.kind == kind for id in sender.acknowledged}
            lost, twice = acknowledged - set(there), [id for id, n in there.items() if n > 1]
            told[kind] = {"acknowledged": len(acknowledged), "lost": len(lost), "twice": len(twice)}
        assert store.rejected == 0 and store.log.damaged_bytes == 0
    finally:
        store.close()
    print(f"{kills} kills: {told}")
    assert all(one["acknowledged"] > EACH and not one["lost"] and not one["twice"] for one in told.values()), told
