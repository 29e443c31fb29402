"""Small pictures made on the server as SVG: sparklines and histograms. They need no script, and a text says what they show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup


def numbers(values: Any) -> list[float | None]:
    """A list's finite numbers, None for anything else."""
    listed = values if isinstance(values, list | tuple) else []
    return [float(v) if isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) else None for v in listed]


def spark(values: Any, label: str, width: int = 132, height: int = 30, low: float | None = 0.0, tone: str = "") -> Markup:
    """A line through values (gaps where None), scaled from `low` (None: the least) to the greatest."""
    found = numbers(values)
    there = [v for v in found if v is not None]
    if not there:
        return Markup('<svg class="spark" width="{}" height="{}" role="img" aria-label="{}: no data"></svg>').format(width, height, label)
    least = min(there) if low is None else min(low, *there)
    span = (max(there) - least) or 1.0
    step = (width - 6) / max(1, len(found) - 1)
    place = lambda i, v: (3 + i * step, height - 3 - (v - least) / span * (height - 7))
    pieces: list[list[tuple[float, float]]] = [[]]
    for i, v in enumerate(found):
        if v is None:
            pieces.append([])
        else:
            pieces[-1].append(place(i, v))
    lines = Markup("").join(_line(p, height) for p in pieces if p)
    return Markup('<svg class="spark {}" width="{}" height="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        tone, width, height, width, height, label, lines
    )


def _line(points: Sequence[tuple[float, float]], height: int) -> Markup:
    if len(points) == 1:
        x, y = points[0]
        return Markup('<circle cx="{:.1f}" cy="{:.1f}" r="2"/>').format(x, y)
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    area = f"{points[0][0]:.1f},{height - 3} {path} {points[-1][0]:.1f},{height - 3}"
    return Markup('<polygon points="{}"/><polyline points="{}"/>').format(area, path)


def bars(values: Any, label: str, width: int = 120, height: int = 28) -> Markup:
    """A small histogram."""
    found = [v or 0.0 for v in numbers(values)]
    top = max(found, default=0.0)
    if not top:
        return Markup("")
    step = width / len(found)
    parts = Markup("").join(
        Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
            i * step, height - max(1.0, v / top * height), max(0.8, step - 1), max(1.0, v / top * height)
        )
        for i, v in enumerate(found)
        if v
    )
    return Markup('<svg class="bars" width="{0}" height="{1}" viewBox="0 0 {0} {1}" role="img" aria-label="{2}">{3}</svg>').format(
        width, height, label, parts
    )


def interval(low: Any, value: Any, high: Any, limit: Any, label: str, tone: str = "", width: int = 168, height: int = 26) -> Markup:
    """A value with its interval beside the limit that was required: where the bar lies says what the verdict says."""
    found = numbers([low, value, high, limit])
    if any(v is None for v in found):
        return Markup("")
    a, v, b, edge = (float(x or 0.0) for x in found)
    left, right = min(a, edge), max(b, edge)
    room = (right - left) * 0.12 or abs(right) * 0.1 or 1.0
    place = lambda x: 2 + (x - left + room) / (right - left + 2 * room) * (width - 4)
    middle = height / 2
    return Markup(
        '<svg class="interval {}" width="{}" height="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">'
        '<line class="base" x1="2" x2="{}" y1="{}" y2="{}"/><line class="edge" x1="{:.1f}" x2="{:.1f}" y1="2" y2="{}"/>'
        '<line class="span" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/><circle cx="{:.1f}" cy="{}" r="4"/></svg>'
    ).format(
        tone, width, height, width, height, label, width - 2, middle, middle, place(edge), place(edge), height - 2,
        place(a), max(place(b), place(a) + 1), middle, middle, place(v), middle,
    )  # fmt: skip
