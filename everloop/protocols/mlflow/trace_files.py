"""The file `traces.json` of older MLflow clients: a trace's spans, uploaded beside the trace and downloaded again.

It is never kept as a file: what is uploaded becomes spans in telemetry, and a download is written from them.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any

import orjson

from everloop.core.errors import BadInput, NotFound
from everloop.core.types import Span
from everloop.protocols.mlflow.trace_shapes import attributes_of
from everloop.protocols.otlp_spans import MLFLOW_ID, as_span
from everloop.workspace.trace_infos import key_of

PATH = re.compile(r"[^/]+/traces/([^/]+)/artifacts/traces\.json")
"""The artifact's path; the group is the trace's id."""
HEADERS = {"content-disposition": "attachment; filename=traces.json", "x-content-type-options": "nosniff"}
_CODES = {"ok": "STATUS_CODE_OK", "error": "STATUS_CODE_ERROR"}


async def written(ws: Any, who: Any, id: str) -> bytes:
    """The file of a trace; NotFound where the trace is not there, or has no spans."""
    await ws.trace_infos.get(who, id)
    spans = (await ws.trace_infos.spans(who, [id]))[key_of(id)]
    if not spans:
        raise NotFound(f"Trace data not found for trace {id}.")
    return json.dumps({"spans": [_written(one, id) for one in spans]}, ensure_ascii=False).encode()


async def taken(ws: Any, who: Any, id: str, body: bytes) -> None:
    """Keep the spans of an uploaded file. BadInput where it is none."""
    try:
        spans = [_read(one, key_of(id)) for one in orjson.loads(body)["spans"]]
    except (ValueError, TypeError, KeyError, AttributeError, binascii.Error) as error:
        raise BadInput(f"The file is not a trace as MLflow writes it: {error}.") from None
    await ws.trace_infos.add_file(who, id, spans)


def _written(one: Mapping[str, Any], id: str) -> dict[str, Any]:
    return {
        "trace_id": _bytes(one["trace_id"]),
        "span_id": _bytes(one["span_id"]),
        "parent_span_id": _bytes(one["parent_id"]) if one["parent_id"] else None,
        "name": one["name"],
        "start_time_unix_nano": one["start_ns"],
        "end_time_unix_nano": one["end_ns"],
        "events": [{"name": e.get("name"), "time_unix_nano": e.get("at_ns"), "attributes": e.get("attributes") or {}} for e in one["events"]],
        "status": {"code": _CODES.get(one["status"], "STATUS_CODE_UNSET"), "message": one["attributes"].get("otel.status_description") or ""},
        "attributes": {k: json.dumps(v, ensure_ascii=False) for k, v in attributes_of(one, id).items()},
        "links": [
            {"trace_id": f"tr-{e['trace_id']}", "span_id": e["span_id"], "attributes": e.get("attributes") or {}}
            for e in one["attributes"].get("otel.links") or ()
        ],
    }


def _read(one: Mapping[str, Any], trace: str) -> Span:
    """A span of the file: with ids in base64 and nanoseconds (version 3), or with a context (version 2)."""
    attributes = {str(k): _loaded(v) for k, v in (one.get("attributes") or {}).items()}
    attributes.pop(MLFLOW_ID, None)
    events = [
        {"name": e.get("name"), "at_ns": int(e.get("time_unix_nano") or e.get("timestamp") or 0), "attributes": e.get("attributes") or {}}
        for e in one.get("events") or ()
    ]
    if "context" in one:
        ids = (
            one["context"]["trace_id"].removeprefix("0x"),
            one["context"]["span_id"].removeprefix("0x"),
            (one.get("parent_id") or "").removeprefix("0x"),
        )
        times = (int(one["start_time"]), int(one.get("end_time") or one["start_time"]))
        code, message = str(one.get("status_code") or ""), str(one.get("status_message") or "")
    else:
        ids = (_hex(one["trace_id"]), _hex(one["span_id"]), _hex(one.get("parent_span_id") or ""))
        times = (int(one["start_time_unix_nano"]), int(one.get("end_time_unix_nano") or one["start_time_unix_nano"]))
        status = one.get("status") or {}
        code, message = str(status.get("code") or ""), str(status.get("message") or "")
    if message:
        attributes["otel.status_description"] = message
    return as_span((trace if len(trace) == 32 else ids[0], ids[1], ids[2] or None), str(one.get("name") or ""), times, code, attributes, events)


def _loaded(value: Any) -> Any:
    try:
        return orjson.loads(value) if isinstance(value, str) else value
    except orjson.JSONDecodeError:
        return value


def _hex(text: str) -> str:
    return base64.b64decode(text).hex()


def _bytes(digits: str) -> str:
    return base64.b64encode(bytes.fromhex(digits)).decode()
