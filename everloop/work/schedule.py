"""When something recurs: cron, names such as @weekly, and plain intervals. All times are UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from everloop.core.errors import BadInput

NAMED = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *"}
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_EVERY = re.compile(r"every\s+(\d{1,6})\s*([smhdw])")


def next_at(expr: str, now: float) -> float:
    """The first moment after `now` (epoch seconds) that `expr` names; BadInput if it cannot be read.

    Cron in UTC (`0 6 * * 1`), `@hourly|daily|weekly|monthly|yearly`, or `every 7d|6h|30m|60s`, counted from `now`.
    """
    text = expr.strip()
    every = _EVERY.fullmatch(text)
    if every and int(every[1]):
        return now + int(every[1]) * UNITS[every[2]]
    from cronsim import CronSim, CronSimError

    try:
        return float(next(CronSim(NAMED.get(text, text), datetime.fromtimestamp(now, UTC))).timestamp())
    except (CronSimError, StopIteration):
        raise BadInput(f"{expr!r} is not a schedule.", "Write cron (0 6 * * 1), @daily, @weekly, or: every 7d") from None
