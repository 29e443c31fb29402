"""MLflow's traces and assessments. An MLflow trace is our trace: its spans come over OTLP (or as the file traces.json from older clients)
into the same store, an assessment is a score, and what an endpoint of ours answered is found by `mlflow.search_traces` too.

Versions 2 and 3 of the API share paths; where both have a POST or a GET on one, the body or the query tells which is meant.
"""

from __future__ import annotations

import math
from typing import Any

import orjson
from starlette.responses import Response

from everloop.assets.trace_filter import parse_equal
from everloop.core.errors import BadInput, NotFound
from everloop.protocols.mlflow import trace_files
from everloop.protocols.mlflow import trace_shapes as shapes
from everloop.protocols.mlflow.wire import Call, lacking
from everloop.store.telemetry_metrics import JUDGEMENTS, SPANS, Question
from everloop.store.telemetry_search import NAME_TAG

STATS = "mlflow.trace.sizeStats"
FIXED = ("mlflow.artifactLocation", "mlflow.trace.spansLocation", "mlflow.trace.archiveLocation")
"""Tags that say where a trace is kept; clients cannot change them."""
PAGE_MAX = 500


async def start(call: Call) -> Any:
    """POST traces: version 3 tells of a finished trace, version 2 of one that begins."""
    if "trace" in call.body:
        body = (call.body["trace"] or {}).get("trace_info") if isinstance(call.body["trace"], dict) else None
        if not isinstance(body, dict):
            raise BadInput("Missing value for required parameter 'trace'.", "Send {'trace': {'trace_info': {...}}}.")
        id, fields, judgements = shapes.fields(body)
        found = await call.ws.trace_infos.start(call.who, id, fields, judgements)
        return {"trace": {"trace_info": shapes.info(found)}}
    if "experiment_id" not in call.body:
        raise BadInput("Missing value for required parameter 'trace'.", "See the API docs for more information about request parameters.")
    tags = call.pairs("tags")
    fields = {
        "experiment": call.need("experiment_id"),
        "state": "IN_PROGRESS",
        "at_ms": call.number("timestamp_ms", 0, 0, 2**53),
        "name": tags.pop(NAME_TAG, None),
        "tags": tags,
        "metadata": call.pairs("request_metadata"),
    }
    fields |= {"session": fields["metadata"].get(shapes.SESSION_KEY), "user": fields["metadata"].get(shapes.USER_KEY)}
    return {"trace_info": shapes.info_v2(await call.ws.trace_infos.start(call.who, call.ws.clock.new_id(), fields))}


async def end(call: Call) -> Any:
    """PATCH traces/{id}, version 2: the trace is finished."""
    state = str(call.get("status", "OK"))
    found = await call.ws.trace_infos.end(
        call.who, call.path["id"], state, call.number("timestamp_ms", 0, 0, 2**53), call.pairs("tags"), call.pairs("request_metadata")
    )
    return {"trace_info": shapes.info_v2(found)}


async def get_info(call: Call) -> Any:
    """GET traces/{id}."""
    return {"trace": {"trace_info": shapes.info(await call.ws.trace_infos.get(call.who, call.path["id"]))}}


async def get_info_v2(call: Call) -> Any:
    """GET traces/{id}/info."""
    return {"trace_info": shapes.info_v2(await call.ws.trace_infos.get(call.who, call.path["id"]))}


async def get_trace(call: Call) -> Any:
    """GET traces/get: the whole trace; one whose spans have not all come is waited for, unless a part is wanted."""
    id = call.need("trace_id")
    try:
        found = await call.ws.trace_infos.get(call.who, id)
    except NotFound:
        raise NotFound(f"Trace with ID {id} is not found.") from None
    if str(call.get("allow_partial", "false")).lower() == "true":
        spans = (await call.ws.trace_infos.spans(call.who, [id]))[found["trace_id"]]
    else:
        spans = await call.ws.trace_infos.whole(call.who, id, _expected(found))
        if spans is None:
            raise NotFound(f"Trace with ID {id} is not fully exported yet, please try again later.")
    return {"trace": _whole(found, spans)}


async def batch_get(call: Call) -> Any:
    """GET traces/batchGet: whole traces; those that are not there are left out."""
    found = await call.ws.trace_infos.many(call.who, _ids(call), _experiments(call))
    spans = await call.ws.trace_infos.spans(call.who, [one["id"] for one in found])
    return {"traces": [_whole(one, spans[one["trace_id"]]) for one in found if spans[one["trace_id"]]]}


async def batch_get_infos(call: Call) -> Any:
    """GET and POST traces/batchGetInfos."""
    return {"trace_infos": [shapes.info(one) for one in await call.ws.trace_infos.many(call.who, _ids(call), _experiments(call))]}


async def search(call: Call) -> Any:
    """POST traces/search."""
    if not call.listed("locations"):
        raise BadInput("Missing value for required parameter 'locations'.", "See the API docs for more information about request parameters.")
    items, following = await _search(call, shapes.experiments_of(call.listed("locations")))
    return lacking({"traces": [shapes.info(one) for one in items], "next_page_token": following})


async def search_v2(call: Call) -> Any:
    """GET traces."""
    call.need("experiment_ids")
    items, following = await _search(call, [str(one) for one in call.listed("experiment_ids")])
    return lacking({"traces": [shapes.info_v2(one) for one in items], "next_page_token": following})


async def _search(call: Call, experiments: list[str]) -> tuple[list[dict[str, Any]], str | None]:
    limit = call.number("max_results", 100, 1, PAGE_MAX)
    token = str(call.get("page_token", "") or "0")
    if not token.isdigit():
        raise BadInput(f"Invalid page token {token!r}.", "Use the next_page_token of an earlier answer.")
    filter, order = str(call.get("filter", "") or ""), [str(one) for one in call.listed("order_by")]
    items, more = await call.ws.trace_infos.search(call.who, experiments, filter, order, limit, int(token))
    return items, str(int(token) + limit) if more else None


async def set_tag(call: Call) -> Any:
    """PATCH traces/{id}/tags."""
    key, value = call.need("key"), str(call.get("value", ""))
    _free(key, "set")
    if len(key) > 250:
        raise BadInput(f"Trace tag key '{key[:20]}...' had length {len(key)}, which exceeded length limit of 250")
    if len(value) > 8000:
        value = value[:8000]
    await call.ws.trace_infos.tag(call.who, call.path["id"], key, value)


async def delete_tag(call: Call) -> Any:
    """DELETE traces/{id}/tags."""
    key = call.need("key")
    _free(key, "deleted")
    await call.ws.trace_infos.tag(call.who, call.path["id"], key, None)


async def delete(call: Call) -> Any:
    """POST traces/delete-traces."""
    ids = [str(one) for one in call.listed("request_ids") or call.listed("trace_ids")]
    until = call.number("max_timestamp_millis", 0, 0, 2**53) if call.get("max_timestamp_millis") is not None else None
    most = call.number("max_traces", 0, 0, 2**31) if call.get("max_traces") is not None else None
    if bool(ids) == (until is not None):
        raise BadInput("Either `max_timestamp_millis` or `trace_ids` must be specified, but not both.")
    if ids and most is not None:
        raise BadInput("`max_traces` can't be specified if `trace_ids` is specified.")
    if most is not None and most < 1:
        raise BadInput(f"`max_traces` must be a positive integer, received {most}.")
    return {"traces_deleted": await call.ws.trace_infos.delete(call.who, call.need("experiment_id"), ids, until, most)}


async def link_run(call: Call) -> Any:
    """POST traces/link-to-run."""
    await call.ws.trace_infos.link_run(call.who, _ids(call), call.need("run_id"))


async def link_prompts(call: Call) -> Any:
    """POST traces/link-prompts."""
    id = call.need("trace_id")
    versions = [one for one in call.listed("prompt_versions") if isinstance(one, dict)]
    if not versions:
        raise BadInput("Missing value for required parameter 'prompt_versions'.")
    await call.ws.trace_infos.link_prompts(call.who, id, [f"{one.get('name')}/{one.get('version')}" for one in versions])


async def correlation(call: Call) -> Any:
    """POST traces/calculate-filter-correlation: normalised pointwise mutual information of two filters.

    Bouma, "Normalized (pointwise) mutual information in collocation extraction" (2009): log(p(xy) / p(x) p(y)) / -log p(xy). The smoothed value adds
    one half to each of the four counts (Jeffreys' prior).
    """
    if not call.listed("experiment_ids"):
        raise BadInput("Missing value for required parameter 'experiment_ids'.")
    experiments = [str(one) for one in call.listed("experiment_ids")]
    counts = await call.ws.trace_infos.overlap(
        call.who, experiments, call.need("filter_string1"), call.need("filter_string2"), str(call.get("base_filter", "") or "")
    )
    first, second, both, total = counts["first"], counts["second"], counts["both"], counts["total"]
    known = total and first and second  # else nothing can be said
    found = {
        "npmi": _npmi(both, first, second, total) if known else "NaN",
        "npmi_smoothed": _npmi(both + 0.5, first + 1.0, second + 1.0, total + 2.0) if known else "NaN",
        "filter1_count": first,
        "filter2_count": second,
        "joint_count": both,
        "total_count": total,
    }
    return found


def _npmi(both: float, first: float, second: float, total: float) -> float:
    """Between -1 (never together) and 1 (always together)."""
    if both == 0:
        return -1.0
    if both == total:
        return 1.0
    return max(-1.0, min(1.0, math.log(both * total / (first * second)) / -math.log(both / total)))


async def metrics(call: Call) -> Any:
    """POST traces/metrics."""
    if not call.listed("experiment_ids"):
        raise BadInput("Missing value for required parameter 'experiment_ids'.")
    figures = shapes.figures_of(call.listed("aggregations"))
    if not figures:
        raise BadInput("Missing value for required parameter 'aggregations'.")
    on_traces, on_spans, on_judgements = parse_equal([str(one) for one in call.listed("filters")])
    limit, token = call.number("max_results", 1000), str(call.get("page_token", "") or "0")
    if not token.isdigit():
        raise BadInput(f"Invalid page token {token!r}.", "Use the next_page_token of an earlier answer.")
    view = str(call.need("view_type"))
    if (on_spans and view != SPANS) or (on_judgements and view != JUDGEMENTS):
        raise BadInput(f"Filtering by {'span' if on_spans else 'assessment'} is not supported for the view {view}.")
    moments = {name: call.number(f"{name}_time_ms", 0, 0, 2**53) if call.get(f"{name}_time_ms") is not None else None for name in ("start", "end")}
    asked = Question(
        view,
        call.need("metric_name"),
        figures,
        [str(one) for one in call.listed("experiment_ids")],
        [str(one) for one in call.listed("dimensions")],
        on_traces,
        on_spans,
        on_judgements,
        call.number("time_interval_seconds", 0, 1, 10**9) if call.get("time_interval_seconds") is not None else None,
        moments["start"],
        moments["end"],
        limit,
        int(token),
    )
    rows = await call.ws.trace_infos.metrics(call.who, asked)
    points = [{"metric_name": asked.metric, **row} for row in rows[:limit]]
    return lacking({"data_points": points, "next_page_token": str(int(token) + limit) if len(rows) > limit else None})


async def artifact(call: Call) -> Any:
    """GET get-trace-artifact: the spans as the file that older clients keep."""
    id = call.need("request_id")
    return Response(await trace_files.written(call.ws, call.who, id), media_type="application/octet-stream", headers=trace_files.HEADERS)


async def create_assessment(call: Call) -> Any:
    """POST traces/{id}/assessments."""
    body = call.get("assessment")
    if not isinstance(body, dict):
        raise BadInput("Missing value for required parameter 'assessment'.")
    made = await call.ws.trace_infos.judge(call.who, call.path["id"], shapes.judgement(body))
    return {"assessment": shapes.assessment(made, call.path["id"])}


async def get_assessment(call: Call) -> Any:
    """GET traces/{id}/assessments/{assessment}."""
    found = await call.ws.trace_infos.judgement(call.who, call.path["id"], call.path["assessment"])
    return {"assessment": shapes.assessment(found, call.path["id"])}


async def update_assessment(call: Call) -> Any:
    """PATCH traces/{id}/assessments/{assessment}: the fields that the mask names."""
    body = call.get("assessment")
    mask = call.get("update_mask")
    if not isinstance(body, dict) or not mask:
        raise BadInput(
            "Missing value for required parameter 'update_mask'." if isinstance(body, dict) else "Missing value for required parameter 'assessment'."
        )
    names = mask.split(",") if isinstance(mask, str) else shapes.listed(mask, "paths")
    changes: dict[str, Any] = {}
    for name in (_snake(one) for one in names):
        if name == "assessment_name":
            changes["name"] = str(body.get("assessment_name") or "") or None
        elif name in ("feedback", "expectation"):
            changes |= {"kind": name, "error": None, **shapes.value_of(name, body.get(name) or {})}
        elif name == "rationale":
            changes["why"] = str(body.get("rationale") or "")
        elif name == "metadata":
            changes["metadata"] = shapes.texts(body.get("metadata"))
        elif name == "valid":
            changes["valid"] = bool(body.get("valid"))
    changed = await call.ws.trace_infos.change_judgement(call.who, call.path["id"], call.path["assessment"], changes)
    return {"assessment": shapes.assessment(changed, call.path["id"])}


async def delete_assessment(call: Call) -> Any:
    """DELETE traces/{id}/assessments/{assessment}."""
    await call.ws.trace_infos.forget_judgement(call.who, call.path["id"], call.path["assessment"])


def _whole(found: dict[str, Any], spans: list[dict[str, Any]]) -> dict[str, Any]:
    return {"trace_info": shapes.info({**found, "spans": len(spans)}), "spans": [shapes.span(one, found["id"]) for one in spans]}


def _expected(found: dict[str, Any]) -> int:
    """How many spans the client said that the trace has; 0 where it did not."""
    try:
        return int(orjson.loads((found["metadata"] or {}).get(STATS, "{}")).get("num_spans", 0))
    except (ValueError, TypeError, AttributeError):
        return 0


def _ids(call: Call) -> list[str]:
    found = [str(one) for one in call.listed("trace_ids")]
    if not found:
        raise BadInput("Missing value for required parameter 'trace_ids'.", "See the API docs for more information about request parameters.")
    return found


def _experiments(call: Call) -> list[str] | None:
    return [str(one) for one in call.listed("experiment_ids")] if "experiment_ids" in call.body else None


def _free(key: str, what: str) -> None:
    if key in FIXED:
        raise BadInput(f"Tag '{key}' is immutable and cannot be {what} on a trace.")


def _snake(name: str) -> str:
    """A field mask's name: protobuf's JSON writes it in camelCase."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name.strip())


ROUTES = [
    ("POST", "traces", start),
    ("GET", "traces", search_v2),
    ("POST", "traces/search", search),
    ("GET", "traces/get", get_trace),
    ("GET", "traces/batchGet", batch_get),
    ("GET", "traces/batchGetInfos", batch_get_infos),
    ("POST", "traces/batchGetInfos", batch_get_infos),
    ("POST", "traces/delete-traces", delete),
    ("POST", "traces/link-to-run", link_run),
    ("POST", "traces/link-prompts", link_prompts),
    ("POST", "traces/calculate-filter-correlation", correlation),
    ("POST", "traces/metrics", metrics),
    ("GET", "get-trace-artifact", artifact),
    ("GET", "traces/{id}", get_info),
    ("PATCH", "traces/{id}", end),
    ("GET", "traces/{id}/info", get_info_v2),
    ("PATCH", "traces/{id}/tags", set_tag),
    ("DELETE", "traces/{id}/tags", delete_tag),
    ("POST", "traces/{id}/assessments", create_assessment),
    ("GET", "traces/{id}/assessments/{assessment}", get_assessment),
    ("PATCH", "traces/{id}/assessments/{assessment}", update_assessment),
    ("DELETE", "traces/{id}/assessments/{assessment}", delete_assessment),
]
CALLS = (
    ("POST", "traces"),
    ("PATCH", "traces/{id}"),
    ("PATCH", "traces/{id}/tags"),
    ("POST", "traces/{id}/assessments"),
    ("PATCH", "traces/{id}/assessments/{assessment}"),
    ("DELETE", "traces/{id}/assessments/{assessment}"),
    ("POST", "traces/link-prompts"),
)
"""What an application that sends traces may do with a caller's key; all else needs an editor, reading a viewer."""
