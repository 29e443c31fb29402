"""When a figure of a window is an alarm: beyond a declared limit, worse than at the gate, or outside what earlier windows showed.

A metric alone says how large it is, never whether that is bad. Three ways to tell, in this order:

declared    `latency_p95_ms <= 200`: fail where the whole interval breaks the limit, inconclusive where it holds the limit inside
reference   a metric of labelled rows, where the reference has labels: fail where it is worse than there by more than chance. The difference is
            measured in standard errors read off both intervals (half the width over 1.96), against the one-sided normal quantile of `alpha`
earlier     a metric of calls: fail where it is beyond the one-sided prediction limit of the earlier windows' figures (Student's t with one
            degree of freedom less than windows; spread = what windows differ by beyond their own sampling error, plus this window's own).
            Figures without an upper end (times, costs, tokens) are compared as logarithms. Fewer than EARLIER_NEEDED windows: inconclusive

`alpha` is shared out over the checks of a monitor, so that a look at traffic like before alarms in at most ALPHA of the looks. This holds as
far as windows are alike and rows independent; slow change within the earlier windows widens the limit.

What is judged by labels can start a retraining, so there the budget is not one look's but a year's: all looks of a year together find a decay that
is none with a probability of at most YEARLY (`look_level`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from everloop.checks import statistics as stats
from everloop.checks.base import Metric, NotAssessable, reference_results
from everloop.core.types import Score, Window
from everloop.work.schedule import UNITS, next_at

ALPHA = 0.05
"""How often a look may alarm while nothing has changed, over all calibrated checks of a monitor together."""
YEARLY = 0.05
"""How probable it is that a year's looks by labels alarm at all while nothing has changed."""
YEAR_DAYS = 365.25
EARLIER = 8
"""Windows before the present one that limits are learnt from."""
EARLIER_NEEDED = 5
LOG_FLOOR = 1e-9
_SIDE = 1.959963984540054
"""The metrics' intervals are at 95 %: half their width is this many standard errors."""


def alarm(check: Any, window: Window, alpha: float) -> Score:
    """The check's score with a verdict. Checks that judge by themselves (decay, drift, texts) keep theirs."""
    if not isinstance(check, Metric):
        score: Score = check(window)
        return score
    found = check(window)
    if found.value is None or found.interval is None:
        return found
    if getattr(check, "over", "rows") == "calls":
        return against_earlier(check, found, window, alpha)
    return against_reference(check, found, window, alpha)


def against_reference(check: Metric, found: Score, window: Window, alpha: float) -> Score:
    """Worse than on the reference's labelled rows by more than chance?"""
    try:
        held = check.estimate(reference_results(window))
    except NotAssessable as why:
        return replace(found, verdict="inconclusive", why=f"{check.label} is {found.value:.4g} on {found.n} labelled rows; {_learn(check, str(why))}")
    alpha = alpha if window.level is None else min(alpha, window.level)
    sign = 1.0 if check.better == "lower" else -1.0
    spread = math.hypot(_error(found.interval), _error(held.interval)) or 1e-12
    rise = sign * (float(found.value) - held.value) / spread  # type: ignore[arg-type]
    limit = stats.z_of(1 - 2 * alpha)
    bad = rise > limit
    figures = f"{check.label} is {found.value:.4g} on {found.n} labelled rows, {held.value:.4g} at the gate"
    why = f"{figures}: worse by more than chance ({rise:.1f} standard errors; the limit is {limit:.1f})." if bad else f"{figures}: within chance."
    details = {**found.details, "basis": "labels", "reference": held.value, "rise": rise, "limit": limit, "alpha": alpha}
    return replace(found, verdict="fail" if bad else "pass", why=why, details=details)


def against_earlier(check: Metric, found: Score, window: Window, alpha: float) -> Score:
    """Beyond what the earlier windows of calls let expect?"""
    before = [score for calls in window.earlier if (score := check(replace(window, calls=calls))).value is not None]
    figure = f"{check.label} is {found.value:.4g} over {found.n} calls"
    if len(before) < EARLIER_NEEDED:
        few = f"{len(before)} of {EARLIER_NEEDED} earlier windows have enough calls to learn a limit from"
        return replace(found, verdict="inconclusive", why=f"{figure}; {_learn(check, few)}")
    logs = math.isinf(check.high)
    value, error = _place(found, logs)
    places = np.array([_place(score, logs) for score in before])
    k, centre = len(places), float(places[:, 0].mean())
    own = float((places[:, 1] ** 2).mean())
    between = max(0.0, float(places[:, 0].var(ddof=1)) - own)
    spread = math.sqrt(between + error**2 + (between + own) / k) or 1e-12
    reach = _student(k - 1, 1 - alpha) * spread
    sign = 1.0 if check.better == "lower" else -1.0
    limit = centre + sign * reach
    bad = sign * (value - limit) > 0
    shown, usual = (math.exp(limit), math.exp(centre)) if logs else (min(max(limit, check.low), check.high), centre)
    side = "over" if sign > 0 else "under"
    told = f"{figure}, {side if bad else 'within'} the limit {shown:.4g} learnt from {k} earlier windows (their mean: {usual:.4g})."
    details = {**found.details, "basis": getattr(check, "basis", "calls"), "limit": shown, "earlier": [s.value for s in before], "alpha": alpha}
    return replace(found, verdict="fail" if bad else "pass", why=told, details=details)


def look_level(spec: Mapping[str, Any], checks: Sequence[Any]) -> float:
    """The level of one look by labels at which a year of looks shares YEARLY, among the checks by labels.

    How many looks a year has comes from `every`, how much they overlap from `label_window_days` (or `window_days`, whichever is longer).
    """
    every = next_at(f"every {spec['every']}", 0.0) / UNITS["d"]
    days = max(float(spec["label_window_days"]), float(spec["window_days"]), 1e-3)
    judging = sum(getattr(check, "over", "rows") == "rows" and getattr(check, "name", "") != "drift" for check in checks)
    return stats.level_of_looks(YEARLY / max(1, judging), YEAR_DAYS / every, YEAR_DAYS / days)


def shared(checks: Sequence[Any]) -> float:
    """Each calibrated check's share of ALPHA."""
    return ALPHA / max(1, sum(isinstance(check, Metric) for check in checks))


def _learn(check: Metric, why: str) -> str:
    op = "<=" if check.better == "lower" else ">="
    return f"{why}. To judge it now, declare a limit: '{check.label} {op} NUMBER'."


def _place(score: Score, logs: bool) -> tuple[float, float]:
    """A figure and its standard error, as logarithms if told."""
    value = float(score.value)  # type: ignore[arg-type]
    low, high = score.interval or (value, value)
    if not logs:
        return value, _error((low, high))
    centre = math.log(max(value, LOG_FLOOR))
    sides = [abs(math.log(max(end, LOG_FLOOR)) - centre) for end in (low, high) if math.isfinite(end)]
    return centre, (max(sides) if sides else 0.0) / _SIDE


def _error(interval: Any) -> float:
    low, high = interval
    if math.isfinite(low) and math.isfinite(high):
        return float(high - low) / 2 / _SIDE
    return 0.0


def _student(degrees: int, p: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, p))
