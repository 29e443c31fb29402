"""OTLP over gRPC: the three services, keys, partial success, back-pressure; and OpenTelemetry's own exporters over gRPC and HTTP."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from everloop.client import connect
from everloop.core.errors import NoSpace
from everloop.core.settings import Settings
from everloop.web.app import create_app
from everloop.web.auth import SignIn
from tests.conftest import free_port, running_server
from tests.protocols.environments import PROGRAMS, environment
from tests.protocols.test_otlp import request

grpc = pytest.importorskip("grpc")
PACKAGES = ("opentelemetry-sdk==1.43.0", "opentelemetry-exporter-otlp-proto-grpc==1.43.0", "opentelemetry-exporter-otlp-proto-http==1.43.0")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    port = free_port()
    with running_server(tmp_path_factory.mktemp("home"), EVERLOOP_OTLP_GRPC=str(port)) as url:
        yield url, f"127.0.0.1:{port}"


def export(channel: Any, body: Any, key: str = "") -> Any:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

    return TraceServiceStub(channel).Export(body, metadata=(("authorization", f"Bearer {key}"),) if key else ())


def test_spans_are_kept_by_the_keys_project_and_bad_ones_counted(served: tuple[str, str]) -> None:
    client = connect(served[0], start=False)
    keys = {role: client._http.post("/api/v1/keys", json={"name": role, "role": role})["key"] for role in ("caller", "viewer")}
    trace = os.urandom(16)
    body = request({"k": "v"}, trace, os.urandom(8))
    body.resource_spans[0].scope_spans[0].spans.add(trace_id=b"short", span_id=os.urandom(8), start_time_unix_nano=1)
    with grpc.insecure_channel(served[1], compression=grpc.Compression.Gzip) as channel:
        told = export(channel, body, keys["caller"]).partial_success
        assert told.rejected_spans == 1 and "trace_id" in told.error_message
        assert client.traces.get(trace.hex())["spans"][0]["attributes"]["k"] == "v"
        for key, code in (("ev_wrong", grpc.StatusCode.UNAUTHENTICATED), (keys["viewer"], grpc.StatusCode.PERMISSION_DENIED)):
            with pytest.raises(grpc.RpcError) as refused:
                export(channel, body, key)
            assert refused.value.code() == code
        raw = channel.unary_unary("/opentelemetry.proto.collector.logs.v1.LogsService/Export")
        with pytest.raises(grpc.RpcError) as refused:
            raw(b"\xff\xff")
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_back_pressure_says_when_to_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(refused_while_full(tmp_path, monkeypatch))


async def refused_while_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from everloop.protocols.otlp_grpc import Receiver

    app = create_app(Settings(home=tmp_path, workers=0, fsync=False))
    ws = app.state.workspace
    await ws.start()
    receiver = Receiver(ws, SignIn(None, ws, app.state.rights).caller)
    try:
        port = await receiver.start("127.0.0.1", 0)

        def full(*_args: Any) -> None:
            raise NoSpace("The disk is full.", retry_after=7)

        monkeypatch.setattr(ws.telemetry.log, "append", full)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            with pytest.raises(grpc.RpcError) as refused:
                await export(channel, request({}, os.urandom(16), os.urandom(8)))
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        trailing = dict(refused.value.trailing_metadata())
        assert trailing["google.rpc.retryinfo-bin"] == b"\x0a\x02\x08\x07"  # RetryInfo{retry_delay: 7 s}
        assert b"google.rpc.RetryInfo" in trailing["grpc-status-details-bin"]
    finally:
        await receiver.stop()
        await ws.stop()


@pytest.mark.client
@pytest.mark.parametrize("kind", ["grpc", "http"])
def test_opentelemetrys_exporters_send_all_three_signals(served: tuple[str, str], kind: str) -> None:
    python = environment(PACKAGES)
    address = served[1] if kind == "grpc" else served[0]
    clean = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "TMPDIR")}
    done = subprocess.run([str(python), str(PROGRAMS / "otlp_exporters.py"), kind, address], capture_output=True, text=True, env=clean, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    client = connect(served[0], start=False)
    trace = client.traces.get(done.stdout.strip())
    assert [s["name"] for s in trace["spans"]] == ["answer"] and [one["body"] for one in trace["logs"]] == ["the cache was missed"]
    (row,) = [one for one in client.otel.genai() if one["service"] == f"by-{kind}"]
    assert (row["model"], row["tokens_in"], row["tokens_out"]) == ("gpt-4o-mini", 900, 80)
    (counted,) = client.otel.series("asked", bucket_s=3600, where={"service": f"by-{kind}"})["items"]
    assert sum(value for _, value in counted["points"]) == 3
