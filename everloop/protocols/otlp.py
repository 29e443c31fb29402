"""OTLP over HTTP: POST /v1/traces, /v1/metrics and /v1/logs, protobuf or JSON, gzip or not. Answered only after an fsync.

What is bad in a request is left out and counted in the answer's partial success; a body that is no request is 400. Where too much is under way the answer is
429, where the disk does not keep up or is full it is 503, both with Retry-After, which OpenTelemetry's exporters obey. Errors have the shape of google.rpc.Status in
the request's encoding. MLflow's client names its experiment in a header and expects MLflow's answers: then nothing of a request with a bad span is kept, and
errors have its shape. The same over gRPC: otlp_grpc.py.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from everloop.core.errors import BadInput, Busy, EverloopError, TooLarge, TooMany
from everloop.core.limits import BODY_BYTES
from everloop.protocols import otlp_logs, otlp_metrics
from everloop.protocols.otlp_spans import Export, from_json, from_protobuf

router = APIRouter(tags=["otlp"])
PROTOBUF, JSON = "application/x-protobuf", "application/json"
EXPERIMENT, RUN = "x-mlflow-experiment-id", "x-mlflow-run-id"
INLINE_BYTES = 32 * 1024
"""Bodies up to this size are decoded in the event loop; larger ones in a thread, so that others are served meanwhile."""
_GRPC = {400: 3, 401: 16, 403: 7, 404: 5, 413: 3, 415: 3, 429: 8, 503: 14, 507: 8}


@dataclass(frozen=True)
class Signal:
    """One of the three that OpenTelemetry has: how a request is read (body, whether it is JSON, now in nanoseconds), and how it is kept.

    `package` is its name in OTLP's protobuf, `rejected` the field of the answer that counts what was not kept.
    """

    name: str
    package: str
    rejected: str
    read: Callable[[bytes, bool, int], Any]
    keep: Callable[[Any, Any, Any], Awaitable[None]]


@router.post("/v1/traces")
async def traces(request: Request) -> Response:
    """Take an ExportTraceServiceRequest; 200 once its spans are durable."""
    if EXPERIMENT in request.headers:
        return await _of_mlflow(request, request.headers[EXPERIMENT])
    return await _answer(request, SIGNALS["traces"])


@router.post("/v1/metrics")
async def metrics(request: Request) -> Response:
    """Take an ExportMetricsServiceRequest; 200 once its points are durable."""
    return await _answer(request, SIGNALS["metrics"])


@router.post("/v1/logs")
async def logs(request: Request) -> Response:
    """Take an ExportLogsServiceRequest; 200 once its records are durable."""
    return await _answer(request, SIGNALS["logs"])


async def _of_mlflow(request: Request, experiment: str) -> Response:
    """Take a request of MLflow's client for an experiment."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        who = request.scope["everloop.who"].need_call("send traces")
        if kind not in (PROTOBUF, JSON):
            return _detail(400, f"Invalid Content-Type: {kind}. Expected: {PROTOBUF} or {JSON}")
        body, ws = await request.body(), request.app.state.workspace
        encoding = request.headers.get("content-encoding", "identity").lower()
        try:
            export = await asyncio.to_thread(_read, body, encoding, kind, int(ws.clock.now() * 1e9), True)
        except BadInput as error:
            return _detail(400, f"Invalid OpenTelemetry format, or Invalid Content-Type ({kind}): {error}")
        if export.rejected:
            return _detail(422, f"Cannot convert OpenTelemetry span to MLflow span: {export.why}")
        if not export.spans:
            return _detail(400, "Invalid OpenTelemetry format - no spans found")
        await ws.trace_infos.add_spans(who, experiment, export.spans, request.headers.get(RUN))
    except EverloopError as error:
        from everloop.protocols.mlflow.wire import failure

        answer = failure(error)
        if isinstance(error, Busy):
            answer.headers["retry-after"] = str(max(1, round(error.retry_after)))
        return answer
    return Response(b"", 200, media_type=PROTOBUF)


def _detail(status: int, message: str) -> Response:
    return Response(orjson.dumps({"detail": message}), status, media_type=JSON)


async def _answer(request: Request, signal: Signal) -> Response:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind not in (PROTOBUF, JSON):
            return Response(_status(kind, 3, f"The content type {kind!r} is not known; send {PROTOBUF} or {JSON}."), 415, media_type=PROTOBUF)
        who, ws = request.scope["everloop.who"], request.app.state.workspace
        told = request.headers.get("content-length", "")
        with ws.telemetry.intake.room(int(told) if told.isdigit() else INLINE_BYTES) as claim:
            body = await request.body()
            claim.grow(0 if told.isdigit() else max(0, len(body) - INLINE_BYTES))
            encoding = request.headers.get("content-encoding", "identity").lower()
            if encoding not in ("identity", ""):
                packed, body = len(body), await asyncio.to_thread(_inflate, body, encoding)
                claim.grow(max(0, len(body) - packed))
            found = await take(ws, who, signal, body, kind == JSON)
        if isinstance(found, Export) and found.timeless and not found.spans:
            return Response(_status(kind, 3, f"No span can be kept: {found.why}"), 422, media_type=kind)
        return Response(answer_of(signal, found, kind == JSON), 200, media_type=kind)
    except EverloopError as error:
        encoded, data = _failure(error, kind)
        if not isinstance(error, Busy):
            return Response(data, error.status, media_type=encoded)
        # a full disk, too: of 5xx, exporters try 502 to 504 again and drop what they sent at any other
        return Response(data, 429 if isinstance(error, TooMany) else 503, {"retry-after": str(max(1, round(error.retry_after)))}, encoded)


async def take(ws: Any, who: Any, signal: Signal, body: bytes, as_json: bool = False) -> Any:
    """Read a request of a signal and keep what is good of it: what was read, once it is durable. Raises BadInput, Forbidden, Busy, TooLarge, NoSpace."""
    who.need_call(f"send {signal.name}")
    now_ns = int(ws.clock.now() * 1e9)
    if len(body) <= INLINE_BYTES:
        found = signal.read(body, as_json, now_ns)
    else:
        found = await asyncio.to_thread(signal.read, body, as_json, now_ns)
    await signal.keep(ws, who, found)
    return found


def _read_spans(body: bytes, as_json: bool, now_ns: int) -> Export:
    return from_json(body, now_ns) if as_json else from_protobuf(body, now_ns)


async def _keep_spans(ws: Any, who: Any, found: Export) -> None:
    if found.spans:
        await ws.traces.add(who, found.spans)


async def _keep_points(ws: Any, who: Any, found: otlp_metrics.Points) -> None:
    if found.items:
        await ws.otel.add(who, metrics=found.items)


async def _keep_records(ws: Any, who: Any, found: otlp_logs.Records) -> None:
    if found.items:
        await ws.otel.add(who, logs=found.items, scores=found.scores)


SIGNALS = {
    "traces": Signal("traces", "trace", "rejected_spans", _read_spans, _keep_spans),
    "metrics": Signal("metrics", "metrics", "rejected_data_points", otlp_metrics.read, _keep_points),
    "logs": Signal("logs", "logs", "rejected_log_records", otlp_logs.read, _keep_records),
}
"""What can be sent, by the last part of its path."""


def _read(body: bytes, encoding: str, kind: str, now_ns: int, zeros: bool = False) -> Export:
    body = _inflate(body, encoding)
    return from_json(body, now_ns, zeros) if kind == JSON else from_protobuf(body, now_ns, zeros)


def _inflate(body: bytes, encoding: str) -> bytes:
    """The body without its compression; TooLarge above BODY_BYTES unpacked, BadInput where it is broken."""
    if encoding in ("identity", ""):
        return body
    if encoding not in ("gzip", "deflate"):
        raise BadInput(f"The content encoding {encoding!r} is not known.", "Send gzip or no compression.")
    unpacker = zlib.decompressobj(31 if encoding == "gzip" else 15)
    try:
        data = unpacker.decompress(body, BODY_BYTES + 1)
    except zlib.error as error:
        raise BadInput(f"The body is not valid {encoding}: {error}.") from None
    if len(data) > BODY_BYTES:
        raise TooLarge(f"The body unpacks to more than {BODY_BYTES} bytes.", "Send smaller batches.")
    if not unpacker.eof:
        raise BadInput(f"The {encoding} body is cut short.")
    return data


def answer_of(signal: Signal, found: Any, as_json: bool = False) -> bytes:
    """The signal's response: empty when all was kept, else how much was not, and why."""
    if as_json:
        first, *rest = signal.rejected.split("_")
        name = first + "".join(map(str.title, rest))
        return orjson.dumps({"partialSuccess": {name: str(found.rejected), "errorMessage": found.why}} if found.rejected else {})
    if not found.rejected:
        return b""
    import importlib

    module = importlib.import_module(f"opentelemetry.proto.collector.{signal.package}.v1.{signal.package}_service_pb2")
    response = getattr(module, f"Export{signal.package.title()}ServiceResponse")()
    setattr(response.partial_success, signal.rejected, found.rejected)
    response.partial_success.error_message = found.why
    return bytes(response.SerializeToString())


def _status(kind: str, code: int, message: str) -> bytes:
    """google.rpc.Status (code = 1, message = 2) in the request's encoding."""
    if kind == JSON:
        return orjson.dumps({"code": code, "message": message})
    text = message.encode()
    return b"\x08" + varint(code) + b"\x12" + varint(len(text)) + text


def _failure(error: EverloopError, kind: str) -> tuple[str, bytes]:
    """An error as this protocol writes it: (content type, google.rpc.Status)."""
    kind = kind.partition(";")[0].strip().lower()
    return JSON if kind == JSON else PROTOBUF, _status(kind, _GRPC.get(error.status, 13), str(error))


error_bodies = {f"/v1/{name}": _failure for name in SIGNALS}
rights = {"call": tuple(f"POST /v1/{name}" for name in SIGNALS)}
"""Who may use which route: see web/rights.py."""


def varint(number: int) -> bytes:
    """A number as protobuf writes it."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
