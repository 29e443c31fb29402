"""The global time range: in the query of every page (`range=7d`, or `since=` and `until=`), and kept in the links between pages."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from everloop.core.clock import from_iso, iso
from everloop.core.errors import BadInput

PRESETS = {
    "1h": ("Last hour", 3600.0),
    "24h": ("Last 24 hours", 86_400.0),
    "7d": ("Last 7 days", 7 * 86_400.0),
    "30d": ("Last 30 days", 30 * 86_400.0),
    "90d": ("Last 90 days", 90 * 86_400.0),
    "all": ("All time", None),
}
DEFAULT = "all"
LATEST = 4_102_444_800.0
"""2100-01-01: no range ends later."""


@dataclass(frozen=True)
class Range:
    """A span of event time, in epoch seconds; None where a side is open. `query` is what keeps it in a link."""

    since: float | None
    until: float | None
    key: str
    label: str
    query: dict[str, str]


def parse(query: Any) -> Range:
    """The range of a request's query; BadInput for one that cannot be."""
    since, until = query.get("since", "").strip(), query.get("until", "").strip()
    if since or until:
        first = _moment(since) if since else None
        last = _moment(until) if until else None
        if first is not None and last is not None and last <= first:
            raise BadInput("The time range ends before it begins.", "Give an `until` that is later than `since`.")
        label = f"{_day(first) or 'the beginning'} to {_day(last) or 'now'}"
        return Range(first, last, "custom", label, {k: v for k, v in (("since", since), ("until", until)) if v})
    key = query.get("range", DEFAULT)
    if key not in PRESETS:
        raise BadInput(f"There is no time range {key!r}.", f"Ranges: {', '.join(PRESETS)}; or give since= and until=.")
    label, seconds = PRESETS[key]
    return Range(None if seconds is None else time.time() - seconds, None, key, label, {} if key == DEFAULT else {"range": key})


def _moment(text: str) -> float:
    moment = from_iso(text)
    if not 0 <= moment <= LATEST:
        raise BadInput(f"{text!r} is not a time between 1970 and 2100.", "Write it as 2026-11-24 or 2026-11-24T08:00.")
    return moment


def _day(moment: float | None) -> str:
    return (iso(moment) or "")[:16].replace("T", " ")
