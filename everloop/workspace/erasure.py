"""Erasing one user's, or one session's, traces everywhere: log, tables, index of texts, archive, labels, datasets and suites made of them.

What is asked is written down first, the id sealed, so that a crash in the middle ends in the erasure being finished at the next start. What
stays is a receipt in the audit record: who, when, why, how much; of the id only a keyed hash.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import orjson

from everloop.core.errors import BadInput, EverloopError
from everloop.core.limits import ERASE_ID_CHARS, ERASE_SHOWN, ERASE_WHY_CHARS, RETENTION_TRACES
from everloop.core.principal import SYSTEM, Principal, Role
from everloop.store import audit, project_settings, telemetry_erase
from everloop.store.secret import home_secret, pseudonym, seal, unseal
from everloop.store.telemetry_erase import Theirs
from everloop.workspace import erase_assets

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace

SETTING = "erasing"
ACTION = "traces.erase"
_logger = logging.getLogger("everloop.erasure")


class Erasure:
    """Facade over erasures. Admins alone."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws

    async def on_start(self) -> None:
        """Finish what a stop or a crash interrupted."""
        waiting = await self.ws.records.read(SYSTEM, lambda tx: project_settings.everywhere(tx, SETTING))
        if waiting:
            self.ws.spawn(self._resume(waiting))

    async def erase(
        self, who: Principal, *, user: str | None = None, session: str | None = None, why: str = "", dry_run: bool = False
    ) -> dict[str, Any]:
        """Erase all traces of a user, of a session, or of a user within a session; answers the receipt:

        {"id", "at", "by", "why", "user", "session" (keyed hashes), "traces", "rows": {table: n}, "archived": traces in the archive, "queues": {name: items},
        "remade", "purged", "kept" (versions made of them; see erase_assets), "set_aside": files of the log, "mentions": files of the home that still
        hold the id, "dry_run"}. A dry run only counts. BadInput without an id or a reason, or for a reason that repeats the id.
        """
        who.need(Role.admin, "erase traces")
        for what, value in (("user", user), ("session", session)):
            if value is not None and (not isinstance(value, str) or not 0 < len(value) <= ERASE_ID_CHARS):
                raise BadInput(f"The {what} must be a text of 1 to {ERASE_ID_CHARS} characters.")
        if user is None and session is None:
            raise BadInput("Nobody is named.", "Give a user, a session, or both.")
        why = str(why or "").strip()
        if not dry_run and not 3 <= len(why) <= ERASE_WHY_CHARS:
            raise BadInput(
                f"An erasure needs a reason of 3 to {ERASE_WHY_CHARS} characters.", 'For example: --why "asked for on 24 November, ticket 812"'
            )
        if any(one and len(one) > 3 and one in why for one in (user, session)):
            raise BadInput("The reason repeats the id that is to be forgotten.", "It is kept in the audit record: name a ticket instead.")
        if dry_run:
            return await self._counted(who, user, session)
        sealed = seal(home_secret(self.ws.home), orjson.dumps([user, session]).decode())
        asked = {"id": self.ws.clock.new_id(), "sealed": sealed, "why": why, "by": who.name, "at": self.ws.clock.now()}

        def note(tx: Any) -> None:
            project_settings.put(tx, SETTING, [*(project_settings.get(tx, SETTING) or []), asked])

        await self.ws.records.write(who, note)
        return await self._do(who, asked)

    async def list(self, who: Principal) -> dict[str, Any]:
        """The receipts, newest first: {"items", "next"}, and "waiting": how many are under way."""
        who.need(Role.admin, "see erasures")

        def work(tx: Any) -> dict[str, Any]:
            items = [row["details"] for row in audit.rows(tx, limit=ERASE_SHOWN, action=ACTION)]
            return {"items": items, "next": None, "waiting": len(project_settings.get(tx, SETTING) or [])}

        return await self.ws.records.read(who, work)

    # -- inside -----------------------------------------------------------------------------------------------------------------------

    async def _resume(self, waiting: dict[str, list[dict[str, Any]]]) -> None:
        for project, asked in waiting.items():
            for one in asked:
                try:
                    await self._do(Principal(one["by"], project, Role.admin, kind="system"), one)
                except EverloopError as error:
                    _logger.error("an erasure in project %s could not be finished, it is tried again at the next start: %s", project, error)

    async def _find(self, who: Principal, user: str | None, session: str | None) -> Theirs:
        users, sessions = ([one, self._name(who, one)] if one else [] for one in (user, session))
        await self.ws.telemetry.flush()
        return await self.ws.telemetry.query(lambda con: telemetry_erase.theirs(con, who.project, users, sessions), who.project)

    async def _counted(self, who: Principal, user: str | None, session: str | None) -> dict[str, Any]:
        found = await self._find(who, user, session)
        rows = await self.ws.telemetry.query(lambda con: _count(con, who.project, found.traces), who.project, traces=found.traces)
        return {"traces": len(found.traces), "rows": rows, "sessions": len(found.sessions), "dry_run": True}

    async def _do(self, who: Principal, asked: dict[str, Any]) -> dict[str, Any]:
        started = time.monotonic()
        user, session = orjson.loads(unseal(home_secret(self.ws.home), asked["sealed"]))
        telemetry = self.ws.telemetry
        async with self.ws.retention.alone(who.project):
            await asyncio.to_thread(telemetry.log.roll)
            found = await self._find(who, user, session)
            told = await self._telemetry(who, found, [user] if user and not session else [])
            told["queues"] = await self.ws.records.write(who, lambda tx: erase_assets.forget_items(tx, found.traces))
            ids = {one for one in (user, session, *found.sessions) if one} if not (user and session) else set()
            told |= await erase_assets.forget_versions(self.ws, who, set(found.traces), ids - {""})
            needle = telemetry_erase.pattern([*ids, *found.traces] or [str(user)])
            told["set_aside"] = await asyncio.to_thread(telemetry_erase.drop_aside, telemetry.home / "log", needle)
            await asyncio.to_thread(telemetry.compact)
            await asyncio.to_thread(self.ws.records.checkpoint)
        left = telemetry_erase.pattern(ids)
        told["mentions"] = (await asyncio.to_thread(telemetry_erase.mentions, self.ws.home, left))[:ERASE_SHOWN]
        names = {what: self._name(who, one) if one else None for what, one in (("user", user), ("session", session))}
        receipt = {**{key: asked[key] for key in ("id", "at", "by", "why")}, **names, **told, "seconds": round(time.monotonic() - started, 3)}

        def done(tx: Any) -> None:
            rest = [one for one in project_settings.get(tx, SETTING) or [] if one["id"] != asked["id"]]
            project_settings.put(tx, SETTING, rest or None)
            audit.record(tx, ACTION, f"user:{names['user']}" if names["user"] else f"session:{names['session']}", **receipt)

        await self.ws.records.write(who, done)
        return {**receipt, "dry_run": False}

    async def _telemetry(self, who: Principal, found: Theirs, users: list[str]) -> dict[str, Any]:
        """Erase from tables and archive: {"traces", "rows", "archived"}."""
        retention, archive, project = self.ws.retention, self.ws.telemetry.archive, who.project
        rows: Counter[str] = Counter()
        for i in range(0, len(found.traces), RETENTION_TRACES):
            rows.update(await retention.forget(who, found.traces[i : i + RETENTION_TRACES]))
        everyone = [*users, *(self._name(who, one) for one in users)]
        extra = lambda con: telemetry_erase.forget_subjects(con, project, found.sessions, everyone)
        rows.update(await asyncio.wrap_future(self.ws.telemetry.change(extra)))
        archived = 0
        if archive is not None:
            for part in await self.ws.telemetry.query(lambda con: archive.holding(con, project, found.traces)):
                step = await retention.without(who, part, set(found.traces))
                archived += step["traces"]
                rows["archived"] += step["rows"]
        return {"traces": len(found.traces), "rows": dict(rows), "archived": archived}

    def _name(self, who: Principal, id: str) -> str:
        return pseudonym(home_secret(self.ws.home), who.project, id)


def _count(con: Any, project: str, traces: list[str]) -> dict[str, int]:
    counts = {}
    for table in ("spans", "predictions", "scores"):
        [count] = con.execute(
            f"SELECT count(*) FROM {table} WHERE project = ? AND trace_id IN (SELECT unnest(?::VARCHAR[]))", [project, traces]
        ).fetchone()
        counts[table] = int(count)
    return counts
