"""Metric series over MLflow's API: one run's by pages, several runs' whole or thinned for a chart."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from starlette.responses import Response

from everloop.core.errors import BadInput, NotFound
from everloop.core.limits import HISTORY_POINTS
from everloop.protocols.mlflow import fields
from everloop.protocols.mlflow.wire import Call

RUNS = 100
"""Runs of one request."""
THINNED = 2_500
"""Points of a run that a thinned series has at most."""
WHOLE = 1_000_000
"""Points that a request without `max_results` answers at most."""
PIECE = 2_000
"""Points that are written at once."""

Point = tuple[float | str, int, float]


async def history(call: Call) -> Any:
    """metrics/get-history: a page where `max_results` is told, else all. A run that is not there has no points."""
    id, key = call.run_id, call.need("metric_key")
    asked, most = call.get("max_results"), HISTORY_POINTS
    if asked is not None and str(asked).lstrip("-").isdigit():
        most = int(asked)
        if most <= 0:
            raise BadInput(f"Invalid value {most} for parameter 'max_results' supplied. It must be a positive integer.")
    else:
        asked = None
    try:
        points, following = await call.ws.runs.history_points(call.who, id, key, most, call.get("page_token") or None)
        while following and asked is None and len(points) < WHOLE:
            more, following = await call.ws.runs.history_points(call.who, id, key, most, following)
            points += more
    except NotFound:
        points, following = [], None
    return await _told(key, [(None, points)], following)


async def bulk(call: Call) -> Any:
    """metrics/get-history-bulk: the series of several runs, by run, at most HISTORY_POINTS points in all."""
    ids = [str(one) for one in call.listed("run_id")]
    if not ids:
        raise BadInput("GetMetricHistoryBulk request must specify at least one run_id.")
    if len(ids) > RUNS:
        raise BadInput(f"GetMetricHistoryBulk request cannot specify more than {RUNS} run_ids. Received {len(ids)} run_ids.")
    if call.get("metric_key") is None:
        raise BadInput("GetMetricHistoryBulk request must specify a metric_key.")
    key, left = str(call.get("metric_key")), min(call.number("max_results", HISTORY_POINTS, 1, 2**31), HISTORY_POINTS)
    series: list[tuple[str | None, list[Point]]] = []
    for id in sorted(ids):
        if left <= 0:
            break
        try:
            points, _ = await call.ws.runs.history_points(call.who, id, key, left, None)
        except NotFound:
            continue
        left -= len(points)
        series.append((id, points))
    return await _told(key, series)


async def interval(call: Call) -> Any:
    """metrics/get-history-bulk-interval: each run's series thinned to `max_results` points, evenly, its last point kept."""
    ids, key = [str(one) for one in call.listed("run_ids")], call.need("metric_key")
    if len(ids) > RUNS:
        raise BadInput(f"GetMetricHistoryBulkInterval request must specify at most {RUNS} run_ids. Received {len(ids)} run_ids.{fields.SEE}")
    most = int(call.get("max_results", THINNED))
    if not 1 <= most <= THINNED:
        raise BadInput(f"max_results must be between 1 and {THINNED}.{fields.SEE}")
    low, high = call.get("start_step"), call.get("end_step")
    if (low is None) != (high is None):
        raise BadInput("If either start step or end step are specified, both must be specified.")
    if low is not None and int(low) > int(high):
        raise BadInput(f"end_step must be greater than start_step. Found start_step={int(low)} and end_step={int(high)}.")
    found = await call.ws.runs.sampled(call.who, ids, key, most, *(None if bound is None else int(bound) for bound in (low, high)))
    return await _told(key, [(id, found[id]) for id in ids])


async def _told(key: str, series: list[tuple[str | None, list[Point]]], following: str | None = None) -> Response:
    """The answer with these points, each series' with its run where it is told; many are written in a thread, a piece at a time, so that nobody waits."""
    if sum(len(points) for _, points in series) <= PIECE:
        return _body(key, series, following)
    return await asyncio.to_thread(_body, key, series, following)


def _body(key: str, series: list[tuple[str | None, list[Point]]], following: str | None) -> Response:
    pieces = []
    for run, points in series:
        more = {} if run is None else {"run_id": run}
        for start in range(0, len(points), PIECE):
            shown = [
                {"key": key, "value": value, "timestamp": round(at * 1000), "step": step, **more} for value, step, at in points[start : start + PIECE]
            ]
            pieces.append(orjson.dumps(shown)[1:-1])
    end = b"]}" if following is None else b'],"next_page_token":' + orjson.dumps(following) + b"}"
    return Response(b'{"metrics":[' + b",".join(pieces) + end, media_type="application/json")


ROUTES = [
    ("GET", "metrics/get-history", history),
    ("GET", "metrics/get-history-bulk", bulk),
    ("GET", "metrics/get-history-bulk-interval", interval),
]
