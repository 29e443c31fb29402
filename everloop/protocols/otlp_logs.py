"""Log records out of an OTLP request, one dict a record; GenAI's evaluation events become scores as well."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

from everloop.protocols.otlp_values import NS_MAX, any_value, from_json, from_protobuf, identity, pairs

EVALUATION = "gen_ai.evaluation.result"
BROKEN = b"?"
"""Stands for an id in JSON that is not hex, so that its record is left out and the others stay."""


@dataclass
class Records:
    """What a request held: good records, the scores among them, and how many records were left out and why."""

    items: list[dict[str, Any]] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)
    rejected: int = 0
    why: str = ""

    def reject(self, why: str) -> None:
        """Count a record that cannot be kept; the first reason is told."""
        self.rejected += 1
        self.why = self.why or why


def read(body: bytes, as_json: bool, now_ns: int) -> Records:
    """The records of an ExportLogsServiceRequest; BadInput if the bytes are none. A record with no time gets `now_ns`."""
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    request = ExportLogsServiceRequest()
    if as_json:
        from_json(request, body, _ids_as_bytes)
    else:
        from_protobuf(request, body)
    found, seen = Records(), dict[str, int]()
    for resource in request.resource_logs:
        about = pairs(resource.resource.attributes)
        for scope in resource.scope_logs:
            for record in scope.log_records:
                _take(found, seen, record, about, scope.scope.name, now_ns)
    return found


def _ids_as_bytes(request: dict[str, Any]) -> None:
    """OTLP's JSON writes ids in hex, protobuf's JSON reader expects base64."""
    for resource in request.get("resourceLogs") or ():
        for scope in resource.get("scopeLogs") or ():
            for record in scope.get("logRecords") or ():
                for name in ("traceId", "spanId"):
                    if record.get(name):
                        try:
                            raw = bytes.fromhex(record[name])
                        except ValueError:
                            raw = BROKEN
                        record[name] = base64.b64encode(raw).decode()


def _take(found: Records, seen: dict[str, int], record: Any, resource: dict[str, Any], scope: str, now_ns: int) -> None:
    for what, given, size in (("trace_id", record.trace_id, 16), ("span_id", record.span_id, 8)):
        if given and len(given) != size:
            return found.reject(f"A log record's {what} is not {size} bytes.")
    if not 0 <= record.time_unix_nano < NS_MAX or not 0 <= record.observed_time_unix_nano < NS_MAX:
        return found.reject("A log record's time is beyond the year 2262 in nanoseconds since 1970.")
    attributes = pairs(record.attributes)
    trace = record.trace_id.hex() if any(record.trace_id) else None
    one = {
        "trace_id": trace,
        "span_id": record.span_id.hex() if trace and any(record.span_id) else None,
        "at_ns": record.time_unix_nano or record.observed_time_unix_nano or None,
        "severity": int(record.severity_number),
        "level": record.severity_text or None,
        "event": record.event_name or _text(attributes.get("event.name")),
        "body": any_value(record.body),
        "attributes": attributes,
        "resource": resource,
        "scope": scope or None,
    }
    mark = identity(one)
    seen[mark] = seen.get(mark, -1) + 1
    one["id"] = f"{mark}-{seen[mark]}" if seen[mark] else mark
    one["at_ns"] = one["at_ns"] or now_ns
    found.items.append(one)
    if one["event"] == EVALUATION and trace:
        _score(found, one)
    return None


def _score(found: Records, record: dict[str, Any]) -> None:
    """The judgement that an evaluation event tells of its span."""
    a = record["attributes"]
    name = _text(a.get("gen_ai.evaluation.name"))
    value = a.get("gen_ai.evaluation.score.value", a.get("gen_ai.evaluation.score.label"))
    if not name or value is None:
        return
    subject = f"{record['trace_id']}-{record['span_id']}" if record["span_id"] else record["trace_id"]
    found.scores.append(
        {
            "id": record["id"],
            "subject": subject,
            "name": name,
            "value": value,
            "source": "otel",
            "why": _text(a.get("gen_ai.evaluation.explanation")) or "",
            "at": record["at_ns"] / 1e9,
        }
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
