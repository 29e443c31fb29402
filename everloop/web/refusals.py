"""The access audit: refused requests become rows of the audit record, gathered for a second so that a flood costs one write."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from everloop.core.errors import EverloopError
from everloop.core.limits import REFUSALS_KEPT
from everloop.core.principal import DEFAULT_PROJECT, Principal, Role
from everloop.store import audit
from everloop.web.problems import log
from everloop.workspace.workspace import Workspace

GATHER_SECONDS = 1.0
ANONYMOUS = Principal("anonymous", DEFAULT_PROJECT, Role.viewer, kind="anonymous")


class Refusals:
    """Counts refused requests by who, what and from where, and writes them down."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws
        self._seen: Counter[tuple[Principal, int, str, str, str]] = Counter()
        self._task: asyncio.Task[Any] | None = None

    def note(self, scope: dict[str, Any], status: int) -> None:
        """Remember one refused request; more kinds in a second than REFUSALS_KEPT are counted together."""
        who = scope.get("everloop.who")
        who = who if isinstance(who, Principal) else ANONYMOUS
        client = scope.get("client")
        key = (who, status, scope["method"], scope["path"][:250], client[0] if client else "")
        if key not in self._seen and len(self._seen) >= REFUSALS_KEPT:
            key = (who, status, "*", "*", "")
        self._seen[key] += 1
        if self._task is None and self.ws.started:
            self._task = self.ws.spawn(self._later())

    async def _later(self) -> None:
        try:
            await asyncio.sleep(GATHER_SECONDS)
        finally:  # also when the workspace stops: its records close after this
            self._task = None
            seen, self._seen = self._seen, Counter()
            for who in {key[0] for key in seen}:
                rows = {key[1:]: count for key, count in seen.items() if key[0] == who}
                try:
                    await self.ws.records.write(who, lambda tx, rows=rows: _write(tx, rows))
                except EverloopError as error:
                    log.error("%d refused requests of %s could not be written down: %s", sum(rows.values()), who.name, error)


def _write(tx: Any, rows: dict[tuple[int, str, str, str], int]) -> None:
    for (status, method, path, client), count in rows.items():
        audit.record(tx, "access.refused", f"{method} {path}", status=status, count=count, client=client)
