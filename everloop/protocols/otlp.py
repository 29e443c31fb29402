"""OTLP/HTTP for traces: POST /v1/traces, protobuf or JSON, gzip or not. Answered only after an fsync.

MLflow's client names its experiment in a header and expects MLflow's answers: then nothing of a request with a bad span is kept, and errors
have its shape. Otherwise bad spans are left out and counted in the answer's partial success; a body that is no request is 400; Busy is 503 with Retry-After, which
OpenTelemetry's exporters obey. Errors have the shape of google.rpc.Status in the request's encoding. Metrics and logs are not taken:
an exporter that sends them gets 404 and says so, which is better than taking what cannot be queried.
"""

from __future__ import annotations

import asyncio
import zlib

import orjson
from fastapi import APIRouter, Request, Response

from everloop.core.errors import BadInput, Busy, EverloopError, TooLarge
from everloop.core.limits import BODY_BYTES
from everloop.protocols.otlp_spans import Export, from_json, from_protobuf

router = APIRouter(tags=["otlp"])
PROTOBUF, JSON = "application/x-protobuf", "application/json"
EXPERIMENT, RUN = "x-mlflow-experiment-id", "x-mlflow-run-id"
INLINE_BYTES = 32 * 1024
"""Bodies up to this size are decoded in the event loop; larger ones in a thread, so that others are served meanwhile."""
_GRPC = {400: 3, 401: 16, 403: 7, 404: 5, 413: 3, 415: 3, 503: 14, 507: 8}


@router.post("/v1/traces")
async def traces(request: Request) -> Response:
    """Take an ExportTraceServiceRequest; 200 once its spans are durable."""
    if EXPERIMENT in request.headers:
        return await _of_mlflow(request, request.headers[EXPERIMENT])
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        return await _take(request, kind)
    except EverloopError as error:
        retry = {"retry-after": str(max(1, round(error.retry_after)))} if isinstance(error, Busy) else None
        status = 503 if isinstance(error, Busy) else error.status
        encoded, body = _failure(error, kind)
        return Response(body, status, retry, encoded)


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


async def _take(request: Request, kind: str) -> Response:
    who = request.scope["everloop.who"].need_call("send traces")
    ws = request.app.state.workspace
    if kind not in (PROTOBUF, JSON):
        return Response(_status(kind, 3, f"The content type {kind!r} is not known; send {PROTOBUF} or {JSON}."), 415, media_type=PROTOBUF)
    body = await request.body()
    encoding = request.headers.get("content-encoding", "identity").lower()
    now_ns = int(ws.clock.now() * 1e9)
    if len(body) <= INLINE_BYTES and encoding == "identity":
        export = _read(body, encoding, kind, now_ns)
    else:
        export = await asyncio.to_thread(_read, body, encoding, kind, now_ns)
    if export.timeless and not export.spans:
        return Response(_status(kind, 3, f"No span can be kept: {export.why}"), 422, media_type=kind)
    if export.spans:
        await ws.traces.add(who, export.spans)
    return Response(_answer(kind, export), 200, media_type=kind)


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


def _answer(kind: str, export: Export) -> bytes:
    """An ExportTraceServiceResponse: empty when all was kept, else how many spans were not, and why."""
    if kind == JSON:
        partial = {"partialSuccess": {"rejectedSpans": str(export.rejected), "errorMessage": export.why}} if export.rejected else {}
        return orjson.dumps(partial)
    if not export.rejected:
        return b""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = export.rejected
    response.partial_success.error_message = export.why
    return bytes(response.SerializeToString())


def _status(kind: str, code: int, message: str) -> bytes:
    """google.rpc.Status (code = 1, message = 2) in the request's encoding."""
    if kind == JSON:
        return orjson.dumps({"code": code, "message": message})
    text = message.encode()
    return b"\x08" + _varint(code) + b"\x12" + _varint(len(text)) + text


def _failure(error: EverloopError, kind: str) -> tuple[str, bytes]:
    """An error as this protocol writes it: (content type, google.rpc.Status)."""
    kind = kind.partition(";")[0].strip().lower()
    return JSON if kind == JSON else PROTOBUF, _status(kind, _GRPC.get(error.status, 13), str(error))


error_bodies = {"/v1/traces": _failure}
rights = {"call": ("POST /v1/traces",)}
"""Who may use which route: see web/rights.py."""


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
