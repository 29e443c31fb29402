"""Traces as they come: one after the other to whoever watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from everloop.core.errors import Busy
from everloop.core.limits import TAIL_BACK_SECONDS, TAIL_ROWS, TAIL_STREAMS
from everloop.core.principal import Principal, Role

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace

LOOK_SECONDS = 0.5


class Tail:
    """Facade over watching. It needs the role viewer."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws
        self._watching = 0

    async def traces(self, who: Principal, seconds: float, **filters: Any) -> AsyncIterator[list[dict[str, Any]]]:
        """An iterator of the traces that fit the filters of `ws.traces.list` and come from now on, in the order of their start; an empty list where none came
        in LOOK_SECONDS. It ends after `seconds`, or when the server stops. Busy where TAIL_STREAMS watch already."""
        who.need(Role.viewer)
        if self._watching >= TAIL_STREAMS:
            raise Busy(f"{TAIL_STREAMS} streams of traces are being watched already.", "Close one, or try again later.")
        since = self.ws.clock.now()
        seen = {item["trace_id"]: item["at"] for item in (await self._page(who, since, filters))["items"]}
        return self._come(who, since + seconds, seen, filters)

    async def _come(self, who: Principal, end: float, seen: dict[str, float], filters: dict[str, Any]) -> AsyncIterator[list[dict[str, Any]]]:
        self._watching += 1
        try:
            while not self.ws.draining and (now := self.ws.clock.now()) < end:
                page = await self._page(who, now, filters)
                fresh = [item for item in reversed(page["items"]) if item["trace_id"] not in seen]
                seen |= {item["trace_id"]: item["at"] for item in fresh}
                if len(seen) > 10 * TAIL_ROWS:
                    seen = {trace: at for trace, at in seen.items() if at >= now - TAIL_BACK_SECONDS}
                yield fresh
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            self._watching -= 1

    async def _page(self, who: Principal, now: float, filters: dict[str, Any]) -> dict[str, Any]:
        return await self.ws.traces.list(who, since=now - TAIL_BACK_SECONDS, limit=TAIL_ROWS, **filters)
