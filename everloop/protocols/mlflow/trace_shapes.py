"""Traces, spans and assessments in the JSON of MLflow's protobuf messages, and back. No question is asked here."""

from __future__ import annotations

import base64
import datetime
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import orjson

from everloop.core.errors import BadInput
from everloop.protocols.mlflow.wire import tag_list
from everloop.store.telemetry_search import NAME_TAG, SESSION_KEY, USER_KEY
from everloop.workspace.trace_infos import PREFIX

T = TypeVar("T")
LOCATION, ARTIFACTS = "mlflow.trace.spansLocation", "mlflow.artifactLocation"
USAGE, COST = "mlflow.trace.tokenUsage", "mlflow.trace.cost"
_DURATION = re.compile(r"(-?\d+(?:\.\d+)?)s")


def info(one: Mapping[str, Any]) -> dict[str, Any]:
    """A TraceInfoV3."""
    return _lacking(
        {
            "trace_id": one["id"],
            "client_request_id": one["client_request_id"],
            "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": one["experiment"]}},
            "request_preview": one["request_preview"],
            "response_preview": one["response_preview"],
            "request_time": timestamp(one["at_ms"] or 0),
            "execution_duration": None if one["ms"] is None else f"{one['ms'] / 1000:.3f}s",
            "state": one["state"] or "STATE_UNSPECIFIED",
            "trace_metadata": metadata(one),
            "tags": tags(one),
            "assessments": [assessment(score, one["id"]) for score in one["scores"]],
        }
    )


def info_v2(one: Mapping[str, Any]) -> dict[str, Any]:
    """A TraceInfo of API version 2."""
    state = one["state"] or "STATE_UNSPECIFIED"
    return _lacking(
        {
            "request_id": one["id"],
            "experiment_id": one["experiment"],
            "timestamp_ms": one["at_ms"],
            "execution_time_ms": one["ms"],
            "status": "TRACE_STATUS_UNSPECIFIED" if state == "STATE_UNSPECIFIED" else state,
            "request_metadata": tag_list(metadata(one)),
            "tags": tag_list(tags(one)),
        }
    )


def metadata(one: Mapping[str, Any]) -> dict[str, str]:
    """A trace's metadata, with what the spans say of session, user, tokens and cost where the client did not."""
    found = dict(one["metadata"] or {})
    for key, value in ((SESSION_KEY, one["session"]), (USER_KEY, one["user"])):
        if value is not None:
            found.setdefault(key, value)
    if USAGE not in found and (one["tokens_in"] is not None or one["tokens_out"] is not None):
        counts = {"input_tokens": int(one["tokens_in"] or 0), "output_tokens": int(one["tokens_out"] or 0)}
        counts["total_tokens"] = sum(counts.values())
        if one["tokens_cached"]:
            counts["cache_read_input_tokens"] = int(one["tokens_cached"])
        found[USAGE] = orjson.dumps(counts).decode()
    if COST not in found and one["cost"] is not None:
        found[COST] = orjson.dumps({"total_cost": one["cost"]}).decode()
    return found


def tags(one: Mapping[str, Any]) -> dict[str, str]:
    """A trace's tags, with its name, the place of its files, and that its spans are kept here."""
    found = dict(one["tags"] or {})
    if one["name"] is not None:
        found[NAME_TAG] = one["name"]
    found[ARTIFACTS] = f"mlflow-artifacts:/{one['experiment']}/traces/{one['id']}/artifacts"
    if one["spans"]:
        found[LOCATION] = "TRACKING_STORE"
    return found


def assessment(score: Mapping[str, Any], id: str) -> dict[str, Any]:
    """An Assessment. A score that did not come from MLflow is feedback."""
    details = score.get("details") or {}
    kind = details.get("type", "feedback")
    source_type = details.get("source_type") or ("HUMAN" if score.get("source") in ("user", "human") else "CODE")
    value: dict[str, Any] = {"value": score["value"]}
    if kind == "issue":
        value = {"issue_name": (score["value"] or {}).get("issue_name", "")}
    elif kind == "expectation" and not isinstance(score["value"], (int, float, str)):
        value = {"serialized_value": {"serialization_format": "JSON_FORMAT", "value": orjson.dumps(score["value"]).decode()}}
    elif details.get("error"):
        value["error"] = details["error"]
    given = details.get("metadata") or None
    return _lacking(
        {
            "assessment_id": score["id"],
            "assessment_name": score["name"],
            "trace_id": id,
            "span_id": details.get("span_id"),
            "source": {"source_type": source_type, "source_id": details.get("source_id") or score.get("source") or "default"},
            "create_time": timestamp(round(score["at"] * 1000)),
            "last_update_time": timestamp(round((details.get("updated_at") or score["at"]) * 1000)),
            kind: value,
            "rationale": score.get("why") or None,
            "metadata": given,
            "overrides": details.get("overrides"),
            "valid": details.get("valid", True),
        }
    )


def _told(work: Callable[..., T]) -> Callable[..., T]:
    """A reader of requests that answers a part of the wrong type with BadInput."""

    @functools.wraps(work)
    def read(*given: Any) -> T:
        try:
            return work(*given)
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            raise BadInput(f"Invalid value in the request supplied: it is missing a part, or a part has the wrong type ({error}).") from None

    return read


@_told
def judgement(body: Mapping[str, Any]) -> dict[str, Any]:
    """An Assessment of a request as `TraceInfos.judge` takes it. BadInput where it has no name, no value or an odd source."""
    kinds = [kind for kind in ("feedback", "expectation", "issue") if isinstance(body.get(kind), dict)]
    if len(kinds) != 1:
        raise BadInput("Exactly one of `expectation`, `feedback`, or `issue` should be specified.")
    name = body.get("assessment_name") or body.get("name")
    if not isinstance(name, str) or not name:
        raise BadInput("Missing value for required parameter 'assessment.assessment_name'.")
    source = body.get("source") or {}
    created, updated = body.get("create_time"), body.get("last_update_time")
    found = {
        "kind": kinds[0],
        "name": name,
        "source_type": str(source.get("source_type") or "CODE").upper(),
        "source_id": str(source.get("source_id") or "default"),
        "why": None if body.get("rationale") is None else str(body["rationale"]),
        "metadata": {str(k): str(v) for k, v in body["metadata"].items()} if isinstance(body.get("metadata"), dict) and body["metadata"] else None,
        **{
            name: str(body[key]) if body.get(key) else None
            for name, key in (("span_id", "span_id"), ("overrides", "overrides"), ("id", "assessment_id"))
        },
        "at": milliseconds(created) / 1000 if created else None,
        "updated_at": milliseconds(updated) / 1000 if updated else None,
    }
    return {**found, **value_of(kinds[0], body[kinds[0]])}


@_told
def value_of(kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """{"value", "error"?} of an Assessment's value."""
    if kind == "issue":
        return {"value": {"issue_name": given.get("issue_name", "")}}
    if "serialized_value" in given:
        try:
            return {"value": orjson.loads(given["serialized_value"]["value"])}
        except (ValueError, TypeError, KeyError):
            raise BadInput("The assessment's serialized_value is not JSON.") from None
    found = {"value": _whole(given.get("value"))}
    return {**found, "error": given["error"]} if given.get("error") else found


@_told
def texts(given: Any) -> dict[str, str]:
    """An object of texts; empty where it is missing."""
    return {str(k): str(v) for k, v in (given or {}).items()}


@_told
def experiments_of(locations: list[Any]) -> list[str]:
    """Experiment ids of TraceLocations; those elsewhere are left out."""
    found = [(one.get("mlflow_experiment") or {}).get("experiment_id") for one in locations]
    return [str(one) for one in found if one is not None]


@_told
def figures_of(aggregations: list[Any]) -> list[tuple[str, float | None]]:
    """(type, percentile) of MetricAggregations."""
    return [(str(one["aggregation_type"]), None if one.get("percentile_value") is None else float(one["percentile_value"])) for one in aggregations]


@_told
def listed(body: Any, name: str) -> list[str]:
    """A list of texts in an object."""
    return [str(one) for one in body.get(name) or ()]


def _whole(value: Any) -> Any:
    """A protobuf Value's number without its `.0` where it is whole."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def span(one: Mapping[str, Any], id: str) -> dict[str, Any]:
    """An OpenTelemetry span, as JSON of its protobuf message (bytes in base64)."""
    attributes = attributes_of(one, id)
    code = {"ok": "STATUS_CODE_OK", "error": "STATUS_CODE_ERROR"}.get(one["status"], "STATUS_CODE_UNSET")
    status = {"code": code, "message": one["attributes"].get("otel.status_description") or ""}
    return _lacking(
        {
            "trace_id": _bytes(one["trace_id"]),
            "span_id": _bytes(one["span_id"]),
            "parent_span_id": _bytes(one["parent_id"]) if one["parent_id"] else None,
            "name": one["name"],
            "start_time_unix_nano": one["start_ns"],
            "end_time_unix_nano": one["end_ns"],
            "attributes": _pairs(attributes),
            "events": [
                {"name": e.get("name") or "", "time_unix_nano": e.get("at_ns") or 0, "attributes": _pairs(e.get("attributes") or {})}
                for e in one["events"]
            ],
            "links": [
                {"trace_id": _bytes(e["trace_id"]), "span_id": _bytes(e["span_id"]), "attributes": _pairs(e.get("attributes") or {})}
                for e in one["attributes"].get("otel.links") or ()
            ],
            "status": status,
        }
    )


def attributes_of(one: Mapping[str, Any], id: str) -> dict[str, Any]:
    """A span's attributes as MLflow's client reads them: with what it read and answered, its type, and its trace's id."""
    attributes = {k: v for k, v in one["attributes"].items() if not k.startswith("otel.")}
    attributes["mlflow.traceRequestId"] = id
    for key, value in (("mlflow.spanInputs", one["inputs"]), ("mlflow.spanOutputs", one["outputs"])):
        if value is not None:
            attributes.setdefault(key, value)
    attributes.setdefault("mlflow.spanType", {"SPAN": "UNKNOWN"}.get(one["kind"], one["kind"]))
    return attributes


def _pairs(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _any(value)} for key, value in attributes.items()]


def _any(value: Any) -> dict[str, Any]:
    """OpenTelemetry's AnyValue."""
    if value is None:
        return {}
    if isinstance(value, bool):
        return {"bool_value": value}
    if isinstance(value, int):
        return {"int_value": value}
    if isinstance(value, float):
        return {"double_value": value}
    if isinstance(value, Mapping):
        return {"kvlist_value": {"values": _pairs(value)}}
    if isinstance(value, list):
        return {"array_value": {"values": [_any(one) for one in value]}}
    return {"string_value": str(value)}


def _bytes(digits: str) -> str:
    return base64.b64encode(bytes.fromhex(digits)).decode()


@_told
def fields(body: Mapping[str, Any]) -> tuple[str, dict[str, Any], list[dict[str, Any]]]:
    """(id, what `TraceInfos.start` takes, judgements) of a TraceInfoV3. BadInput where id or experiment is missing."""
    id = body.get("trace_id")
    experiment = ((body.get("trace_location") or {}).get("mlflow_experiment") or {}).get("experiment_id")
    if not id or not experiment:
        raise BadInput(f"Missing value for required parameter 'trace.trace_info.{'trace_location' if id else 'trace_id'}'.")
    given, told = ({str(k): str(v) for k, v in (body.get(name) or {}).items()} for name in ("trace_metadata", "tags"))
    for name in (LOCATION, ARTIFACTS):
        told.pop(name, None)
    found = {
        "experiment": str(experiment),
        "state": str(body.get("state") or "STATE_UNSPECIFIED"),
        "at_ms": milliseconds(body.get("request_time")),
        "ms": duration(body.get("execution_duration")),
        "client_request_id": None if body.get("client_request_id") is None else str(body["client_request_id"]),
        "request_preview": None if body.get("request_preview") is None else str(body["request_preview"]),
        "response_preview": None if body.get("response_preview") is None else str(body["response_preview"]),
        "name": told.pop(NAME_TAG, None),
        "session": given.get(SESSION_KEY),
        "user": given.get(USER_KEY),
        "final": True,
        "tags": told,
        "metadata": given,
    }
    return str(id), found, [judgement(one) for one in body.get("assessments") or ()]


def timestamp(ms: int) -> str:
    """Epoch milliseconds as protobuf writes a Timestamp in JSON."""
    moment = datetime.datetime.fromtimestamp(ms / 1000, datetime.timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def milliseconds(value: Any) -> int:
    """A Timestamp in JSON as epoch milliseconds; 0 where it is missing, BadInput where it is none."""
    if value in (None, ""):
        return 0
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)", str(value))
    try:
        if match is None:
            raise ValueError
        whole = datetime.datetime.fromisoformat(match[1] + match[3].replace("Z", "+00:00"))
    except ValueError:
        raise BadInput(f"{value!r} is not a time.", "Write it as 2026-11-24T08:00:00.123Z.") from None
    return round(whole.timestamp()) * 1000 + int((match[2] or ".0")[1:4].ljust(3, "0"))


def duration(value: Any) -> int | None:
    """A Duration in JSON ("1.5s") as milliseconds; None where it is missing, BadInput where it is none."""
    if value in (None, ""):
        return None
    match = _DURATION.fullmatch(str(value))
    if match is None:
        raise BadInput(f"{value!r} is not a length of time.", 'Write it as "1.500s".')
    return round(float(match[1]) * 1000)


def with_prefix(trace: str) -> str:
    """MLflow's id of a trace that has none of its own."""
    return PREFIX + trace


def _lacking(body: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if value is not None}
