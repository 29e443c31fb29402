"""The curves of a run: its metric series. Series named `curve_<what>` have the share on the x axis in thousandths as step: ROC, precision over
recall, calibration.
"""

from __future__ import annotations

from typing import Any

from everloop.web.ui import charts
from everloop.web.ui.page import View

PREFIX = "curve_"
SYSTEM = "system/"
"""Begins the keys of metrics of the machine: CPU, memory, GPU."""
IMPORTANCE = "importance/"
"""Begins the keys of metrics that say how much a feature counts."""
CHARTS = 16
"""Charts on a run's page at most."""
POINTS = 2_000
"""Points of a series that a chart shows at most."""
_SHARES = {
    "roc": ("ROC", "False positive rate", "True positive rate", True),
    "calibration": ("Calibration", "Stated probability", "What happened", True),
    "precision_recall": ("Precision over recall", "Recall", "Precision", False),
}
"""Of a `curve_`: title, x, y, and whether the diagonal is drawn with it."""


def titled(key: str) -> tuple[str, str]:
    """The title of a `curve_` and what its x axis is."""
    name = key.removeprefix(PREFIX)
    found = _SHARES.get(name)
    return (found[0], found[1]) if found else (name.replace("_", " "), "Share")


def importance(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """How much each feature counts, most first: [{"name", "value", "share"}], share in % of the greatest."""
    found = {k.removeprefix(IMPORTANCE): float(v) for k, v in metrics.items() if k.startswith(IMPORTANCE) and isinstance(v, int | float)}
    top = max(found.values(), default=0.0)
    ordered = sorted(found.items(), key=lambda one: -one[1])
    return [{"name": name, "value": value, "share": max(0.0, 100 * value / top) if top > 0 else 0.0} for name, value in ordered]


async def of_run(page: View, run: dict[str, Any]) -> list[dict[str, Any]]:
    """The charts of a run's curves over a share; its other series are live charts (see run_compare.live)."""
    made = []
    for key in sorted(key for key in run["metrics"] if key.startswith(PREFIX))[:CHARTS]:
        points, _ = await page.ws.runs.history_points(page.who, run["id"], key, POINTS)
        if len(points) > 1:
            made.append(_share(key, points))
    return made


def _share(key: str, points: list[tuple[Any, int, float]]) -> dict[str, Any]:
    name = key.removeprefix(PREFIX)
    title, across, up, diagonal = _SHARES.get(name, (name.replace("_", " "), "Share", name, False))
    held = {step / 1000: value for value, step, _ in points}
    x = sorted({*held, 0.0, 1.0} if diagonal else held)
    lines: list[dict[str, Any]] = [{"label": up, "values": [held.get(at) for at in x], "joined": True}]
    if diagonal:
        said = "by chance" if name == "roc" else "perfectly calibrated"
        lines.append({"label": said, "values": x, "dash": True, "tone": "soft"})
    return charts.chart(title, x, lines, xlabel=across, yrange=(0, 1.02), xrange=(0, 1))
