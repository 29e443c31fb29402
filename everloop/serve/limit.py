"""Bounds of an endpoint: how many calls at once, and how long one may take; a streamed answer is under way until its last chunk."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable

from everloop.core.errors import Busy
from everloop.core.types import Answer, Call, Chunk, Serve
from everloop.serve.streams import reading


def limit(inner: Serve, name: str, concurrency: int, timeout_s: float) -> Serve:
    """At most `concurrency` calls under way, each at most `timeout_s` seconds (or its own deadline); Busy beyond either.

    A streamed answer must be read or closed by whoever gets it, else its place stays taken.
    """
    under_way = 0

    def leave() -> None:
        nonlocal under_way
        under_way -= 1

    def late() -> Busy:
        return Busy(f"The endpoint {name!r} did not answer within {timeout_s:g} s.", "Raise limits.timeout_s, or ask for less at once.")

    async def serve(call: Call) -> Answer:
        nonlocal under_way
        if under_way >= concurrency:
            raise Busy(f"The endpoint {name!r} has {concurrency} calls under way, its limit.", "Try again in a second, or raise limits.concurrency.")
        under_way += 1
        streams = False
        left = timeout_s if math.isinf(call.deadline) else min(timeout_s, call.deadline - time.monotonic())
        try:
            if getattr(inner, "instant", False):
                return await inner(call)
            deadline = time.monotonic() + left
            async with asyncio.timeout(max(0.0, left)):
                answer = await inner(call.replace(deadline=deadline))
            streams = answer.streams
            return answer.replace(outputs=_bounded(answer.outputs, deadline, late, leave)) if streams else answer
        except TimeoutError:
            raise late() from None
        finally:
            if not streams:
                leave()

    return serve


async def _bounded(outputs: AsyncIterator[Chunk], deadline: float, late: Callable[[], Busy], leave: Callable[[], None]) -> AsyncIterator[Chunk]:
    """The chunks until the deadline. One timer for the whole stream: a timeout around each chunk would cost more than the chunk."""
    loop = asyncio.get_running_loop()
    waiting: asyncio.Task[object] | None = None
    over = False

    def end() -> None:
        nonlocal over
        over = True
        if waiting is not None:
            waiting.cancel()

    timer = loop.call_later(max(0.0, deadline - time.monotonic()), end)
    try:
        async with reading(outputs) as source:
            while not over:
                waiting = asyncio.current_task()
                try:
                    chunk = await anext(source)
                except StopAsyncIteration:
                    return
                except asyncio.CancelledError:
                    if not over or waiting is None or waiting.uncancel() > 0:
                        raise
                    break
                finally:
                    waiting = None
                yield chunk
            raise late()
    finally:
        timer.cancel()
        leave()
