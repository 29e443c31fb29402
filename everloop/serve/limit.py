"""Bounds of an endpoint: how many calls at once, and how long one may take."""

from __future__ import annotations

import asyncio
import math
import time

from everloop.core.errors import Busy
from everloop.core.types import Answer, Call, Serve


def limit(inner: Serve, name: str, concurrency: int, timeout_s: float) -> Serve:
    """At most `concurrency` calls under way, each at most `timeout_s` seconds (or its own deadline); Busy beyond either."""
    under_way = 0

    async def serve(call: Call) -> Answer:
        nonlocal under_way
        if under_way >= concurrency:
            raise Busy(f"The endpoint {name!r} has {concurrency} calls under way, its limit.", "Try again in a second, or raise limits.concurrency.")
        under_way += 1
        left = timeout_s if math.isinf(call.deadline) else min(timeout_s, call.deadline - time.monotonic())
        try:
            if getattr(inner, "instant", False):
                return await inner(call)
            async with asyncio.timeout(max(0.0, left)):
                return await inner(call)
        except TimeoutError:
            raise Busy(f"The endpoint {name!r} did not answer within {left:.1f} s.", "Raise limits.timeout_s, or send fewer rows at once.") from None
        finally:
            under_way -= 1

    return serve
