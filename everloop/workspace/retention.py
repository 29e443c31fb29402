"""How long telemetry is kept: rules of a project, done by the server every few minutes in small steps, and by hand.

A step takes some traces, writes them to the archive (or not), and deletes them, all in one transaction of the thread that drains the log; between
steps the log goes first. Nothing is noted of how far a run came: the next one finds what is still there, so a crash costs one step.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from everloop.core.errors import BadInput, EverloopError, NotFound
from everloop.core.limits import (
    ARCHIVE_ORPHAN_SECONDS,
    RETENTION_EVERY_SECONDS,
    RETENTION_PAUSE_SECONDS,
    RETENTION_ROWS,
    RETENTION_RULES,
    RETENTION_TRACES,
)
from everloop.core.principal import SYSTEM, Principal, Role
from everloop.store import audit, project_settings
from everloop.store import telemetry_archive as archives
from everloop.store import telemetry_retention as old
from everloop.store.telemetry_retention import NS, Rule

if TYPE_CHECKING:
    from everloop.store.telemetry_archive import Archive, Part
    from everloop.workspace.workspace import Workspace

SETTING = "retention"
_logger = logging.getLogger("everloop.retention")


class Retention:
    """Facade over a project's rules. Changing and running them is for admins, seeing them for viewers."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._judged: set[tuple[str, Rule, str]] = set()
        """Parts of the archive that are wholly older than a rule says and were gone through: they do not change."""

    async def on_start(self) -> None:
        """Start looking, every RETENTION_EVERY_SECONDS, for what has become too old."""
        self.ws.spawn(self._look())

    async def list(self, who: Principal) -> dict[str, Any]:
        """The rules, in the order in which they are done: {"items", "next"}, and "last": what the last run that did something did."""
        who.need(Role.viewer)
        items, last = await self.ws.records.read(who, lambda tx: (project_settings.get(tx, SETTING), audit.rows(tx, limit=1, action="retention.run")))
        return {"items": items or [], "next": None, "last": {"at": last[0]["at"], "by": last[0]["by"], **last[0]["details"]} if last else None}

    async def put(self, who: Principal, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Declare or change a rule (see telemetry_retention.Rule). BadInput for one that cannot be."""
        who.need(Role.admin, "change how long traces are kept")
        rule = old.checked(name, given)
        await self.ws.records.write(who, lambda tx: keep(tx, rule))
        return rule.to_json()

    async def delete(self, who: Principal, name: str) -> None:
        """Take a rule away. NotFound where there is none such."""
        who.need(Role.admin, "change how long traces are kept")

        def work(tx: Any) -> None:
            rules = project_settings.get(tx, SETTING) or []
            kept = [rule for rule in rules if rule["name"] != name]
            if len(kept) == len(rules):
                raise NotFound(f"There is no rule {name!r}.", f"There are: {', '.join(rule['name'] for rule in rules) or 'none'}.")
            project_settings.put(tx, SETTING, kept or None)
            audit.record(tx, "retention.delete", f"retention:{name}")

        await self.ws.records.write(who, work)

    async def run(self, who: Principal, *, dry_run: bool = False, rule: str | None = None) -> dict[str, Any]:
        """Do all rules now, or one: {"rules": [{"name", "of", "action", "before", "traces", "rows", "archived_bytes", "oldest"}], "dry_run"}.

        A dry run only counts. What it did is one audit row. Raises what a step raised; steps done before it stay done.
        """
        who.need(Role.admin, "archive and delete traces")
        rules = [old.checked(one["name"], one) for one in (await self.list(who))["items"]]
        if rule is not None and not any(one.name == rule for one in rules):
            raise NotFound(f"There is no rule {rule!r}.", f"There are: {', '.join(one.name for one in rules) or 'none'}.")
        chosen = [one for one in rules if rule in (None, one.name)]
        await self.ws.telemetry.flush()
        if dry_run:
            return {"rules": [await self._counted(who, one) for one in chosen], "dry_run": True}
        async with self.alone(who.project):
            await self._sweep(who)
            done: list[dict[str, Any]] = []
            try:
                for one in chosen:
                    done.append(self._told(one))
                    await self._do(who, one, done[-1])
            finally:
                did = [one for one in done if one["traces"] or one["rows"]]
                if did:
                    await self.ws.records.write(who, lambda tx: audit.record(tx, "retention.run", f"project:{tx.project}", rules=did))
        return {"rules": done, "dry_run": False}

    def alone(self, project: str) -> asyncio.Lock:
        """Held by whoever moves or deletes a project's traces."""
        return self._locks[project]

    # -- inside -----------------------------------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(RETENTION_EVERY_SECONDS)
            try:
                found = await self.ws.records.read(SYSTEM, lambda tx: project_settings.everywhere(tx, SETTING))
                for project in found:
                    await self.run(Principal("retention", project, Role.admin, kind="system"))
            except EverloopError as error:
                _logger.warning("retention waits: %s", error)
            except Exception:  # whatever one run does, the next one comes
                _logger.exception("retention waits")

    def _told(self, rule: Rule) -> dict[str, Any]:
        before = self.ws.clock.now() - rule.seconds
        return {"name": rule.name, "of": rule.of, "action": rule.action, "before": before, "traces": 0, "rows": 0, "archived_bytes": 0}

    async def _counted(self, who: Principal, rule: Rule) -> dict[str, Any]:
        told = self._told(rule)
        cutoff = int(told["before"] * NS)
        wide = {"project": who.project, "until": told["before"]} if rule.action == "delete" and rule.of == "traces" else {}
        found = await self.ws.telemetry.query(lambda con: old.count_old(con, who.project, rule, cutoff), **wide)
        return {**told, **found}

    async def _do(self, who: Principal, rule: Rule, told: dict[str, Any]) -> None:
        """Steps until nothing is left that the rule takes; `told` counts what they did."""
        cutoff = int(told["before"] * NS)
        if rule.of != "traces":
            while count := await self._change(lambda con: old.delete_alone(con, who.project, rule, cutoff, RETENTION_ROWS)):
                told["rows"] += count
            return
        skip: list[str] = []
        next_step = lambda con: old.old_traces(con, who.project, rule, cutoff, RETENTION_TRACES, skip)
        while found := await self.ws.telemetry.query(next_step):
            days: dict[str, list[str]] = defaultdict(list)
            rows = 0
            for one in found:
                if rows and rows + one.spans > RETENTION_ROWS:
                    break
                rows += one.spans
                days[archives.day_of(one.first_ns) if rule.action == "archive" else ""].append(one.trace_id)
            for day, traces in sorted(days.items()):
                if rule.action == "archive":
                    step = await self.archive(who, day, traces)
                else:
                    step = {"rows": sum((await self.forget(who, traces)).values()), "bytes": 0}
                if step is None:
                    skip += traces
                    continue
                told["traces"] += len(traces)
                told["rows"] += step["rows"]
                told["archived_bytes"] += step["bytes"]
        if rule.action == "delete":
            await self._forget_archived(who, rule, told, cutoff)

    async def archive(self, who: Principal, day: str, traces: list[str]) -> dict[str, int] | None:
        """Write traces to the archive, then delete them from the tables: {"rows", "bytes"}; None where one of them grew meanwhile (nothing is done)."""
        archive, project = self._archive(), who.project
        tables = await self.ws.telemetry.query(lambda con: archives.rows_of(con, project, traces))
        rows = {name: len(table) for name, table in tables.items()}
        fresh = await self.ws.telemetry.query(lambda con: archive.fresh(con, project, tables))
        part = await asyncio.to_thread(archive.write, project, day, fresh) if fresh else None
        kept = sorted({trace for table in fresh.values() for trace in table["trace_id"].to_pylist()})

        def work(con: Any) -> None:
            if archives.delete_rows(con, project, traces) != rows:
                raise _Grew
            if part is not None:
                archive.list_part(con, part, kept)

        try:
            await self._change(work)
        except _Grew:
            if part is not None:
                await asyncio.to_thread(archive.discard, part)
            return None
        if part is not None:
            archive.added(part)
        return {"rows": sum(rows.values()), "bytes": part.bytes if part else 0}

    async def forget(self, who: Principal, traces: list[str]) -> dict[str, int]:
        """Delete traces with all of theirs from the tables and the index of texts; answers how many rows of each table."""
        telemetry = self.ws.telemetry

        def work(con: Any) -> dict[str, int]:
            counts = archives.delete_rows(con, who.project, traces)
            telemetry.forget_texts(traces)
            return counts

        counts: dict[str, int] = await self._change(work)
        return counts

    async def without(self, who: Principal, part: Part, gone: set[str]) -> dict[str, int]:
        """Write a part of the archive anew without some traces: {"traces", "rows"}; where none is left, the part goes."""
        archive, telemetry = self._archive(), self.ws.telemetry

        def made() -> tuple[Part | None, list[str]]:
            import pyarrow as pa
            import pyarrow.compute as pc

            tables = {name: archive.read(part, name) for name in part.tables}
            ids = pa.array(sorted(gone), pa.string())
            kept = {name: rows.filter(pc.invert(pc.is_in(rows["trace_id"], ids))) for name, rows in tables.items()}
            kept = {name: rows for name, rows in kept.items() if len(rows)}
            left = sorted({trace for rows in kept.values() for trace in rows["trace_id"].to_pylist()})
            return (archive.write(part.project, part.day, kept), left) if kept else (None, [])

        fresh, left = await asyncio.to_thread(made)
        if fresh is not None and fresh.part == part.part:
            return {"traces": 0, "rows": 0}

        def work(con: Any) -> None:
            archive.unlist_part(con, part)
            if fresh is not None:
                archive.list_part(con, fresh, left)
            telemetry.forget_texts(sorted(gone))

        await self._change(work)
        if fresh is not None:
            archive.added(fresh)
        await asyncio.to_thread(archive.removed, part)
        return {"traces": part.traces - len(left), "rows": part.rows - (fresh.rows if fresh else 0)}

    async def _forget_archived(self, who: Principal, rule: Rule, told: dict[str, Any], cutoff: int) -> None:
        """Do a deleting rule in the archive, too."""
        archive = self._archive()
        for part in archive.parts(who.project, None, told["before"]):
            if (who.project, rule, part.part) in self._judged:
                continue
            most = part.traces + RETENTION_TRACES
            work = partial(old.old_traces, project=who.project, rule=rule, cutoff_ns=cutoff, limit=most)
            if found := {one.trace_id for one in await self.ws.telemetry.query(work, parts=[part])}:
                step = await self.without(who, part, found)
                told["traces"] += step["traces"]
                told["rows"] += step["rows"]
            elif part.until_ns < cutoff:
                self._judged.add((who.project, rule, part.part))

    async def _sweep(self, who: Principal) -> None:
        """Remove what a crash left in the archive's folder."""
        import time

        await asyncio.to_thread(self._archive().orphans, who.project, time.time() - ARCHIVE_ORPHAN_SECONDS)

    async def _change(self, work: Any) -> Any:
        result = await asyncio.wrap_future(self.ws.telemetry.change(work))
        await asyncio.sleep(RETENTION_PAUSE_SECONDS)
        return result

    def _archive(self) -> Archive:
        assert self.ws.telemetry.archive is not None
        return self.ws.telemetry.archive


class _Grew(Exception):
    """A trace got more rows while it was written to the archive."""


def keep(tx: Any, rule: Rule) -> None:
    """Write a rule into the project's settings; one of the same name is replaced where it stands."""
    rules = project_settings.get(tx, SETTING) or []
    names = [one["name"] for one in rules]
    if rule.name in names:
        rules[names.index(rule.name)] = rule.to_json()
    elif len(rules) >= RETENTION_RULES:
        raise BadInput(f"A project has at most {RETENTION_RULES} rules of retention.")
    else:
        rules = [*rules, rule.to_json()]
    project_settings.put(tx, SETTING, rules)
    audit.record(tx, "retention.set", f"retention:{rule.name}", rule=rule.to_json())
