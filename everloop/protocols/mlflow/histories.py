"""Metric series over MLflow's API: one run's by pages, several runs' whole or thinned for a chart."""

from __future__ import annotations

from typing import Any

from everloop.core.errors import BadInput, NotFound
from everloop.core.limits import HISTORY_POINTS
from everloop.protocols.mlflow import fields
from everloop.protocols.mlflow.wire import Call, lacking

RUNS = 100
"""Runs of one request."""
THINNED = 2_500
"""Points of a run that a thinned series has at most."""
WHOLE = 1_000_000
"""Points that a request without `max_results` answers at most."""

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
    return lacking({"metrics": [_metric(key, point) for point in points], "next_page_token": following})


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
    shown: list[dict[str, Any]] = []
    for id in sorted(ids):
        try:
            points, _ = await call.ws.runs.history_points(call.who, id, key, left - len(shown), None) if left > len(shown) else ([], None)
        except NotFound:
            continue
        shown += [{**_metric(key, point), "run_id": id} for point in points]
    return {"metrics": shown}


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
    for id in ids:
        await call.ws.runs.get(call.who, id)
    shown: list[dict[str, Any]] = []
    for id in ids:
        found: list[Point] = []
        following = None
        while True:
            points, following = await call.ws.runs.history_points(call.who, id, key, HISTORY_POINTS, following)
            found += [point for point in points if low is None or int(low) <= point[1] <= int(high)]
            if not following:
                break
        found.sort(key=lambda point: (point[1], point[2]))
        shown += [{**_metric(key, point), "run_id": id} for point in thin(found, most)]
    return {"metrics": shown}


def thin(points: list[Point], most: int) -> list[Point]:
    """The first point of each of `most` pieces of as equal a length as can be, and the last point of all (in the last one's place)."""
    if len(points) <= most:
        return points
    size, longer = divmod(len(points), most)
    starts = [i * size + min(i, longer) for i in range(most)]
    return [points[start] for start in starts[:-1]] + [points[-1]]


def _metric(key: str, point: Point) -> dict[str, Any]:
    value, step, at = point
    return {"key": key, "value": value, "timestamp": round(at * 1000), "step": step}


ROUTES = [
    ("GET", "metrics/get-history", history),
    ("GET", "metrics/get-history-bulk", bulk),
    ("GET", "metrics/get-history-bulk-interval", interval),
]
