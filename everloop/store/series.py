"""Figures out of metric points: what a counter grew by, quantiles of histograms, by time and by group.

Points of a counter or a histogram are deltas or running totals; running totals are turned into deltas here, series by series (a total that begins
anew, or falls, began at zero). So figures of exporters with either habit can be added up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from everloop.core.errors import BadInput

NS = 1_000_000_000
FIGURES = {
    "gauge": ("avg", "min", "max", "last", "count"),
    "sum": ("increase", "rate", "last", "count"),
    "histogram": ("count", "sum", "avg", "rate", "min", "max", "p"),
    "exponential_histogram": ("count", "sum", "avg", "rate", "min", "max", "p"),
    "summary": ("count", "sum", "avg", "rate", "p"),
}
"""What can be asked of each type; `p` stands for p50, p95, p99.9 and the like."""
DEFAULT = {"gauge": "avg", "sum": "increase"}


class Bin:
    """What fell into one time of one group."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.count = 0.0
        self.sum = 0.0
        self.min, self.max = math.inf, -math.inf
        self.last_at, self.lasts = 0, dict[str, tuple[int, float]]()
        self.buckets: dict[tuple[float, float], float] = {}
        self.quantiles: dict[float, list[float]] = {}
        self.points = 0


def figure_of(kind: str, figure: str | None) -> str:
    """The figure to compute for a type of metric; BadInput where the type has none such."""
    chosen = figure or DEFAULT.get(kind, "avg")
    known = FIGURES[kind]
    if chosen in known or ("p" in known and quantile_of(chosen) is not None):
        return chosen
    named = ", ".join("p50, p95, p99.9 ..." if one == "p" else one for one in known)
    raise BadInput(f"A {kind.replace('_', ' ')} has no figure {chosen!r}.", f"It has: {named}.")


def quantile_of(figure: str) -> float | None:
    """0.95 for p95; None for what is none."""
    try:
        part = float(figure[1:]) / 100 if figure[:1] == "p" else math.nan
    except ValueError:
        return None
    return part if 0 <= part <= 1 else None


def fold(points: Iterable[Mapping[str, Any]], since_ns: int, place: Callable[[int], int]) -> dict[tuple[tuple[Any, ...], int], Bin]:
    """Points (series by series, in the order of time) into bins by (group, place of their time); points before `since_ns` only say where totals stood."""
    bins: dict[tuple[tuple[Any, ...], int], Bin] = {}
    for point, before in _pairs(points):
        if point["at_ns"] < since_ns:
            continue
        one = bins.setdefault((point["group"], place(point["at_ns"])), Bin())
        one.points += 1
        kind = point["type"]
        if kind == "gauge" or kind == "sum":
            _number(one, point, before)
        else:
            _distribution(one, point, before)
    return bins


def value_of(one: Bin, figure: str, kind: str, seconds: float) -> float | None:
    """A figure of a bin; None where nothing in it says. `seconds` is the bin's length."""
    if figure == "rate":
        return one.count / seconds if kind not in ("gauge", "sum") else one.sum / seconds
    if figure == "increase":
        return one.sum
    if figure == "last":
        return sum(value for _, value in one.lasts.values()) if one.lasts else None
    if figure in ("min", "max"):
        found = getattr(one, figure)
        return found if math.isfinite(found) else None
    if kind == "gauge":
        return one.points if figure == "count" else (sum(one.values) / len(one.values) if one.values else None)
    if kind == "sum":
        return one.points
    if figure in ("count", "sum"):
        return float(getattr(one, figure))
    if figure == "avg":
        return one.sum / one.count if one.count else None
    part = quantile_of(figure)
    assert part is not None  # `figure_of` has checked it
    if kind == "summary":
        found = one.quantiles.get(round(part, 6))
        return sum(found) / len(found) if found else None
    return quantile(one, part)


def quantile(one: Bin, part: float) -> float | None:
    """A quantile out of a bin's buckets: even within a bucket, bounded by the smallest and largest value where they are known."""
    full = {interval: n for interval, n in one.buckets.items() if n > 0}
    if not full:
        return None
    rank, seen = part * sum(full.values()), 0.0
    for (low, high), n in sorted(full.items(), key=lambda item: (item[0][1], item[0][0])):
        if seen + n >= rank:
            low = low if math.isfinite(low) else (one.min if math.isfinite(one.min) else min(high, 0.0))
            high = high if math.isfinite(high) else (one.max if math.isfinite(one.max) else low)
            found = low + (high - low) * (rank - seen) / n
            return min(max(found, one.min if math.isfinite(one.min) else found), one.max if math.isfinite(one.max) else found)
        seen += n
    return None


def intervals(buckets: Mapping[str, Any] | None) -> Iterator[tuple[tuple[float, float], float]]:
    """A histogram's buckets as ((lower, upper), count)."""
    if not buckets:
        return
    if "bounds" in buckets:
        edges = [-math.inf, *buckets["bounds"], math.inf]
        yield from (((low, high), n) for low, high, n in zip(edges, edges[1:], buckets["counts"], strict=False))
    elif "scale" in buckets:
        base = 2.0 ** (2.0 ** -buckets["scale"])
        yield (0.0, 0.0), buckets["zero"]
        for i, n in enumerate(buckets["counts"], buckets["offset"]):
            yield (_power(base, i), _power(base, i + 1)), n
        for i, n in enumerate(buckets["negative_counts"], buckets["negative_offset"]):
            yield (-_power(base, i + 1), -_power(base, i)), n


def _as_coarse(buckets: Mapping[str, Any] | None, like: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """An exponential histogram's buckets at the scale of a coarser one: exporters make the scale coarser as values spread."""
    if not buckets or not like or "scale" not in buckets or buckets["scale"] <= like.get("scale", buckets["scale"]):
        return buckets
    shift = buckets["scale"] - like["scale"]
    made: dict[str, Any] = {"scale": like["scale"], "zero": buckets["zero"]}
    for prefix in ("", "negative_"):
        merged: dict[int, int] = {}
        for i, n in enumerate(buckets[f"{prefix}counts"], buckets[f"{prefix}offset"]):
            merged[i >> shift] = merged.get(i >> shift, 0) + n
        first = min(merged, default=0)
        made[f"{prefix}offset"] = first
        made[f"{prefix}counts"] = [merged.get(i, 0) for i in range(first, max(merged, default=first - 1) + 1)]
    return made


def _power(base: float, exponent: int) -> float:
    try:
        return float(base**exponent)
    except OverflowError:
        return math.inf


def _pairs(points: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any] | None]]:
    """Each point, and for a running total the one of its series that it grew from."""
    before: Mapping[str, Any] | None = None
    for point in points:
        grew = None
        if point["temporality"] == "cumulative" or point["type"] == "summary":
            same = before is not None and before["series"] == point["series"]
            if same and before is not None and before["since_ns"] == point["since_ns"] and not _fell(before, point):
                grew = before
        yield point, grew
        before = point


def _fell(before: Mapping[str, Any], point: Mapping[str, Any]) -> bool:
    if point["type"] == "sum":
        return bool(point["monotonic"]) and (point["value"] or 0) < (before["value"] or 0)
    return (point["count"] or 0) < (before["count"] or 0)


def _number(one: Bin, point: Mapping[str, Any], before: Mapping[str, Any] | None) -> None:
    value = point["value"]
    if value is None or not math.isfinite(value):
        return
    one.values.append(value)
    one.sum += value - ((before["value"] or 0.0) if before else 0.0)
    one.min, one.max = min(one.min, value), max(one.max, value)
    last = one.lasts.get(point["series"])
    if last is None or last[0] <= point["at_ns"]:
        one.lasts[point["series"]] = (point["at_ns"], value)


def _distribution(one: Bin, point: Mapping[str, Any], before: Mapping[str, Any] | None) -> None:
    one.count += (point["count"] or 0) - ((before["count"] or 0) if before else 0)
    one.sum += (point["sum"] or 0.0) - ((before["sum"] or 0.0) if before else 0.0)
    for side, better in (("min", min), ("max", max)):
        if point[side] is not None:
            setattr(one, side, better(getattr(one, side), point[side]))
    for interval, n in intervals(point["buckets"]):
        one.buckets[interval] = one.buckets.get(interval, 0.0) + n
    if before is not None:
        for interval, n in intervals(_as_coarse(before["buckets"], point["buckets"])):
            one.buckets[interval] = one.buckets.get(interval, 0.0) - n
    for part, value in (point["buckets"] or {}).get("quantiles", ()):
        one.quantiles.setdefault(round(part, 6), []).append(value)


def table(bins: Mapping[tuple[tuple[Any, ...], int], Bin], by: Sequence[str], figure: str, kind: str, seconds: float) -> list[dict[str, Any]]:
    """Bins as series: [{"by": {attribute: value}, "points": [[epoch seconds, value], ...], "n": points read}], the fullest group first."""
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for (group, place), one in sorted(bins.items(), key=lambda item: item[0][1]):
        made = groups.setdefault(group, {"by": dict(zip(by, group, strict=True)), "points": [], "n": 0})
        made["points"].append([place / NS, value_of(one, figure, kind, seconds)])
        made["n"] += one.points
    return sorted(groups.values(), key=lambda made: -made["n"])
