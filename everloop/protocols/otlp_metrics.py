"""Metric points out of an OTLP request: gauges, sums, histograms (explicit and exponential) and summaries, one dict a point.

JSON is read into the same protobuf messages, so that there is one reading of each.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from everloop.protocols.otlp_values import NS_MAX, from_json, from_protobuf, identity, pairs

TEMPORALITY = {0: None, 1: "delta", 2: "cumulative"}
NO_VALUE = 1
"""A flag of a point: nothing was measured, the series has a gap here."""


@dataclass
class Points:
    """What a request held: good points, and how many were left out and why."""

    items: list[dict[str, Any]] = field(default_factory=list)
    rejected: int = 0
    why: str = ""

    def reject(self, why: str) -> None:
        """Count a point that cannot be kept; the first reason is told."""
        self.rejected += 1
        self.why = self.why or why


def read(body: bytes, as_json: bool, now_ns: int) -> Points:
    """The points of an ExportMetricsServiceRequest; BadInput if the bytes are none."""
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    request = ExportMetricsServiceRequest()
    if as_json:
        from_json(request, body, _without_exemplars)
    else:
        from_protobuf(request, body)
    found, seen = Points(), dict[str, int]()
    for resource in request.resource_metrics:
        about = pairs(resource.resource.attributes)
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                _take(found, seen, metric, about, scope.scope.name)
    return found


def _without_exemplars(request: Any) -> None:
    """Take exemplars out of a request in JSON: they are not kept, and their ids are in hex, which protobuf's JSON reader does not know."""
    waiting = [request]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            one.pop("exemplars", None)
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)


def _take(found: Points, seen: dict[str, int], metric: Any, resource: dict[str, Any], scope: str) -> None:
    kind = metric.WhichOneof("data")
    if kind is None:
        return
    data = getattr(metric, kind)
    about = {
        "name": metric.name,
        "type": kind,
        "unit": metric.unit or None,
        "description": metric.description or None,
        "temporality": TEMPORALITY.get(getattr(data, "aggregation_temporality", 0)),
        "monotonic": bool(data.is_monotonic) if kind == "sum" else None,
        "resource": resource,
        "scope": scope or None,
    }
    for point in data.data_points:
        if point.flags & NO_VALUE:
            continue
        why = _fault(metric, kind, point)
        if why:
            found.reject(why)
            continue
        attributes = pairs(point.attributes)
        series = identity([about["name"], kind, about["unit"], scope, resource, attributes])
        one = {
            **about,
            "series": series,
            "attributes": attributes,
            "at_ns": point.time_unix_nano,
            "since_ns": point.start_time_unix_nano or None,
            **_values(kind, point),
        }
        mark = identity([series, one["at_ns"], one["since_ns"], *_values(kind, point).values()])
        seen[mark] = seen.get(mark, -1) + 1
        one["id"] = f"{mark}-{seen[mark]}" if seen[mark] else mark
        found.items.append(one)


def _fault(metric: Any, kind: str, point: Any) -> str:
    """Why a point cannot be kept; "" where it can."""
    if not metric.name:
        return "A metric has no name."
    if not 0 < point.time_unix_nano < NS_MAX or point.start_time_unix_nano >= NS_MAX:
        return f"A point of {metric.name} has no time, or one beyond the year 2262 in nanoseconds since 1970."
    if kind == "histogram":
        counts, bounds = point.bucket_counts, point.explicit_bounds
        if len(counts) and len(counts) != len(bounds) + 1:
            return f"A histogram of {metric.name} has {len(counts)} counts for {len(bounds)} bounds; it must be one more."
        if any(a >= b for a, b in itertools.pairwise(bounds)):
            return f"The bounds of a histogram of {metric.name} do not rise."
    if kind in ("histogram", "exponential_histogram", "summary") and point.count >= 2**63:
        return f"A count of {metric.name} is beyond 2^63."
    return ""


def _values(kind: str, point: Any) -> dict[str, Any]:
    """The numbers of a point. A histogram's buckets are {"bounds", "counts"}, or {"scale", "zero", "offset", "counts", "negative_offset",
    "negative_counts"}; a summary's are {"quantiles": [[quantile, value]]}."""
    if kind in ("gauge", "sum"):
        which = point.WhichOneof("value")
        return {"value": float(getattr(point, which)) if which else None}
    value: dict[str, Any] = {"count": point.count, "sum": point.sum if kind == "summary" or point.HasField("sum") else None}
    if kind == "summary":
        return {**value, "buckets": {"quantiles": [[one.quantile, one.value] for one in point.quantile_values]}}
    value |= {side: getattr(point, side) if point.HasField(side) else None for side in ("min", "max")}
    if kind == "histogram":
        return {**value, "buckets": {"bounds": list(point.explicit_bounds), "counts": list(point.bucket_counts)}}
    buckets = {
        "scale": point.scale,
        "zero": point.zero_count,
        "offset": point.positive.offset,
        "counts": list(point.positive.bucket_counts),
        "negative_offset": point.negative.offset,
        "negative_counts": list(point.negative.bucket_counts),
    }
    return {**value, "buckets": buckets}
