"""Charts as values: what the script draws (JSON in an attribute), a still picture for pages without script, and the figures as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from everloop.web.ui import draw
from everloop.web.ui.show import number, stamp

TABLE_ROWS = 500
"""Rows of figures under a chart at most; the chart has all."""


def chart(
    title: str,
    x: Sequence[float],
    series: Sequence[Mapping[str, Any]],
    *,
    time: bool = False,
    xlabel: str = "",
    note: str = "",
    unit: str = "",
    zero: bool = True,
    yrange: Sequence[float] | None = None,
    xrange: Sequence[float] | None = None,
    height: int = 190,
) -> dict[str, Any]:
    """A chart of series over `x` (epoch seconds where `time`). A series is {"label", "values", "unit"?, "tone"?, "dash"?, "bars"?, "joined"?}.

    `zero`: the scale begins at 0 or below; `yrange`, `xrange` fix a scale. Values that are no finite numbers are gaps,
    over which a `joined` series is drawn.
    """
    clean = [{**one, "values": draw.numbers(list(one["values"]))} for one in series]
    body = {
        "x": list(x),
        "time": time,
        "series": clean,
        "xlabel": xlabel,
        "unit": unit,
        "zero": zero,
        "yrange": yrange,
        "xrange": xrange,
        "height": height,
    }
    shown = [stamp(at)[:16].replace("T", " ") if time else number(at) for at in x]
    rows = [[shown[i], *(number(one["values"][i]) for one in clean)] for i in range(len(shown))]
    names = [f"{one['label']}{' (' + str(one['unit']) + ')' if one.get('unit') else ''}" for one in clean]
    label = f"{title}: {', '.join(str(one['label']) for one in clean)}; the figures are in the table below"
    return {
        "title": title,
        "note": note,
        "label": label,
        "json": orjson.dumps(body).decode(),
        "picture": draw.spark(clean[0]["values"], label, 600, 150, 0.0 if zero else None) if clean else "",
        "columns": [xlabel or ("Time (UTC)" if time else "x"), *names],
        "rows": rows[-TABLE_ROWS:],
        "empty": not any(v is not None for one in clean for v in one["values"]),
    }


def traffic(series: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Calls, errors, latency, cost and tokens over time, from `ws.traces.series`; what is not there at all is left out."""
    items, length = series["items"], series["bucket_s"]
    if not items:
        return []
    found = {round((s["at"] - items[0]["at"]) / length): s for s in items}
    last = max(found)
    x = [items[0]["at"] + i * length for i in range(last + 1)]
    pick = lambda key, missing: [found[i][key] if i in found else missing for i in range(last + 1)]
    each = f"per {_length(length)}"
    calls: list[dict[str, Any]] = [{"label": "Calls", "values": pick("count", 0), "bars": True}]
    if any(s["errors"] for s in items):
        calls.append({"label": "Errors", "values": pick("errors", 0), "tone": "bad", "bars": True})
    latency = [{"label": name, "values": pick(f"{name}_ms", None), "unit": "ms", "joined": True} for name in ("p50", "p95")]
    note = each if len(calls) > 1 else f"{each}, no errors"
    made = [chart("Calls", x, calls, time=True, note=note), chart("Latency", x, latency, time=True, note=each, unit="ms")]
    if any(s["cost"] for s in items):
        made.append(chart("Cost", x, [{"label": "Cost", "values": pick("cost", 0), "unit": "$", "bars": True}], time=True, note=each, unit="$"))
    if any(s["tokens"] for s in items):
        made.append(chart("Tokens", x, [{"label": "Tokens", "values": pick("tokens", 0), "bars": True}], time=True, note=each))
    return made


def _length(seconds: float) -> str:
    for step, word in ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= step:
            n = seconds / step
            return word if n == 1 else f"{n:.0f} {word}s"
    return "bucket"
