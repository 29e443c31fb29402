"""A trace that MLflow's client read, with its spans and assessments, sent to a server of ours as that client would have sent it."""

from __future__ import annotations

from typing import Any

import orjson

API = "/api/3.0/mlflow/traces"


def bring(http: Any, trace: Any, experiment: str) -> None:
    """Send spans, then what is known of the trace, then the assessments that are not there yet; the same again changes nothing."""
    id = trace.info.trace_id
    if trace.data.spans:
        headers = {"content-type": "application/x-protobuf", "x-mlflow-experiment-id": experiment}
        http.request("POST", "/v1/traces", data=_spans(trace.data.spans), headers=headers)
    info = _proto_json(trace.info.to_proto())
    wanted = info.get("assessments") or []
    info.setdefault("trace_location", {}).setdefault("mlflow_experiment", {})["experiment_id"] = experiment
    http.post(API, json={"trace": {"trace_info": info}})
    there = http.get(f"{API}/{id}")["trace"]["trace_info"].get("assessments") or []
    known = {one.get("assessment_id") for one in there}
    for one in wanted:
        if one.get("assessment_id") not in known:
            http.post(f"{API}/{id}/assessments", json={"assessment": one})


def _spans(spans: list[Any]) -> bytes:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.extend(span.to_otel_proto() for span in spans)
    return bytes(request.SerializeToString())


def _proto_json(message: Any) -> dict[str, Any]:
    from mlflow.utils.proto_json_utils import message_to_json

    found: dict[str, Any] = orjson.loads(message_to_json(message))
    return found
