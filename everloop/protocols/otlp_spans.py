"""OTLP spans, as protobuf or JSON, into everloop's: the one place that knows OpenInference's and OTel GenAI's names for a span's kind,
its inputs and outputs. (Model, tokens, session and user are read from the attributes where rows are made: store/frames.py.)"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from everloop.core.errors import BadInput
from everloop.core.types import Span
from everloop.protocols.otlp_repair import repaired
from everloop.protocols.otlp_values import json_pairs as _json_pairs
from everloop.protocols.otlp_values import pairs as _pairs
from everloop.store.frames import REMOTE

OPERATIONS = {
    "chat": "LLM",
    "text_completion": "LLM",
    "generate_content": "LLM",
    "completion": "LLM",
    "embeddings": "EMBEDDING",
    "execute_tool": "TOOL",
    "invoke_agent": "AGENT",
    "create_agent": "AGENT",
    "invoke_workflow": "CHAIN",
    "retrieval": "RETRIEVER",
    "rerank": "RERANKER",
}
"""`gen_ai.operation.name` to a span kind."""
TRACELOOP = {"workflow": "CHAIN", "task": "CHAIN", "agent": "AGENT", "tool": "TOOL"}
INPUTS = (
    "gen_ai.input.messages",
    "gen_ai.tool.call.arguments",
    "gen_ai.retrieval.query.text",
    "gen_ai.prompt",
    "traceloop.entity.input",
    "tool.parameters",
    "reranker.query",
)
OUTPUTS = (
    "gen_ai.output.messages",
    "gen_ai.tool.call.result",
    "gen_ai.retrieval.documents",
    "gen_ai.completion",
    "traceloop.entity.output",
)
MLFLOW_TYPES = {"CHAT_MODEL": "LLM", "UNKNOWN": "SPAN"}
MLFLOW_ID = "mlflow.traceRequestId"
MLFLOW_SIDES = {"input": "mlflow.spanInputs", "output": "mlflow.spanOutputs"}
_FLAT = re.compile(r"(\d+)\.(.+)")
_NS_MAX = 2**63
_REMOTE_KNOWN, _REMOTE_IS = 0x100, 0x200
_STATUS: dict[int, Any] = {0: "unset", 1: "ok", 2: "error"}


@dataclass
class Export:
    """What a request held: good spans, and why others were left out."""

    spans: list[Span] = field(default_factory=list)
    rejected: int = 0
    why: str = ""
    zeros: bool = False
    timeless: int = 0
    """Of these, spans that say neither when they began nor when they ended."""

    def reject(self, why: str) -> None:
        """Count a span that cannot be kept; the first reason is told."""
        self.rejected += 1
        self.why = self.why or why


@dataclass(slots=True)
class _Raw:
    """One span as either encoding gave it."""

    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    name: str
    start: int
    end: int
    flags: int
    status: int
    message: str
    attributes: dict[str, Any]
    events: list[dict[str, Any]]
    links: list[dict[str, Any]]


def from_protobuf(body: bytes, now_ns: int, zeros: bool = False) -> Export:
    """Spans of an ExportTraceServiceRequest; BadInput if the bytes are none. `zeros` takes ids that are all zero, as MLflow does."""
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest()
    try:
        try:
            request.ParseFromString(body)
        except DecodeError:
            request.ParseFromString(repaired(body, ExportTraceServiceRequest))
    except DecodeError as error:
        raise BadInput(
            f"The body is not an ExportTraceServiceRequest in protobuf: {error}.", "Send OTLP/HTTP; JSON needs its content type."
        ) from None
    export = Export(zeros=zeros)
    for resource in request.resource_spans:
        about = _pairs(resource.resource.attributes)
        for scope in resource.scope_spans:
            for s in scope.spans:
                status = s.status
                raw = _Raw(
                    s.trace_id,
                    s.span_id,
                    s.parent_span_id,
                    s.name,
                    s.start_time_unix_nano,
                    s.end_time_unix_nano,
                    s.flags,
                    status.code,
                    status.message,
                    _pairs(s.attributes),
                    [{"name": e.name, "at_ns": e.time_unix_nano, "attributes": _pairs(e.attributes)} for e in s.events] if s.events else [],
                    [_link(one) for one in s.links] if s.links else [],
                )
                _keep(export, raw, about, scope.scope.name, now_ns)
    return export


def from_json(body: bytes, now_ns: int, zeros: bool = False) -> Export:
    """Spans of the same request in OTLP's JSON (ids in hex, 64-bit integers as strings or numbers); BadInput if it is none."""
    try:
        request = orjson.loads(body)
        found = list(_json_spans(request))
    except (orjson.JSONDecodeError, AttributeError, TypeError, ValueError, KeyError) as error:
        raise BadInput(
            f"The body is not an ExportTraceServiceRequest in JSON: {error}.", "See the OTLP/HTTP specification, JSON protobuf encoding."
        ) from None
    export = Export(zeros=zeros)
    for raw, about, scope in found:
        if isinstance(raw, str):
            export.reject(raw)
        else:
            _keep(export, raw, about, scope, now_ns)
    return export


def _json_spans(request: dict[str, Any]) -> Iterator[tuple[_Raw | str, dict[str, Any], str]]:
    for resource in request.get("resourceSpans") or ():
        about = _json_pairs((resource.get("resource") or {}).get("attributes"))
        for scope in resource.get("scopeSpans") or ():
            name = (scope.get("scope") or {}).get("name") or ""
            for s in scope.get("spans") or ():
                status = s.get("status") or {}
                try:
                    yield (
                        _Raw(
                            bytes.fromhex(s.get("traceId") or ""),
                            bytes.fromhex(s.get("spanId") or ""),
                            bytes.fromhex(s.get("parentSpanId") or ""),
                            str(s.get("name") or ""),
                            int(s.get("startTimeUnixNano") or 0),
                            int(s.get("endTimeUnixNano") or 0),
                            int(s.get("flags") or 0),
                            _status(status.get("code")),
                            str(status.get("message") or ""),
                            _json_pairs(s.get("attributes")),
                            [
                                {"name": e.get("name"), "at_ns": int(e.get("timeUnixNano") or 0), "attributes": _json_pairs(e.get("attributes"))}
                                for e in s.get("events") or ()
                            ],
                            [
                                {"trace_id": link.get("traceId"), "span_id": link.get("spanId"), "attributes": _json_pairs(link.get("attributes"))}
                                for link in s.get("links") or ()
                            ],
                        ),
                        about,
                        name,
                    )
                except ValueError as error:
                    yield f"A span could not be read: {error}.", about, name


def _status(code: Any) -> int:
    if isinstance(code, str) and not code.isdigit():
        return {"STATUS_CODE_OK": 1, "STATUS_CODE_ERROR": 2}.get(code, 0)
    return int(code or 0)


def _keep(export: Export, raw: _Raw, resource: dict[str, Any], scope: str, now_ns: int) -> None:
    """Check one span and add it; a missing start is taken as the end (without an end, too, the span is not kept), an end before the start as the start."""
    if len(raw.trace_id) != 16 or not (export.zeros or any(raw.trace_id)):
        return export.reject(f"A span's trace_id has {len(raw.trace_id)} bytes or is all zero; it must be 16 bytes.")
    if len(raw.span_id) != 8 or not (export.zeros or any(raw.span_id)):
        return export.reject(f"A span's span_id has {len(raw.span_id)} bytes or is all zero; it must be 8 bytes.")
    if raw.parent_id and len(raw.parent_id) != 8:
        return export.reject(f"A span's parent_span_id has {len(raw.parent_id)} bytes; it must be 8 bytes or empty.")
    if not 0 <= raw.start < _NS_MAX or not 0 <= raw.end < _NS_MAX:
        return export.reject("A span's time is beyond the year 2262 in nanoseconds since 1970.")
    if not raw.start and not raw.end:
        export.timeless += 1
        return export.reject("A span has neither a start nor an end time (an MLflow client also names its experiment: x-mlflow-experiment-id).")
    a = raw.attributes
    if MLFLOW_ID in a:
        _of_mlflow(a)
    start = raw.start or raw.end or now_ns
    parent = raw.parent_id.hex() if any(raw.parent_id) else None
    inputs, outputs = _inputs(a), _outputs(a)
    kind = kind_of(a)
    if "service.name" in resource:
        a.setdefault("service.name", resource["service.name"])
    if parent is None and len(resource) > 1:
        a["otel.resource"] = resource
    if scope:
        a["otel.scope.name"] = scope
    if raw.message:
        a["otel.status_description"] = raw.message
    if raw.links:
        a["otel.links"] = raw.links
    if parent is not None and raw.flags & _REMOTE_KNOWN and raw.flags & _REMOTE_IS:
        a[REMOTE] = True
    export.spans.append(
        Span(
            raw.trace_id.hex(),
            raw.span_id.hex(),
            parent,
            raw.name,
            kind,
            start,
            max(start, raw.end),
            _STATUS.get(raw.status, "unset"),
            a,
            raw.events,
            inputs,
            outputs,
        )
    )
    return None


def as_span(
    ids: tuple[str, str, str | None], name: str, times: tuple[int, int], code: str, attributes: dict[str, Any], events: list[dict[str, Any]]
) -> Span:
    """A span from (trace id, span id, parent id) in hex, (start, end) in nanoseconds and a status such as OK or STATUS_CODE_ERROR; its inputs,
    outputs and kind are taken from the attributes. BadInput for ids that are none."""
    if not (re.fullmatch("[0-9a-f]{32}", ids[0]) and re.fullmatch("[0-9a-f]{16}", ids[1])):
        raise BadInput(f"{ids[0]!r}, {ids[1]!r} are not the ids of a trace and a span.")
    inputs, outputs = _inputs(attributes), _outputs(attributes)
    status: Any = {"OK": "ok", "ERROR": "error"}.get(code.removeprefix("STATUS_CODE_"), "unset")
    return Span(*ids, name, kind_of(attributes), times[0], max(times), status, attributes, events, inputs, outputs)


def _of_mlflow(a: dict[str, Any]) -> None:
    """MLflow's attributes as values: its own client sends them so, its OpenTelemetry exporter as JSON texts, which the id's quotes betray."""
    if str(a.pop(MLFLOW_ID)).startswith('"'):
        a.update({name: _maybe_json(value) for name, value in a.items() if name.startswith("mlflow.")})


def kind_of(attributes: Mapping[str, Any]) -> str:
    """The span kind by OpenInference, else by GenAI's operation, else by other instrumentations' words; SPAN where none says."""
    if kind := attributes.get("openinference.span.kind"):
        return str(kind).upper()
    operation = attributes.get("gen_ai.operation.name")
    if operation:
        return OPERATIONS.get(str(operation), "CHAIN")
    if kind := attributes.get("traceloop.span.kind"):
        return TRACELOOP.get(str(kind), "CHAIN")
    if kind := attributes.get("mlflow.spanType"):
        return MLFLOW_TYPES.get(said := str(kind).strip('"').upper(), said)
    if "llm.request.type" in attributes or "llm.model_name" in attributes or "gen_ai.request.model" in attributes:
        return "LLM"
    return "SPAN"


def _inputs(a: dict[str, Any]) -> Any:
    value = _value(a, "input")
    if value is None:
        value = _flat(a, "llm.input_messages.", "message.") or _flat(a, "gen_ai.prompt.", "") or _first_json(a, INPUTS)
    return value


def _outputs(a: dict[str, Any]) -> Any:
    value = _value(a, "output")
    if value is None:
        value = (
            _flat(a, "llm.output_messages.", "message.")
            or _flat(a, "gen_ai.completion.", "")
            or _flat(a, "retrieval.documents.", "document.")
            or _first_json(a, OUTPUTS)
        )
    return value


def _value(a: dict[str, Any], side: str) -> Any:
    """OpenInference's `input.value` or `output.value`, or MLflow's own attribute, taken out of the attributes (a span keeps it once)."""
    if (value := a.pop(MLFLOW_SIDES[side], None)) is not None:
        return value
    value = a.pop(f"{side}.value", None)
    kind = a.get(f"{side}.mime_type")
    return _maybe_json(value) if isinstance(value, str) and (kind == "application/json" or (kind is None and value[:1] in "[{")) else value


def _first_json(a: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((_maybe_json(a[name]) for name in names if a.get(name) is not None), None)


def _maybe_json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value


def _flat(a: dict[str, Any], prefix: str, part: str) -> list[dict[str, Any]] | None:
    """OpenInference's flattened lists (`llm.input_messages.0.message.role`) as a list of dicts, deeper keys left dotted."""
    if prefix not in "\n".join(a):  # most spans have none: one look instead of one a name
        return None
    found: dict[int, dict[str, Any]] = {}
    for name, value in a.items():
        if name.startswith(prefix) and (match := _FLAT.fullmatch(name, len(prefix))):
            found.setdefault(int(match[1]), {})[match[2].removeprefix(part)] = value
    return [found[i] for i in sorted(found)] or None


def _link(link: Any) -> dict[str, Any]:
    return {"trace_id": link.trace_id.hex(), "span_id": link.span_id.hex(), "attributes": _pairs(link.attributes)}
